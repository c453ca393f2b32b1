"""Numbers per spatial axis."""

from __future__ import annotations

import math

Axes = tuple[int, int, int]
"""One number per axis, in the order depth, height, width."""


def window_voxels(radius: Axes) -> int:
    """Voxels in a window that reaches `radius` voxels to either side.

    >>> window_voxels((0, 1, 2))
    15
    """
    return math.prod(2 * r + 1 for r in radius)
