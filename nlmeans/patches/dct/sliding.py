"""Denoise by shrinking the discrete cosine transform (DCT) of overlapping patches.

Each patch of a regular grid is transformed, its coefficients are shrunk, and it is transformed back. Where patches
overlap they are averaged, weighted in inverse proportion to the noise that each has left.

References:
    L. Yaroslavsky, K. Egiazarian, J. Astola, "Transform domain image restoration methods: review, comparison, and
    interpretation", Proc. SPIE 4304, 2001, doi:10.1117/12.424970.
    J. V. Manjón et al., "New methods for MRI denoising based on sparseness and self-similarity", Medical Image
    Analysis 16(1), 2012, doi:10.1016/j.media.2011.04.003.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from nlmeans.core.axes import Axes
from nlmeans.core.lags import dct_basis, dct_matrix, whitening
from nlmeans.core.progress import Report, part, silent
from nlmeans.kernels.dispatch import kernel_for
from nlmeans.patches.dct import cpu, gpu
from nlmeans.patches.grid import covered, grid_view, offsets, patch_size
from nlmeans.patches.kernel_constants import EDGE

Shrink = Callable[[list[Tensor], Tensor, Tensor], tuple[Tensor, Tensor]]
"""A function of the coefficients of each volume, (patch voxels, patches), of the noise variance, per patch or
0-dimensional, and of the variance in each coefficient relative to that, (patch voxels, 1). It returns the shrunk
coefficients and the weight of each patch."""

FilterChannel = Callable[..., Tensor]
"""A function of the padded volumes, of the variance of the noise, of the size of a patch, and of `progress`; see
`filter_channel`."""

SLAB_PATCHES = 8192
"""Patches transformed at once on a CPU. They and their coefficients should fit the cache of one core."""

SLAB_PATCHES_GPU = 2**18
"""Patches transformed at once on a GPU: enough to keep it busy, in some hundred megabytes."""


def hard_threshold(
    noisy: Tensor,
    sigma: float | Tensor = 1.0,
    *,
    patch: int = 4,
    stride: int = 2,
    threshold: float = 2.7,
    autocovariance: Tensor | None = None,
    progress: Report = silent,
) -> Tensor:
    """Drop the coefficients below ``threshold`` × the standard deviation of the noise in them. DC always stays.

    The weight of a patch is 1 / (noise variance of the coefficients kept).

    Args:
        noisy: (C, D, H, W), floating point; channels are filtered one by one. A depth of 1 is an image.
        sigma: standard deviation of the noise, a number or a (D, H, W) map.
        patch: edge of a patch in voxels; axes shorter than that have patches of their own length.
        stride: distance between patches in voxels, no more than `patch`.
        threshold: in units of sigma.
        autocovariance: of the noise, in units of sigma², with lag 0 in the middle; None for white noise.
        progress: called with the fraction done.

    Returns:
        Same shape, dtype and device.
    """

    def shrink(coefficients: list[Tensor], variance: Tensor, spectrum: Tensor) -> tuple[Tensor, Tensor]:
        noisy = coefficients[0]
        kept = noisy.square() > threshold**2 * variance * spectrum
        kept[0] = True
        return noisy * kept, 1 / ((kept * spectrum).sum(0) * variance)

    return filter_patches([noisy], sigma, patch, stride, shrink, threshold**2, autocovariance, progress)


def wiener_filter(
    noisy: Tensor,
    pilot: Tensor,
    sigma: float | Tensor = 1.0,
    *,
    patch: int = 4,
    stride: int = 1,
    power: float = 1.0,
    autocovariance: Tensor | None = None,
    progress: Report = silent,
) -> Tensor:
    """Multiply each coefficient of the noisy patch by s = O² / (O² + power·v), where O is the pilot's coefficient.

    v is the variance of the noise in the coefficient: sigma², if the noise is white.

    The mean of a patch (DC) always stays. The weight of a patch is 1 / Σs²v, in inverse proportion to the noise left in
    it.

    Args:
        noisy: (C, D, H, W), floating point; channels are filtered one by one. A depth of 1 is an image.
        pilot: a first estimate, of the same shape.
        sigma: standard deviation of the noise, a number or a (D, H, W) map.
        patch: edge of a patch in voxels; axes shorter than that have patches of their own length.
        stride: distance between patches in voxels, no more than `patch`.
        power: factor on the noise variance; more than 1 smooths more.
        autocovariance: as for `hard_threshold`.
        progress: called with the fraction done.

    Returns:
        Same shape, dtype and device.
    """

    def shrink(coefficients: list[Tensor], variance: Tensor, spectrum: Tensor) -> tuple[Tensor, Tensor]:
        noisy, oracle = coefficients
        energy = oracle.square()
        gain = energy / (energy + power * variance * spectrum)
        gain[0] = 1
        return noisy * gain, 1 / ((gain.square() * spectrum).sum(0) * variance)

    return filter_patches([noisy, pilot], sigma, patch, stride, shrink, power, autocovariance, progress)


def filter_patches(
    volumes: list[Tensor],
    sigma: float | Tensor,
    patch: int,
    stride: int,
    shrink: Shrink,
    strength: float,
    autocovariance: Tensor | None,
    progress: Report,
) -> Tensor:
    """Shrink the patches of the first volume, channel by channel, and average them where they overlap.

    The compiled kernels do not call `shrink`. They know the filter from the number of volumes, one for `hard_threshold`
    and two for `wiener_filter`, and from `strength`, which is threshold² or the power.
    """
    shape = tuple(volumes[0].shape[1:])
    size = patch_size(patch, shape)
    step = patch_size(stride, size)
    margin = tuple(p - 1 for p in size)
    variance = sigma.square() if isinstance(sigma, Tensor) else volumes[0].new_tensor(sigma).square()
    if variance.ndim:
        variance = covered(variance.to(volumes[0]), size, step, margin)
    spectrum = coefficient_variance(autocovariance, size)
    plain: FilterChannel = partial(filter_channel, step=step, shrink=shrink, spectrum=spectrum)
    served, matrix = cpu.serves(size, step), dct_matrix(EDGE)
    compiled: FilterChannel = partial(cpu.filter_channel, strength=strength, spectrum=spectrum, matrix=matrix)
    fused: FilterChannel = partial(gpu.filter_channel, strength=strength, spectrum=spectrum, matrix=matrix)
    results, count = [], len(volumes[0])
    for number, channel in enumerate(zip(*volumes, strict=True)):
        padded = [covered(volume, size, step, margin) for volume in channel]
        run: FilterChannel = kernel_for(
            padded,
            plain=plain,
            cpu=compiled if served else None,
            gpu=fused if served else None,
            trial=gpu.trial(size, len(volumes) > 1, variance.ndim > 0),
        )
        report = part(progress, number / count, (number + 1) / count)
        results.append(run(padded, variance, size, progress=report))
    inside = tuple(slice(m, m + n) for m, n in zip(margin, shape, strict=True))
    return torch.stack([result[inside] for result in results])


def filter_channel(
    volumes: list[Tensor],
    variance: Tensor,
    size: Axes,
    step: Axes,
    shrink: Shrink,
    spectrum: Tensor,
    progress: Report = silent,
) -> Tensor:
    """Shrink and average the patches of padded (D, H, W) volumes that the grid of patches covers exactly."""
    shape = volumes[0].shape
    basis, shares = dct_basis(size).to(volumes[0]), spectrum.to(volumes[0])[:, None]
    depth, height, width = (1 + (n - p) // s for n, p, s in zip(shape, size, step, strict=True))
    total, weights = torch.zeros_like(volumes[0]), torch.zeros_like(volumes[0])
    rows = max(1, (SLAB_PATCHES_GPU if total.is_cuda else SLAB_PATCHES) // (height * width))
    for first in range(0, depth, rows):
        grid = (min(rows, depth - first), height, width)
        slab = slice(first * step[0], (first + grid[0] - 1) * step[0] + size[0])
        coefficients = [basis @ stack_patches(volume[slab], size, step, grid).flatten(1) for volume in volumes]
        level = stack_patches(variance[slab], size, step, grid).flatten(1).mean(0) if variance.ndim else variance
        shrunk, weight = shrink(coefficients, level, shares)
        restored = (basis.T @ shrunk).mul_(weight)
        put_back(total[slab], restored.view(-1, *grid), size, step)
        put_back(weights[slab], weight.view(1, *grid).expand(len(basis), *grid), size, step)
        progress((first + grid[0]) / depth)
    return total / weights


def coefficient_variance(autocovariance: Tensor | None, size: Axes) -> Tensor:
    """Variance of the noise in each coefficient of a patch, relative to its mean, float64; 1 for white noise."""
    if autocovariance is None:
        return torch.ones(math.prod(size), dtype=torch.float64)
    return whitening(autocovariance, size).spectrum(dct_basis(size))


def stack_patches(volume: Tensor, size: Axes, step: Axes, grid: Axes) -> Tensor:
    """Stack the patches of a regular grid, (patch voxels, *grid)."""
    views = [grid_view(volume, offset, step, grid) for offset in offsets(size)]
    return torch.stack(views)


def put_back(volume: Tensor, values: Tensor, size: Axes, step: Axes) -> None:
    """Add patches, (patch voxels, *grid), to the volume where they lie: the adjoint of `stack_patches`."""
    for offset, value in zip(offsets(size), values, strict=True):
        grid_view(volume, offset, step, (value.shape[0], value.shape[1], value.shape[2])).add_(value)
