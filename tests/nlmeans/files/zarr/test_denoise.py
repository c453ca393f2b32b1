"""OME-Zarr images get the same voxels as arrays in memory, and keep all metadata."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr
from matplotlib.image import imread
from zarr.codecs import BloscCodec

import nlmeans
from nlmeans.files import samples
from nlmeans.files.zarr import ngff, run
from nlmeans.files.zarr.denoise import denoise_zarr, zarr_noise
from nlmeans.files.zarr.run import partial_folder
from tests.nlmeans.scans import contents
from tests.nlmeans.zarrs import SAME, SCALES, SMALLEST, about, array, call, change, in_memory, level, noisy, save


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
    denoise_zarr(source, target, **SAME)
    assert level(target).dtype == data.dtype
    np.testing.assert_array_equal(level(target), in_memory(data, axes))
    assert contents(source) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.zarr", "out.ome.zarr"]


def test_the_strength_is_that_of_an_array_in_memory(source: Path, target: Path) -> None:
    denoise_zarr(source, target, sigma=10, strength=0.6, **SAME)
    wanted = in_memory(noisy(20, 24, 28), "zyx", sigma=10, strength=0.6)
    np.testing.assert_allclose(level(target), wanted, rtol=0, atol=1e-4)
    record: Any = zarr.open_group(target).attrs["nlmeans"]
    assert record["settings"]["strength"] == 0.6


def test_blocks_within_little_memory_give_the_same(tmp_path: Path, target: Path) -> None:
    data = noisy(32, 200, 200)
    source = save(tmp_path / "in.zarr", data, "zyx", chunk=32)
    denoise_zarr(source, target, sigma=10, memory=SMALLEST, **SAME)
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
    source = save(tmp_path / "in.zarr", noisy(10, 260, 12, dtype="u2"), "zyx", version, **storage)
    denoise_zarr(source, target, **SAME)
    before = zarr.open_array(source / "full", mode="r").metadata.to_dict()
    for number in (0, 1):
        after = array(target, number).metadata.to_dict()
        if number:
            after["shape"] = before["shape"]
        assert after == before


def test_chunks_of_several_volumes(tmp_path: Path, target: Path) -> None:
    data = noisy(3, 2, 9, 12, 13)
    source = save(tmp_path / "in.zarr", data, "tczyx", chunks=(2, 2, 4, 8, 8))
    denoise_zarr(source, target, **SAME)
    np.testing.assert_array_equal(level(target), in_memory(data, "tczyx"))


def test_counts_of_photons(tmp_path: Path, target: Path) -> None:
    photons = np.random.default_rng(0).poisson(20.0, (8, 24, 24))
    data = (100 + 2 * photons).astype(np.uint16)
    source = save(tmp_path / "in.zarr", data, "zyx")
    settings = {"noise": "poisson", "gain": 2.0, "offset": 100.0}
    denoise_zarr(source, target, **settings, **SAME)
    np.testing.assert_array_equal(level(target), in_memory(data, "zyx", **settings))


def test_a_plain_array(tmp_path: Path, target: Path) -> None:
    data = noisy(12, 16, 16)
    for form, version in ((2, "0.4"), (3, "0.5")):
        zarr.create_array(tmp_path / "plain.zarr", data=data, chunks=(8, 8, 8), zarr_format=form, overwrite=True)
        denoise_zarr(tmp_path / "plain.zarr", target, overwrite=True, **SAME)
        np.testing.assert_array_equal(level(target), nlmeans.denoise(data, **SAME))
        image = ngff.read_image(target)
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
    denoise_zarr(source, target, mask=tmp_path / "mask.zarr", sigma_map=tmp_path / "sigma.zarr", **SAME)
    np.testing.assert_array_equal(level(target), in_memory(data, "czyx", mask=mask, sigma=sigma))
    denoise_zarr(source, target, sigma=[9.0, 4.0], overwrite=True, **SAME)
    expected = [in_memory(volume, "zyx", sigma=s) for volume, s in zip(data, (9.0, 4.0), strict=True)]
    np.testing.assert_array_equal(level(target), expected)


# ---------------------------------------------------------------- the metadata


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_nothing_of_the_metadata_is_lost(version: str, tmp_path: Path, target: Path) -> None:
    source = save(tmp_path / "in.zarr", noisy(2, 8, 16, 16), "czyx", version)
    change(source, lambda ome: ome.update(custom={"also": "kept"}))
    denoise_zarr(source, target, sigma=10, **SAME)
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
    denoise_zarr(source, target, **SAME)
    denoise_zarr(target, tmp_path / "again.zarr", **SAME)
    first, second = (zarr.open_group(path, mode="r").attrs["nlmeans"] for path in (target, tmp_path / "again.zarr"))
    assert isinstance(second, dict)
    assert second["before"] == first


# ---------------------------------------------------------------- what cannot be


def test_existing_output(source: Path, target: Path, tmp_path: Path) -> None:
    denoise_zarr(source, target, **SAME)
    with pytest.raises(FileExistsError, match="--overwrite"):
        denoise_zarr(source, target, **SAME)
    denoise_zarr(source, target, overwrite=True, sigma=1, **SAME)
    assert about(target)["multiscales"]
    made: Any = zarr.open_group(target, mode="r").attrs["nlmeans"]
    assert made["settings"]["sigma"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.ome.zarr", "out.ome.zarr"]


def test_what_is_no_zarr_is_never_replaced(source: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.zarr").mkdir()
    (tmp_path / "thesis.zarr" / "chapter1").touch()
    with pytest.raises(FileExistsError, match="not a zarr group"):
        denoise_zarr(source, tmp_path / "thesis.zarr", overwrite=True)
    partial_folder(tmp_path / "o.zarr").mkdir()
    (partial_folder(tmp_path / "o.zarr") / "mine").touch()
    with pytest.raises(FileExistsError, match="nlmeans did not make it"):
        denoise_zarr(source, tmp_path / "o.zarr", overwrite=True)
    assert (partial_folder(tmp_path / "o.zarr") / "mine").exists()


@pytest.mark.parametrize("name", [".", "inside.zarr"])
def test_output_must_be_apart_from_input(name: str, source: Path) -> None:
    with pytest.raises(ValueError, match="must lie outside"):
        denoise_zarr(source, source / name, overwrite=True, **SAME)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_that_may_not_be_written_to(source: Path, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(PermissionError, match="may not be written to"):
        denoise_zarr(source, tmp_path / "closed" / "out.zarr", **SAME)


def test_values_that_are_not_finite_are_named(tmp_path: Path, target: Path) -> None:
    data = noisy(2, 2, 8, 12, 12)
    data[1, 0, 3, 4, 5] = np.inf
    source = save(tmp_path / "in.zarr", data, "tczyx")
    with pytest.raises(ValueError, match=r"in.zarr t 1, c 0: .*infinite"):
        denoise_zarr(source, target, **SAME)
    assert [path.name for path in tmp_path.iterdir()] == ["in.zarr"]


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
        denoise_zarr(source, target, **options)


def test_chunks_too_large_for_the_memory(tmp_path: Path, target: Path) -> None:
    source = save(tmp_path / "in.zarr", noisy(40, 200, 200, dtype="f4"), "zyx", chunk=200)
    with pytest.raises(ValueError, match=r"stored in pieces of 40×200×200 voxels.*allow 24.41 MiB"):
        denoise_zarr(source, target, memory=SMALLEST, **SAME)


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
    lines = [line for line in result.output.splitlines() if not line.startswith("  - ")]
    sigma = nlmeans.estimate_sigma(noisy(2, 16, 24, 24)[1])
    assert lines[0].startswith("c 0: gaussian noise, sigma ")
    assert lines[1].startswith(f"c 1: gaussian noise, sigma {sigma:.4g}; mean of the object ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("in.ome.zarr", "out.nii.gz"), "must end in .zarr"),
        (("in.ome.zarr", "out.zarr", "--share-weights"), "--share-weights is not for zarr"),
        (("in.ome.zarr", "out.zarr", "--dicom-series", "3"), "--dicom-series is not for zarr"),
        (("in.ome.zarr", "out.zarr", "--report", "picture.jpg"), "must end in .png"),
        (("in.ome.zarr", "out.zarr", "--sigma", "map"), "sigma_map"),
        (("scan.nii.gz", "out.zarr"), "scan.nii.gz is not"),
        (("nothing.zarr", "out.zarr"), "nothing.zarr: no such file or folder"),
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


def test_nan_stays_and_counts_as_outside(tmp_path: Path, target: Path) -> None:
    data = noisy(12, 14, 16).astype("f4")
    data[:, :5] = np.nan
    source = save(tmp_path / "in.zarr", data, "zyx")
    denoise_zarr(source, target, **SAME)
    found = np.asarray(array(target)[:])
    np.testing.assert_array_equal(np.isnan(found), np.isnan(data))
    (measured,) = zarr_noise(source, "auto")
    assert np.isfinite(measured.mean)


def test_time_points_that_belong_together_are_denoised_as_a_series(tmp_path: Path, target: Path) -> None:
    series = np.stack([dynamic(seed) for seed in range(2)], 1)  # t, c, z, y, x
    source = save(tmp_path / "in.zarr", series, "tczyx")
    words = denoise_zarr(source, target, device="cpu")
    assert "series" in words
    spacing = [SCALES[axis] for axis in "zyx"]
    for channel in range(2):
        alone = nlmeans.denoise(series[:, channel], series=0, method="series", spacing=spacing)
        np.testing.assert_allclose(level(target)[:, channel], alone, atol=2e-4)
    one_by_one = nlmeans.denoise(series[:, 0], series=0, method="bayes", spacing=spacing)
    truth = dynamic(0, noise=0.0)
    assert error(level(target)[:, 0], truth) < 0.8 * error(one_by_one, truth)


def test_a_series_in_many_blocks_with_a_sigma_per_volume_and_a_mask(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = dynamic(0)
    source, inside = save(tmp_path / "in.zarr", series, "tzyx"), np.zeros(series.shape[1:], np.uint8)
    inside[2:, 3:] = 1
    mask = save(tmp_path / "mask.zarr", inside, "zyx")
    sigma = [4.0] * 6 + [6.0] * 6
    monkeypatch.setattr(run, "BLOCK_SHARE", 1 / 256)
    denoise_zarr(source, target, method="series", sigma=sigma, mask=mask, memory=SMALLEST, device="cpu")
    expected = nlmeans.denoise(
        series, sigma, series=0, method="series", mask=inside, spacing=[SCALES[axis] for axis in "zyx"]
    )
    np.testing.assert_allclose(level(target), expected, atol=2e-4)
    about_run = zarr.open_group(target, mode="r").attrs.asdict()["nlmeans"]
    assert about_run["block"][0] == 12
    assert np.prod(about_run["block"]) < series.size


def test_time_points_that_have_nothing_in_common_are_denoised_one_by_one(tmp_path: Path, target: Path) -> None:
    source = save(tmp_path / "in.zarr", np.stack([noisy(12, 16, 16, seed=seed)[::-1] for seed in range(8)]), "tzyx")
    assert "series" not in denoise_zarr(source, target, device="cpu", search_radius=2, sigma=10, method="classic")


def test_a_series_needs_memory_for_all_its_time_points(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "BLOCK_SHARE", 1 / 4096)
    source = save(tmp_path / "in.zarr", dynamic(0), "tzyx")
    with pytest.raises(ValueError, match=r"as a series, in pieces of 12×8×8×8 voxels.*allow"):
        denoise_zarr(source, target, method="series", sigma=5, memory=SMALLEST, device="cpu")
    assert not target.exists()


def dynamic(seed: int, noise: float = 5.0) -> npt.NDArray[np.float32]:
    """A series of 12 time points in which three regions change, each in its own way; (T, D, H, W)."""
    random, shape, times = np.random.default_rng(seed), (14, 20, 18), np.arange(12)
    curves = np.stack([60 + 0 * times, 100 * np.exp(-times / 4), 40 + 6 * times])
    region = np.random.default_rng(9).integers(0, 3, (3, 4, 3)).repeat(5, 0).repeat(5, 1).repeat(6, 2)[:14]
    return np.asarray(curves.T[:, region] + noise * random.standard_normal((12, *shape)), np.float32)


def error(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    return float(np.sqrt(np.mean(np.square(one - other))))


def test_a_mask_must_lie_where_the_image_lies(tmp_path: Path) -> None:
    data = noisy(12, 16, 18)
    source = save(tmp_path / "in.zarr", data, "zyx")
    mask = save(tmp_path / "mask.zarr", (data > 60).astype("u1"), "zyx")
    plain = tmp_path / "plain.zarr"
    zarr.create_array(plain, data=(data > 60).astype("u1"))
    results = []
    for number, given in enumerate((mask, plain)):
        denoise_zarr(source, tmp_path / f"{number}.zarr", mask=given, sigma=10, **SAME)
        results.append(level(tmp_path / f"{number}.zarr"))
    np.testing.assert_array_equal(*results)

    def edit(kind: str, numbers: list[float]) -> None:
        def change_one(about: dict[str, Any]) -> None:
            for entry in about["multiscales"][0]["datasets"][0]["coordinateTransformations"]:
                if entry["type"] == kind:
                    entry[kind] = numbers

        change(mask, change_one)

    edit("translation", [10.0, 10.0, 12.0])
    with pytest.raises(ValueError, match=r"lies elsewhere than .* at 10 × 10 × 12 instead of 10 × 10 × 10"):
        denoise_zarr(source, tmp_path / "out.zarr", mask=mask, sigma=10, **SAME)
    edit("translation", [10.0, 10.0, 10.0])
    edit("scale", [1.0, 0.5, 0.5])
    with pytest.raises(ValueError, match=r"voxels of 1 × 0.5 × 0.5 instead of 2 × 0.5 × 0.5"):
        denoise_zarr(source, tmp_path / "out.zarr", mask=mask, sigma=10, **SAME)
    assert not (tmp_path / "out.zarr").exists()
