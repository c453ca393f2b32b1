"""Read NIfTI files, and write a result with the header of the scan that it was made from."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from nlmeans.core import arrays
from nlmeans.core.wrapped import with_volumes_last
from nlmeans.files.formats import nifti_header
from nlmeans.files.paths import check_regular, errors_naming

log = logging.getLogger("nlmeans")

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
        ValueError, TypeError: the file is damaged, or holds anything but numbers in 2D to 5D, which may be NaN outside.
    """
    path = Path(path)
    return scan_of(path, read_file(path), complex_too)


def scan_of(path: Path, image: Any, complex_too: bool = False) -> Scan:
    """Take the values of an image, and check that they can be denoised."""
    with errors_naming(path):
        data = np.asarray(image.dataobj)
    for numbers in (data.real, data.imag) if complex_too and arrays.is_complex(data) else (data,):
        check_values(numbers, path)
    data = with_volumes_last(data)
    if data.ndim not in (2, 3, 4):
        raise ValueError(f"{path} has shape {image.shape}; only 2D, 3D and series of volumes can be denoised")
    return Scan(path, data, image)


def check_values(numbers: npt.NDArray[Any], path: Path) -> None:
    """Raise an error unless an array holds numbers that can be denoised; NaN stands for voxels outside.

    Raises:
        ValueError, TypeError: the values are infinite, NaN everywhere, or no real numbers.
    """
    low, high = arrays.known_range(arrays.check_array(numbers, str(path)), str(path))
    if low > high:
        raise ValueError(f"{path} is NaN everywhere, so there is nothing to denoise; check how it was made")


def read_file(path: Path) -> Any:
    """Read a file of NIfTI, or of another format of nibabel, as a NIfTI image."""
    if path.name.lower().endswith(".v"):
        return read_ecat(path)
    image = open_file(path)
    if isinstance(image, nib.Nifti1Pair):
        return image
    zooms, extra = image.header.get_zooms(), {}
    if isinstance(image, nib.AnalyzeImage):
        log.warning(
            "%s is Analyze, which does not say where right and left are: as nibabel, they are taken from x", path
        )
        extra = {"analyze": True}
    with errors_naming(path):
        return in_nifti(np.asarray(image.dataobj), image.affine, float(zooms[3]) if len(zooms) > 3 else None, extra)


def read_ecat(path: Path) -> Any:
    """Read a PET image of ECAT 7, which nibabel's ``load`` leaves out, as a NIfTI image. Frames are volumes."""
    check_regular(path)
    with errors_naming(path), path.open("rb") as file:  # nibabel's own load leaves it open
        holder = nib.fileholders.FileHolder(str(path), file)
        image: Any = nib.ecat.EcatImage.from_file_map({"header": holder, "image": holder})
        return in_nifti(np.asarray(image.dataobj), image.affine)


def open_file(path: Path) -> Any:
    """Open a file with nibabel, and check that it is an undamaged image of intensities."""
    check_regular(path)
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
    return image


LONGEST_AXIS = 32767
"""Voxels along an axis that the header of NIfTI-1 can count."""


