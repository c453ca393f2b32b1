"""Images of other packages are denoised as their voxels are, and come back as they were but for these."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from nlmeans import denoise, denoise_with_maps, estimate_noise, estimate_sigma, preview, usual_h
from nlmeans.core import wrapped
from tests.nlmeans.scans import NIFTI, OBLIQUE, noisy

SHAPE = (10, 11, 12)
QUICK: dict[str, Any] = {"method": "classic", "device": "cpu"}


def thick() -> Any:
    """Voxels of 1 × 1 × 5 mm, which makes the search window flat."""
    return np.diag([1.0, 1, 5, 1])


@pytest.mark.parametrize("dtype", ["i2", "f4"])
def test_an_image_of_nibabel_keeps_header_and_type(dtype: str) -> None:
    data = noisy(*SHAPE).astype(dtype)
    image = NIFTI.Nifti1Image(data, thick())
    image.header["descrip"] = b"kept"
    found = denoise(image, 10.0, **QUICK)
    assert type(found) is type(image)
    np.testing.assert_array_equal(found.affine, image.affine)
    assert found.header["descrip"] == b"kept"
    assert found.get_data_dtype() == np.dtype(dtype)
    expected = denoise(data, 10.0, spacing=(1, 1, 5), **QUICK)
    np.testing.assert_array_equal(np.asarray(found.dataobj), expected)
    assert (expected != denoise(data, 10.0, **QUICK)).any()
    np.testing.assert_array_equal(
        np.asarray(denoise(image, 10.0, spacing=None, **QUICK).dataobj), denoise(data, 10.0, **QUICK)
    )


@pytest.mark.parametrize("kind", ["MGHImage", "Nifti2Image", "Nifti1Pair"])
def test_other_images_of_nibabel_stay_what_they_are(kind: str) -> None:
    image = getattr(NIFTI, kind)(noisy(*SHAPE).astype("f4"), OBLIQUE)
    found = denoise(image, 10.0, **QUICK)
    assert type(found) is type(image)
    np.testing.assert_allclose(found.affine, image.affine)


def test_the_fourth_axis_of_an_image_counts_volumes() -> None:
    data = noisy(*SHAPE, 3).astype("f4")
    found = denoise(NIFTI.Nifti1Image(data, np.eye(4)), 10.0, **QUICK)
    expected = denoise(data, 10.0, series=3, spacing=(1, 1, 1), **QUICK)
    np.testing.assert_array_equal(np.asarray(found.dataobj), expected)


@pytest.mark.parametrize("shape", [(10, 11, 12, 1, 1), (10, 11, 12, 3, 2)])
def test_an_image_of_five_axes_keeps_them(shape: tuple[int, ...]) -> None:
    data = noisy(*SHAPE, int(np.prod(shape[3:]))).astype("i2")
    found = denoise(NIFTI.Nifti1Image(data.reshape(shape), thick()), 10.0, **QUICK)
    expected = denoise(data, 10.0, series=3, spacing=(1, 1, 5), **QUICK)
    np.testing.assert_array_equal(np.asarray(found.dataobj), expected.reshape(shape))


def test_an_image_may_know_what_made_it() -> None:
    magnitudes = np.hypot(*(noisy(24, 24, 24, seed=seed) - 60 for seed in (0, 1))).astype("f4")
    image = NIFTI.Nifti1Image(magnitudes, np.eye(4), extra={"modality": "CT"})
    assert estimate_noise(magnitudes).kind == "rician"
    assert (estimate_noise(image).kind, estimate_noise(image, modality="MR").kind) == ("gaussian", "rician")
    plain = denoise(magnitudes, modality="CT", spacing=(1, 1, 1), **QUICK)
    np.testing.assert_array_equal(np.asarray(denoise(image, **QUICK).dataobj), plain)


def test_a_mask_must_lie_where_the_image_lies() -> None:
    data, mask = noisy(*SHAPE).astype("f4"), (noisy(*SHAPE) > 60).astype("u1")
    image = NIFTI.Nifti1Image(data, OBLIQUE)
    found = denoise(image, 10.0, mask=NIFTI.Nifti1Image(mask, OBLIQUE), **QUICK)
    plain = denoise(image, 10.0, mask=mask, **QUICK)
    np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(plain.dataobj))
    with pytest.raises(ValueError, match="mask lies elsewhere than the volume"):
        denoise(image, 10.0, mask=NIFTI.Nifti1Image(mask, np.eye(4)), **QUICK)


def test_the_noise_of_an_image_is_that_of_its_voxels() -> None:
    data = noisy(24, 24, 24, 2).astype("f4")
    image = NIFTI.Nifti1Image(data, np.eye(4))
    np.testing.assert_array_equal(estimate_sigma(image), estimate_sigma(data, series=3))
    one = image.slicer[..., 0]
    assert estimate_noise(one) == estimate_noise(np.asarray(one.dataobj))
    assert estimate_sigma(one, map=True).shape == (24, 24, 24)


def test_there_is_no_out_for_an_image() -> None:
    with pytest.raises(ValueError, match=r"out= does not work with a Nifti1Image"):
        denoise(NIFTI.Nifti1Image(noisy(*SHAPE), np.eye(4)), 10.0, out=np.zeros(SHAPE))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_an_image_of_simpleitk_keeps_geometry_and_metadata(dimensions: int) -> None:
    sitk = pytest.importorskip("SimpleITK")
    data = noisy(*SHAPE).astype("i2")
    data = data if dimensions == 3 else data[0]
    image = sitk.GetImageFromArray(data)
    spacing = (5.0, 1.0, 1.0)[-dimensions:]
    image.SetSpacing(spacing)
    image.SetOrigin((3.0, 4.0, 5.0)[:dimensions])
    image.SetMetaData("scanner", "of a test")
    found = denoise(image, 10.0, **QUICK)
    assert isinstance(found, sitk.Image)
    assert (found.GetSpacing(), found.GetOrigin()) == (image.GetSpacing(), image.GetOrigin())
    assert found.GetMetaData("scanner") == "of a test"
    assert found.GetPixelID() == image.GetPixelID()
    expected = denoise(data, 10.0, spacing=spacing[::-1], **QUICK)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found), expected)


@pytest.mark.parametrize("vectors", [False, True])
def test_times_and_components_of_simpleitk_are_volumes(vectors: bool) -> None:
    sitk = pytest.importorskip("SimpleITK")
    data = noisy(*SHAPE, 3).astype("f4")
    axis = 3 if vectors else 0
    image = sitk.GetImageFromArray(np.ascontiguousarray(np.moveaxis(data, 3, axis)), isVector=vectors)
    found = denoise(image, 10.0, **QUICK)
    assert found.GetSize() == image.GetSize()
    expected = denoise(data, 10.0, series=3, spacing=(1, 1, 1), **QUICK)
    np.testing.assert_array_equal(np.moveaxis(sitk.GetArrayFromImage(found), axis, 3), expected)
    mask = sitk.GetImageFromArray(np.ones(SHAPE, "u1"))
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(denoise(image, 10.0, mask=mask, **QUICK)), sitk.GetArrayFromImage(found)
    )
    mask.SetOrigin((50, 0, 0))
    with pytest.raises(ValueError, match="mask lies elsewhere"):
        denoise(image, 10.0, mask=mask, **QUICK)


def test_a_data_array_keeps_dims_coords_and_attributes() -> None:
    xarray = pytest.importorskip("xarray")
    data = noisy(*SHAPE).astype("f4")
    coords = {"z": 5.0 * np.arange(10), "y": np.arange(11.0), "x": ("x", np.arange(12.0), {"units": "mm"})}
    image = xarray.DataArray(data, coords, ("z", "y", "x"), "scan", {"scanner": "of a test"})
    found = denoise(image, 10.0, **QUICK)
    assert isinstance(found, xarray.DataArray)
    assert (found.dims, found.name, found.attrs) == (image.dims, "scan", image.attrs)
    assert found.x.attrs == {"units": "mm"}
    np.testing.assert_array_equal(found.z, image.z)
    np.testing.assert_array_equal(found.values, denoise(data, 10.0, spacing=(5, 1, 1), **QUICK))
    np.testing.assert_array_equal(image.values, data)


def test_axes_of_a_data_array_have_names() -> None:
    xarray = pytest.importorskip("xarray")
    data = noisy(*SHAPE, 3).astype("f4")
    image = xarray.DataArray(data, dims=("x", "y", "z", "time"))
    found = denoise(image, 10.0, series="time", **QUICK)
    np.testing.assert_array_equal(found.values, denoise(data, 10.0, series=3, **QUICK))
    mask = (noisy(*SHAPE) > 60).astype("u1")
    turned = xarray.DataArray(mask, dims=("x", "y", "z")).transpose("z", "x", "y")
    np.testing.assert_array_equal(
        denoise(image, 10.0, series="time", mask=turned, **QUICK).values,
        denoise(data, 10.0, series=3, mask=mask, **QUICK),
    )
    with pytest.raises(ValueError, match=r"series='echo' is no axis of the volume, whose axes are \('x', 'y', 'z'"):
        denoise(image, 10.0, series="echo", **QUICK)
    with pytest.raises(ValueError, match="4 spatial axes"):
        denoise(image, 10.0, **QUICK)


def test_a_data_array_over_dask_stays_lazy() -> None:
    xarray, da = pytest.importorskip("xarray"), pytest.importorskip("dask.array")
    data = noisy(*SHAPE).astype("f4")
    found = denoise(xarray.DataArray(da.from_array(data, chunks=6), dims=("z", "y", "x")), 10.0, **QUICK)
    assert isinstance(found.data, da.Array)
    np.testing.assert_allclose(found.compute().values, denoise(data, 10.0, **QUICK), rtol=1e-5)


def test_arrays_are_left_alone_and_import_nothing() -> None:
    assert wrapped.taken_apart(np.ones(3)) is None
    code = (
        "import sys, numpy, nlmeans; nlmeans.denoise(numpy.ones((5, 6, 7)));"
        "print(*{'xarray', 'SimpleITK', 'nibabel'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# ---------------------------------------------------------------- maps and previews

SERIES = noisy(*SHAPE, 8).astype("f4")


def test_maps_of_an_image_of_nibabel_lie_where_it_lies() -> None:
    image = NIFTI.Nifti1Image(SERIES, OBLIQUE)
    sizes = np.linalg.norm(OBLIQUE[:3, :3], axis=0)
    found = denoise_with_maps(image, method="series")
    plain = denoise_with_maps(SERIES, method="series", series=3, spacing=tuple(sizes))
    for one, other in zip(found, plain, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_array_equal(np.asarray(one.dataobj), other)
            np.testing.assert_allclose(one.affine, OBLIQUE)
            assert type(one) is type(image)
    noise: Any = found.noise_map
    assert noise.shape == SHAPE == noise.header.get_data_shape()


@pytest.mark.parametrize("vectors", [False, True])
def test_maps_of_an_image_of_simpleitk_lie_where_it_lies(vectors: bool) -> None:
    sitk = pytest.importorskip("SimpleITK")
    axis = 3 if vectors else 0
    image = sitk.GetImageFromArray(np.ascontiguousarray(np.moveaxis(SERIES, 3, axis)), isVector=vectors)
    image.SetOrigin((3.0, 4, 5) if vectors else (3.0, 4, 5, 0))
    image.SetMetaData("scanner", "of a test")
    found: Any = denoise_with_maps(image, method="series")
    assert found.residual.GetSize() == found.volume.GetSize() == image.GetSize()
    assert found.noise_map.GetSize() == found.rank_map.GetSize() == SHAPE[::-1]
    assert found.noise_map.GetOrigin() == (3, 4, 5)
    assert found.rank_map.GetMetaData("scanner") == "of a test"
    plain = denoise_with_maps(SERIES, method="series", series=3, spacing=(1, 1, 1))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found.noise_map), plain.noise_map)


def test_maps_of_a_data_array_keep_its_names() -> None:
    xarray = pytest.importorskip("xarray")
    image = xarray.DataArray(SERIES, {"z": 2.0 * np.arange(10)}, ("z", "y", "x", "time"))
    found: Any = denoise_with_maps(image, method="series", series="time")
    assert found.residual.dims == image.dims
    assert found.noise_map.dims == ("z", "y", "x")
    np.testing.assert_array_equal(found.rank_map.z, image.z)
    np.testing.assert_allclose(found.volume + found.residual, image, rtol=1e-6)


def test_a_preview_of_an_image_is_that_slice_of_the_result() -> None:
    image = NIFTI.Nifti1Image(noisy(*SHAPE).astype("f4"), OBLIQUE)
    whole = denoise(image, 10.0, **QUICK)
    one = preview(image, -3, 1, 10.0, **QUICK)
    assert one.shape == (10, 1, 12)
    np.testing.assert_allclose(np.asarray(one.dataobj)[:, 0], np.asarray(whole.dataobj)[:, 8], rtol=1e-5)
    np.testing.assert_allclose(one.affine, whole.slicer[:, 8:9].affine)


def test_a_preview_of_another_image_lies_where_its_slice_lies() -> None:
    sitk, xarray = pytest.importorskip("SimpleITK"), pytest.importorskip("xarray")
    data = noisy(*SHAPE).astype("f4")
    image = sitk.GetImageFromArray(data)
    image.SetOrigin((3.0, 4, 5))
    image.SetSpacing((1.0, 1, 2))
    one = preview(image, 4, 0, 10.0, **QUICK)
    assert (one.GetSize(), one.GetOrigin()) == ((12, 11, 1), (3, 4, 13))
    np.testing.assert_allclose(
        sitk.GetArrayFromImage(one)[0], preview(data, 4, 0, 10.0, spacing=(2, 1, 1), **QUICK), rtol=1e-5
    )
    array = xarray.DataArray(data, {"z": 2.0 * np.arange(10)}, ("z", "y", "x"))
    flat = preview(array, 4, 0, 10.0, spacing=None, **QUICK)
    assert flat.dims == ("y", "x")
    assert float(flat.z) == 8
    np.testing.assert_allclose(flat.values, preview(data, 4, 0, 10.0, **QUICK), rtol=1e-5)


def test_the_usual_h_of_an_image_is_that_of_its_voxels() -> None:
    data = noisy(*SHAPE).astype("f4")
    assert usual_h(NIFTI.Nifti1Image(data, thick()), 10.0, method="classic") == usual_h(
        data, 10.0, method="classic", spacing=(1, 1, 5)
    )
