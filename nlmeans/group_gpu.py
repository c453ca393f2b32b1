"""Find similar patches on a GPU; `group_gpu_kernel` has the kernel."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nlmeans.backends import gpu
from nlmeans.backends.request import Axes
from nlmeans.group_kernels import candidates

WARPS = 4


def fits(guide: Tensor) -> bool:
    """Whether the kernel can be used; else `groups.match` does the same."""
    return guide.dtype == torch.float32 and (guide.is_cuda or gpu.interpreted()) and not gpu.missing()


def match(
    guide: Tensor, lines: range, references: Axes, size: Axes, step: Axes, radius: Axes, floor: Tensor, count: int
) -> Tensor:
    """`groups.match` in one kernel."""
    from nlmeans.group_gpu_kernel import nearest_patches  # imports triton

    channels, depth, height, width = guide.shape
    rows, columns = references[1:]
    order, slots = (torch.from_numpy(found).to(guide.device) for found in candidates(radius, height, width))
    corners = torch.empty(len(lines) * columns, count, dtype=torch.int64, device=guide.device)
    with torch.cuda.device_of(guide):
        nearest_patches[(len(corners),)](
            guide.contiguous(),
            floor.contiguous(),
            slots,
            order,
            corners,
            lines.start // rows,
            rows,
            columns,
            channels,
            depth,
            height,
            width,
            *step,
            *size,
            *radius,
            COUNT=count,
            BLOCK=2 ** math.ceil(math.log2(max(len(order), count))),
            num_warps=WARPS,
        )
    return corners
