"""Sliding DCT on a GPU, by `gpu_kernel`, for patches that `cpu.serves` serves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from nlmeans.core.axes import Axes
from nlmeans.core.progress import Report, silent
from nlmeans.kernels.dispatch import Trial
from nlmeans.patches.grid import patch_sums
from nlmeans.patches.kernel_constants import EDGE

ROWS_PER_BLOCK = 4
"""Rows of patches per block of threads, one for each warp."""

LANE_REGISTERS = 168
"""Registers per lane: the most with which three blocks fit on a multiprocessor."""


def filter_channel(
    volumes: list[Tensor],
    variance: Tensor,
    size: Axes,
    strength: float,
    spectrum: Tensor,
    matrix: Tensor,
    progress: Report = silent,
) -> Tensor:
    """Shrink and average the patches of padded (D, H, W) volumes; the arguments are those of `cpu.filter_channel`."""
    from nlmeans.patches.dct.gpu_kernel import LANES_SUMMED, filter_patches_kernel  # imports triton, which is optional

    noisy, pilot = volumes[0].contiguous(), volumes[-1].contiguous()
    _, height, width = noisy.shape
    d, h, w = (n - p + 1 for n, p in zip(noisy.shape, size, strict=True))
    levels = (patch_sums(variance, size) / math.prod(size)).contiguous() if variance.ndim else variance
    total, weights = torch.zeros_like(noisy), noisy.new_zeros(d, h, w)
    along_z = (matrix if size[0] == EDGE else matrix.new_ones(1, 1)).to(noisy)
    shares = spectrum.to(noisy)
    columns = -(-(w + EDGE - 1) // LANES_SUMMED.value)
    with torch.cuda.device_of(noisy):
        colours = list(itertools.product(range(size[0]), range(size[1])))
        for number, (z, y) in enumerate(colours, 1):
            rows, planes = -(-(h - y) // size[1]), -(-(d - z) // size[0])
            filter_patches_kernel[(columns, -(-rows // ROWS_PER_BLOCK), planes)](
                noisy,
                pilot,
                levels,
                along_z,
                shares,
                total,
                weights,
                strength,
                z,
                y,
                h,
                w,
                height * width,
                width,
                WIENER=len(volumes) > 1,
                VARYING=variance.ndim > 0,
                SIZE_Z=size[0],
                SIZE_Y=size[1],
                WARPS=ROWS_PER_BLOCK,
                num_warps=ROWS_PER_BLOCK,
                maxnreg=LANE_REGISTERS,
                enable_fp_fusion=True,
            )
            progress(number / len(colours))
    margins = [m for n in reversed(size) for m in (n - 1, n - 1)]
    return total / patch_sums(F.pad(weights, margins), size)


def trial(size: Axes, wiener: bool, varying: bool) -> Trial:
    """Return a problem of a few dozen patches of this size."""

    def solve(run: Callable[..., Tensor], device: torch.device, dtype: torch.dtype) -> Tensor:
        shape = [1 if n == 1 else room for n, room in zip(size, (5, 6, 34), strict=True)]
        pilot, noise, levels = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)
        volumes = [5 * pilot + noise, 5 * pilot] if wiener else [5 * pilot + noise]
        return run(volumes, levels.exp() if varying else torch.ones_like(levels[0, 0, 0]), size)

    return Trial(("dct", size, wiener, varying), solve, 0.05)
