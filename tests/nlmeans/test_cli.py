"""The command line gives the voxels of Python and the header of the input, and tells an error in one line."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import pytest
import torch
from click.testing import CliRunner, Result
from matplotlib.image import imread
from nibabel.testing import data_path

import nlmeans
from nlmeans import Settings, cli
from nlmeans.files import paths
from nlmeans.files.bids import USUAL
from nlmeans.files.formats import nifti
from nlmeans.noise.kinds import NOISES
from nlmeans.operator.backends import BACKENDS
from tests.nlmeans.scans import (
    LPS,
    NIFTI,
    OBLIQUE,
    RAS,
    SAGITTAL,
    SIGMA,
    contents,
    header_on_disk,
    noisy,
    save,
    scan,
    values,
)

SHAPE = (10, 11, 12)
QUICK = ("--method", "classic", "--search-radius", "1", "--device", "cpu")
SAME: dict[str, Any] = {"method": "classic", "search_radius": 1}
"""The arguments of `QUICK` for Python."""
SEEDED: dict[str, Any] = {"method": "stochastic", "search_radius": 2, "seed": 3}


def call(*words: object) -> Result:
    return CliRunner().invoke(cli.main, [str(word) for word in words])


def denoised(source: Path, target: Path, *options: object) -> str:
    """Run `nlmeans denoise`, which must succeed without a word on standard error; returns what it printed."""
    result = call("denoise", source, target, *QUICK, *options)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return save(scan(noisy(*SHAPE), "i2"), tmp_path / "in.nii.gz")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out.nii.gz"


# ---------------------------------------------------------------- the header


@pytest.mark.parametrize(
    ("shape", "how"),
    [
        (SHAPE, {"dtype": "i2"}),
        (SHAPE, {"dtype": "i2", "scaling": (0.25, -30.0)}),
        (SHAPE, {"dtype": ">i2", "scaling": (2.0, 0.0)}),
        (SHAPE, {"dtype": "u1"}),
        (SHAPE, {"dtype": "f4"}),
        (SHAPE, {"dtype": ">f4"}),
        (SHAPE, {"dtype": "f8"}),
        (SHAPE, {"dtype": "i2", "version": 2}),
        (SHAPE, {"dtype": ">f8", "version": 2}),
        (SHAPE, {"dtype": "i2", "affine": RAS}),
        (SHAPE, {"dtype": "i2", "affine": LPS}),
        (SHAPE, {"dtype": "i2", "affine": SAGITTAL}),
        ((24, 25), {"dtype": "i2"}),
        ((24, 25), {"dtype": "f4", "affine": SAGITTAL, "version": 2}),
        ((*SHAPE, 2), {"dtype": "i2", "affine": OBLIQUE}),
        ((*SHAPE, 2), {"dtype": "u1", "scaling": (0.5, 3.0), "version": 2}),
    ],
    ids=str,
)
@pytest.mark.parametrize("ending", nifti.ENDINGS)
def test_header_is_that_of_the_input(shape: tuple[int, ...], how: dict[str, Any], ending: str, tmp_path: Path) -> None:
    source = save(scan(noisy(*shape), **how), tmp_path / f"in{ending}")
    target = tmp_path / f"out{ending}"
    denoised(source, target)
    assert header_on_disk(target) == header_on_disk(source)
    assert NIFTI.load(target).get_data_dtype() == np.dtype(how["dtype"])
    assert values(target).std() < values(source).std()


@pytest.mark.parametrize("name", ["functional.nii", "anatomical.nii", "example_nifti2.nii.gz", "standard.nii.gz"])
def test_header_of_an_image_from_elsewhere_is_kept(name: str, tmp_path: Path) -> None:
    source = Path(data_path) / name
    denoised(source, tmp_path / name)
    assert header_on_disk(tmp_path / name) == header_on_disk(source)


@pytest.mark.parametrize(("one", "other"), [(".nii", ".nii.gz"), (".nii.gz", ".nii")])
def test_the_ending_of_out_chooses_compression(one: str, other: str, tmp_path: Path) -> None:
    source = save(scan(noisy(*SHAPE), "i2"), tmp_path / f"in{one}")
    for ending in (one, other):
        denoised(source, tmp_path / f"out{ending}", "--overwrite")
        magic = (tmp_path / f"out{ending}").read_bytes()[:2]
        assert (magic == b"\x1f\x8b") == (ending == ".nii.gz")
    np.testing.assert_array_equal(values(tmp_path / f"out{one}"), values(tmp_path / f"out{other}"))
    assert header_on_disk(tmp_path / f"out{one}") == header_on_disk(tmp_path / f"out{other}")


# ---------------------------------------------------------------- the voxels


@pytest.mark.parametrize(
    ("options", "keywords"),
    [
        ([], {}),
        (["--sigma", 8], {"sigma": 8}),
        (["--sigma", 8, "--h", 6.5], {"sigma": 8, "h": 6.5}),
        (["--method", "auto"], {"method": "auto"}),
        (["--noise", "rician"], {"noise": "rician"}),
        (["--patch-radius", "1,1,0"], {"patch_radius": (1, 1, 0)}),
        (["--patch-radius", 0], {"patch_radius": 0}),
        (["--search-radius", "2,1,0"], {"search_radius": (2, 1, 0)}),
        (["--voxel-radii"], {"spacing": None}),
        (["--backend", "loop"], {"backend": "loop"}),
        (["--memory", "64MB"], {"memory": 64 * 10**6}),
        (["--float"], {"dtype": "float32"}),
        (["--sigma", "map"], {"sigma": "map"}),
        (["--despeckle"], {"despeckle": True}),
        (["--method", "stochastic", "--search-radius", 2, "--seed", 3], SEEDED),
    ],
    ids=str,
)
def test_voxels_are_those_of_python(
    options: list[object], keywords: dict[str, Any], source: Path, target: Path
) -> None:
    denoised(source, target, *options)
    spacing = [float(size) for size in NIFTI.load(source).header.get_zooms()]
    expected = nlmeans.denoise(values(source), **(SAME | {"spacing": spacing} | keywords))
    assert values(target).dtype == expected.dtype
    np.testing.assert_array_equal(values(target), expected)


def test_voxel_radii_reach_farther_across_thick_slices(tmp_path: Path) -> None:
    source = save(scan(noisy(*SHAPE), "f4", RAS), tmp_path / "in.nii")
    denoised(source, tmp_path / "flat.nii")
    denoised(source, tmp_path / "even.nii", "--voxel-radii")
    radii = [json.loads((tmp_path / f"{name}.json").read_text())["settings"] for name in ("flat", "even")]
    assert [r["search_radius"] for r in radii] == [[1, 1, 0], [1, 1, 1]]
    assert not np.array_equal(values(tmp_path / "flat.nii"), values(tmp_path / "even.nii"))


@pytest.mark.parametrize("scaling", [(0.25, -30.0), (0.01, 0.0), (3.0, 500.0)])
def test_scaled_integers_keep_their_meaning(scaling: tuple[float, float], tmp_path: Path) -> None:
    source = save(scan(noisy(*SHAPE), "i2", RAS, scaling=scaling), tmp_path / "in.nii")
    denoised(source, tmp_path / "out.nii")
    expected = nlmeans.denoise(values(source), spacing=(2, 3, 4), **SAME)
    slope = float(np.float32(scaling[0]))
    np.testing.assert_allclose(values(tmp_path / "out.nii"), expected, rtol=1e-6, atol=0.5 * slope)
    assert np.ptp(expected) > 20 * slope


@pytest.mark.parametrize("power", [-1000, -150, 0, 70, 150, 1000])
def test_numbers_beyond_float32_are_reported_like_others(power: int, target: Path, tmp_path: Path) -> None:
    """Scaling by a power of two changes no digit."""
    scale, source = 2.0**power, tmp_path / "in.nii.gz"
    save(scan(scale * noisy(*SHAPE), "f8"), source)
    denoised(source, target, "--report", str(tmp_path / "picture.png"))
    found = json.loads((tmp_path / "out.json").read_text())["quality"]
    save(scan(noisy(*SHAPE), "f8"), source)
    denoised(source, target, "--overwrite")
    expected = json.loads((tmp_path / "out.json").read_text())["quality"]
    assert found["snr"] == pytest.approx(expected["snr"], rel=1e-6)
    assert found["signal"] / scale == pytest.approx(expected["signal"], rel=1e-6)
    assert found["removed"] / scale == pytest.approx(expected["removed"], rel=1e-6)
    assert imread(tmp_path / "picture.png").std() > 0.1


def test_float_stores_float32_that_is_not_rounded(source: Path, target: Path) -> None:
    denoised(source, target, "--float")
    found = values(target)
    assert found.dtype == np.float32
    assert (found != np.rint(found)).mean() > 0.9


def test_voxels_outside_the_mask_stay(source: Path, target: Path, tmp_path: Path) -> None:
    inside = np.zeros(SHAPE, bool)
    inside[2:8, 2:8, 2:8] = True
    mask = save(scan(inside, "u1"), tmp_path / "mask.nii.gz")
    denoised(source, target, "--sigma", SIGMA, "--mask", mask)
    before, after = values(source), values(target)
    np.testing.assert_array_equal(after[~inside], before[~inside])
    assert (after[inside] != before[inside]).mean() > 0.4
    assert json.loads((tmp_path / "out.json").read_text())["mask"] == "mask.nii.gz"


def test_a_sigma_map_takes_the_place_of_sigma(source: Path, target: Path, tmp_path: Path) -> None:
    levels = np.linspace(2, 20, np.prod(SHAPE)).reshape(SHAPE).astype(np.float32)
    file = save(scan(levels), tmp_path / "levels.nii.gz")
    printed = denoised(source, target, "--voxel-radii", "--sigma-map", file)
    np.testing.assert_array_equal(values(target), nlmeans.denoise(values(source), levels, **SAME))
    assert "sigma from a map" in printed
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["sigma_map"] == "levels.nii.gz"
    assert record["sigma_estimated"] is False


def test_each_volume_of_a_series_has_its_own_sigma(tmp_path: Path) -> None:
    clean = np.full((16, 16, 16), 100.0)
    levels = (4.0, 16.0)
    data = np.stack([clean + level * np.random.default_rng(1).standard_normal(clean.shape) for level in levels], -1)
    source = save(scan(data, "f4", np.diag([2.0, 2, 2, 1])), tmp_path / "in.nii")
    printed = denoised(source, tmp_path / "out.nii")
    sigma = [noise["sigma"] for noise in json.loads((tmp_path / "out.json").read_text())["noise"]]
    np.testing.assert_allclose(sigma, levels, rtol=0.15)
    assert f"sigma {sigma[0]:.4g} to {sigma[1]:.4g} over 2 volumes" in printed
    expected = nlmeans.denoise(values(source), sigma, series=3, **SAME)
    np.testing.assert_array_equal(values(tmp_path / "out.nii"), expected)


def test_the_volumes_of_a_series_may_share_their_weights(tmp_path: Path) -> None:
    source = save(scan(noisy(*SHAPE, 3), "f4"), tmp_path / "in.nii")
    denoised(source, tmp_path / "out.nii", "--share-weights", "--voxel-radii")
    np.testing.assert_array_equal(values(tmp_path / "out.nii"), nlmeans.denoise(values(source), channels=3, **SAME))


def test_one_volume_has_nothing_to_share_weights_with(source: Path, target: Path) -> None:
    result = call("denoise", source, target, "--share-weights")
    assert result.exit_code != 0
    assert "has no fourth axis; leave it out" in result.stderr
    assert not target.exists()


def test_a_map_of_sigma_can_be_estimated(source: Path, target: Path, tmp_path: Path) -> None:
    assert "sigma estimated at every voxel" in denoised(source, target, "--sigma", "map")
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["settings"]["sigma"] == "map"
    assert record["sigma_estimated"] is True


def test_little_memory_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = save(scan(noisy(100, 80, 90), "i2"), tmp_path / "in.nii")
    options = ("--sigma", SIGMA, "--float", "--patch-radius", 0, "--voxel-radii")
    denoised(source, tmp_path / "whole.nii", *options)
    denoised(source, tmp_path / "tiled.nii", *options, "--memory", "17MB", "--verbose")
    assert int(re.findall(r"in (\d+) tiles", caplog.text)[0]) > 1
    np.testing.assert_allclose(values(tmp_path / "tiled.nii"), values(tmp_path / "whole.nii"), rtol=0, atol=1e-6 * 250)


# ---------------------------------------------------------------- the record, the report, what is printed


def test_the_record_says_from_what_and_how(source: Path, target: Path, tmp_path: Path) -> None:
    denoised(source, target, "--method", "auto")
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["input"] == "in.nii.gz"
    assert record["input_sha256"] == paths.sha256(source)
    assert record["nlmeans"] == nlmeans.__version__
    assert record["torch"] == torch.__version__
    assert record["mask"] is record["sigma_map"] is None
    assert record["settings"]["method"] in nlmeans.METHODS
    assert None not in (record["settings"][name] for name in ("sigma", "patch_radius", "search_radius", "device"))


@pytest.mark.parametrize(
    "options",
    [[], ["--sigma", 8, "--h", 6.5], ["--noise", "rician", "--patch-radius", "1,1,0", "--float"], ["--memory", "64MB"]],
    ids=str,
)
@pytest.mark.parametrize("shape", [(24, 25), SHAPE, (*SHAPE, 2)], ids=["2D", "3D", "4D"])
def test_the_record_is_enough_to_repeat_the_run(shape: tuple[int, ...], options: list[object], tmp_path: Path) -> None:
    if len(shape) == 2:
        options = [1 if word == "1,1,0" else word for word in options]
    source = save(scan(noisy(*shape), "i2"), tmp_path / "in.nii")
    denoised(source, tmp_path / "out.nii", *options)
    settings = Settings.from_dict(json.loads((tmp_path / "out.json").read_text())["settings"])
    again = nlmeans.denoise(values(source), **dataclasses.asdict(settings))
    np.testing.assert_array_equal(values(tmp_path / "out.nii"), again)


def test_the_record_tells_estimated_from_given(source: Path, target: Path, tmp_path: Path) -> None:
    for options, estimated in (([], True), (["--sigma", 8, "--overwrite"], False)):
        denoised(source, target, *options)
        assert json.loads((tmp_path / "out.json").read_text())["sigma_estimated"] is estimated


def test_the_same_run_gives_the_same_bytes(source: Path, tmp_path: Path) -> None:
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        denoised(source, folder / "out.nii.gz")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize("shape", [(24, 25), SHAPE, (*SHAPE, 2), (1, 24, 25)], ids=str)
def test_a_report_is_a_picture(shape: tuple[int, ...], tmp_path: Path) -> None:
    source = save(scan(noisy(*shape), "i2"), tmp_path / "in.nii")
    denoised(source, tmp_path / "out.nii", "--report", tmp_path / "out.png")
    height, width, _ = imread(tmp_path / "out.png").shape
    assert min(height, width) > 100


def test_nothing_but_the_outputs_is_written(source: Path, target: Path, tmp_path: Path) -> None:
    before = contents(tmp_path)
    denoised(source, target, "--report", tmp_path / "picture.png")
    after = contents(tmp_path)
    assert set(after) - set(before) == {"out.nii.gz", "out.json", "picture.png"}
    assert after["in.nii.gz"] == before["in.nii.gz"]


def test_overwrite_replaces_all_outputs(source: Path, target: Path, tmp_path: Path) -> None:
    for file in ("out.nii.gz", "out.json", "out.png"):
        (tmp_path / file).write_text("old")
    denoised(source, target, "--overwrite", "--report", tmp_path / "out.png")
    assert values(target).shape == SHAPE
    assert json.loads((tmp_path / "out.json").read_text())["input"] == "in.nii.gz"
    assert imread(tmp_path / "out.png").size


def test_a_program_can_ask_for_the_progress_bar(source: Path, target: Path) -> None:
    """There is no terminal here."""
    assert "100%|" not in call("denoise", source, target, *QUICK).stderr
    assert "100%|" in call("denoise", source, target, *QUICK, "--overwrite", "--progress").stderr


def test_one_line_says_what_was_done_unless_quiet(source: Path, target: Path) -> None:
    assert denoised(source, target, "--sigma", 8) == f"{target}: classic, gaussian noise, sigma 8\n"
    assert denoised(source, target, "--sigma", 8, "--overwrite", "--quiet") == ""


def test_verbose_says_what_was_chosen(source: Path, target: Path, caplog: pytest.LogCaptureFixture) -> None:
    denoised(source, target, "--method", "auto", "--verbose")
    assert "method auto picked" in caplog.text
    assert "found gaussian noise, sigma " in caplog.text
    assert re.search(r"bayes on cpu, gaussian noise, sigma \S+, in 1 tiles", caplog.text)
    caplog.clear()
    denoised(source, target, "--method", "auto", "--overwrite")
    assert not caplog.text  # --verbose applied to the first command only


# ---------------------------------------------------------------- what is wrong, in one line


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one good file and many that cannot be denoised."""
    folder = tmp_path_factory.mktemp("wrong")
    good = save(scan(noisy(*SHAPE), "i2"), folder / "good.nii.gz")
    packed = save(scan(noisy(*SHAPE), "f4"), folder / "whole.nii.gz").read_bytes()
    plain = save(scan(noisy(*SHAPE), "f4"), folder / "whole.nii").read_bytes()
    (folder / "short.nii.gz").write_bytes(packed[: len(packed) // 2])
    (folder / "short.nii").write_bytes(plain[: len(plain) // 2])
    (folder / "checksum.nii.gz").write_bytes(packed[:-8] + bytes(4) + packed[-4:])
    (folder / "hole.nii.gz").write_bytes(packed[:2000] + bytes(200) + packed[2200:])
    (folder / "text.nii.gz").write_text("a letter\nof two lines")
    (folder / "folder.nii").mkdir()
    (folder / "link.nii.gz").symlink_to(good)
    (folder / "old.json").write_text("{}")

    def image(data: npt.NDArray[Any], name: str) -> None:
        save(NIFTI.Nifti1Image(data, RAS), folder / name)

    image(np.where(np.arange(12) == 6, np.inf, noisy(*SHAPE)).astype("f4"), "inf.nii")
    image(np.ones(20, "f4"), "line.nii")
    image(np.ones((3, 3, 3, 1, 2), "f4"), "five.nii")
    image(np.ones((3, 0, 3), "f4"), "empty.nii")
    image(np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")]), "colours.nii")
    image(noisy(*SHAPE).astype("c8"), "complex.nii")
    save(scan(np.ones((10, 11, 11), "u1")), folder / "mask.nii")
    image(np.zeros(SHAPE, "u1"), "zeros.nii")
    save(scan(np.full(SHAPE, -1, "i2")), folder / "below.nii")
    return folder


def assert_one_line(result: Result, message: str) -> None:
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert re.search(message, line)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("none.nii out.nii", r"none\.nii: no such file"),
        ("folder.nii out.nii", r"folder\.nii is a folder"),
        ("text.nii.gz out.nii", r"text\.nii\.gz cannot be read"),
        ("short.nii.gz out.nii", r"short\.nii\.gz cannot be read"),
        ("short.nii out.nii", r"short\.nii cannot be read"),
        ("checksum.nii.gz out.nii", r"checksum\.nii\.gz cannot be read; .*CRC"),
        ("hole.nii.gz out.nii", r"hole\.nii\.gz cannot be read"),
        ("inf.nii out.nii", r"inf\.nii contains infinite values; replace them, for instance by NaN"),
        ("line.nii out.nii", r"line\.nii has shape \(20,\); only 2D, 3D and series"),
        ("five.nii out.nii", r"five\.nii has shape \(3, 3, 3, 1, 2\); only 2D, 3D and series"),
        ("empty.nii out.nii", r"empty\.nii"),
        ("colours.nii out.nii", r"colours\.nii holds colours .* convert it to grey"),
        ("good.nii.gz out.nii --mask complex.nii", r"complex\.nii has dtype complex64; give .* its magnitude"),
        ("good.nii.gz out.nii --sigma -3", r"sigma=-3.0 must not be negative"),
        ("good.nii.gz out.nii --sigma nan", r"sigma=nan must be finite"),
        ("good.nii.gz out.nii --h 0", r"h=0.0 must be greater than 0"),
        ("good.nii.gz out.nii --search-radius 2.5", r"search_radius=2.5 must be whole: .* odd, never 6"),
        ("good.nii.gz out.nii --search-radius 2,2", r"search_radius=\(2, 2\) must have one number per spatial axis: 3"),
        ("good.nii.gz out.nii --patch-radius -1", r"patch_radius=-1.0 must not be negative"),
        (
            "good.nii.gz out.nii --mask mask.nii",
            r"mask\.nii has another .*shape \(10, 11, 11\) instead of \(10, 11, 12\)",
        ),
        ("good.nii.gz out.nii --mask zeros.nii", r"zeros\.nii is zero everywhere"),
        ("good.nii.gz out.nii --mask none.nii", r"none\.nii: no such file"),
        ("good.nii.gz out.nii --sigma-map mask.nii", r"mask\.nii has another grid .*; resample it with --resample"),
        ("good.nii.gz out.nii --sigma-map below.nii", r"sigma=-1.0 must not be negative"),
        (
            "good.nii.gz out.nii --sigma-map whole.nii --sigma 3",
            r"--sigma 3.0 and --sigma-map .* both describe the noise; give one of them",
        ),
        ("good.nii.gz none/out.nii", r"none: no such folder for out\.nii; make it first"),
        ("good.nii.gz out.nii --report none/out.png", r"none: no such folder for out\.png"),
        ("good.nii.gz whole.nii", r"whole\.nii exists; choose another name or add --overwrite"),
        ("good.nii.gz old.nii", r"old\.json exists"),
        ("good.nii.gz good.nii.gz", r"good\.nii\.gz exists"),
        ("good.nii.gz good.nii.gz --overwrite", r"is IN itself, which is never overwritten"),
        ("good.nii.gz link.nii.gz --overwrite", r"is IN itself, which is never overwritten"),
        ("good.nii.gz folder.nii --overwrite", r"folder\.nii is a folder"),
        ("good.nii.gz out.dcm", r"out\.dcm must end in \.nii\.gz or \.nii"),
        ("good.nii.gz out.nii --report out.jpg", r"out\.jpg must end in \.png"),
        (
            "good.nii.gz out.nii --device toaster",
            r"device='toaster' is not available or not known to torch; use one of cpu",
        ),
        ("good.nii.gz out.nii --device cuda:99", r"device='cuda:99' is not available"),
        ("good.nii.gz out.nii --memory plenty", r"memory='plenty' is not an amount of memory; write for instance"),
        ("good.nii.gz out.nii --memory 1MB", r"memory=1000000 bytes is too little"),
    ],
)
def test_a_mistake_gives_one_line_and_leaves_nothing(
    words: str, message: str, wrong: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(wrong)
    monkeypatch.chdir(wrong)
    assert_one_line(call("denoise", *words.split()), message)
    assert contents(wrong) == before


@pytest.mark.parametrize("file", ["none", "folder", "short", "inf", "line", "five", "colours", "complex"])
def test_noise_tells_the_same_mistakes(file: str, wrong: Path) -> None:
    assert_one_line(call("noise", wrong / f"{file}.nii"), rf"{file}\.nii")


@pytest.mark.parametrize(("mask", "message"), [("mask", r"has another grid"), ("zeros", r"is zero everywhere")])
def test_noise_refuses_a_mask_that_does_not_fit(mask: str, message: str, wrong: Path) -> None:
    assert_one_line(call("noise", wrong / "good.nii.gz", "--mask", wrong / f"{mask}.nii"), message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("denoise good.nii.gz out.nii --method magic", "'magic' is not one of 'auto', "),
        ("denoise good.nii.gz out.nii --noise brown", "'brown' is not one of 'auto', 'gaussian', 'rician'"),
        ("denoise good.nii.gz out.nii --backend abacus", "'abacus' is not one of 'auto'"),
        ("denoise good.nii.gz out.nii --sigma much", "'much' is neither a number nor the word map"),
        ("denoise good.nii.gz out.nii --search-radius 3;3", "'3;3' is neither a number nor one number per axis"),
        ("denoise good.nii.gz", "Missing argument 'OUT'"),
        ("denoise good.nii.gz out.nii --sigmoid 3", "No such option.*--sigmoid"),
        ("demo --sample foot", "'foot' is not one of 'head'"),
    ],
)
def test_a_word_that_is_not_known_is_refused_with_those_that_are(
    words: str, message: str, wrong: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(wrong)
    monkeypatch.chdir(wrong)
    result = call(*words.split())
    assert result.exit_code == 2
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("Error: "))
    assert re.search(message, line)
    assert contents(wrong) == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to_is_refused_before_any_work(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    assert_one_line(call("denoise", source, folder / "out.nii"), "may not be written to; choose another")


@pytest.fixture
def old(source: Path, target: Path) -> Iterator[None]:
    """Outputs of an earlier run, which a failing run must not change."""
    for path in (target, target.with_name("out.json"), target.with_name("out.png")):
        path.write_text("old")
    before = contents(source.parent)
    yield
    assert contents(source.parent) == before


@pytest.mark.usefixtures("old")
@pytest.mark.parametrize("where", ["denoise_real", "figure.save_figure"])
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (MemoryError("Unable to allocate 3 TiB"), "Unable to allocate 3 TiB"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory.\nTried to allocate 3 TiB"), "out of memory. Tried to"),
        (nlmeans.Cancelled("cancelled"), "cancelled"),
        (MemoryError(), "MemoryError"),
    ],
    ids=["disk full", "memory full", "GPU full", "cancelled", "without words"],
)
def test_a_run_that_fails_keeps_what_was_there(
    where: str, error: Exception, message: str, source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(f"nlmeans.files.denoise.{where}", fail)
    picture = target.with_name("out.png")
    assert_one_line(call("denoise", source, target, *QUICK, "--overwrite", "--report", picture), message)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Make Ctrl-C raise even if pytest runs in the background, where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("old", "interruptible")
@pytest.mark.parametrize("where", ["denoise_real", "figure.save_figure"])
def test_an_interrupt_keeps_what_was_there(
    where: str, source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"nlmeans.files.denoise.{where}", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    picture = target.with_name("out.png")
    result = call("denoise", source, target, *QUICK, "--overwrite", "--report", picture)
    assert result.exit_code == 130
    assert result.stderr == "Interrupted: nothing was left half-written.\n"


def test_an_interruption_says_whether_the_run_can_be_resumed() -> None:
    assert "resume" in cli.interruption(Path("out.ome.zarr"))
    assert cli.interruption(Path("out.nii.gz")) == "Interrupted: nothing was left half-written."


@pytest.fixture
def files_of_at_most() -> Iterator[Callable[[int], None]]:
    """Limit the size of files, so that writing fails halfway, as on a full disk."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("ending", nifti.ENDINGS)
def test_a_file_that_stops_halfway_does_not_stay(
    ending: str, tmp_path: Path, files_of_at_most: Callable[[int], None]
) -> None:
    source = save(scan(noisy(40, 40, 40), "f8"), tmp_path / f"in{ending}")
    target = tmp_path / f"out{ending}"
    denoised(source, target)  # numba writes its own files here
    before = contents(tmp_path)
    files_of_at_most(100_000)
    result = call("denoise", source, target, *QUICK, "--overwrite")
    files_of_at_most(-1)
    assert_one_line(result, rf"out{ending} cannot be written: File too large")
    assert contents(tmp_path) == before


# ---------------------------------------------------------------- noise, info, demo, help


def flat_scan(folder: Path, *levels: float, signal: float = 200.0) -> Path:
    """A series of flat volumes with one noise level each."""
    rng = np.random.default_rng(3)
    volumes = [signal + level * rng.standard_normal((20, 20, 20)) for level in levels]
    return save(scan(np.stack(volumes, -1) if len(levels) > 1 else volumes[0], "f4"), folder / "flat.nii")


NOISE_LINE = r"gaussian noise, sigma (\S+); mean of the object (\S+), SNR (\S+)"


def test_noise_prints_kind_level_ratio_and_why(tmp_path: Path) -> None:
    mask = save(scan(np.ones((20, 20, 20), "u1")), tmp_path / "mask.nii")
    result = call("noise", flat_scan(tmp_path, 10.0), "--mask", mask)
    first, *reasons = result.stdout.splitlines()
    found = re.fullmatch(NOISE_LINE, first)
    assert found
    sigma, mean, ratio = (float(number) for number in found.groups())
    assert sigma == pytest.approx(10, rel=0.1)
    assert mean == pytest.approx(200, rel=0.01)
    assert ratio == pytest.approx(mean / sigma, abs=0.1)
    assert all(reason.startswith("  - ") for reason in reasons)
    assert "in the mask" in result.stdout
    assert (result.exit_code, result.stderr) == (0, "")


def test_noise_has_a_line_for_each_volume(tmp_path: Path) -> None:
    lines = call("noise", flat_scan(tmp_path, 4.0, 16.0)).stdout.splitlines()
    found = [re.fullmatch(rf"volume \d: {NOISE_LINE}", line) for line in lines if not line.startswith("  - ")]
    assert [float(match[1]) for match in found if match] == pytest.approx([4, 16], rel=0.1)


def test_noise_knows_rician_or_is_told(tmp_path: Path) -> None:
    clean = np.where(np.indices((24, 24, 24)).max(0) < 16, 100, 0)
    real, imaginary = 10 * np.random.default_rng(1).standard_normal((2, *clean.shape))
    source = save(scan(np.hypot(clean + real, imaginary), "f4"), tmp_path / "object.nii")
    for words in ((), ("--noise", "rician")):
        result = call("noise", source, *words)
        assert float(re.findall(r"^rician noise, sigma ([^;,]+)", result.stdout)[0]) == pytest.approx(10, rel=0.1)


def test_noise_of_an_image_without_any(tmp_path: Path) -> None:
    result = call("noise", flat_scan(tmp_path, 0.0))
    assert result.stdout.startswith("gaussian noise, sigma 0; mean of the object 200, SNR infinite\n")


def test_info_names_what_is_there() -> None:
    result = call("info")
    assert result.exit_code == 0
    for word in (nlmeans.__version__, torch.__version__, "Python 3.", "device   cpu: "):
        assert word in result.stdout
    for name in BACKENDS:
        assert f"\nbackend  {name}: " in result.stdout
    for name in nlmeans.METHODS:
        assert f"\nmethod   {name}: " in result.stdout


def test_demo_gains_six_decibels_everywhere_and_in_the_head(tmp_path: Path) -> None:
    result = call("demo", "--out", tmp_path / "new" / "demo")
    assert result.exit_code == 0, result.stderr
    (gains,) = re.findall(r"^gain +(\S+) dB +(\S+) dB +(\S+)$", result.stdout, re.MULTILINE)
    everywhere, inside, similarity = map(float, gains)
    assert everywhere >= 6
    assert inside >= 6
    assert similarity > 0
    assert set(contents(tmp_path / "new" / "demo")) == {"head_denoised.nii.gz", "head_denoised.json", "head.png"}


def test_demo_works_twice_in_a_row(tmp_path: Path) -> None:
    runs = []
    for _ in range(2):
        result = call("demo", "--out", tmp_path, "--sample", "slice")
        assert (result.exit_code, result.stderr) == (0, "")
        runs.append((result.stdout, contents(tmp_path)))
    assert runs[0] == runs[1]
    assert imread(tmp_path / "slice.png").size


def test_demo_into_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert_one_line(call("demo", "--out", tmp_path / "file"), "File exists")


@pytest.mark.parametrize("command", [None, *cli.main.commands])
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_says_what_a_command_does(command: str | None, option: str) -> None:
    result = call(*([command] if command else []), option)
    assert result.exit_code == 0
    about = (cli.main.commands[command] if command else cli.main).help
    assert about
    assert about.split(".")[0].split("\n")[0][:50] in result.stdout


@pytest.fixture
def twice() -> Iterator[str]:
    """A method that another package registers once all modules are imported."""
    method = dataclasses.replace(nlmeans.METHODS["classic"], summary="the method classic by another name")
    nlmeans.METHODS["twice"] = method
    yield "twice"
    del nlmeans.METHODS["twice"]


@pytest.mark.parametrize("command", ["denoise", "batch", "demo"])
def test_help_lists_a_method_registered_later(command: str, twice: str) -> None:
    assert f"series, {twice}." in " ".join(call(command, "--help").stdout.split())


def test_a_method_registered_later_denoises_and_has_its_line_in_info(source: Path, target: Path, twice: str) -> None:
    result = call("denoise", source, target, "--method", twice, "--search-radius", 1, "--device", "cpu", "--sigma", 8)
    assert result.stdout == f"{target}: twice, gaussian noise, sigma 8\n", result.stderr
    spacing = [float(size) for size in NIFTI.load(source).header.get_zooms()]
    expected = nlmeans.denoise(values(source), 8, spacing=spacing, **SAME)
    np.testing.assert_array_equal(values(target), expected)
    assert "\nmethod   twice: the method classic by another name\n" in call("info").stdout


def test_a_method_that_does_not_exist_is_refused_with_all_that_do(source: Path, target: Path, twice: str) -> None:
    result = call("denoise", source, target, "--method", "magic")
    names = ", ".join(map(repr, ("auto", *nlmeans.METHODS)))
    assert result.exit_code == 2
    assert result.stderr.endswith(f"Error: Invalid value for '--method': 'magic' is not one of {names}.\n")
    assert twice in names


def test_help_lists_all_choices() -> None:
    text = " ".join(call("denoise", "--help").stdout.split())
    for names in (("auto", *nlmeans.METHODS), ("auto", *BACKENDS)):
        assert f" One of {', '.join(names)}. " in text
    assert f"[{'|'.join(('auto', *NOISES))}]" in text
    assert f" By default {', '.join(USUAL)}. " in " ".join(call("batch", "--help").stdout.split())


@pytest.mark.parametrize("command", [None, *cli.main.commands])
def test_help_fits_into_80_columns(command: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = CliRunner().invoke(cli.main, [*([command] if command else []), "--help"], terminal_width=80).stdout
    assert max(map(len, text.splitlines())) <= 80
    assert "..." not in text.replace("IN...", "").replace("[ARGS]...", "")  # no sentence is cut off


def test_every_option_says_what_it_does() -> None:
    for command in cli.main.commands.values():
        for option in command.params:
            assert not isinstance(option, click.Option) or option.help, f"{command.name} {option.name}"


def test_version() -> None:
    assert call("--version").stdout.strip().endswith(nlmeans.__version__)


# ---------------------------------------------------------------- as it is really called


SCRIPT = [str(Path(sysconfig.get_path("scripts")) / "nlmeans")]
MODULE = [sys.executable, "-m", "nlmeans.cli"]


def really(program: list[str], *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*program, *map(str, words)], capture_output=True, text=True, check=False)


def test_the_installed_command_denoises(source: Path, target: Path, tmp_path: Path) -> None:
    done = really(SCRIPT, "denoise", source, target, *QUICK, "--report", tmp_path / "out.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{target}: ")
    assert header_on_disk(target) == header_on_disk(source)
    assert set(contents(tmp_path)) == {"in.nii.gz", "out.nii.gz", "out.json", "out.png"}


def test_the_module_says_in_one_line_what_is_wrong(wrong: Path) -> None:
    before = contents(wrong)
    done = really(MODULE, "denoise", wrong / "short.nii.gz", wrong / "out.nii")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    assert contents(wrong) == before


# ---------------------------------------------------------------- what answers without torch


HEAVY = {"torch", "numba", "numpy", "nibabel", "matplotlib", "dask", "zarr", "pydicom", "monai", "tqdm", "psutil"}

NAME_HEAVY = f"""
import sys
from nlmeans import cli
sys.argv[0] = "nlmeans"
try:
    cli.main()
finally:
    print("imported:", *sorted({HEAVY!r} & set(sys.modules)))
"""


def answer(*words: object, **environment: str) -> tuple[int, str, set[str]]:
    """Run the command line in a process of its own; return exit code, output, and the heavy packages it imported."""
    done = subprocess.run(
        [sys.executable, "-c", NAME_HEAVY, *map(str, words)],
        env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    text, _, imported = done.stdout.rpartition("imported:")
    return done.returncode, text + done.stderr, set(imported.split())


@pytest.mark.parametrize("words", ["--help", "--version", *(f"{command} --help" for command in cli.main.commands)])
def test_help_and_version_answer_without_torch(words: str) -> None:
    code, text, imported = answer(*words.split())
    assert (code, imported) == (0, set())
    assert text.startswith(("Usage: nlmeans ", f"nlmeans, version {nlmeans.__version__}"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("denoise good.nii.gz out.nii --sigmoid 3", "No such option"),
        ("denoise good.nii.gz out.nii --method magic", "'magic' is not one of"),
        ("denoise good.nii.gz out.nii --noise brown", "'brown' is not one of"),
        ("denoise good.nii.gz out.nii --backend abacus", "'abacus' is not one of"),
        ("denoise good.nii.gz out.nii --sigma much", "'much' is neither a number nor"),
        ("denoise good.nii.gz out.nii --search-radius 3;3", "'3;3' is neither a number nor"),
        ("denoise good.nii.gz out.nii --coils two", "'two' is not a valid float"),
        ("denoise good.nii.gz", "Missing argument 'OUT'"),
        ("denoise none.nii out.nii", "none.nii: no such file"),
        ("denoise good.nii.gz out.nii --mask none.nii", "none.nii: no such file"),
        ("denoise good.nii.gz out.nii --sigma-map none.nii", "none.nii: no such file"),
        ("denoise good.nii.gz out.nii --phase none.nii", "none.nii: no such file"),
        ("batch good.nii.gz none*.nii --out out", "none*.nii: no such file, folder or match"),
        ("batch good.nii.gz --out out --workers 0", "0 is not in the range"),
        ("noise none.nii", "none.nii: no such file"),
        ("demo --sample foot", "'foot' is not one of"),
        ("denois good.nii.gz out.nii", "No such command"),
    ],
)
def test_wrong_arguments_and_missing_files_are_refused_without_torch(
    words: str, message: str, wrong: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(nlmeans.__file__).parents[1]))
    monkeypatch.chdir(wrong)
    code, text, imported = answer(*words.split())
    assert (code, imported) == (1 if "no such file" in message else 2, set())
    assert message in text


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("den", {"denoise"}), ("denoise --method b", {"bayes", "best"}), ("denoise --meth", {"--method"})],
)
def test_a_shell_is_told_completions_without_torch(typed: str, offered: set[str]) -> None:
    words = ["nlmeans", *typed.split()]
    completion = {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    code, text, imported = answer(_NLMEANS_COMPLETE="bash_complete", **completion)
    assert (code, imported) == (0, set())
    assert {line.removeprefix("plain,") for line in text.splitlines()} == offered


def test_info_imports_torch_and_nothing_else_that_takes_long() -> None:
    code, _, imported = answer("info")
    assert code == 0
    assert imported <= {"torch", "numpy", "psutil", "tqdm"}  # torch imports tqdm
