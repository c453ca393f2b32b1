"""Variants of non-local means that average more than the image itself, in one call of the operator.

They take and return (C, D, H, W).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from nlmeans.core.axes import Axes
from nlmeans.core.padding import reflect

WeightedMean = Callable[[Tensor], Tensor]
"""A function that averages any channels of the image's spatial shape, with the weights of the noisy image."""


def average_patches(noisy: Tensor, patch_radius: Axes, average: WeightedMean) -> Tensor:
    """Average whole patches; then average, at each voxel, the estimates of all patches that contain it.

    ::

        P(i)    = Σ_j w(i,j)·V(j+patch) / Σ_j w(i,j)        one patch around every voxel
        out(x)  = mean over o of P(x−o)(o)

    Each patch is normalised by its own weights, so that a patch without similar ones does not spoil its neighbours.

    Args:
        noisy: (C, D, H, W).
        patch_radius: voxels.
        average: the non-local mean.

    References:
        A. Buades, B. Coll, J.-M. Morel, "A review of image denoising algorithms, with a new one", Multiscale Model.
        Simul. 2005, doi:10.1137/040616024, section 5.2. P. Coupé et al. 2008, doi:10.1109/TMI.2007.906087, for
        volumes.
    """
    offsets = list(itertools.product(*(range(-r, r + 1) for r in patch_radius)))
    padded, shape = reflect(noisy, patch_radius), noisy.shape[1:]
    translates = [
        padded[:, *(slice(r + o, r + o + n) for r, o, n in zip(patch_radius, offset, shape, strict=True))]
        for offset in offsets
    ]
    patches = average(torch.cat(translates)).view(len(offsets), *noisy.shape)
    total, count = torch.zeros_like(noisy), torch.zeros_like(noisy[0])
    for offset, values in zip(offsets, patches, strict=True):
        here = [slice(max(o, 0), n + min(o, 0)) for o, n in zip(offset, shape, strict=True)]
        middle = [slice(max(-o, 0), n + min(-o, 0)) for o, n in zip(offset, shape, strict=True)]
        total[:, *here] += values[:, *middle]
        count[*here] += 1
    return total / count


def fit_planes(noisy: Tensor, axes: list[int], average: WeightedMean) -> Tensor:
    """Fit a plane at each voxel by weighted least squares, and return its value there.

    ::

        out(i) = a   where a, b minimise   Σ_j w(i,j)·(V(j) − a − b·(j − i))² + λ·|b|²·Σ_j w(i,j)

    On a smooth ramp, a weighted mean is right only if its weights are symmetric about the voxel. They are not at
    borders, nor where noise decides which voxels look similar. The plane is right everywhere. The ridge λ (`RIDGE`)
    keeps b small where few voxels have weight.

    Args:
        noisy: (C, D, H, W).
        axes: the axes among D, H, W (0, 1, 2) that are searched; the plane may slope along them.
        average: the non-local mean.

    References:
        P. Chatterjee, P. Milanfar, "A generalization of non-local means via kernel regression", Proc. SPIE 6814, 2008,
        doi:10.1117/12.778615.
    """
    if not axes:
        return average(noisy)
    channels, shape = len(noisy), noisy.shape[1:]
    half = max(shape) / 2  # scales all that is averaged to -1..1, so that float32 has the digits for products
    size = noisy.abs().amax().clamp_min(1e-30)
    along = [torch.arange(n, device=noisy.device, dtype=noisy.dtype) / half - (n - 1) / 2 / half for n in shape]
    grids = torch.meshgrid(*along, indexing="ij")
    place = torch.stack([grids[axis] for axis in axes])
    values = noisy / size
    pairs = list(itertools.combinations_with_replacement(range(len(axes)), 2))
    squares = torch.stack([place[a] * place[b] for a, b in pairs])
    products = (values[:, None] * place).flatten(0, 1)
    means = average(torch.cat([values, place, squares, products]))
    value, middle, square, product = torch.split(means, [channels, len(axes), len(pairs), channels * len(axes)])

    scatter = square.new_empty(*shape, len(axes), len(axes))
    for (a, b), mean in zip(pairs, square, strict=True):
        scatter[..., a, b] = scatter[..., b, a] = mean - middle[a] * middle[b]
    scatter.diagonal(dim1=-2, dim2=-1).add_(RIDGE / half**2)
    covariance = product.view(channels, len(axes), *shape) - value[:, None] * middle
    lower = torch.linalg.cholesky(scatter)  # cholesky_solve would process one voxel after the other on a GPU
    slope = torch.linalg.solve_triangular(lower, covariance.movedim((0, 1), (-1, -2)), upper=False)
    slope = torch.linalg.solve_triangular(lower.mT, slope, upper=True)
    rise = (slope * (place - middle).movedim(0, -1)[..., None]).sum(-2).movedim(-1, 0)
    fitted: Tensor = (value + rise) * size
    return fitted


RIDGE = 1.0
"""Ridge λ in squared voxels. For comparison: the positions in a window of 7 × 7 × 7 have a variance of 4 along each
axis, and those of its few most similar voxels less."""
