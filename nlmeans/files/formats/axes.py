"""Images whose axes have names, as microscopes give them: to x, y, z and volumes, with a size for each voxel."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nlmeans.files.formats import nifti
from nlmeans.files.formats.geometry import affine_of

log = logging.getLogger("nlmeans")

STACKED = "ZQI"
"""Names of the axis of slices: Z, or one that a plain stack of pages does not name."""


def order_of(axes: str) -> list[int]:
    """Return where X, Y and Z, and then all other axes, are among the axes of a file.

    >>> order_of("TCZYX"), order_of("QYX")
    ([4, 3, 2, 0, 1], [2, 1, 0])
    """
    slices = next((axis for axis in STACKED if axis in axes), "")
    rest = [axis for axis in axes if axis not in "XY" + slices]
    return [axes.index(axis) for axis in ("X", "Y", *slices, *rest)]


def of_named_axes(
    values: npt.NDArray[Any], axes: str, sizes: Mapping[str, float], step: float | None, path: Path
) -> Any:
    """Make a NIfTI image of values with named axes. Its rows go to the left and its columns to the back, as in ITK.

    Args:
        values: with X, Y, perhaps one of `STACKED`, and axes of volumes, such as times and channels.
        axes: the name of each axis, one letter each.
        sizes: voxel size along X, Y and Z in mm, as far as it is known. What is missing is assumed, which is logged.
        step: seconds between volumes, if known.
        path: the file, for the log.

    Returns:
        An image with the axes x, y, z and volumes, which keeps what TIFF needs to store `axes` again.
    """
    spacing = {axis: size for axis, size in sizes.items() if size > 0}
    missing = [axis for axis in ("XYZ" if set(axes) & set(STACKED) else "XY") if axis not in spacing]
    if missing:
        known = min(spacing.values(), default=1.0)
        log.warning("%s has no voxel size along %s: %g mm is assumed", path, ", ".join(missing), known)
        spacing |= dict.fromkeys(missing, known)
    spacing.setdefault("Z", spacing["X"])
    data = values.transpose(order_of(axes))
    if data.ndim > 2:
        if not set(axes) & set(STACKED):  # images over time are volumes of one slice
            data = data[:, :, None]
        data = data.reshape(*data.shape[:3], *([-1] if data.ndim > 3 else []))
    affine = affine_of([spacing[axis] for axis in "XYZ"], np.eye(3), np.zeros(3))
    return nifti.in_nifti(np.ascontiguousarray(data), affine, step, {"tiff": {"axes": axes, "shape": values.shape}})
