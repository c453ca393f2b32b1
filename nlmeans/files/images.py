"""Read an image of any format in Python, and write one with the geometry of another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from nlmeans.core import arrays
from nlmeans.files import atomic, paths
from nlmeans.files.formats import nifti, registry
from nlmeans.files.scan import read_scan


def load_image(path: Path | str, *, dicom_series: str | None = None) -> Any:
    """Read an image file of any format that ``nlmeans info`` lists, or a DICOM series from a folder.

    Args:
        path: the file or folder. A zarr image is not read whole; see `nlmeans.denoise_zarr`.
        dicom_series: number or UID of the series, if the folder holds several.

    Returns:
        An image of nibabel in the convention of NIfTI: axes (X, Y), (X, Y, Z) or (X, Y, Z, T), with an affine to right,
        front and up in mm. ``image.dataobj`` has the values, and ``image.extra`` what only the file's own format holds.

    Raises:
        OSError: there is no such file or folder.
        ValueError, TypeError: the format is not known or its library is missing; or the file is damaged, or no image.

    Example:
        >>> from nlmeans import samples
        >>> image = load_image(samples.path("head"))
        >>> image.shape, [round(float(size), 2) for size in image.header.get_zooms()]
        ((86, 108, 76), [2.0, 2.0, 2.0])
    """
    path = Path(path)
    if paths.is_zarr(path):
        raise ValueError(f"{path} is a zarr image, which may be larger than memory; see nlmeans.denoise_zarr")
    return read_scan(path, dicom_series, complex_too=True).image


def save_image(image: Any, path: Path | str, *, like: Any = None, overwrite: bool = False) -> None:
    """Write an image in the format that the ending of `path` stands for.

    What the format cannot hold, such as the orientation in a TIFF file, is logged as a warning.

    Args:
        image: an image of nibabel or SimpleITK; or an array of the shape of `like`, or of one volume of it.
        path: the file to write. It appears when it is complete.
        like: an image of nibabel or SimpleITK that has the geometry, if `image` is an array.
        overwrite: replace `path` if it exists.

    Raises:
        TypeError: `image` is neither an image nor an array, or the format has no such numbers.
        ValueError: the ending stands for no format that can be written, or the shape differs from that of `like`.
        OSError: the file exists, or cannot be written.

    Example:
        >>> import tempfile
        >>> from nlmeans import samples
        >>> image = load_image(samples.path("slice"))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_image(2 * image.get_fdata(), f"{folder}/twice.mgz", like=image)
        ...     load_image(f"{folder}/twice.mgz").shape
        (256, 256, 1)
    """
    path = Path(path)
    made = with_geometry(image, like)
    registry.check_written(path)
    paths.check_output_file(path, overwrite, registry.WRITTEN)
    scan = nifti.Scan(path, np.asarray(made.dataobj), made)
    with atomic.written_together(*registry.files_of(path), overwrite=overwrite) as files:
        registry.save_scan(scan, scan.data, path, files)


def with_geometry(image: Any, like: Any) -> Any:
    """Return an image of NIfTI: `image` itself, or an array where `like` lies."""
    made = as_nifti(image)
    if made is not None:
        return made
    values: npt.NDArray[Any] = np.asarray(arrays.check_array(image, "image"))
    like = as_nifti(like)
    if like is None:
        raise TypeError("image is an array, which has no geometry: give like=, an image that lies in the same place")
    if values.shape not in (like.shape, like.shape[:3]):
        raise ValueError(f"image has shape {values.shape}, but like= has {like.shape}; give an array of that shape")
    kind: Any = nib.Nifti2Image if isinstance(like.header, nib.Nifti2Header) else nib.Nifti1Image
    values = nifti.of_nifti(values)
    made = kind(values, None, like.header, extra=like.extra)
    made.set_data_dtype(values.dtype)
    return made


def as_nifti(image: Any) -> Any:
    """Return an image of nibabel or SimpleITK as one of NIfTI; None if it is neither."""
    if isinstance(image, nib.Nifti1Pair):
        return image
    if isinstance(image, nib.spatialimages.SpatialImage):
        return nifti.in_nifti(np.asarray(image.dataobj), image.affine)
    if type(image).__module__.partition(".")[0] == "SimpleITK":
        from nlmeans.files.formats.itk import nifti_of_itk

        return nifti_of_itk(image)
    return None
