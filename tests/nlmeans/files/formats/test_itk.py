"""NRRD and MetaImage keep geometry, metadata and vectors, and agree with SimpleITK."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nlmeans.files.formats import nifti, registry
from tests.nlmeans.scans import noisy

sitk = pytest.importorskip("SimpleITK")

from nlmeans.files.formats import itk  # noqa: E402  # needs SimpleITK

TURN = np.linalg.qr(np.random.default_rng(3).standard_normal((3, 3)))[0]


def volume() -> sitk.Image:
    image = sitk.GetImageFromArray(noisy(8, 7, 6).astype("i2"))
    image.SetSpacing((0.9, 1.1, 2.5))
    image.SetOrigin((10, -20, 30))
    image.SetDirection(TURN.ravel().tolist())
    image.SetMetaData("scanner", "of a test")
    return image


@pytest.mark.parametrize("name", ["a.nrrd", "a.nhdr", "a.mha", "a.mhd"])
def test_every_voxel_lies_where_simpleitk_puts_it(name: str, tmp_path: Path) -> None:
    image = volume()
    sitk.WriteImage(image, str(tmp_path / name))
    found = registry.load_scan(tmp_path / name)
    for index in ((0, 0, 0), (5, 6, 7), (1, 2, 3)):
        left, back, up = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(found.image.affine @ [*index, 1], [-left, -back, up, 1], atol=1e-5)
        assert found.data[index] == image[index]


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_metadata_and_geometry_come_back(name: str, tmp_path: Path) -> None:
    sitk.WriteImage(volume(), str(tmp_path / name))
    before = registry.load_scan(tmp_path / name)
    path = tmp_path / f"b{name}"
    registry.save_scan(before, before.data, path, [path])
    after = sitk.ReadImage(str(path))
    np.testing.assert_allclose(after.GetDirection(), TURN.ravel(), atol=1e-6)
    np.testing.assert_allclose(after.GetOrigin(), (10, -20, 30), atol=1e-5)
    np.testing.assert_allclose(after.GetSpacing(), (0.9, 1.1, 2.5), rtol=1e-6)
    assert after.GetMetaData("scanner") == "of a test"
    assert after.GetPixelID() == sitk.sitkInt16


def test_components_of_a_voxel_are_volumes_and_come_back_as_components(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((5, 4, 3, 7)).astype("f4")
    sitk.WriteImage(sitk.GetImageFromArray(values, isVector=True), str(tmp_path / "a.nrrd"))
    scan = registry.load_scan(tmp_path / "a.nrrd")
    assert scan.data.shape == (3, 4, 5, 7)
    np.testing.assert_array_equal(scan.data, values.transpose(2, 1, 0, 3))
    registry.save_scan(scan, scan.data, tmp_path / "b.nrrd", [tmp_path / "b.nrrd"])
    after = sitk.ReadImage(str(tmp_path / "b.nrrd"))
    assert after.GetNumberOfComponentsPerPixel() == 7
    np.testing.assert_array_equal(sitk.GetArrayFromImage(after), values)


def test_a_flat_image_stays_flat() -> None:
    image = sitk.GetImageFromArray(noisy(7, 6).astype("u1"))
    image.SetSpacing((0.5, 2))
    image.SetOrigin((3, 4))
    after = itk.itk_of_nifti(itk.nifti_of_itk(image))
    assert (after.GetSize(), after.GetSpacing(), after.GetOrigin()) == ((6, 7), (0.5, 2), (3, 4))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(after), sitk.GetArrayFromImage(image))


@pytest.mark.parametrize("shape", [(4, 5, 6), (3, 4, 5, 2)])
def test_complex_numbers_come_back_from_nrrd_and_are_refused_for_metaimage(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    values = (noisy(*shape) + 1j * noisy(*shape, seed=1)).astype("c8")
    image = nifti.in_nifti(values, np.eye(4))
    registry.write_format(image, tmp_path / "b.nrrd", [tmp_path / "b.nrrd"])
    np.testing.assert_array_equal(registry.load_scan(tmp_path / "b.nrrd", complex_too=True).data, values)
    with pytest.raises(TypeError, match=r"b\.mha cannot hold complex numbers; write a \.nii\.gz instead"):
        registry.write_format(image, tmp_path / "b.mha", [tmp_path / "b.mha"])
    assert not (tmp_path / "b.mha").exists()


def test_colours_are_refused(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 5, 6, 3), "u1"), isVector=True), str(tmp_path / "a.mha"))
    with pytest.raises(ValueError, match=r"a\.mha holds colours"):
        registry.load_scan(tmp_path / "a.mha")
