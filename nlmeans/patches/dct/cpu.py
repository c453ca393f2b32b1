"""Sliding DCT on a CPU: a patch at every voxel, 4 voxels long along each axis that is longer than 1.

Threads work on chunks of planes: first on every other chunk, which do not overlap, then on the rest. So each voxel is
summed in the same order on any number of threads.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nlmeans.core.axes import Axes
from nlmeans.core.progress import Report, silent
from nlmeans.kernels.turns import chequerboard, in_turns
from nlmeans.patches.grid import patch_sums
from nlmeans.patches.kernel_constants import EDGE

CHUNK = 4
"""Planes of patches per chunk (rows, in an image). At least EDGE − 1, so that every other chunk does not overlap."""


def serves(size: Axes, step: Axes) -> bool:
    """Return whether the kernels, this one and that for GPUs, can process patches of this size at these distances."""
    return step == (1, 1, 1) and size[2] == EDGE and all(n in (1, EDGE) for n in size)


def filter_channel(
    volumes: list[Tensor],
    variance: Tensor,
    size: Axes,
    strength: float,
    spectrum: Tensor,
    matrix: Tensor,
    progress: Report = silent,
) -> Tensor:
    """Shrink and average the patches of padded (D, H, W) volumes.

    Args:
        volumes: the noisy volume for a hard threshold; noisy volume and pilot for a Wiener filter.
        variance: variance of the noise, 0-dimensional or of the padded shape.
        size: size of a patch.
        strength: threshold², or the factor on the noise variance.
        spectrum: variance of the noise in each coefficient, relative to its mean.
        matrix: the DCT along one axis.
        progress: called with the fraction done.
    """
    from nlmeans.kernels.vector import LANES  # imports numba
    from nlmeans.patches.dct.cpu_kernel import Slide, filter_rows

    depth, height, width = volumes[0].shape
    positions = (depth - size[0] + 1, height - size[1] + 1, width - size[2] + 1)
    pitch = -(-positions[2] // LANES) * LANES
    extra = pitch - positions[2]
    noisy, pilot = (F.pad(volume, (0, extra)).view(-1).numpy() for volume in (volumes[0], volumes[-1]))
    if variance.ndim:
        levels = F.pad(patch_sums(variance, size) / math.prod(size), (0, extra), value=1.0)
    else:
        levels = variance.expand(LANES)
    slide = Slide(positions, size, (depth, height, width + extra), pitch, min(variance.ndim, 1), strength)
    total = np.zeros(noisy.size, np.float32)
    weights = torch.zeros(*positions[:2], pitch, dtype=torch.float32)
    flat_levels, flat_weights = levels.contiguous().view(-1).numpy(), weights.view(-1).numpy()
    axis = 0 if positions[0] > 1 else 1
    chunks = [range(first, min(first + CHUNK, positions[axis])) for first in range(0, positions[axis], CHUNK)]
    constants = torch.cat([matrix.flatten(), spectrum]).float().numpy()

    def work(block: tuple[range, ...]) -> None:
        planes, rows = (block[0], range(positions[1])) if axis == 0 else (range(1), block[0])
        filter_rows(
            noisy, pilot, flat_levels, constants, slide, len(volumes) > 1, planes.start, planes.stop, rows.start,
            rows.stop, total, flat_weights,
        )  # fmt: skip

    in_turns(work, chequerboard(chunks), progress)
    margins = [m for n in reversed(size) for m in (n - 1, n - 1)]
    covering = patch_sums(F.pad(weights[..., : positions[2]], margins), size)
    return torch.from_numpy(total).view(slide.shape)[..., :width] / covering
