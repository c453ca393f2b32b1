"""Non-local Bayes on a CPU: several threads find, filter and add back the groups of blocks of reference patches.

The blocks lie in a chequerboard (kernels/turns.py): a block adds all its groups to the volume before a block that
overlaps it begins. Groups are not stored.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nlmeans.core.lags import Whitening
from nlmeans.core.progress import Report, part
from nlmeans.kernels.turns import chequerboard, in_turns
from nlmeans.patches import groups_cpu
from nlmeans.patches.dct import dct_basis
from nlmeans.patches.groups import (
    LEAST_VARIANCE,
    Average,
    Grid,
    averaged,
    distance_floors,
    patch_means,
    taper_of,
)


def filter_volume(
    noisy: Tensor,
    guide: Tensor,
    sigma: float | Tensor,
    grid: Grid,
    tolerance: float,
    progress: Report,
    *,
    strength: float,
    across: bool,
    steepest: float,
    noise: Whitening | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Group, filter and average the patches of a float32 volume, with the filter of `bayes.filter_group`.

    Args:
        noisy: as for `groups.filter_volume`.
        guide: as for `groups.filter_volume`.
        sigma: as for `groups.filter_volume`.
        grid: as for `groups.filter_volume`.
        tolerance: as for `groups.filter_volume`.
        progress: called with the fraction done.
        strength: as for `bayes.filter_group`.
        across: as for `bayes.filter_group`.
        steepest: steepness above which a group is filtered in float64.
        noise: correlation of the noise over a patch; None for white noise.
        out: as for `groups.filter_volume`.
    """
    from nlmeans.patches import bayes_cpu_kernel, groups_cpu_kernel  # import numba

    values, guides = grid.covered(noisy), grid.covered(guide)
    if isinstance(sigma, Tensor):
        variance = patch_means(grid.covered(sigma[None].to(noisy).square())[0], grid)
    else:
        variance = noisy.new_tensor(sigma).square()
    levels = distance_floors(guides, grid, tolerance * variance)
    search = groups_cpu.search_in(guides, *grid.where, levels)
    _, rows, columns = grid.references
    _, height, width = grid.shape
    layout = bayes_cpu_kernel.GroupLayout.of(grid.count, math.prod(grid.size), across)
    patch_rows = [(u * height + v) * width for u, v in itertools.product(range(grid.size[0]), range(grid.size[1]))]
    taper, basis = taper_of(grid.size).float().numpy(), dct_basis(grid.size).numpy()
    precisions = [
        (
            bayes_cpu_kernel.FilterConstants(
                strength, limit, LEAST_VARIANCE, np.array(patch_rows), grid.size[2], float(np.finfo(dtype).eps),
                noise is not None, across,
            ),
            bayes_cpu_kernel.scratch_array(layout, taper, basis, noise, dtype),
        )
        for dtype, limit in ((np.float32, steepest), (np.float64, math.inf))
    ]  # fmt: skip

    def matched(block: tuple[range, ...]) -> npt.NDArray[np.int64]:
        """Find the corners of the groups of a block."""
        lines = np.array([z * rows + y for z, y in itertools.product(*block)])
        corners = np.empty((len(lines) * columns, grid.count), np.int64)
        groups_cpu_kernel.match_lines(search, lines, corners)
        return corners

    turns = chequerboard(cuts(grid, 0), cuts(grid, 1))
    batches = [slice(first, first + SUMMED_AT_ONCE) for first in range(0, len(values), SUMMED_AT_ONCE)]
    known: dict[tuple[range, ...], npt.NDArray[np.int64]] = {}
    result = torch.empty_like(noisy) if out is None else out
    for number, batch in enumerate(batches):
        average = [Average.of(channel, grid) for channel in values[batch]]

        def work(block: tuple[range, ...], batch: slice = batch, average: list[Average] = average) -> None:
            """Filter the groups of a block, those that are too steep for float32 in float64."""
            corners = known[block] if block in known else matched(block)
            if len(batches) > 1:
                known[block] = corners
            for channel, value, first in zip(average, values[batch], guides[batch], strict=True):
                left = corners
                for options, constants in precisions:
                    if len(left):
                        steep = np.empty(len(left), np.bool_)
                        bayes_cpu_kernel.filter_groups(
                            value.view(-1).numpy(), first.view(-1).numpy(), left, variance.view(-1).numpy(), layout,
                            options, constants.copy(), channel.total.view(-1).numpy(), channel.weights.view(-1).numpy(),
                            steep,
                        )  # fmt: skip
                        left = left[steep]

        in_turns(work, turns, part(progress, number / len(batches), (number + 1) / len(batches)))
        averaged(average, result[batch])  # channels of the guide that are done are read no more
    return result


SUMMED_AT_ONCE = 4
"""Channels that are summed at once. For more, the groups are kept: they take less memory than the sums."""


def cuts(grid: Grid, axis: int) -> list[range]:
    """Cut the reference patches along an axis into parts such that every other part touches different voxels."""
    # a part and the next but one must be two search radii and a patch apart
    length = max(1, math.ceil((2 * grid.radius[axis] + grid.size[axis]) / grid.step[axis]) - 1)
    references = grid.references[axis]
    return [range(first, min(first + length, references)) for first in range(0, references, length)]
