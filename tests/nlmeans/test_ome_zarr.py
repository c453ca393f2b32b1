"""OME-Zarr in and out: the same voxels as in memory, all metadata kept, and what was interrupted goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr
from click.testing import CliRunner, Result
from matplotlib.image import imread
from zarr.codecs import BloscCodec

import nlmeans
from nlmeans import Cancelled, cli, lock, ngff, ome_zarr, samples, zarr_run
from nlmeans.journal import NAME as JOURNAL
from nlmeans.pyramid import halved
from nlmeans.zarr_run import partial
from tests.nlmeans.scans import contents
from tests.nlmeans.volumes import gaussian, piecewise

SAME: dict[str, Any] = {"method": "classic", "search_radius": 1, "device": "cpu"}
SMALLEST = 16 * 2**20
"""Of memory."""

TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
SCALES = {"t": 1.5, "c": 1.0, "z": 2.0, "y": 0.5, "x": 0.5}
OMERO = {"channels": [{"color": "00FF00", "label": "GFP", "window": {"start": 0, "end": 200, "min": 0, "max": 255}}]}


def noisy(*shape: int, dtype: str = "f4", seed: int = 0) -> npt.NDArray[Any]:
    """Volumes of the last three axes, or images of the last two."""
    spatial = shape[-3:] if len(shape) > 2 else (1, *shape)
    clean = np.broadcast_to(piecewise(*spatial).reshape(spatial[-len(shape) :]), shape)
    return gaussian(clean, 10.0, seed).clip(0, 255).astype(dtype)


def save(path: Path, data: npt.NDArray[Any], axes: str, version: str = "0.5", chunk: int = 8, **storage: Any) -> Path:
    """An OME-Zarr image of one level, in which every field says something."""
    chunks = tuple(1 if axis in "tc" else min(chunk, n) for axis, n in zip(axes, data.shape, strict=True))
    form: Any = 3 if version == "0.5" else 2
    if form == 3:
        storage = {"dimension_names": list(axes)} | storage
    else:
        storage = {"chunk_key_encoding": {"name": "v2", "separator": "/"}} | storage
    group = zarr.open_group(path, mode="w", zarr_format=form)
    group.create_array("full", data=data, **{"chunks": chunks, "attributes": {"of the array": 1}} | storage)
    multiscale = {
        "name": "cells",
        "axes": [
            {"name": axis, "type": TYPES[axis], **({"unit": "micrometer"} if TYPES[axis] == "space" else {})}
            for axis in axes
        ],
        "datasets": [
            {
                "path": "full",
                "coordinateTransformations": [
                    {"type": "scale", "scale": [SCALES[axis] for axis in axes]},
                    {"type": "translation", "translation": [10.0] * len(axes)},
                ],
            }
        ],
        "coordinateTransformations": [{"type": "scale", "scale": [1.0] * len(axes)}],
        "type": "gaussian",
        "metadata": {"method": "someone's"},
    }
    if form == 3:
        group.attrs["ome"] = {"version": version, "multiscales": [multiscale], "omero": OMERO}
    else:
        group.attrs.update({"multiscales": [{**multiscale, "version": version}], "omero": OMERO})
    group.attrs["of the user"] = {"kept": [1, 2]}
    return path


def about(path: Path) -> dict[str, Any]:
    """The OME metadata of a group of either version."""
    attributes = zarr.open_group(path, mode="r", use_consolidated=False).attrs.asdict()
    found: dict[str, Any] = attributes.get("ome", attributes)
    return found


def level(path: Path, number: int = 0) -> npt.NDArray[Any]:
    return np.asarray(array(path, number)[:])


def array(path: Path, number: int = 0) -> zarr.Array[Any]:
    found = zarr.open_group(path, mode="r", use_consolidated=False)[str(number)]
    assert isinstance(found, zarr.Array)
    return found


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit the metadata of a group, first multiscale and all."""
    group = zarr.open_group(path, mode="r+", use_consolidated=False)
    attributes = group.attrs.asdict()
    edit(attributes.get("ome", attributes))
    group.attrs.put(attributes)


