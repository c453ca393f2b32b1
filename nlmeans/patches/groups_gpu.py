"""Find similar patches on a GPU, by the kernel in `groups_gpu_kernel`."""

from __future__ import annotations

import torch
from torch import Tensor

from nlmeans.core.axes import Axes
from nlmeans.patches.grid import MatchLines, candidates

MATCH_WARPS = 4
"""Warps per reference patch."""


def matcher(
    guide: Tensor, references: Axes, size: Axes, step: Axes, radius: Axes, floor: Tensor, count: int
) -> MatchLines:
    """Match patches by the Triton kernel; see `groups.find_groups`. The lines must be those of whole planes."""
    from nlmeans.patches.groups_gpu_kernel import nearest_patches  # imports triton, which is optional

    channels, depth, height, width = guide.shape
    rows, columns = references[1:]
    slots = torch.from_numpy(candidates(radius, height, width)[1]).int().to(guide.device)
    log_block = (len(slots) - 1).bit_length()

    def match(lines: range) -> Tensor:
        corners = torch.empty(len(lines) * columns, count, dtype=torch.int64, device=guide.device)
        with torch.cuda.device_of(guide):
            nearest_patches[(len(corners),)](
                guide.contiguous(),
                floor[lines.start * columns : lines.stop * columns].contiguous(),
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
                num_warps=MATCH_WARPS,
                enable_fp_fusion=False,
            )
        return corners

    return match
