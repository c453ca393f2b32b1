"""Scans of any format: read with their mask, and measured as the formulas say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import nlmeans
from nlmeans.core.layout import Layout
from nlmeans.files import scan as scans
from nlmeans.files.formats import nifti
from nlmeans.files.formats.nifti import Scan
from tests.nlmeans.scans import NIFTI, RAS, SIGMA, noisy, save, scan
from tests.nlmeans.volumes import gaussian

SHAPE = (16, 17, 18)


def read(data: npt.NDArray[Any], folder: Path) -> Scan:
    return nifti.read_nifti(save(NIFTI.Nifti1Image(data, RAS), folder / "scan.nii"))


def half(*shape: int) -> npt.NDArray[np.float64]:
    """A volume that is 200 in one half and 0 in the other."""
    volume = np.zeros(shape)
    volume[: shape[0] // 2] = 200
    return volume


# ---------------------------------------------------------------- reading


def test_files_and_folders_of_dicom_are_read(tmp_path: Path) -> None:
    data = noisy(*SHAPE).clip(0).astype("i2")
    path = save(scan(data), tmp_path / "scan.nii.gz")
    np.testing.assert_array_equal(scans.read_scan(path).data, data)
    pytest.importorskip("highdicom")
    from tests.nlmeans.series import write_series

    write_series(tmp_path / "series", data)
    np.testing.assert_array_equal(scans.read_scan(tmp_path / "series", "3").data, data)


def test_a_series_cannot_be_chosen_in_a_file(tmp_path: Path) -> None:
    path = save(scan(noisy(*SHAPE)), tmp_path / "scan.nii")
    with pytest.raises(ValueError, match=r"--dicom-series 3 is for a folder of DICOM files, which .* is not; leave it"):
        scans.read_scan(path, "3")


def test_a_mask_must_have_the_spatial_shape_and_some_voxels(tmp_path: Path) -> None:
    layout = Layout.of(noisy(*SHAPE, 2), None, 3, "volume")
    ones = np.ones(SHAPE, "u1")
    volume = nifti.read_nifti(save(scan(noisy(*SHAPE)), tmp_path / "volume.nii"))
    found = scans.read_mask_or_map(save(scan(ones), tmp_path / "mask.nii"), layout, volume)
    assert found is not None
    np.testing.assert_array_equal(np.asarray(found), ones)
    assert scans.read_mask_or_map(None, layout, volume) is None
    with pytest.raises(ValueError, match=r"zeros\.nii is zero everywhere"):
        scans.read_mask_or_map(save(scan(0 * ones), tmp_path / "zeros.nii"), layout, volume)
    with pytest.raises(ValueError, match=r"small\.nii has another grid .* shape"):
        scans.read_mask_or_map(save(scan(ones[1:]), tmp_path / "small.nii"), layout, volume)


# ---------------------------------------------------------------- noise


def test_noise_is_that_of_each_volume_of_a_series(tmp_path: Path) -> None:
    levels = (4.0, 16.0)
    data = np.stack([gaussian(half(*SHAPE), level, seed) for seed, level in enumerate(levels)], -1)
    found = scans.noise_of_volumes(read(data.astype("f4"), tmp_path), "gaussian", None)
    np.testing.assert_allclose([one.model.sigma for one in found], levels, rtol=0.15)
    assert [one.name for one in found] == ["volume 0", "volume 1"]


def test_padding_takes_no_part_in_sigma_and_in_the_object(tmp_path: Path) -> None:
    data = gaussian(half(*SHAPE), SIGMA).astype("f4")
    inside = np.ones(SHAPE, bool)
    inside[:, :8] = False
    padded = np.where(inside, data, -2000).astype("f4")
    whole, round_one = read(data, tmp_path), Scan(Path("round"), padded, None, inside=inside)
    (level,), (found,) = (scans.noise_of_volumes(one, "gaussian", None) for one in (whole, round_one))
    assert found.model.sigma == pytest.approx(level.model.sigma, rel=0.25)
    np.testing.assert_array_equal(scans.object_mask(round_one, 0, None), (half(*SHAPE) > 0) & inside)


def test_a_single_volume_has_no_name_and_the_mean_of_its_object(tmp_path: Path) -> None:
    volume = gaussian(half(*SHAPE), SIGMA).astype("f4")
    ((name, model, mean),) = scans.noise_of_volumes(read(volume, tmp_path), "gaussian", None)
    assert name == ""
    assert model.sigma == nlmeans.estimate_sigma(volume)
    assert mean == pytest.approx(float(volume[:8].mean()), rel=1e-5)


# ---------------------------------------------------------------- quality


def test_the_object_is_the_mask_or_what_is_bright(tmp_path: Path) -> None:
    bright = read(gaussian(half(*SHAPE), SIGMA).astype("f4"), tmp_path)
    np.testing.assert_array_equal(scans.object_mask(bright, 0, None), half(*SHAPE) > 0)
    mask = np.zeros(SHAPE, "u1")
    mask[3] = 5
    np.testing.assert_array_equal(scans.object_mask(bright, 0, mask), mask == 5)
    assert scans.object_mean(bright, 0, mask) == pytest.approx(float(bright.data[3].mean()), rel=1e-5)
    assert scans.object_mean(bright, 0, 0 * mask) == 0


@pytest.mark.parametrize("sigma", [None, (0.0,), (8.0,)])
def test_quality_of_a_volume_is_as_the_formulas_say(sigma: Any, tmp_path: Path) -> None:
    before = gaussian(half(*SHAPE), SIGMA)
    after = before + gaussian(np.zeros(SHAPE), 3.0, seed=1)
    found = scans.quality(read(before, tmp_path), after, sigma, None)
    inside = half(*SHAPE) > 0
    assert found["signal"] == pytest.approx(before[inside].mean())
    assert found["removed"] == pytest.approx((before - after)[inside].std())
    assert found["snr"] == (pytest.approx(before[inside].mean() / 8) if sigma == (8.0,) else None)


def test_quality_of_a_series_has_a_number_for_each_volume(tmp_path: Path) -> None:
    before = np.stack([gaussian(half(*SHAPE), SIGMA, seed) for seed in range(3)], -1)
    after = before - np.array([1.0, 2.0, 3.0]) * np.random.default_rng(0).standard_normal(before.shape)
    mask = np.ones(SHAPE, "u1")
    found = scans.quality(read(before, tmp_path), after, (10.0, 20.0, 40.0), mask)
    flat = before.reshape(-1, 3)
    np.testing.assert_allclose(found["signal"], flat.mean(0))
    np.testing.assert_allclose(found["snr"], flat.mean(0) / [10, 20, 40])
    np.testing.assert_allclose(found["removed"], (before - after).reshape(-1, 3).std(0))
