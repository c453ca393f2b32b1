"""Regular grids of patches: their size, the volume that they cover, and the order of a search window's candidates."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from nlmeans.core.axes import Axes
from nlmeans.core.padding import reflected_index

MatchLines = Callable[[range], Tensor]
"""A function of the numbers of lines of reference patches, which run along the width. It returns the corners of the
patches in their groups, (references, K) flat indices."""


def patch_size(patch: int | Axes, shape: tuple[int, ...]) -> Axes:
    """Return the size of a patch along each axis, no longer than the axis.

    >>> patch_size(4, (1, 3, 9)), patch_size((4, 4, 2), (1, 3, 9))
    ((1, 3, 4), (1, 3, 2))
    """
    edges = (patch,) * 3 if isinstance(patch, int) else patch
    d, h, w = (min(edge, n) for edge, n in zip(edges, shape, strict=True))
    return d, h, w


def covered(volume: Tensor, size: Axes, step: Axes, margin: tuple[int, ...]) -> Tensor:
    """Extend (..., D, H, W) by reflection: by `margin` on both sides, then at the end until the grid fits.

    What fits already is returned as it is.
    """
    for axis, (p, s, m) in enumerate(zip(size, step, margin, strict=True), volume.ndim - 3):
        length = volume.shape[axis]
        extra = -(length + 2 * m - p) % s
        if m + extra:
            volume = volume.index_select(axis, reflected_index(length, m + extra, volume.device)[extra:])
    return volume


def offsets(size: Axes) -> Iterator[Axes]:
    """Iterate over the voxels of a patch, relative to its corner."""
    return itertools.product(range(size[0]), range(size[1]), range(size[2]))


def grid_view(volume: Tensor, offset: Axes, step: Axes, grid: Axes) -> Tensor:
    """Return a view of one voxel of every patch of the grid."""
    z, y, x = (slice(o, o + (n - 1) * s + 1, s) for o, n, s in zip(offset, grid, step, strict=True))
    return volume[z, y, x]


def patch_sums(volume: Tensor, size: Axes, step: Axes = (1, 1, 1), grid: Axes | None = None) -> Tensor:
    """Sum over each patch of a regular grid, axis by axis. Without `grid`, the grid has as many patches as fit.

    >>> import torch
    >>> patch_sums(torch.ones(1, 3, 4), (1, 2, 3)).shape
    torch.Size([1, 2, 2])
    """
    for axis, (length, stride) in enumerate(zip(size, step, strict=True)):
        count = (volume.shape[axis] - length) // stride + 1 if grid is None else grid[axis]
        span = (count - 1) * stride + 1
        before = [slice(None)] * axis
        volume = sum((volume[*before, u : u + span : stride] for u in range(1, length)), volume[*before, :span:stride])
    return volume


def candidates(radius: Axes, height: int, width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the candidates of a search window, as flat distances from the corner of the reference patch.

    The first array has them in the order in which `groups.find_groups` prefers equally similar patches. The second has,
    for each candidate in the order of memory, its place in the first.
    """
    shifts = [(dz * height + dy) * width + dx for dz, dy, dx in itertools.product(*(range(-r, r + 1) for r in radius))]
    order = np.arange(len(shifts)) * golden_stride(radius) % len(shifts)
    slots = np.empty_like(order)
    slots[order] = np.arange(len(order))
    return np.array(shifts)[order], slots


def golden_stride(radius: Axes) -> int:
    """Return a step through the candidates of a window that visits each once and spreads over the window early."""
    candidates = math.prod(2 * r + 1 for r in radius)
    stride = max(1, round(0.618034 * candidates))
    while math.gcd(stride, candidates) > 1:
        stride += 1
    return stride