def in_memory(data: npt.NDArray[Any], axes: str, **settings: Any) -> npt.NDArray[Any]:
    """Every volume on its own."""
    spacing = tuple(SCALES[axis] for axis in axes if axis in "zyx")
    flat = data.reshape(-1, *data.shape[sum(axis in "tc" for axis in axes) :])
    done = [nlmeans.denoise(volume, **{**SAME, "spacing": spacing, **settings}) for volume in flat]
    return np.stack(done).reshape(data.shape)


def call(*words: object) -> Result:
    return CliRunner().invoke(cli.main, [str(word) for word in words])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return save(tmp_path / "in.ome.zarr", noisy(20, 24, 28), "zyx")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out.ome.zarr"


# ---------------------------------------------------------------- the voxels


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("axes", "shape", "dtype"),
    [
        ("yx", (40, 37), "u1"),
        ("cyx", (2, 40, 37), "f4"),
        ("zyx", (11, 20, 17), "i2"),
        ("tzyx", (2, 9, 12, 13), "f8"),
        ("czyx", (2, 9, 12, 13), "u2"),
        ("tczyx", (2, 2, 9, 12, 13), "f4"),
    ],
)
def test_the_same_as_in_memory(
    version: str, axes: str, shape: tuple[int, ...], dtype: str, tmp_path: Path, target: Path
) -> None:
    data = noisy(*shape, dtype=dtype)
    source = save(tmp_path / "in.zarr", data, axes, version)
    before = contents(source)
    ome_zarr.denoise(source, target, **SAME)
    assert level(target).dtype == data.dtype
    np.testing.assert_array_equal(level(target), in_memory(data, axes))
    assert contents(source) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.zarr", "out.ome.zarr"]


def test_blocks_within_little_memory_give_the_same(tmp_path: Path, target: Path) -> None:
    data = noisy(32, 200, 200)
    source = save(tmp_path / "in.zarr", data, "zyx", chunk=32)
    ome_zarr.denoise(source, target, sigma=10, memory=SMALLEST, **SAME)
    np.testing.assert_allclose(level(target), in_memory(data, "zyx", sigma=10), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("version", "storage"),
    [
        ("0.4", {"compressors": None, "order": "F"}),
        ("0.4", {"chunk_key_encoding": {"name": "v2", "separator": "."}, "fill_value": 7}),
        ("0.5", {"chunks": (4, 8, 8), "shards": (8, 16, 16), "compressors": BloscCodec(cname="zstd", clevel=3)}),
        ("0.5", {"compressors": None, "fill_value": 3, "chunk_key_encoding": {"name": "v2", "separator": "."}}),
    ],
)
def test_stored_as_the_source_is(version: str, storage: dict[str, Any], tmp_path: Path, target: Path) -> None:
    source = save(tmp_path / "in.zarr", noisy(20, 300, 24, dtype="u2"), "zyx", version, **storage)
    ome_zarr.denoise(source, target, **SAME)
    before = zarr.open_array(source / "full", mode="r").metadata.to_dict()
    for number in (0, 1):
        after = array(target, number).metadata.to_dict()
        if number:
            after["shape"] = before["shape"]
        assert after == before


def test_chunks_of_several_volumes(tmp_path: Path, target: Path) -> None:
    data = noisy(3, 2, 9, 12, 13)
    source = save(tmp_path / "in.zarr", data, "tczyx", chunks=(2, 2, 4, 8, 8))
    ome_zarr.denoise(source, target, **SAME)
    np.testing.assert_array_equal(level(target), in_memory(data, "tczyx"))


def test_counts_of_photons(tmp_path: Path, target: Path) -> None:
    photons = np.random.default_rng(0).poisson(20.0, (8, 24, 24))
    data = (100 + 2 * photons).astype(np.uint16)
    source = save(tmp_path / "in.zarr", data, "zyx")
    settings = {"noise": "poisson", "gain": 2.0, "offset": 100.0}
    ome_zarr.denoise(source, target, **settings, **SAME)
    np.testing.assert_array_equal(level(target), in_memory(data, "zyx", **settings))


