"""Maps beside a denoised file: their values, their geometry, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nlmeans
from nlmeans.files.denoise import denoise_file
from nlmeans.files.formats.nifti import read_nifti
from nlmeans.files.maps import MapFiles, map_image
from tests.nlmeans.scans import NIFTI, contents, noisy, save, scan, values
from tests.nlmeans.volumes import decaying_series


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return save(scan(decaying_series(10, 5.0)[1], "i2"), tmp_path / "dwi.nii.gz")


def test_maps_lie_where_the_scan_lies_and_hold_what_python_gives(source: Path, tmp_path: Path) -> None:
    names = ("noise_map", "residual", "rank_map")
    denoise_file(source, tmp_path / "out.nii.gz", device="cpu", **{n: tmp_path / f"{n}.nii.gz" for n in names})
    expected = nlmeans.denoise_with_maps(values(source), series=3, spacing=read_nifti(source).spacing)
    for name in names:
        file = NIFTI.load(tmp_path / f"{name}.nii.gz")
        np.testing.assert_allclose(file.get_fdata(), getattr(expected, name), rtol=1e-6)
        assert file.get_data_dtype() == np.float32
        np.testing.assert_array_equal(file.affine, NIFTI.load(source).affine)
    assert NIFTI.load(tmp_path / "noise_map.nii.gz").shape == (12, 13, 14)


def test_a_map_is_shown_from_its_smallest_to_its_largest_value(source: Path) -> None:
    image = map_image(read_nifti(source), np.ones((12, 13, 14)))
    assert (image.header["cal_min"], image.header["cal_max"]) == (0, 0)


def test_a_rank_is_refused_from_a_method_that_has_none(tmp_path: Path) -> None:
    MapFiles(rank_map=tmp_path / "rank.nii").check(joint=True, has_phase=False)
    source = save(scan(noisy(8, 9, 10), "i2"), tmp_path / "in.nii")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"--rank-map .*rank.nii is for volumes that are denoised together"):
        denoise_file(source, tmp_path / "out.nii", rank_map=tmp_path / "rank.nii")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["dwi.nii.gz", "out.nii.gz", "other.nii.gz"])
def test_no_map_takes_the_place_of_another_file(source: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises((ValueError, FileExistsError), match=r"the input or another output as well|exists"):
        denoise_file(source, tmp_path / "out.nii.gz", residual=tmp_path / name, noise_map=tmp_path / "other.nii.gz")


def test_zarr_images_have_no_maps(tmp_path: Path) -> None:
    (tmp_path / "in.zarr").mkdir()
    (tmp_path / "in.zarr" / "zarr.json").touch()
    with pytest.raises(ValueError, match=r"in.zarr is a zarr image, for which there are no maps and no phase"):
        denoise_file(tmp_path / "in.zarr", tmp_path / "out.zarr", noise_map=tmp_path / "n.nii")
