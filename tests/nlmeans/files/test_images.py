"""Images of any format are read and written in Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nlmeans
from nlmeans.files.formats import nifti
from tests.nlmeans.scans import LPS, NIFTI, noisy

pytest.importorskip("SimpleITK")


@pytest.mark.parametrize("name", ["b.nii", "b.mgz", "b.nrrd"])
def test_an_array_is_written_where_an_image_lies(name: str, tmp_path: Path) -> None:
    NIFTI.Nifti1Image(noisy(6, 7, 8).astype("i2"), LPS).to_filename(tmp_path / "a.nii.gz")
    image = nlmeans.load_image(tmp_path / "a.nii.gz")
    values = np.asarray(image.dataobj).astype("f4") + 0.5
    nlmeans.save_image(values, tmp_path / name, like=image)
    found = nlmeans.load_image(str(tmp_path / name))
    np.testing.assert_array_equal(np.asarray(found.dataobj), values)
    np.testing.assert_allclose(found.affine, LPS)


def test_an_image_keeps_its_type_and_scaling(tmp_path: Path) -> None:
    image = NIFTI.Nifti1Image(np.arange(60, dtype="i2").reshape(3, 4, 5), LPS)
    image.header.set_slope_inter(0.5, -3)
    image.to_filename(tmp_path / "a.nii")
    nlmeans.save_image(nlmeans.load_image(tmp_path / "a.nii"), tmp_path / "b.nii")
    assert (tmp_path / "a.nii").read_bytes() == (tmp_path / "b.nii").read_bytes()


def test_an_image_of_simpleitk_is_written_where_it_lies(tmp_path: Path) -> None:
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(noisy(8, 7, 6).astype("i2"))
    image.SetOrigin((1, 2, 3))
    image.SetSpacing((2, 3, 4))
    nlmeans.save_image(image, tmp_path / "a.nii")
    found = nlmeans.load_image(tmp_path / "a.nii")
    np.testing.assert_allclose(found.affine, np.diag([-2, -3, 4, 1]) + np.array([[0, 0, 0, v] for v in (-1, -2, 3, 0)]))
    np.testing.assert_array_equal(np.asarray(found.dataobj), sitk.GetArrayFromImage(image).T)


def test_what_is_lost_is_said_of_the_file_that_is_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    nlmeans.save_image(nifti.in_nifti(np.ones((3, 4, 5), "f4"), LPS), tmp_path / "a.npy")
    assert caplog.messages == [
        f"{tmp_path / 'a.npy'} holds the values alone: no voxel size, no orientation, no position"
    ]


def test_nothing_is_replaced_unless_asked(tmp_path: Path) -> None:
    image = nifti.in_nifti(np.ones((3, 4, 5), "f4"), LPS)
    nlmeans.save_image(image, tmp_path / "a.mhd")
    with pytest.raises(FileExistsError):
        nlmeans.save_image(image, tmp_path / "a.mhd")
    nlmeans.save_image(image, tmp_path / "a.mhd", overwrite=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.mhd", "a.raw"]


def test_an_array_without_geometry_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="give like="):
        nlmeans.save_image(np.ones((3, 4, 5)), tmp_path / "a.nii")
    image = nifti.in_nifti(np.ones((3, 4, 5), "f4"), LPS)
    with pytest.raises(ValueError, match=r"image has shape \(3, 4\), but like= has \(3, 4, 5\)"):
        nlmeans.save_image(np.ones((3, 4)), tmp_path / "a.nii", like=image)
    assert list(tmp_path.iterdir()) == []