def test_a_plain_array(tmp_path: Path, target: Path) -> None:
    data = noisy(12, 16, 16)
    for form, version in ((2, "0.4"), (3, "0.5")):
        zarr.create_array(tmp_path / "plain.zarr", data=data, chunks=(8, 8, 8), zarr_format=form, overwrite=True)
        ome_zarr.denoise(tmp_path / "plain.zarr", target, overwrite=True, **SAME)
        np.testing.assert_array_equal(level(target), nlmeans.denoise(data, **SAME))
        image = ngff.read(target)
        assert image.version == version
        assert [axis["name"] for axis in image.axes] == ["z", "y", "x"]


def test_mask_sigma_and_map_from_zarr(tmp_path: Path, target: Path) -> None:
    data = noisy(2, 12, 16, 16)
    source = save(tmp_path / "in.zarr", data, "czyx")
    mask = np.zeros((12, 16, 16), np.uint8)
    mask[2:9] = 1
    sigma = np.full(mask.shape, 9.0, np.float32)
    sigma[:, :8] = 4
    zarr.create_array(tmp_path / "mask.zarr", data=mask)
    zarr.create_array(tmp_path / "sigma.zarr", data=sigma)
    ome_zarr.denoise(source, target, mask=tmp_path / "mask.zarr", sigma_map=tmp_path / "sigma.zarr", **SAME)
    np.testing.assert_array_equal(level(target), in_memory(data, "czyx", mask=mask, sigma=sigma))
    ome_zarr.denoise(source, target, sigma=[9.0, 4.0], overwrite=True, **SAME)
    expected = [in_memory(volume, "zyx", sigma=s) for volume, s in zip(data, (9.0, 4.0), strict=True)]
    np.testing.assert_array_equal(level(target), expected)


# ---------------------------------------------------------------- the metadata


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_nothing_of_the_metadata_is_lost(version: str, tmp_path: Path, target: Path) -> None:
    source = save(tmp_path / "in.zarr", noisy(2, 8, 16, 16), "czyx", version)
    change(source, lambda ome: ome.update(custom={"also": "kept"}))
    ome_zarr.denoise(source, target, sigma=10, **SAME)
    before, after = about(source), about(target)
    assert {name: after[name] for name in after if name not in ("multiscales", "nlmeans")} == {
        name: before[name] for name in before if name != "multiscales"
    }
    attributes = zarr.open_group(target, mode="r").attrs
    assert attributes["of the user"] == {"kept": [1, 2]}
    (old,), (new,) = before["multiscales"], after["multiscales"]
    assert new.pop("type") == "mean"
    assert "mean" in new.pop("metadata")["description"]
    assert new.pop("datasets")[0]["coordinateTransformations"] == old.pop("datasets")[0]["coordinateTransformations"]
    replaced = {name: old.pop(name) for name in ("type", "metadata")}
    assert new == old
    assert array(target).attrs.asdict() == {"of the array": 1}
    made: Any = attributes["nlmeans"]
    assert made["settings"]["sigma"] == 10
    assert made["settings"]["method"] == "classic"
    assert made["volumes"][1]["sigma"] == [10]
    assert made["version"] == nlmeans.__version__
    assert made["input"]["name"] == "in.zarr"
    assert made["pyramid_of_input"] == replaced


def test_a_result_denoised_again_says_both(source: Path, target: Path, tmp_path: Path) -> None:
    ome_zarr.denoise(source, target, **SAME)
    ome_zarr.denoise(target, tmp_path / "again.zarr", **SAME)
    first, second = (zarr.open_group(path, mode="r").attrs["nlmeans"] for path in (target, tmp_path / "again.zarr"))
    assert isinstance(second, dict)
    assert second["before"] == first


def test_pyramid(tmp_path: Path, target: Path) -> None:
    data = noisy(6, 700, 290, dtype="u2")
    source = save(tmp_path / "in.zarr", data, "zyx", chunk=128)  # 2 µm in z, 0.5 µm in y and x
    ome_zarr.denoise(source, target, memory=64 * 2**20, **SAME)
    datasets = about(target)["multiscales"][0]["datasets"]
    assert [entry["path"] for entry in datasets] == ["0", "1", "2"]
    assert [array(target, number).shape for number in range(3)] == [(6, 700, 290), (6, 350, 145), (6, 175, 73)]
    expected = level(target).reshape(6, 350, 2, 145, 2).mean((2, 4))
    np.testing.assert_array_equal(level(target, 1), np.rint(expected))
    scale, translation = datasets[1]["coordinateTransformations"]
    assert scale["scale"] == [2.0, 1.0, 1.0]
    assert translation["translation"] == [10.0, 10.25, 10.25]  # the middle of the first voxel


