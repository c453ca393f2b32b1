"""Find similar patches on a CPU, read them, and add them back.

Each voxel and row is written by one thread, in an order that does not depend on the number of threads, so a result
repeats bit for bit.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nlmeans.core.axes import Axes
from nlmeans.kernels.turns import in_threads
from nlmeans.patches.grid import MatchLines, candidates

if TYPE_CHECKING:
    from nlmeans.patches.groups_cpu_kernel import Search


def search_in(guide: Tensor, references: Axes, size: Axes, step: Axes, radius: Axes, floor: Tensor) -> Search:
    """Prepare the search for patches similar to the reference patches in `guide`, (C, D, H, W)."""
    from nlmeans.patches.groups_cpu_kernel import MARGIN, Search  # imports numba

    channels, depth, height, width = guide.shape
    (_, down, along), (planes, lines, patches) = step, references
    rows, columns = -(-height // down), -(-width // along)
    phase = rows * columns  # voxels that lie a step apart in a plane
    plane = down * along * phase
    lead = ((radius[1] + size[1]) // down + 2) * columns + radius[2] + size[2] + MARGIN
    flat = np.zeros(channels * depth * plane + 2 * lead, np.float32)
    spread = flat[lead:-lead].reshape(channels, depth, down, along, rows, columns)
    for y, x in itertools.product(range(min(down, height)), range(min(along, width))):
        every = guide[..., y::down, x::along]
        spread[..., y, x, : every.shape[-2], : every.shape[-1]] = every
    at_line, at_voxel = (np.arange(-r, r + n + MARGIN) for r, n in zip(radius[1:], size[1:], strict=True))
    levels = np.zeros((planes, lines, columns), np.float32)
    levels[..., :patches] = floor.reshape(planes, lines, patches)
    return Search(
        flat, lead, at_line % down * along * phase + at_line // down * columns,
        at_voxel % along * phase + at_voxel // along, plane, columns, channels, (depth, height, width),
        references, size, step, radius, np.append(levels, np.zeros(columns + MARGIN, np.float32)),
        *candidates(radius, height, width),
    )  # fmt: skip


def matcher(
    guide: Tensor, references: Axes, size: Axes, step: Axes, radius: Axes, floor: Tensor, count: int
) -> MatchLines:
    """Match patches by the compiled kernel, on several threads; see `groups.find_groups`."""
    from nlmeans.patches.groups_cpu_kernel import match_lines  # imports numba

    search, columns = search_in(guide, references, size, step, radius, floor), references[2]

    def match(lines: range) -> Tensor:
        corners = torch.empty(len(lines) * columns, count, dtype=torch.int64)
        numbers, found = np.arange(lines.start, lines.stop), corners.numpy()

        def work(first: int, last: int) -> None:
            match_lines(search, numbers[first:last], found[first * columns : last * columns])

        in_threads(work, len(lines))
        return corners

    return match


def gather_patches(volume: Tensor, corners: Tensor, size: Axes) -> Tensor:
    """Read patches by the compiled kernel, on several threads; see `groups.read_patches`."""
    from nlmeans.patches.groups_cpu_kernel import copy_patches  # imports numba

    patches = volume.new_empty(corners.numel(), math.prod(size))
    source, at, target = volume.numpy(), corners.reshape(-1).numpy(), patches.numpy()
    in_threads(lambda first, last: copy_patches(source, at, size, first, last, target), len(at))
    return patches.view(*corners.shape, math.prod(size))


def scatter_patches(
    total: Tensor, weights: Tensor, corners: Tensor, patches: Tensor, weight: Tensor, window: Tensor, size: Axes
) -> None:
    """Add weight × window × patch to `total`, and the weights at the corners to `weights`; both (D, H, W)."""
    from nlmeans.patches.groups_cpu_kernel import add_planes  # imports numba

    target, corner_target, taper = total.numpy(), weights.numpy(), window.numpy()
    at, values, scale = corners.reshape(-1).numpy(), patches.flatten(0, -2).numpy(), weight.reshape(-1).numpy()

    def work(first: int, last: int) -> None:
        add_planes(target, corner_target, at, values, scale, taper, size, first, last)

    in_threads(work, len(target))
