"""NL-Bayes on a CPU: blocks of reference patches on several threads, each found, filtered and added back at once.

A block adds its groups to the volume before the next one begins that overlaps it: blocks lie in a chequerboard of four
colours, blocks of one colour do not touch each other's voxels, and the colours come one after another. So every voxel
is summed in the same order on any number of threads, and nothing is stored between finding a group and adding it.
"""

from __future__ import annotations

import itertools
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from nlmeans import bayes_kernel, group_kernels
from nlmeans.dct import dct_basis
from nlmeans.groups import Average, Grid, GroupFilter, floors, patch_means, read
from nlmeans.progress import Report

STEEP_GROUPS = 128
"""Groups done in float64 at once."""


def filter_volume(
    noisy: Tensor,
    guide: Tensor,
    sigma: float | Tensor,
    grid: Grid,
    alike: float,
    strength: float,
    steepest: float,
    least_variance: float,
    exact: GroupFilter,
    progress: Report,
) -> Tensor:
    """`groups.filter_volume` with `group_filters.bayes`, for float32.

    Groups are too steep for it from `steepest` on; `exact` filters those. See there for what the numbers mean.
    """
    values, guides = grid.covered(noisy), grid.covered(guide)
    if isinstance(sigma, Tensor):
        variance = patch_means(grid.covered(sigma[None].to(noisy).square())[0], grid)
    else:
        variance = noisy.new_tensor(sigma).square()
    levels = floors(guides, grid, alike * variance)
    search = group_kernels.Search.of(guides, grid.references, grid.size, grid.step, grid.radius, levels)
    average = [Average.of(channel, grid) for channel in values]
    _, rows, columns = grid.references
    _, height, width = grid.shape
    layout = bayes_kernel.Layout.of(grid.count, math.prod(grid.size))
    patch_rows = [(u * height + v) * width for u, v in itertools.product(range(grid.size[0]), range(grid.size[1]))]
    options = bayes_kernel.Filter(strength, steepest, least_variance, np.array(patch_rows), grid.size[2])
    constants = bayes_kernel.constants(layout, average[0].taper.numpy(), dct_basis(grid.size).numpy())

    def work(block: tuple[range, range]) -> list[Tensor]:
        """Corners of the groups that are too steep, for each channel."""
        lines = np.array([z * rows + y for z, y in itertools.product(*block)])
        corners = np.empty((len(lines) * columns, grid.count), np.int64)
        group_kernels.match_lines(search, lines, corners)
        steep, scratch, left = np.empty(len(corners), np.bool_), constants.copy(), []
        for channel, value, first in zip(average, values, guides, strict=True):
            bayes_kernel.filter_groups(
                value.view(-1).numpy(), first.view(-1).numpy(), corners, variance.view(-1).numpy(), layout, options,
                scratch, channel.total.view(-1).numpy(), channel.weights.view(-1).numpy(), steep,
            )  # fmt: skip
            left.append(torch.from_numpy(corners[steep]))
        return left

    colours = blocks(grid)
    done, count = 0, sum(map(len, colours))
    steep_groups: list[list[Tensor]] = []
    pool = ThreadPoolExecutor(torch.get_num_threads())
    try:
        for colour in colours:
            for left in pool.map(work, colour):
                steep_groups.append(left)
                done += 1
                progress(done / count)
    finally:
        pool.shutdown(cancel_futures=True)

    for channel, value, first, parts in zip(average, values, guides, zip(*steep_groups, strict=True), strict=True):
        corners = torch.cat(parts)
        for start in range(0, len(corners), STEEP_GROUPS):
            group = corners[start : start + STEEP_GROUPS]
            level = variance.view(-1)[group].mean(1) if variance.ndim else variance.expand(len(group))
            channel.add(group, exact(read(value, group, grid.size), read(first, group, grid.size), level))
    d, h, w = noisy.shape[1:]
    return torch.stack([channel.result()[:d, :h, :w] for channel in average])


def blocks(grid: Grid) -> list[list[tuple[range, range]]]:
    """Planes and rows of reference patches, in four lists; within a list, no two blocks have a voxel in common."""

    def cut(axis: int) -> list[range]:
        # from a block's last reference patch to the first of the next but one: two search radii and a patch
        length = max(1, math.ceil((2 * grid.radius[axis] + grid.size[axis]) / grid.step[axis]) - 1)
        references = grid.references[axis]
        return [range(first, min(first + length, references)) for first in range(0, references, length)]

    planes, lines = cut(0), cut(1)
    return [list(itertools.product(planes[z::2], lines[y::2])) for z, y in itertools.product((0, 1), (0, 1))]
