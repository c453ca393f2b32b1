"""Bring an image that goes with a scan, such as a mask, to the voxels of the scan, by where both lie in the patient."""

from __future__ import annotations

import itertools
import logging
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.orientations import aff2axcodes, apply_orientation, inv_ornt_aff, io_orientation

from nlmeans.files.formats.geometry import SAME_PLACE, Affine
from nlmeans.files.formats.nifti import Scan, in_nifti, millimetres
from nlmeans.files.formats.registry import needs_extra

log = logging.getLogger("nlmeans")


def on_grid_of(scan: Scan, other: Scan, resample: bool = False, order: int = 0) -> npt.NDArray[Any]:
    """Return the values of another image on the voxels of a scan.

    An image of the same grid whose axes are stored in another order or direction is reoriented, which is logged. If
    either file does not say where it lies, the voxels are taken as they are.

    Args:
        scan: the scan.
        other: the image that goes with it. It may lack the axis of volumes.
        resample: interpolate an image of another grid, instead of refusing it.
        order: 0 to take the nearest voxel, as for masks; 1 to interpolate linearly.

    Returns:
        Values with the spatial shape of the scan, if the grids agree or `resample` is given.

    Raises:
        ValueError: `other` has another grid, and `resample` is False; or its library is missing.
    """
    data = fitted(other.data, scan.data.ndim)
    if not (is_placed(scan.image) and is_placed(other.image)) or data.ndim < 3 or scan.data.ndim < 3:
        return data
    here, there = millimetres(scan.image), millimetres(other.image)
    shape = scan.data.shape[:3]
    turned = reoriented(data, there, shape, here)
    if turned is not None:
        codes = ["".join(aff2axcodes(affine)) for affine in (there, here)]
        if codes[0] != codes[1]:
            log.warning("%s was reoriented from %s to %s, as %s is stored", other.path, *codes, scan.path)
        return turned
    if not resample:
        raise ValueError(
            f"{other.path} has another grid than {scan.path}: {difference(there, data.shape, here, shape)}; resample "
            "it with --resample, or, if its header is wrong, give it that of the scan"
        )
    with needs_extra("formats", f"to resample {other.path}"):
        from nibabel.processing import resample_from_to
    log.warning("%s was resampled to the grid of %s", other.path, scan.path)
    target = (shape + data.shape[3:], here)
    mode = "constant" if order == 0 else "nearest"
    return np.asarray(resample_from_to(in_nifti(data, there), target, order=order, mode=mode).dataobj)


def reoriented(data: npt.NDArray[Any], there: Affine, shape: tuple[int, ...], here: Affine) -> npt.NDArray[Any] | None:
    """Turn an image of the same grid whose axes are stored in another order or direction.

    Args:
        data: values, whose first three axes are spatial.
        there: from its voxels to mm.
        shape: spatial shape of the grid.
        here: from the voxels of the grid to mm.

    Returns:
        The values as the grid is stored; None if `data` has another grid.
    """
    between = np.linalg.inv(here) @ there
    turn = io_orientation(between)
    if np.isnan(turn).any():
        return None
    turned = apply_orientation(data, turn)
    if turned.shape[:3] != tuple(shape) or not is_same(between @ inv_ornt_aff(turn, data.shape[:3]), turned.shape[:3]):
        return None
    return np.ascontiguousarray(turned)


def fitted(data: npt.NDArray[Any], axes: int) -> npt.NDArray[Any]:
    """Drop trailing axes of one voxel beyond the number of axes, or add one for the slice of a flat image."""
    while data.ndim > min(axes, 3) and data.shape[-1] == 1:
        data = data[..., 0]
    return data[..., None] if data.ndim == 2 and axes == 3 else data


def is_placed(image: Any) -> bool:
    """Whether the file of an image says where it lies in the patient."""
    if set(image.extra or {}) & {"npy", "tiff", "analyze", "unplaced"}:
        return False
    return bool(image.header["qform_code"] > 0 or image.header["sform_code"] > 0)


def is_same(between: Affine, shape: tuple[int, ...]) -> bool:
    """Whether a map between two grids leaves all corners of a box of voxels in place."""
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, n - 1) for n in shape))], np.float64)
    return bool(np.abs(corners @ (between - np.eye(4)).T).max() <= SAME_PLACE)


def difference(there: Affine, its_shape: tuple[int, ...], here: Affine, shape: tuple[int, ...]) -> str:
    """Say in what two grids differ.

    >>> difference(np.diag([9, 9, 9, 1]), (4, 5, 6), np.diag([2, 2, 2, 1]), (4, 5, 6))
    'voxels of 9 × 9 × 9 mm instead of 2 × 2 × 2 mm, centres 24.7 mm apart'
    """
    said = []
    if tuple(its_shape[:3]) != tuple(shape):
        said.append(f"shape {tuple(its_shape[:3])} instead of {tuple(shape)}")
    sizes = [np.linalg.norm(affine[:3, :3], axis=0) for affine in (there, here)]
    if not np.allclose(np.sort(sizes[0]), np.sort(sizes[1]), rtol=1e-3):
        first, second = (" × ".join(f"{size:.4g}" for size in each) for each in sizes)
        said.append(f"voxels of {first} mm instead of {second} mm")
    axes = [affine[:3, :3] / np.where(size > 0, size, 1) for affine, size in zip((there, here), sizes, strict=True)]
    cosines = np.abs(axes[0].T @ axes[1]).max(0).clip(0, 1)
    angle = float(np.degrees(np.arccos(cosines)).max())
    if angle > 0.05:
        said.append(f"axes turned by {angle:.3g}°")
    centres = [affine @ [*((np.array(size[:3]) - 1) / 2), 1] for affine, size in ((there, its_shape), (here, shape))]
    said.append(f"centres {float(np.linalg.norm(centres[0] - centres[1])):.3g} mm apart")
    return ", ".join(said)
