"""Find similar patches on a GPU; `group_gpu_kernel` has the kernel."""

from __future__ import annotations

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
    slots = torch.from_numpy(candidates(radius, height, width)[1]).int().to(guide.device)
    log_block = (len(slots) - 1).bit_length()
    corners = torch.empty(len(lines) * columns, count, dtype=torch.int64, device=guide.device)
    with torch.cuda.device_of(guide):
        nearest_patches[(len(corners),)](
            guide.contiguous(),
            floor.contiguous(),
            slots,
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
            BLOCK=2**log_block,
            LOG_BLOCK=log_block,
            num_warps=WARPS,
            enable_fp_fusion=False,
        )
    return corners
