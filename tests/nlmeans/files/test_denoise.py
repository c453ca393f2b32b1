"""From file to file: the voxels of `nlmeans.denoise`, a record that says how, and outputs that are checked first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nlmeans
from nlmeans.files import denoise, paths
from tests.nlmeans.scans import contents, header_on_disk, noisy, save, scan, values

SHAPE = (10, 11, 12)
SAME: dict[str, Any] = {"method": "classic", "search_radius": 1, "device": "cpu"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return save(scan(noisy(*SHAPE), "i2"), tmp_path / "in.nii.gz")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out.nii"


def test_the_result_has_the_voxels_of_python_and_the_header_of_the_scan(source: Path, target: Path) -> None:
    said = denoise.denoise_file(source, target, sigma=9.0, voxel_radii=True, **SAME)
    np.testing.assert_array_equal(values(target), nlmeans.denoise(values(source), 9.0, **SAME))
    assert header_on_disk(target) == header_on_disk(source)
    assert said == f"{target}: classic, gaussian noise, sigma 9"


def test_the_record_begins_with_what_the_caller_adds_and_has_both_hashes(source: Path, target: Path) -> None:
    denoise.denoise_file(source, target, about={"Sources": ["a scan"]}, **SAME)
    record = json.loads(target.with_suffix(".json").read_text())
    assert next(iter(record)) == "Sources"
    assert record["input_sha256"] == paths.sha256(source)
    assert record["output_sha256"] == paths.sha256(target)
    assert record["sigma_estimated"] is True
    assert record["settings"]["sigma"] == nlmeans.estimate_sigma(values(source))


def test_a_strength_is_recorded_and_named(source: Path, target: Path) -> None:
    said = denoise.denoise_file(source, target, sigma=9.0, strength=0.5, **SAME)
    record = json.loads(target.with_suffix(".json").read_text())
    assert said == f"{target}: classic at strength 0.5, gaussian noise, sigma 9"
    assert record["settings"]["strength"] == 0.5
    assert "method classic at strength 0.5 (patch-based" in record["boilerplate"]


def test_an_output_that_exists_is_refused_before_the_scan_is_read(source: Path, target: Path, tmp_path: Path) -> None:
    source.write_bytes(b"damaged")
    for name in ("out.nii", "out.json", "out.png"):
        (tmp_path / name).write_text("old")
        before = contents(tmp_path)
        with pytest.raises(FileExistsError, match=rf"{name} exists; choose another name or add --overwrite"):
            denoise.denoise_file(source, target, picture=tmp_path / "out.png", **SAME)
        assert contents(tmp_path) == before
        (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=r"in\.nii\.gz cannot be read"):
        denoise.denoise_file(source, target, **SAME)


def test_zarr_goes_into_zarr_only(tmp_path: Path) -> None:
    (tmp_path / "in.zarr").mkdir()
    (tmp_path / "in.zarr" / "zarr.json").touch()
    (tmp_path / "in.nii").touch()
    assert denoise.wants_zarr(tmp_path / "in.zarr", tmp_path / "out.nii")  # its ending is refused later
    assert not denoise.wants_zarr(tmp_path / "in.nii", tmp_path / "out.nii")
    with pytest.raises(ValueError, match=r"out\.zarr is a zarr image, but .*in\.nii is not; write a \.nii\.gz instead"):
        denoise.wants_zarr(tmp_path / "in.nii", tmp_path / "out.zarr")


def test_the_noise_of_a_file_is_measured_inside_its_mask(source: Path, tmp_path: Path) -> None:
    inside = np.zeros(SHAPE, "u1")
    inside[2:8] = 1
    mask = save(scan(inside), tmp_path / "mask.nii")
    ((_, model, mean),) = denoise.measure_noise(source, "gaussian", mask, None)
    assert model.sigma == nlmeans.estimate_sigma(values(source), mask=inside)
    assert mean == pytest.approx(values(source)[2:8].mean())


@pytest.mark.parametrize("name", ["a.nrrd", "a.mhd", "a.mgz", "a.tif", "a.img"])
def test_any_format_is_denoised_with_its_maps(name: str, source: Path, tmp_path: Path) -> None:
    pytest.importorskip("SimpleITK")
    pytest.importorskip("tifffile")
    image = nlmeans.load_image(source)
    nlmeans.save_image(image, tmp_path / name)
    target, residual = tmp_path / f"out_{name}", tmp_path / f"residual_{name}"
    denoise.denoise_file(tmp_path / name, target, sigma=10.0, method="classic", residual=residual)
    before, after, removed = (
        np.asarray(nlmeans.load_image(path).dataobj, np.float64) for path in (tmp_path / name, target, residual)
    )
    np.testing.assert_allclose(before - removed, after, atol=0.51)
    assert removed.std() > 1
    assert (tmp_path / "out_a.json").is_file()
    nlmeans.save_image(after, tmp_path / "again.nii", like=nlmeans.load_image(target))
    if name != "a.tif":
        np.testing.assert_allclose(nlmeans.load_image(target).affine, image.affine, rtol=0, atol=1e-5)


def test_a_second_file_of_a_result_is_not_written_over(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("SimpleITK")
    (tmp_path / "out.raw").write_text("mine")
    with pytest.raises(FileExistsError, match=r"out\.raw exists"):
        denoise.denoise_file(source, tmp_path / "out.mhd")
    assert (tmp_path / "out.raw").read_text() == "mine"


@pytest.mark.parametrize("pictures", [False, True])
def test_nan_outside_stays_as_in_python(pictures: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = noisy(12, 13, 14).astype("f4")
    data[:, :4] = np.nan
    path = save(scan(data), tmp_path / "in.nii")
    drawn = {"picture": tmp_path / "a.png", "noise_picture": tmp_path / "b.png"} if pictures else {}
    denoise.denoise_file(path, tmp_path / "out.nii", method="classic", device="cpu", **drawn)
    assert "NaN: they count as outside" in caplog.text
    found = values(tmp_path / "out.nii")
    np.testing.assert_array_equal(np.isnan(found), np.isnan(data))
    record = json.loads((tmp_path / "out.json").read_text())
    assert np.isfinite(record["quality"]["signal"])
    spacing = nlmeans.load_image(path).header.get_zooms()
    expected = nlmeans.denoise(data, method="classic", spacing=[float(size) for size in spacing])
    np.testing.assert_array_equal(found, expected)


def test_nan_in_a_mask_is_outside(source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mask = np.ones(SHAPE, "f4")
    mask[:5] = np.nan
    save(scan(mask), tmp_path / "mask.nii")
    denoise.denoise_file(source, tmp_path / "out.nii", sigma=10.0, mask_file=tmp_path / "mask.nii", **SAME)
    found, before = values(tmp_path / "out.nii"), values(source)
    np.testing.assert_array_equal(found[:5], before[:5])
    assert (found[5:] != before[5:]).any()
    assert "mask.nii has NaN, which counts as 0" in caplog.text
