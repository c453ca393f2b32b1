"""Read NIfTI files, and write a result with the header of the scan that it was made from."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from nlmeans.core import arrays
from nlmeans.files.formats import nifti_header
from nlmeans.files.paths import check_exists, errors_naming

ENDINGS = (".nii.gz", ".nii")


@dataclass(frozen=True)
class Scan:
    """A scan: its values after scaling, and the nibabel image that they were read from."""

    path: Path
    data: npt.NDArray[Any]
    """(X, Y), (X, Y, Z) or (X, Y, Z, T), where T counts volumes and echoes; integers if the file holds unscaled
    integers, else floating point, or complex where that was asked for."""
    image: Any
    inside: npt.NDArray[np.bool_] | None = dataclasses.field(default=None, kw_only=True)
    """Voxels that were measured, in contrast to padding; None for all."""
    modality: str | None = dataclasses.field(default=None, kw_only=True)
    """DICOM's code of what made the image, such as ``"MR"``, where the file says it."""

    @property
    def series(self) -> int | None:
        """The axis of time, directions or echoes, if there is one."""
        return 3 if self.data.ndim == 4 else None

    def volume(self, index: int, data: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """One volume of the scan, or of another array with the same axes."""
        data = self.data if data is None else data
        return data if self.series is None else data[..., index]

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """Voxel size along the spatial axes, in the file's unit of length; None if the header gives no valid size."""
        sizes = tuple(float(size) for size in self.image.header.get_zooms()[: min(self.data.ndim, 3)])
        return sizes if all(np.isfinite(sizes)) and all(size > 0 for size in sizes) else None


def read_nifti(path: Path | str, complex_too: bool = False) -> Scan:
    """Read a NIfTI file, or an image of another format that nibabel can read.

    Args:
        path: the file.
        complex_too: accept complex numbers as well.

    Raises:
        OSError: there is no such file, or it is a folder.
        ValueError, TypeError: the file is damaged, or holds anything but finite numbers in 2D to 5D.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name the file in it")
    check_exists(path)
    if not path.is_file():
        raise ValueError(f"{path} is not a regular file; copy its content to one and name that")
    with errors_naming(path):
        nifti_header.check_header(path)
        image: Any = nib.load(path)
    if not isinstance(image, nib.spatialimages.SpatialImage):
        raise TypeError(f"{path} is a {type(image).__name__}, which has no voxels")
    if image.get_data_dtype().names is not None:
        raise TypeError(f"{path} holds colours ({image.get_data_dtype()}), not intensities; convert it to grey first")
    with errors_naming(path):
        if isinstance(image, nib.Nifti1Pair) and not image.header.is_single:
            nifti_header.check_header(Path(str(image.file_map["header"].filename)))
            nifti_header.check_length(Path(str(image.file_map["image"].filename)), image.header)
        data = np.asarray(image.dataobj)
    for numbers in (data.real, data.imag) if complex_too and arrays.is_complex(data) else (data,):
        arrays.value_range(arrays.check_array(numbers, str(path)), str(path))
    while data.ndim > 4 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim == 5 and data.shape[3] > 1:  # several echoes of a series; with one volume, the last axis is a vector
        data = data.reshape(*data.shape[:3], -1)
    if data.ndim not in (2, 3, 4):
        raise ValueError(f"{path} has shape {image.shape}; only 2D, 3D and series of volumes can be denoised")
    return Scan(path, data, image)


def image_like(scan: Scan, data: npt.NDArray[Any], keep_type: bool = True) -> Any:
    """Make an image of `data` with the header of `scan`: affine, qform, sform, units, intent, description, extensions.

    If `scan` is not NIfTI, only its affine, its voxel size and the type of its values after scaling are kept.

    Args:
        scan: where the header comes from.
        data: values with the shape of the scan, or of one volume of its series.
        keep_type: store the values as `scan` does, integers with their slope and intercept; otherwise as float32, or
            as complex64.
    """
    header, shape = scan.image.header, scan.image.shape
    plain = np.complex64 if arrays.is_complex(data) else np.float32
    data = data.reshape(shape if data.size == scan.data.size else shape[:3])
    if not isinstance(header, nib.Nifti1Header):
        data = data if keep_type else data.astype(plain)
        image: Any = nib.Nifti1Image(data, scan.image.affine, dtype=data.dtype)
        image.header.set_zooms(header.get_zooms()[: data.ndim])
        return image
    slope, intercept = 1.0, 0.0
    if keep_type:
        stored = scan.image.get_data_dtype()
        if nib.is_proxy(scan.image.dataobj):
            slope, intercept = float(scan.image.dataobj.slope), float(scan.image.dataobj.inter)
        if (slope, intercept) != (1, 0):
            data = (data.astype(np.float64) - intercept) / slope
        if stored.kind in "ui" and data.dtype != stored:
            data = arrays.clip_to_integers(np.rint(data.astype(np.float64)), stored)
        data = data.astype(stored)
    else:
        data = data.astype(plain)
    kind: Any = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    image = kind(data, None, header)
    image.set_data_dtype(data.dtype)
    if (slope, intercept) != (1, 0):
        image.header.set_slope_inter(slope, intercept)
    return image


def write_nifti(image: Any, path: Path) -> None:
    """Write an image and close the file even if writing fails, which nibabel's own ``save`` does not.

    Some operating systems cannot remove a file that is still open.
    """
    with nib.openers.ImageOpener(str(path), "wb") as file:
        image.to_stream(file)
