"""Numbers per spatial axis, and the number of voxels in a window."""

from __future__ import annotations

import math

Axes = tuple[int, int, int]
"""One number per axis, in the order depth, height, width."""


def window_voxels(radius: Axes) -> int:
    """Number of voxels in a window that reaches `radius` voxels to either side along each axis.

    >>> window_voxels((0, 1, 2))
    15
    """
    return math.prod(2 * r + 1 for r in radius)