def test_pyramid_halves_depth_once_voxels_are_about_cubes(tmp_path: Path, target: Path) -> None:
    source = save(tmp_path / "in.zarr", noisy(5, 1100, 40, dtype="u1"), "zyx", chunk=256)
    levels = ngff.read(source)
    assert levels.spacing == (2.0, 0.5, 0.5)
    from nlmeans.pyramid import levels_of

    assert [found.shape for found in levels_of(levels)] == [
        (5, 1100, 40),
        (5, 550, 20),
        (5, 275, 10),
        (3, 138, 5),
    ]


def test_units_that_differ_are_compared(source: Path) -> None:
    change(source, lambda ome: ome["multiscales"][0]["axes"][0].update(unit="nanometer"))
    assert ngff.read(source).spacing == pytest.approx((2e-9, 0.5e-6, 0.5e-6))
    change(source, lambda ome: ome["multiscales"][0]["axes"][0].update(unit="cubit"))
    with pytest.raises(ValueError, match="'cubit' is not known"):
        _ = ngff.read(source).spacing


def test_which_multiscale(source: Path) -> None:
    zarr.open_group(source, mode="r+").create_array("other", data=np.ones((4, 4, 4), "f4"))

    def second(ome: dict[str, Any]) -> None:
        entry = json.loads(json.dumps(ome["multiscales"][0]))
        entry["name"], entry["datasets"][0]["path"] = "thumbnail", "other"
        ome["multiscales"].append(entry)

    change(source, second)
    assert ngff.read(source).array.shape == (20, 24, 28)
    assert ngff.read(source, "thumbnail").array.shape == ngff.read(source, 1).array.shape == (4, 4, 4)
    with pytest.raises(ValueError, match=r"'no' is not in .*0 'cells', 1 'thumbnail'"):
        ngff.read(source, "no")


def test_odd_lengths_keep_their_last_voxel() -> None:
    np.testing.assert_array_equal(halved(np.arange(5, dtype="u1"), (0,)), [0.5, 2.5, 4])
    np.testing.assert_array_equal(halved(np.full((3, 2), 2**53, "i8"), (0, 1)), np.full((2, 1), 2.0**53))


# ---------------------------------------------------------------- interrupted


FEW = 1 / 512
"""Of the memory, for a block: many small blocks."""

SLOW = f"""
import sys, time
from nlmeans import lock, ome_zarr, zarr_run

finish = zarr_run.Run.finish
def slow(self, *arguments):
    finish(self, *arguments)
    print("block", flush=True)
    time.sleep(0.5)
zarr_run.Run.finish = slow
zarr_run.BLOCK_SHARE = {FEW}
ome_zarr.denoise(sys.argv[1], sys.argv[2], method="classic", search_radius=1, device="cpu", memory=16 * 2**20)
"""


