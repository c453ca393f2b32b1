"""``nlmeans denoise`` gives the voxels of Python and the header of the input, and records how."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from nibabel.testing import data_path

import nlmeans
from nlmeans import Settings
from nlmeans.files import paths
from nlmeans.files.formats import nifti
from tests.nlmeans.cli.calls import QUICK, SAME, SEEDED, SHAPE, call, denoised
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


@pytest.mark.usefixtures("plain_pictures")
def test_nothing_but_the_outputs_is_written(source: Path, target: Path, tmp_path: Path) -> None:
    before = contents(tmp_path)
    denoised(source, target, "--report", tmp_path / "picture.png")
    after = contents(tmp_path)
    assert set(after) - set(before) == {"out.nii.gz", "out.json", "picture.png"}
    assert after["in.nii.gz"] == before["in.nii.gz"]


@pytest.mark.usefixtures("plain_pictures")
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
    assert re.search(r"best on cpu, gaussian noise, sigma \S+, in 1 tiles", caplog.text)
    caplog.clear()
    denoised(source, target, "--method", "auto", "--overwrite")
    assert not caplog.text  # --verbose applied to the first command only
