"""Regular grids of patches: their size, the volume that they cover, and views of one voxel of every patch."""

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
"""From lines of reference patches along the width to the corners of their groups, (references, K) flat indices."""


def patch_size(patch: int, shape: tuple[int, ...]) -> Axes:
    """The patch along each axis, cut to the axis."""
    d, h, w = (min(patch, n) for n in shape)
    return d, h, w


def covered(volume: Tensor, size: Axes, step: Axes, margin: tuple[int, ...]) -> Tensor:
    """A (D, H, W) volume reflected by `margin` on both sides, and at the ends as far as a grid of patches needs."""
    for axis, (p, s, m) in enumerate(zip(size, step, margin, strict=True)):
        length = volume.shape[axis]
        extra = -(length + 2 * m - p) % s
        index = reflected_index(length, m + extra, volume.device)[extra:]
        volume = volume.index_select(axis, index)
    return volume


def offsets(size: Axes) -> Iterator[Axes]:
    """The voxels of a patch, in order."""
    return itertools.product(range(size[0]), range(size[1]), range(size[2]))


def window(volume: Tensor, offset: Axes, step: Axes, grid: Axes) -> Tensor:
    """The view of one voxel of every patch of the grid."""
    z, y, x = (slice(o, o + (n - 1) * s + 1, s) for o, n, s in zip(offset, grid, step, strict=True))
    return volume[z, y, x]


def patch_sums(volume: Tensor, size: Axes, step: Axes = (1, 1, 1), grid: Axes | None = None) -> Tensor:
    """Sums over the patches of a regular grid, axis by axis; without `grid`, of as many patches as fit.

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
    """From a corner to each one of a window, in the order of `groups.find`; and the place of each in that order."""
    shifts = [(dz * height + dy) * width + dx for dz, dy, dx in itertools.product(*(range(-r, r + 1) for r in radius))]
    order = np.arange(len(shifts)) * golden_stride(radius) % len(shifts)
    slots = np.empty_like(order)
    slots[order] = np.arange(len(order))
    return np.array(shifts)[order], slots


def golden_stride(radius: Axes) -> int:
    """A step through the search window that visits each candidate once and soon has been everywhere."""
    candidates = math.prod(2 * r + 1 for r in radius)
    stride = max(1, round(0.618034 * candidates))
    while math.gcd(stride, candidates) > 1:
        stride += 1
    return stride
