"""Files that come with nibabel, pydicom and scikit-image, and what these packages find in them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from nibabel.testing import data_path as nibabel_files

from tests.real_files.cases import Build, Built, Values

PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
LPS_TO_RAS = np.diag([-1.0, -1, 1, 1])


def nothing() -> Values:
    return np.zeros(0)


def of_nibabel(name: str, *others: str, time_first: bool = False, values: bool = True) -> Build:
    """A file of nibabel's tests, with those beside it.

    Args:
        name: of the file.
        others: files that lie beside it.
        time_first: its first axis counts volumes, as in MINC.
        values: nibabel can read it.
    """

    def build(folder: Path) -> Built:
        for one in (name, *others):
            shutil.copy(Path(nibabel_files) / one, folder)
        if not values:
            return Built(folder / name, nothing())
        image: Any = nib.load(folder / name) if not name.endswith(".v") else nib.ecat.load(folder / name)
        found = np.asarray(image.dataobj)
        return Built(folder / name, np.moveaxis(found, 0, -1) if time_first else found, image.affine)

    return build


def of_nicom(name: str) -> Build:
    """A DICOM file of nibabel's tests."""

    def build(folder: Path) -> Built:
        shutil.copy(Path(nib.__file__).parent / "nicom" / "tests" / "data" / name, folder)
        return Built(folder / name, nothing())

    return build


def of_pydicom(name: str, values: bool = True) -> Build:
    """A file or folder of pydicom's wheel: rescaled frames of one image, or of a series of single slices.

    Args:
        name: of the file, or of a folder below `dicomdirtests`.
        values: pydicom reads it as volume of grey values.
    """

    def build(folder: Path) -> Built:
        source = next(path for path in (PYDICOM_FILES / name, PYDICOM_FILES / "dicomdirtests" / name) if path.exists())
        path = folder / Path(name).name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, path)
        if not values:
            return Built(path, nothing())
        files = [pydicom.dcmread(file) for file in (path.iterdir() if path.is_dir() else [path])]
        files.sort(key=lambda one: place(one)[2, 3])
        stack = np.concatenate([np.reshape(rescaled(one), (-1, one.Rows, one.Columns)) for one in files])
        affine = place(files[0])
        if len(files) > 1:
            affine[:3, 2] = (place(files[-1]) - place(files[0]))[:3, 3] / (len(files) - 1)
        return Built(path, stack.transpose(2, 1, 0), LPS_TO_RAS @ affine)

    return build


def rescaled(one: Any) -> Values:
    """The values that pixels mean."""
    slope = float(one.get("DoseGridScaling") or one.get("RescaleSlope") or 1)
    intercept = float(one.get("RescaleIntercept") or 0)
    if slope == 1:
        return np.asarray(one.pixel_array.astype("int32") + int(intercept) if intercept else one.pixel_array)
    return np.asarray(one.pixel_array * slope + intercept).astype("float32")


def place(one: Any) -> Values:
    """The affine of an image to left, back and up in mm; at the origin if it does not say."""
    along, down = np.reshape([float(x) for x in one.get("ImageOrientationPatient", (1, 0, 0, 0, 1, 0))], (2, 3))
    sizes = one.get("PixelSpacing") or one.get("ImagerPixelSpacing") or (1, 1)
    one_frame = int(one.get("NumberOfFrames") or 1) == 1
    offsets = (0, one.get("SliceThickness") or 1) if one_frame else one.GridFrameOffsetVector
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = along * float(sizes[1]), down * float(sizes[0])
    affine[:3, 2] = np.cross(along, down) * (float(offsets[1]) - float(offsets[0]))
    affine[:3, 3] = [float(x) for x in one.get("ImagePositionPatient", (0, 0, 0))]
    return affine


def of_scikit_image(name: str) -> Build:
    """A picture that comes with scikit-image."""

    def build(folder: Path) -> Built:
        skimage = pytest.importorskip("skimage")
        shutil.copy(Path(skimage.__file__).parent / "data" / name, folder)
        return Built(folder / name, nothing())

    return build
