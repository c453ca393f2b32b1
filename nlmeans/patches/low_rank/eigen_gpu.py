"""Eigenvectors of many small symmetric matrices on a GPU, by the kernel in `eigen_gpu_kernel`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nlmeans.kernels.dispatch import Trial

LARGEST_SIZE = 128
"""Rows of the largest matrices that fit into registers."""

TOLERANCE = 5e-7
"""Sum of the elements beside the diagonal, relative to that of all, below which the method ends. Rounding leaves about
1e-7. What is left changes eigenvalues by its square."""


def eigenvectors_on_gpu(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Return rising eigenvalues and the eigenvectors of symmetric float32 matrices; see `spectrum.eigenvectors`."""
    from nlmeans.patches.low_rank.eigen_gpu_kernel import eigenvectors_kernel  # imports triton, which is optional

    size = matrices.shape[1]
    padded = max(16, 2 ** (size - 1).bit_length())
    values, vectors = matrices.new_empty(len(matrices), size), torch.empty_like(matrices.contiguous())
    if len(matrices):
        with torch.cuda.device_of(matrices):
            eigenvectors_kernel[(len(matrices),)](
                matrices.contiguous(),
                values,
                vectors,
                size,
                TOLERANCE,
                SIZE=padded,
                num_warps=1 if padded == 16 else padded // 8,
                enable_fp_fusion=True,
            )
    values, order = values.sort(1)
    return values, vectors.gather(2, order[:, None, :].expand_as(vectors))


def eigen_trial(size: int) -> Trial:
    """Return three matrices of this size to decompose: of noise, of rank 2 in noise, and of zeros."""

    def solve(run: Callable[[Tensor], tuple[Tensor, Tensor]], device: torch.device, dtype: torch.dtype) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        noise, sides = (torch.randn(n, size, size + 3, generator=generator) for n in (2, 1))
        noise[1] += 3 * sides[0, :, :2] @ sides[0, :2]
        gram = (noise @ noise.mT / noise.square().sum((1, 2))[:, None, None]).to(device, dtype)
        matrices = torch.cat([gram, torch.zeros_like(gram[:1])])
        values, vectors = run(matrices)
        return torch.cat([values[:, None], vectors * values[:, None] @ vectors.mT, vectors.mT @ vectors], dim=1)

    return Trial(("eigenvectors", size), solve, 1e-4)