def killed(source: Path, target: Path, blocks: int, how: signal.Signals = signal.SIGKILL) -> None:
    """Run until so many blocks are finished, then kill it."""
    process = subprocess.Popen([sys.executable, "-c", SLOW, source, target], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        for _ in range(blocks):
            assert process.stdout.readline() == "block\n"
        process.send_signal(how)
        process.wait(300)


def times(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(file.relative_to(folder)): (file.stat().st_ino, file.stat().st_mtime_ns)
        for file in folder.rglob("*")
        if file.is_file() and file.name != JOURNAL
    }


def test_what_was_killed_goes_on_and_ends_the_same(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zarr_run, "BLOCK_SHARE", FEW)
    source = save(tmp_path / "in.zarr", noisy(2, 24, 40, 40), "czyx")
    killed(source, target, 3)
    assert not target.exists()
    written = times(partial(target))
    leaving = partial(target) / "0" / "x.0123.partial"  # as zarr leaves it where it is killed while writing
    leaving.touch()
    said = ome_zarr.denoise(source, target, memory=SMALLEST, **SAME)
    assert "3 of " in said
    assert "blocks were there already" in said
    finished = {name for name in written if name.startswith("0/")}
    assert len(finished) > 20
    after = times(target)
    assert {name: after[name] for name in finished} == {name: written[name] for name in finished}
    whole = tmp_path / "whole.zarr"
    ome_zarr.denoise(source, whole, memory=SMALLEST, **SAME)
    assert contents(target) == contents(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.zarr", "out.ome.zarr", "whole.zarr"]


LARGE = (20, 40, 40)


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of several blocks, where memory is least."""
    monkeypatch.setattr(zarr_run, "BLOCK_SHARE", FEW)
    return save(tmp_path / "in.zarr", noisy(*LARGE), "zyx")


class After:
    """Cancels a run once so much is done."""

    def __init__(self, fraction: float) -> None:
        self.fraction = fraction
        self.first: float | None = None

    def __call__(self, done: float) -> bool:
        self.first = done if self.first is None else self.first
        return done < self.fraction


def stopped(source: Path, target: Path, fraction: float = 0.6, **options: Any) -> None:
    with pytest.raises(Cancelled):
        ome_zarr.denoise(source, target, progress=After(fraction), **{"memory": SMALLEST, **SAME, **options})


def test_what_was_cancelled_goes_on(large: Path, target: Path) -> None:
    stopped(large, target, sigma=10)
    assert partial(target).is_dir()
    assert not target.exists()
    seen = After(2)
    assert "there already" in ome_zarr.denoise(large, target, sigma=10, progress=seen, **SAME)
    assert seen.first is not None
    assert seen.first > 0.2  # the bar begins where it was
    np.testing.assert_allclose(level(target), in_memory(noisy(*LARGE), "zyx", sigma=10), rtol=0, atol=1e-4)


def test_nothing_is_looked_at_again(large: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped(large, target)
    monkeypatch.setattr("nlmeans.task.survey", None)
    monkeypatch.setattr("nlmeans.task.noise_of", None)
    ome_zarr.denoise(large, target, memory=SMALLEST, **SAME)


def test_a_journal_that_was_cut_off_counts_as_far_as_it_is_whole(large: Path, target: Path, tmp_path: Path) -> None:
    stopped(large, target)
    journal = partial(target) / JOURNAL
    os.truncate(journal, journal.stat().st_size - 3)
    ome_zarr.denoise(large, target, memory=SMALLEST, **SAME)
    ome_zarr.denoise(large, tmp_path / "whole.zarr", memory=SMALLEST, **SAME)
    assert contents(target) == contents(tmp_path / "whole.zarr")


def test_a_journal_without_a_first_line_is_begun_anew(large: Path, target: Path) -> None:
    stopped(large, target)
    (partial(target) / JOURNAL).write_text('{"requ')
    assert "there already" not in ome_zarr.denoise(large, target, **SAME)


def test_other_settings_are_refused_unless_all_is_to_begin_anew(large: Path, target: Path) -> None:
    stopped(large, target)
    with pytest.raises(FileExistsError, match=r"differs in search_radius \(1, now 2\).*--overwrite"):
        ome_zarr.denoise(large, target, **{**SAME, "search_radius": 2})
    assert partial(target).is_dir()
    assert "there already" not in ome_zarr.denoise(large, target, overwrite=True, **{**SAME, "search_radius": 2})


def test_another_input_is_refused(large: Path, target: Path) -> None:
    stopped(large, target)
    values = zarr.open_array(large / "full", mode="r+")
    values[:8, :8, :8] = 0
    with pytest.raises(FileExistsError, match="differs in input"):
        ome_zarr.denoise(large, target, **SAME)


def test_an_input_that_was_moved_is_known_again(large: Path, target: Path) -> None:
    stopped(large, target)
    moved = large.rename(large.with_name("moved.zarr"))
    assert "there already" in ome_zarr.denoise(moved, target, **SAME)


def test_too_little_memory_to_go_on_with(tmp_path: Path, target: Path) -> None:
    source = save(tmp_path / "in.zarr", noisy(2, 24, 304, 304), "czyx", chunk=152)
    stopped(source, target, sigma=10, memory=4 * SMALLEST)
    with pytest.raises(ValueError, match=r"blocks of the interrupted run have .*; allow .*--overwrite"):
        ome_zarr.denoise(source, target, sigma=10, memory=SMALLEST, **SAME)


def test_two_runs_do_not_write_the_same(source: Path, target: Path) -> None:
    file = target.with_name(f".{target.name}.lock")
    with lock.held(file, target), pytest.raises(BlockingIOError, match=r"is being written by another run; wait"):
        ome_zarr.denoise(source, target, **SAME)
    ome_zarr.denoise(source, target, **SAME)
    assert not file.exists()


def test_the_lock_of_a_dead_process_does_not_count(source: Path, target: Path) -> None:
    file = target.with_name(f".{target.name}.lock")
    imports = "import os, pathlib, sys; from nlmeans import lock; file = pathlib.Path(sys.argv[1])"
    die = "held = lock.held(file, file); held.__enter__(); os._exit(9)"
    subprocess.run([sys.executable, "-c", f"{imports}; {die}", file], check=False)
    assert file.exists()
    ome_zarr.denoise(source, target, **SAME)
    assert not file.exists()


def test_ctrl_c_says_how_to_go_on(tmp_path: Path, target: Path) -> None:
    source = save(tmp_path / "in.zarr", noisy(32, 200, 200), "zyx", chunk=32)
    options = ("--memory", "16MiB", "--method", "classic", "--search-radius", "6", "--sigma", "10", "--device", "cpu")
    command = [sys.executable, "-m", "nlmeans.cli", "denoise", source, target, *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        journal, until = partial(target) / JOURNAL, time.monotonic() + 300
        while process.poll() is None and not (journal.is_file() and '"facts"' in journal.read_text()):
            assert time.monotonic() < until
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=300)
    assert process.returncode == 130, said
    assert "the same command goes on" in said
    assert len(said.splitlines()) == 1
    assert partial(target).is_dir()
    assert not target.exists()


# ---------------------------------------------------------------- what cannot be


def test_existing_output(source: Path, target: Path, tmp_path: Path) -> None:
    ome_zarr.denoise(source, target, **SAME)
    with pytest.raises(FileExistsError, match="--overwrite"):
        ome_zarr.denoise(source, target, **SAME)
    ome_zarr.denoise(source, target, overwrite=True, sigma=1, **SAME)
    assert about(target)["multiscales"]
    made: Any = zarr.open_group(target, mode="r").attrs["nlmeans"]
    assert made["settings"]["sigma"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.ome.zarr", "out.ome.zarr"]


def test_what_is_no_zarr_is_never_replaced(source: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.zarr").mkdir()
    (tmp_path / "thesis.zarr" / "chapter1").touch()
    with pytest.raises(FileExistsError, match="something else"):
        ome_zarr.denoise(source, tmp_path / "thesis.zarr", overwrite=True)
    partial(tmp_path / "o.zarr").mkdir()
    (partial(tmp_path / "o.zarr") / "mine").touch()
    with pytest.raises(FileExistsError, match="in the way"):
        ome_zarr.denoise(source, tmp_path / "o.zarr", overwrite=True)
    assert (partial(tmp_path / "o.zarr") / "mine").exists()


@pytest.mark.parametrize("name", [".", "inside.zarr"])
def test_output_must_be_apart_from_input(name: str, source: Path) -> None:
    with pytest.raises(ValueError, match="must be apart from"):
        ome_zarr.denoise(source, source / name, overwrite=True, **SAME)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_that_may_not_be_written_to(source: Path, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(PermissionError, match="may not be written to"):
        ome_zarr.denoise(source, tmp_path / "closed" / "out.zarr", **SAME)


def multiscale(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda ome: ome["multiscales"][0].update(changes)


def dataset(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda ome: ome["multiscales"][0]["datasets"][0].update(changes)


def scaled(*scale: Any) -> Callable[[dict[str, Any]], None]:
    return dataset(coordinateTransformations=[{"type": "scale", "scale": list(scale)}])


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda ome: ome.pop("multiscales"), "no OME-Zarr image"),
        (lambda ome: ome.update(multiscales={}), "multiscales is {}, but must be a list"),
        (lambda ome: ome.update(multiscales=[]), "multiscale=0 is not in .*: none"),
        (lambda ome: ome.update(multiscales=[3]), r"multiscales\[0\] is 3, but must be an object"),
        (lambda ome: ome.update(version="0.3"), "version '0.3' on zarr format 3"),
        (multiscale(axes=None), "axes is missing"),
        (multiscale(axes=[{"name": n} for n in "zy"]), "axes are 2, but the array in full has"),
        (multiscale(axes=[{"name": n} for n in "zyy"]), "each needs its own"),
        (multiscale(axes=[{"name": n} for n in "tcx"]), "1 spatial axes"),
        (multiscale(axes=["z", "y", "x"]), "'z', but must be an object"),
        (multiscale(axes=[{"name": n, "unit": ["mm"]} for n in "zyx"]), r"axes\[0\].unit is \['mm'\], but must be"),
        (multiscale(datasets=[]), "is empty"),
        (multiscale(coordinateTransformations=[{"type": "scale", "path": "x"}]), "the scale None"),
        (dataset(path=None), "path is missing"),
        (dataset(path="elsewhere"), "'elsewhere', but there is no array"),
        (dataset(coordinateTransformations=[]), "has no scale"),
        (scaled(1, 1), "but there are 3 axes"),
        (scaled(1, 1, 0), "no voxel has the size 0"),
        (scaled(1, 1, "2"), "one number per axis"),
        (dataset(coordinateTransformations=[{"type": "affine"}]), "scale and translation are known"),
    ],
)
def test_damaged_metadata_are_named(
    edit: Callable[[dict[str, Any]], object], message: str, source: Path, target: Path, tmp_path: Path
) -> None:
    change(source, edit)
    with pytest.raises((ValueError, TypeError, OSError), match=message):
        ome_zarr.denoise(source, target, **SAME)
    assert [path.name for path in tmp_path.iterdir()] == ["in.ome.zarr"]


@pytest.mark.parametrize(
    "path",
    ["../../secret", "../secret.zarr", "full/../../secret.zarr", "/etc", "a/./b", "", "c:\\x", "a\\..\\b", "x:y"],
)
def test_paths_in_metadata_never_lead_out(path: str, source: Path, target: Path, tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "secret.zarr", data=noisy(20, 24, 28))
    change(source, dataset(path=path))
    with pytest.raises(ValueError, match="not followed"):
        ome_zarr.denoise(source, target, **SAME)


def test_damaged_files_are_named(source: Path, target: Path) -> None:
    chunk = next(file for file in (source / "full" / "c").rglob("*") if file.is_file())
    chunk.write_bytes(b"no chunk at all")
    with pytest.raises(ValueError, match=r"cannot be read.*may be damaged"):
        ome_zarr.denoise(source, target, **SAME)
    assert not partial(target).exists()
    (source / "full" / "zarr.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read as zarr"):
        ome_zarr.denoise(source, target, **SAME)


def test_values_that_are_not_finite_are_named(tmp_path: Path, target: Path) -> None:
    data = noisy(2, 2, 8, 12, 12)
    data[1, 0, 3, 4, 5] = np.nan
    source = save(tmp_path / "in.zarr", data, "tczyx")
    with pytest.raises(ValueError, match=r"in.zarr t 1, c 0: .*NaN"):
        ome_zarr.denoise(source, target, **SAME)
    assert [path.name for path in tmp_path.iterdir()] == ["in.zarr"]


def test_collections_name_an_image_in_them(source: Path, tmp_path: Path) -> None:
    plate = zarr.open_group(tmp_path / "plate.zarr", mode="w")
    plate.attrs["ome"] = {"version": "0.5", "plate": {}}
    plate.create_group("A").create_group("1")
    source.rename(tmp_path / "plate.zarr" / "A" / "1" / "0")
    with pytest.raises(ValueError, match=r"a collection of them .plate.; name one of those in it, such as A/1/0"):
        ngff.read(tmp_path / "plate.zarr")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": "map"}, "sigma_map"),
        ({"sigma": [1.0, 2.0]}, "sigma has 2 numbers"),
        ({"channels": 0}, "channels=0"),
        ({"memory": 10}, "memory=10"),
        ({"methd": "classic"}, "methd"),
    ],
)
def test_arguments_that_cannot_be(options: dict[str, Any], message: str, source: Path, target: Path) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        ome_zarr.denoise(source, target, **options)


def test_chunks_too_large_for_the_memory(tmp_path: Path, target: Path) -> None:
    source = save(tmp_path / "in.zarr", noisy(40, 200, 200, dtype="f4"), "zyx", chunk=200)
    with pytest.raises(ValueError, match=r"stored in pieces of 40×200×200.*allow 24.41 MiB"):
        ome_zarr.denoise(source, target, memory=SMALLEST, **SAME)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((2, 8, 8, 8), "4 axes have no names"), ((8,), "1 axes have no names"), ((0, 4), "no voxels")],
)
def test_arrays_that_are_no_image(shape: tuple[int, ...], message: str, tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", shape=shape, dtype="f4")
    with pytest.raises(ValueError, match=message):
        ngff.read(tmp_path / "a.zarr")


def test_complex_numbers_are_refused(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", shape=(4, 4), dtype="c8")
    with pytest.raises(TypeError, match="complex64"):
        ngff.read(tmp_path / "a.zarr")


# ---------------------------------------------------------------- the command line


QUICK = ("--method", "classic", "--search-radius", "1", "--device", "cpu")


def test_command_line(source: Path, target: Path, tmp_path: Path) -> None:
    result = call("denoise", source, target, *QUICK, "--report", tmp_path / "picture.png", "--float")
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"{target}: classic, gaussian noise, sigma ")
    np.testing.assert_array_equal(level(target), in_memory(noisy(20, 24, 28), "zyx"))
    assert imread(tmp_path / "picture.png").ndim == 3
    result = call("denoise", source, tmp_path / "voxels.zarr", *QUICK, "--voxel-radii", "--sigma", 9)
    assert "sigma 9" in result.output
    np.testing.assert_array_equal(
        level(tmp_path / "voxels.zarr"), in_memory(noisy(20, 24, 28), "zyx", spacing=None, sigma=9)
    )


def test_float_for_integers(tmp_path: Path, target: Path) -> None:
    for version in ("0.4", "0.5"):
        source = save(tmp_path / "in.zarr", noisy(8, 16, 16, dtype="u1"), "zyx", version)
        assert call("denoise", source, target, *QUICK, "--float", "--overwrite").exit_code == 0
        assert level(target).dtype == np.float32
        np.testing.assert_array_equal(level(target), in_memory(level_of(source), "zyx", dtype="float32"))


def level_of(source: Path) -> npt.NDArray[Any]:
    return np.asarray(zarr.open_array(source / "full", mode="r")[:])


def test_noise_of_every_volume(tmp_path: Path) -> None:
    source = save(tmp_path / "in.zarr", noisy(2, 16, 24, 24), "czyx")
    result = call("noise", source)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    sigma = nlmeans.estimate_sigma(noisy(2, 16, 24, 24)[1])
    assert lines[0].startswith("c 0: sigma ")
    assert lines[1].startswith(f"c 1: sigma {sigma:.4g}, mean of the object ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("in.ome.zarr", "out.nii.gz"), "must end in .zarr"),
        (("in.ome.zarr", "out.zarr", "--share-weights"), "--share-weights is not for zarr"),
        (("in.ome.zarr", "out.zarr", "--dicom-series", "3"), "--dicom-series is not for zarr"),
        (("in.ome.zarr", "out.zarr", "--report", "picture.jpg"), "must end in .png"),
        (("in.ome.zarr", "out.zarr", "--sigma", "map"), "sigma_map"),
        (("scan.nii.gz", "out.zarr"), "scan.nii.gz is none"),
        (("nothing.zarr", "out.zarr"), "nothing.zarr: no such folder"),
    ],
)
def test_commands_that_cannot_be(
    words: Sequence[str], message: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scan.nii.gz").write_bytes(samples.path("slice").read_bytes())
    before = contents(tmp_path)
    result = call("denoise", *words)
    assert result.exit_code == 1
    assert message in result.output
    assert len(result.output.splitlines()) == 1
    assert contents(tmp_path) == before
