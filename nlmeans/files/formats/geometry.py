"""Geometry of images: from the patient axes of DICOM and ITK (LPS) to those of NIfTI (RAS), and what can be stored."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

log = logging.getLogger("nlmeans")

SAME_PLACE = 0.1
"""Largest distance between corresponding voxels of the same grid, in voxels."""

Affine = npt.NDArray[np.float64]

FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From left, back, up (LPS) to right, front, up (RAS), and back."""


def affine_of(spacing: npt.ArrayLike, direction: npt.ArrayLike, origin: npt.ArrayLike) -> Affine:
    """Make the affine of NIfTI, in RAS, from the geometry of ITK and DICOM, in LPS.

    Args:
        spacing: three voxel sizes.
        direction: 3×3, the direction of each axis in a column.
        origin: position of the first voxel.

    >>> affine_of([1, 2, 3], np.eye(3), [10, 20, 30]).tolist()
    [[-1.0, 0.0, 0.0, -10.0], [0.0, -2.0, 0.0, -20.0], [0.0, 0.0, 3.0, 30.0], [0.0, 0.0, 0.0, 1.0]]
    """
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(direction, np.float64).reshape(3, 3) * np.asarray(spacing, np.float64)
    affine[:3, 3] = origin
    return np.asarray(FLIP @ affine)


def spacing_direction_origin(affine: Affine) -> tuple[Affine, Affine, Affine]:
    """Return voxel sizes, directions in columns, and position of the first voxel in LPS: `affine_of` reversed."""
    turned = FLIP @ affine
    spacing = np.linalg.norm(turned[:3, :3], axis=0)
    return spacing, turned[:3, :3] / np.where(spacing > 0, spacing, 1), turned[:3, 3]


def storable(data: npt.NDArray[Any], types: Collection[str], path: Any) -> npt.NDArray[Any]:
    """Convert values to the first of several types that holds all of them exactly, or else to the last.

    Args:
        data: values.
        types: names of numpy's types, the last of them floating-point.
        path: for the error.

    Raises:
        TypeError: the values are complex, and none of the types is.

    >>> storable(np.ones(3, np.uint16), ("uint8", "int32", "float32"), "x.mgz").dtype.name
    'int32'
    """
    if data.dtype.name in types:
        return data
    if data.dtype.kind == "c":
        raise TypeError(f"{path} cannot hold complex numbers; write a .nii.gz instead")
    fitting = next((name for name in types if np.can_cast(data.dtype, name)), None)
    if fitting is None:
        fitting = list(types)[-1]
        log.warning("%s cannot hold %s: its values are stored as %s", path, data.dtype.name, fitting)
    return data.astype(fitting)
