"""Small NIfTI files with every header field set, and how to read these fields back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from nlmeans.files.paths import sha256
from tests.nlmeans.volumes import gaussian, piecewise

NIFTI: Any = nib  # nibabel's calls carry no types

SIGMA = 10.0

RAS = np.array([[2.0, 0, 0, -9], [0, 3, 0, -11], [0, 0, 4, -13], [0, 0, 0, 1]])
LPS = np.array([[-2.0, 0, 0, 9], [0, -3, 0, 11], [0, 0, 4, -13], [0, 0, 0, 1]])
SAGITTAL = np.array([[0.0, 0, 4, -9], [2, 0, 0, -11], [0, -3, 0, 13], [0, 0, 0, 1]])
"""Slices from left to right; within each the first index runs to the front, the second down."""

OBLIQUE = np.array([[1.9, -0.6, 0.3, -9], [0.5, 2.8, 0.7, -11], [-0.4, -0.9, 3.9, -13], [0, 0, 0, 1]])


def noisy(*shape: int, seed: int = 0) -> npt.NDArray[np.float64]:
    """Values from about 20 to 230 with noise of level `SIGMA`, different in each volume of a series."""
    clean = np.maximum(piecewise(*shape[:3]), 50.0)
    return gaussian(np.broadcast_to(clean[..., None], shape) if len(shape) == 4 else clean, SIGMA, seed)


def scan(
    data: npt.NDArray[Any],
    dtype: str | None = None,
    affine: npt.NDArray[np.float64] = OBLIQUE,
    *,
    scaling: tuple[float, float] | None = None,
    version: int = 1,
) -> Any:
    """An image stored as `dtype`, in either byte order, with every header field set."""
    data = data if dtype is None else data.astype(dtype)
    kind = {1: NIFTI.Nifti1Image, 2: NIFTI.Nifti2Image}[version]
    order = "big" if data.dtype.str.startswith(">") else "little"
    header = kind.header_class(endianness=order)
    header.set_data_dtype(data.dtype)
    image = kind(data, None, header)
    header = image.header
    header.set_zooms(tuple(np.linalg.norm(affine[:3, :3], axis=0))[: data.ndim] + (2.5,) * (data.ndim == 4))
    header.set_qform(affine, code="scanner", strip_shears=True)
    header.set_sform(affine + np.diag([0, 0, 0.25, 0]), code="mni")
    header.set_xyzt_units("mm", "sec")
    header.set_intent("t test", (7,), name="contrast")
    header.set_dim_info(freq=0, phase=1)
    header["descrip"], header["aux_file"] = b"made for a test", b"colours.lut"
    header["cal_min"], header["cal_max"], header["toffset"] = 5, 180, 1.5
    if data.ndim > 2:
        header.set_dim_info(freq=0, phase=1, slice=2)
        header["slice_end"], header["slice_code"], header["slice_duration"] = data.shape[2] - 1, 1, 0.25
    header.extensions.append(NIFTI.nifti1.Nifti1Extension("comment", b"kept as it is"))
    if scaling is not None:
        header.set_slope_inter(*scaling)
    return image


def save(image: Any, path: Path) -> Path:
    image.to_filename(path)
    return path


def values(path: Path) -> npt.NDArray[Any]:
    """The values with their scaling applied."""
    return np.asarray(NIFTI.load(path).dataobj)


def header_on_disk(path: Path) -> dict[str, Any]:
    """Read every field of the header from the file, with its byte order, its extensions and its two affines.

    The offset of the voxels is left out. A slope of 0 or NaN means the same as 1: nothing is scaled.
    """
    image = NIFTI.load(path)
    with NIFTI.openers.ImageOpener(path) as file:
        header = type(image.header).from_fileobj(file, check=False)
    fields = {name: header[name].tolist() for name in header if name != "vox_offset"}
    slope, intercept = fields.pop("scl_slope"), fields.pop("scl_inter")
    return fields | {
        "scaling": (slope, intercept) if slope and np.isfinite(slope) else (1.0, 0.0),
        "byte order": header.endianness,
        "extensions": [(e.get_code(), e.get_content()) for e in image.header.extensions],
        "qform": image.get_qform().tolist(),
        "sform": image.get_sform().tolist(),
    }


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def contents(folder: Path) -> dict[str, str]:
    """Hash every file below a folder, hidden ones too."""
    return {str(file.relative_to(folder)): sha256(file) for file in folder.rglob("*") if file.is_file()}
