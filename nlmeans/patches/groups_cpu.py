"""Find similar patches on a CPU, read them, and add them back.

Each voxel and row is written by one thread, in an order that does not depend on the number of threads, so a result
repeats bit for bit.
"""

from __future__ import annotations

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
    apart, columns = step[2], -(-width // step[2])
    lead = radius[2] + size[2] + MARGIN
    flat = np.zeros(guide.numel() // width * apart * columns + 2 * lead, np.float32)
    rows = flat[lead:-lead].reshape(channels, depth, height, apart, columns)
    for first in range(min(apart, width)):
        every = guide[..., first::apart]
        rows[..., first, : every.shape[-1]] = every
    voxels = np.arange(-radius[2], radius[2] + size[2] + MARGIN)
    levels = np.zeros(floor.numel() + MARGIN, np.float32)
    levels[:-MARGIN] = floor
    return Search(
        flat, lead, voxels % apart * columns + voxels // apart, apart * columns, channels, (depth, height, width),
        references, size, step, radius, levels, *candidates(radius, height, width),
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