def in_nifti(
    data: npt.NDArray[Any],
    affine: npt.NDArray[np.float64],
    step: float | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Any:
    """Make a NIfTI image of what was read from another format.

    Args:
        data: values, (X, Y), (X, Y, Z) or (X, Y, Z, T).
        affine: from voxels to mm, right, front and up (RAS).
        step: seconds between volumes.
        extra: what else the file holds that its own format can store again.

    >>> image = in_nifti(np.ones((2, 3, 4, 5)), np.diag([1, 2, 3, 1]), step=2.5)
    >>> [float(size) for size in image.header.get_zooms()]
    [1.0, 2.0, 3.0, 2.5]
    """
    data = of_nifti(data)
    kind: Any = nib.Nifti1Image if max(data.shape) <= LONGEST_AXIS else nib.Nifti2Image
    image = kind(data, affine, dtype=data.dtype, extra=extra)
    image.set_qform(affine, code="scanner")
    image.set_sform(affine, code="scanner")
    sizes = np.linalg.norm(np.asarray(affine)[:3, :3], axis=0)
    image.header.set_zooms((*sizes, *((step or 0,) * (data.ndim - 3)))[: data.ndim])
    image.header.set_xyzt_units("mm", "sec" if step else None)
    return image


def of_nifti(data: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Convert values to a type that NIfTI has, in the byte order of this machine.

    >>> of_nifti(np.array([True])).dtype.name, of_nifti(np.ones(1, ">f2")).dtype.name
    ('uint8', 'float32')
    """
    wider = {"bool": "uint8", "float16": "float32"}.get(data.dtype.name)
    return data.astype(wider or data.dtype.newbyteorder("="), copy=False)


def is_scaled(image: Any) -> bool:
    """Whether the file of an image stores its values with a slope or an intercept."""
    return nib.is_proxy(image.dataobj) and (float(image.dataobj.slope), float(image.dataobj.inter)) != (1, 0)


def seconds_between(image: Any) -> float | None:
    """Time between the volumes of a NIfTI image; None if the header gives none in a unit of time."""
    zooms, unit = image.header.get_zooms(), image.header.get_xyzt_units()[1]
    scale = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}.get(unit)
    return float(zooms[3]) * scale if len(zooms) > 3 and scale and zooms[3] > 0 else None


def millimetres(image: Any) -> npt.NDArray[np.float64]:
    """The affine of a NIfTI image in mm, whatever its unit of length."""
    scale = {"meter": 1e3, "micron": 1e-3}.get(image.header.get_xyzt_units()[0], 1.0)
    return np.asarray(np.diag([scale, scale, scale, 1.0]) @ image.header.get_best_affine())


def image_like(scan: Scan, data: npt.NDArray[Any], keep_type: bool = True) -> Any:
    """Make an image of `data` with the header of `scan`: affine, qform, sform, units, intent, description, extensions.

    Args:
        scan: where the header comes from.
        data: values with the shape of the scan, or of one volume of its series.
        keep_type: store the values as `scan` does, integers with their slope and intercept; otherwise as float32, or
            as complex64.
    """
    header, shape = scan.image.header, scan.image.shape
    plain = np.complex64 if arrays.is_complex(data) else np.float32
    data = data.reshape(shape if data.size == scan.data.size else shape[:3])
    slope, intercept = 1.0, 0.0
    if keep_type:
        stored = scan.image.get_data_dtype()
        if nib.is_proxy(scan.image.dataobj):
            slope, intercept = float(scan.image.dataobj.slope), float(scan.image.dataobj.inter)
        if (slope, intercept) != (1, 0):
            data = (data.astype(np.float64) - intercept) / slope
        if stored.kind in "ui" and data.dtype != stored:
            data = arrays.to_integers(data, stored)
        data = data.astype(stored)
    else:
        data = data.astype(plain)
    kind: Any = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    image = kind(data, None, header, extra=scan.image.extra)
    image.set_data_dtype(data.dtype)
    if (slope, intercept) != (1, 0):
        image.header.set_slope_inter(slope, intercept)
    return image


def write_file(image: Any, path: Path, name: Path) -> None:
    """Write a NIfTI image as one file, or as a pair with the endings .hdr and .img."""
    if path.name.lower().endswith(nifti_header.PAIRS):
        pair: Any = nib.Nifti2Pair if isinstance(image.header, nib.Nifti2Header) else nib.Nifti1Pair
        header = pair.header_class(image.header.binaryblock, image.header.endianness, check=False)
        header["magic"], header["vox_offset"] = header.pair_magic, 0
        made = pair(image.dataobj, None, header)
        if image.header.get_slope_inter() != (None, None):
            made.header.set_slope_inter(*image.header.get_slope_inter())
        made.to_filename(path)
    else:
        write_nifti(image, path)


def write_nifti(image: Any, path: Path) -> None:
    """Write a NIfTI image and close the file even if writing fails, which nibabel's own ``save`` does not.

    Some operating systems cannot remove a file that is still open.
    """
    with nib.openers.ImageOpener(str(path), "wb") as file:
        image.to_stream(file)
