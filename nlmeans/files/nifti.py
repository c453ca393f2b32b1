"""NIfTI in and out: what is denoised keeps its header."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from nlmeans.core import arrays
from nlmeans.files import atomic, nifti_header

ENDINGS = (".nii.gz", ".nii")


@dataclass(frozen=True)
class Scan:
    """An image file: its values with their scaling applied, and the image that they came from."""

    path: Path
    data: npt.NDArray[Any]
    """(X, Y), (X, Y, Z) or (X, Y, Z, T); integers if the file holds unscaled integers, else floating point."""
    image: Any
    inside: npt.NDArray[np.bool_] | None = dataclasses.field(default=None, kw_only=True)
    """Where something was measured; None for everywhere."""

    @property
    def series(self) -> int | None:
        """The axis of time, directions or echoes, if there is one."""
        return 3 if self.data.ndim == 4 else None

    def volume(self, index: int, data: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """One volume of the scan, or of an array like it."""
        data = self.data if data is None else data
        return data if self.series is None else data[..., index]

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """Voxel size along the spatial axes, in the file's unit of length; None where the header gives none."""
        sizes = tuple(float(size) for size in self.image.header.get_zooms()[: min(self.data.ndim, 3)])
        return sizes if all(np.isfinite(sizes)) and all(size > 0 for size in sizes) else None


def read(path: Path | str) -> Scan:
    """Read an image that nibabel knows, NIfTI above all.

    Raises ``FileNotFoundError``; ``ValueError`` or ``TypeError`` where the file is damaged or holds something else than
    finite real numbers.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name the file in it")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if not path.is_file():
        raise ValueError(f"{path} is no regular file; copy what comes out of it into one")
    with errors_naming(path):
        nifti_header.check(path)
        image: Any = nib.load(path)
    if not isinstance(image, nib.spatialimages.SpatialImage):
        raise TypeError(f"{path} is a {type(image).__name__}, which has no voxels")
    if image.get_data_dtype().names is not None:
        raise TypeError(f"{path} holds colours ({image.get_data_dtype()}), not intensities; convert it to grey first")
    with errors_naming(path):
        if isinstance(image, nib.Nifti1Pair) and not image.header.is_single:
            nifti_header.check(Path(str(image.file_map["header"].filename)))
            nifti_header.check_length(Path(str(image.file_map["image"].filename)), image.header)
        data = np.asarray(image.dataobj)
    arrays.value_range(arrays.checked(data, str(path)), str(path))
    while data.ndim > 4 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim not in (2, 3, 4):
        raise ValueError(f"{path} has shape {image.shape}; only 2D, 3D and 4D (a series of volumes) can be denoised")
    return Scan(path, data, image)


def is_zarr(path: Path) -> bool:
    """Whether a folder is a zarr group or array."""
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))


@contextlib.contextmanager
def errors_naming(path: Path) -> Iterator[None]:
    """What goes wrong while a file is read, as an error that names it: readers of damaged files raise anything."""
    try:
        yield
    except MemoryError as error:
        raise MemoryError(f"{path} does not fit into the memory that is free: {error}") from error
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith(str(path)):
            raise
        raise ValueError(
            f"{path} cannot be read, it may be damaged or no image: {' '.join(str(error).split())}"
        ) from error


def like(scan: Scan, data: npt.NDArray[Any], keep_type: bool = True) -> Any:
    """An image of `data` with the header of `scan`: affine, qform, sform, units, intent, description, extensions.

    `data` has the shape of the scan, or of one volume of its series. With `keep_type` the values are stored as they
    were in `scan`, scaled integers with their slope and intercept; otherwise as float32. Of a format other than NIfTI
    the affine is kept, and the type of the values after scaling.
    """
    header, shape = scan.image.header, scan.image.shape
    data = data.reshape(shape if data.size == scan.data.size else shape[:3])
    if not isinstance(header, nib.Nifti1Header):
        data = data if keep_type else data.astype(np.float32)
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
        data = data.astype(np.float32)
    kind: Any = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    image = kind(data, None, header)
    image.set_data_dtype(data.dtype)
    if (slope, intercept) != (1, 0):
        image.header.set_slope_inter(slope, intercept)
    return image


def write(image: Any, path: Path) -> None:
    """Unlike nibabel's own saving, this closes the file whatever happens, so that it can be removed everywhere."""
    with nib.openers.ImageOpener(str(path), "wb") as file:
        image.to_stream(file)


def check_output(path: Path, overwrite: bool, endings: Sequence[str] = ENDINGS) -> None:
    """Refuse, before any work, what could not be written after it."""
    if not path.name.endswith(tuple(endings)):
        raise ValueError(f"{path} must end in {' or '.join(endings)}")
    atomic.check_folder(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; choose another name")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; choose another name or add --overwrite")


def real(path: Path) -> Path:
    """Where links lead; `Path.resolve` raises RuntimeError for one that leads to itself."""
    return Path(os.path.realpath(path))


def apart(one: Path, other: Path) -> bool:
    """Whether neither is the other, or lies in it."""
    here, there = real(one), real(other)
    return here != there and here not in there.parents and there not in here.parents


def sha256(path: Path) -> str:
    """Of a file, or of the files in a folder, in the order of their names."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
