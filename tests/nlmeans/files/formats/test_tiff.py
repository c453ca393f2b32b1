"""TIFF files are read with their axes and voxel sizes, and written so that ImageJ and OME readers find them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nlmeans.files.formats import nifti, registry
from nlmeans.files.formats.nifti import Scan

tifffile = pytest.importorskip("tifffile")

STACK = np.random.default_rng(0).integers(0, 1000, (5, 6, 7)).astype("u2")


def imagej(path: Path, values: Any = STACK, **about: Any) -> Path:
    metadata = {"axes": "TZCYX"[-values.ndim :], "spacing": 1.5, "unit": "um", **about}
    tifffile.imwrite(path, values, imagej=True, resolution=(1 / 0.2, 1 / 0.3), metadata=metadata)
    return path


def ome(path: Path, values: Any = STACK, axes: str = "ZYX", **about: Any) -> Path:
    sizes = {"PhysicalSizeX": 0.2, "PhysicalSizeY": 0.3, "PhysicalSizeZ": 1.5, **about}
    tifffile.imwrite(path, values, metadata={"axes": axes, **sizes}, photometric="minisblack")
    return path


def again(scan: Scan, path: Path) -> Scan:
    registry.save_scan(scan, scan.data, path, [path])
    return registry.load_scan(path)


@pytest.mark.parametrize("target", ["b.tif", "b.ome.tif"])
@pytest.mark.parametrize("source", ["imagej", "ome"])
def test_axes_and_sizes_come_back(source: str, target: str, tmp_path: Path) -> None:
    made = imagej(tmp_path / "a.tif", axes="ZYX") if source == "imagej" else ome(tmp_path / "a.ome.tif")
    scan = registry.load_scan(made)
    np.testing.assert_array_equal(scan.data, STACK.transpose())
    for one in (scan, again(scan, tmp_path / target)):
        np.testing.assert_allclose(one.spacing, (0.0002, 0.0003, 0.0015), rtol=1e-6)
        np.testing.assert_array_equal(one.data, STACK.transpose())
    with tifffile.TiffFile(tmp_path / target) as file:
        assert file.series[0].axes == "ZYX"
        assert (file.is_ome, file.is_imagej) == (target == "b.ome.tif", target == "b.tif")


@pytest.mark.parametrize("axes", ["TZYX", "CZYX", "TCZYX", "TYX", "CYX"])
def test_all_axes_but_those_of_space_are_volumes_and_come_back(axes: str, tmp_path: Path) -> None:
    shape = [{"T": 2, "C": 3, "Z": 4, "Y": 5, "X": 6}[axis] for axis in axes]
    values = np.random.default_rng(0).random(shape).astype("f4")
    scan = registry.load_scan(ome(tmp_path / "a.ome.tif", values, axes))
    slices, volumes = 4 if "Z" in axes else 1, int(np.prod([shape[axes.index(axis)] for axis in axes if axis in "TC"]))
    assert scan.data.shape == (6, 5, slices, volumes)
    np.testing.assert_array_equal(scan.data[..., 0].T.squeeze(), values[(0,) * (len(axes.strip("XYZ")))])
    for name in ("b.ome.tif", "b.tif"):
        np.testing.assert_array_equal(again(scan, tmp_path / name).data, scan.data)
        with tifffile.TiffFile(tmp_path / name) as file:
            assert file.series[0].shape == values.shape


def test_a_plain_stack_has_slices_of_an_assumed_size(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, metadata=None)
    scan = registry.load_scan(tmp_path / "a.tif")
    assert scan.data.shape == (7, 6, 5)
    assert "has no voxel size along X, Y, Z: 1 mm is assumed" in caplog.text


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "f4", "f8"])
def test_the_type_of_the_values_stays(dtype: str, tmp_path: Path) -> None:
    values = STACK.transpose().astype(dtype)
    path = tmp_path / "a.tif"
    registry.write_format(nifti.in_nifti(values, np.diag([0.8, 0.9, 3, 1])), path, [path])
    found = registry.load_scan(path)
    assert found.data.dtype == values.dtype
    np.testing.assert_array_equal(found.data, values)
    np.testing.assert_allclose(found.spacing, (0.8, 0.9, 3), rtol=1e-6)


def test_time_between_volumes_comes_back(tmp_path: Path) -> None:
    image = nifti.in_nifti(np.ones((4, 5, 6, 3), "f4"), np.eye(4), step=2.5)
    for name in ("a.tif", "a.ome.tif"):
        registry.write_format(image, tmp_path / name, [tmp_path / name])
        assert nifti.seconds_between(registry.load_scan(tmp_path / name).image) == 2.5


@pytest.mark.parametrize(
    ("values", "message"),
    [(np.zeros((6, 7, 3), "u1"), "holds colours"), (None, r"holds 2 images \(YX \(6, 7\); YX \(8, 9\)\)")],
)
def test_what_is_no_one_grey_image_is_refused(values: Any, message: str, tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for one in [values] if values is not None else [np.zeros((6, 7), "u1"), np.zeros((8, 9), "u1")]:
            file.write(one)
    with pytest.raises(ValueError, match=message):
        registry.load_scan(tmp_path / "a.tif")


def test_a_flat_image_stays_flat(tmp_path: Path) -> None:
    image = nifti.in_nifti(STACK[0].T, np.diag([0.8, 0.9, 1, 1]))
    for name in ("a.tif", "a.ome.tif"):
        registry.write_format(image, tmp_path / name, [tmp_path / name])
        found = registry.load_scan(tmp_path / name)
        np.testing.assert_array_equal(found.data, STACK[0].T)
        np.testing.assert_allclose(found.spacing, (0.8, 0.9), rtol=1e-6)


def test_a_compression_without_its_codec_names_the_remedy(tmp_path: Path) -> None:
    pillow = pytest.importorskip("PIL.Image")
    pillow.fromarray(STACK[0]).save(tmp_path / "a.tif", compression="tiff_lzw")
    try:
        np.testing.assert_array_equal(registry.load_scan(tmp_path / "a.tif").data, STACK[0].T)
    except ValueError as error:
        assert "a.tif is compressed as LZW; to read it: pip install imagecodecs" in str(error)  # noqa: PT017
