"""Non-local Bayes on a CPU: several threads find, filter and add back the groups of blocks of reference patches.

The blocks lie in a chequerboard (kernels/turns.py): a block adds all its groups to the volume before a block that
overlaps it begins. Groups are not stored.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nlmeans.core.lags import Whitening, dct_basis
from nlmeans.core.progress import Report, part
from nlmeans.kernels.turns import chequerboard, in_turns
from nlmeans.patches import groups_cpu
from nlmeans.patches.groups import (
    LEAST_VARIANCE,
    Average,
    Grid,
    averaged,
    distance_floors,
    patch_variance,
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
    joint: bool = False,
    out: Tensor | None = None,
) -> Tensor:
    """Group, filter and average the patches of a float32 volume, with the filter of `nl_bayes.filter_group`.

    Args:
        noisy: as for `groups.filter_volume`.
        guide: as for `groups.filter_volume`.
        sigma: as for `groups.filter_volume`.
        grid: as for `groups.filter_volume`.
        tolerance: as for `groups.filter_volume`.
        progress: called with the fraction done.
        strength: as for `nl_bayes.filter_group`.
        across: as for `nl_bayes.filter_group`.
        steepest: steepness above which a group is filtered in float64.
        noise: correlation of the noise over a patch; None for white noise.
        joint: whether channels are filtered together.
        out: as for `groups.filter_volume`.
    """
    from nlmeans.patches import groups_cpu_kernel  # imports numba, as the next one does
    from nlmeans.patches.bayes import cpu_kernel, joint_cpu_kernel

    values, guides = grid.covered(noisy), grid.covered(guide)
    variance = patch_variance(noisy, sigma, grid)
    levels = distance_floors(guides, grid, tolerance * variance)
    search = groups_cpu.search_in(guides, *grid.where, levels)
    _, rows, columns = grid.references
    _, height, width = grid.shape
    voxels = math.prod(grid.size)
    layout = (
        joint_cpu_kernel.JointLayout.of(len(values), grid.count, voxels)
        if joint
        else cpu_kernel.GroupLayout.of(grid.count, voxels, across)
    )
    patch_rows = [(u * height + v) * width for u, v in itertools.product(range(grid.size[0]), range(grid.size[1]))]
    taper, basis = taper_of(grid.size).float().numpy(), dct_basis(grid.size).numpy()
    precisions = [
        (
            cpu_kernel.FilterConstants(
                strength, limit, LEAST_VARIANCE, np.array(patch_rows), grid.size[2], float(np.finfo(dtype).eps),
                noise is not None, across,
            ),
            cpu_kernel.scratch_array(layout, taper, basis, noise, dtype),
        )
        for dtype, limit in ((np.float32, steepest), (np.float64, math.inf))
    ]  # fmt: skip

    def matched(block: tuple[range, ...]) -> npt.NDArray[np.int64]:
        """Find the corners of the groups of a block."""
        lines = np.array([z * rows + y for z, y in itertools.product(*block)])
        corners = np.empty((len(lines) * columns, grid.count), np.int64)
        groups_cpu_kernel.match_lines(search, lines, corners)
        return corners

    def filtered(
        kernel: Callable[..., None],
        corners: npt.NDArray[np.int64],
        *arrays: npt.NDArray[np.float32],
    ) -> None:
        """Filter the groups of volumes and add them to sums, those that are too steep for float32 in float64."""
        noisy, guide, sums, weights = arrays
        for options, constants in precisions:
            if len(corners):
                steep = np.empty(len(corners), np.bool_)
                kernel(noisy, guide, corners, variance.view(-1).numpy(), layout, options, constants.copy(), sums,
                       weights, steep)  # fmt: skip
                corners = corners[steep]

    turns = chequerboard(cuts(grid, 0), cuts(grid, 1))
    at_once = len(values) if joint else SUMMED_AT_ONCE
    batches = [slice(first, first + at_once) for first in range(0, len(values), at_once)]
    known: dict[tuple[range, ...], npt.NDArray[np.int64]] = {}
    result = torch.empty_like(noisy) if out is None else out
    for number, batch in enumerate(batches):
        sums = [torch.zeros_like(values[batch]) for _ in range(2)]
        arrays = [tensor.flatten(1).numpy() for tensor in (values[batch], guides[batch], *sums)]

        def work(block: tuple[range, ...], arrays: list[npt.NDArray[np.float32]] = arrays) -> None:
            """Filter the groups of a block."""
            corners = known[block] if block in known else matched(block)
            if len(batches) > 1:
                known[block] = corners
            if joint:
                filtered(joint_cpu_kernel.filter_groups_jointly, corners, *arrays)
                return
            for channel in zip(*arrays, strict=True):
                filtered(cpu_kernel.filter_groups, corners, *channel)

        in_turns(work, turns, part(progress, number / len(batches), (number + 1) / len(batches)))
        window = taper_of(grid.size).to(values)
        averages = [Average(*both, window, grid, 1.0) for both in zip(sums[0], sums[1], strict=True)]
        averaged(averages, result[batch])  # channels of the guide that are done are read no more
    return result


SUMMED_AT_ONCE = 4
"""Channels that are summed at once. For more, the groups are kept: they take less memory than the sums."""


def cuts(grid: Grid, axis: int) -> list[range]:
    """Cut the reference patches along an axis into parts such that every other part touches different voxels."""
    # a part and the next but one must be two search radii and a patch apart
    length = max(1, math.ceil((2 * grid.radius[axis] + grid.size[axis]) / grid.step[axis]) - 1)
    references = grid.references[axis]
    return [range(first, min(first + length, references)) for first in range(0, references, length)]
