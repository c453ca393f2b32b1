"""Non-local Bayes on a GPU: `gpu_kernel` filters the groups and adds them to the sums, without storing any patches."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nlmeans.core.axes import Axes
from nlmeans.core.lags import Whitening, dct_basis
from nlmeans.core.progress import Report, silent
from nlmeans.kernels.dispatch import Trial
from nlmeans.patches.groups import LEAST_VARIANCE, WEIGHT_UNIT, Average, FilterVolume, Grid, sum_groups, taper_of

LARGEST_MATRIX = 64
"""Most patches in a group, and most voxels in a patch, for which the matrices of a group fit into registers."""

GROUP_THREADS = {16: (1, 255), 32: (1, 255), 64: (4, 255)}
"""Warps per group and registers per thread, by the size of the matrices, which have at most 32 numbers per thread."""

EXACT_THREADS = {16: (2, 255), 32: (2, 255), 64: (8, 255)}
"""The same in float64, whose numbers need twice the registers."""

GROUPS_PER_LAUNCH = 2**16
"""Groups between two reports of progress."""


def serves(grid: Grid) -> bool:
    """Return whether the kernel can filter groups of this size."""
    return grid.count <= LARGEST_MATRIX and math.prod(grid.size) <= LARGEST_MATRIX


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
    """Group, filter and average the patches of a float32 volume, with the filter of `nl_bayes.filter_group`.

    The arguments are those of `cpu.filter_volume`. Groups steeper than `steepest` are filtered by a second launch, in
    float64.
    """
    from nlmeans.patches.bayes.gpu_kernel import filter_groups_kernel  # imports triton, which is optional

    voxels = math.prod(grid.size)
    block = max(16, 2 ** (max(grid.count, voxels) - 1).bit_length())
    single = constants(grid.size, block, noise, noisy.new_empty(0))
    double = constants(grid.size, block, noise, noisy.new_empty(0, dtype=torch.float64))

    def add(averages: list[Average], values: Tensor, guides: Tensor, corners: Tensor, variance: Tensor) -> None:
        for average, value, first in zip(averages, values, guides, strict=True):
            add_channel(average, value, first, corners, variance)

    def add_channel(average: Average, value: Tensor, first: Tensor, corners: Tensor, variance: Tensor) -> None:
        steep = torch.empty(len(corners), dtype=torch.int8, device=corners.device)
        with torch.cuda.device_of(value):
            for matrices, threads in ((single, GROUP_THREADS), (double, EXACT_THREADS)):
                warps, registers = threads[block]
                filter_groups_kernel[(len(corners),)](
                    value,
                    first,
                    corners,
                    variance,
                    *matrices,
                    steep,
                    average.total,
                    average.weights,
                    1 / average.unit,
                    1 / WEIGHT_UNIT,
                    strength,
                    steepest,
                    LEAST_VARIANCE,
                    grid.shape[1] * grid.shape[2],
                    grid.shape[2],
                    EXACT=matrices is double,
                    ACROSS=across,
                    VARYING=variance.ndim > 0,
                    CORRELATED=noise is not None,
                    SIZE_Y=grid.size[1],
                    SIZE_X=grid.size[2],
                    VOXELS=voxels,
                    COUNT=grid.count,
                    BLOCK=block,
                    num_warps=warps,
                    maxnreg=registers,
                    enable_fp_fusion=True,
                )

    return sum_groups(noisy, guide, sigma, grid, tolerance, add, GROUPS_PER_LAUNCH, progress, out, exact=True)


def constants(size: Axes, block: int, noise: Whitening | None, like: Tensor) -> list[Tensor]:
    """Return what is the same for all groups: DCT, variance of its coefficients, whitening and its inverse, and taper.

    They are padded to a `block` of voxels. The whitening of white noise is empty.
    """
    basis, voxels = dct_basis(size), math.prod(size)
    matrices = [basis] if noise is None else [basis, noise.whiten, noise.colour]
    padded = [torch.zeros(block, block, dtype=torch.float64) for _ in matrices]
    for target, matrix in zip(padded, matrices, strict=True):
        target[:voxels, :voxels] = matrix
    spectrum, taper = torch.ones(block, dtype=torch.float64), torch.zeros(block, dtype=torch.float64)
    if noise is not None:
        spectrum[:voxels] = noise.spectrum(basis)
    taper[:voxels] = taper_of(size)
    whiten, colour = padded[1:] or (taper, taper)
    return [values.to(like) for values in (padded[0], spectrum, whiten, colour, taper)]


def trial(grid: Grid, noise: Whitening | None, across: bool, varying: bool) -> Trial:
    """Return a problem of a few dozen groups, some of them steep, for groups like those of `grid`.

    All candidates of a window count as equally similar, so that no rounding decides which patches a group has. Channels
    with much and with little noise make both matter, the share of the noisy patches and the smoothing across.
    """
    references = grid.references
    d, h, w = (p + (ROOM if n > 1 else 0) for p, n in zip(grid.size, references, strict=True))
    small = Grid.of((d, h, w), max(grid.size), max(grid.step), grid.count, grid.radius)
    axis = references.index(max(references))

    def solve(run: FilterVolume, device: torch.device, dtype: torch.dtype) -> Tensor:
        noise, rest, levels = torch.randn(3, *small.shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)
        clean = torch.zeros_like(noise)
        clean.narrow(axis, small.shape[axis] - 2, 2).fill_(1000)  # too steep for float32
        sigma = 1 + 0.1 * levels if varying else 1.0
        noisy, guide = torch.stack([clean + noise, clean + 0.5 * noise]), (clean + 0.3 * rest).repeat(2, 1, 1, 1)
        return run(noisy, guide, sigma, small, 1e9, progress=silent)

    compiled_for = (grid.size, grid.count, noise is not None, across, varying)
    return Trial(("bayes", *compiled_for), solve, 0.05)


ROOM = 12
"""Voxels that a trial is longer than a patch: room for a few reference patches and for enough candidates."""
