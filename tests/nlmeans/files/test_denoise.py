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
