"""Shrink the singular values of groups of similar patches, and of local patches along a series.

References:
    M. Gavish, D. L. Donoho, "Optimal shrinkage of singular values", IEEE Transactions on Information Theory 63(4),
    2017, doi:10.1109/TIT.2017.2653801.
    J. Veraart, D. S. Novikov, D. Christiaens, B. Ades-aron, J. Sijbers, E. Fieremans, "Denoising of diffusion MRI using
    random matrix theory", NeuroImage 142, 2016, doi:10.1016/j.neuroimage.2016.08.016.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nlmeans.core.axes import Axes
from nlmeans.core.lags import Whitening, whitening
from nlmeans.core.progress import Report, silent
from nlmeans.core.threads import shared_among
from nlmeans.kernels.turns import in_threads
from nlmeans.patches.groups import (
    BATCH_GROUPS,
    BATCH_GROUPS_GPU,
    LEAST_VARIANCE,
    Average,
    Filtered,
    Grid,
    filter_volume,
    patch_means,
    read_patches,
)


def low_rank(
    noisy: Tensor,
    guide: Tensor,
    sigma: float | Tensor = 1.0,
    *,
    patch: int = 4,
    step: int = 3,
    count: int = 64,
    search_radius: Axes = (4, 4, 4),
    tolerance: float = 0.2,
    autocovariance: Tensor | None = None,
    progress: Report = silent,
) -> Tensor:
    """Shrink the singular values of groups of similar patches; see `shrink_singular_values`.

    The arguments are those of `nl_bayes`. The guide serves only to find the groups.
    """

    def filter_groups(noisy: Tensor, guide: Tensor, variance: Tensor) -> Filtered:
        return shrink_singular_values(noisy, variance, noise)

    shape = (noisy.shape[1], noisy.shape[2], noisy.shape[3])
    grid = Grid.of(shape, patch, step, count, search_radius)
    noise = None if autocovariance is None else whitening(autocovariance, grid.size)
    return filter_volume(noisy, guide, sigma, grid, tolerance, filter_groups, progress)


def series_low_rank(
    noisy: Tensor,
    sigma: float | Tensor = 1.0,
    *,
    patch: int = 5,
    step: int = 2,
    autocovariance: Tensor | None = None,
    progress: Report = silent,
) -> Tensor:
    """Denoise a series by MP-PCA (Veraart et al. 2016), with the singular values of (patch voxels × volumes) shrunk.

    The signals of neighbouring voxels over the volumes, such as their decay with diffusion weighting, have a few
    components; noise has all. Known noise has known singular values (Marchenko and Pastur 1967). Those above them are
    shrunk optimally instead of only kept; see `shrink_singular_values`.

    Args:
        noisy: (C, D, H, W), where C are the volumes of the series.
        sigma: standard deviation of the noise, a number or a (D, H, W) map.
        patch: edge of a patch in voxels; axes shorter than that have patches of their own length.
        step: distance between patches in voxels.
        autocovariance: of the noise within a volume, in units of sigma², with lag 0 in the middle; None for white
            noise.
        progress: called with the fraction done.

    Returns:
        Same shape, dtype and device.
    """
    shape = (noisy.shape[1], noisy.shape[2], noisy.shape[3])
    grid = Grid.of(shape, patch, step, 1, (0, 0, 0))
    noise = None if autocovariance is None else whitening(autocovariance, grid.size)
    values = grid.covered(noisy)
    average = [Average.of(channel, grid) for channel in values]
    variance = patch_means(grid.covered((torch.ones_like(noisy[:1]) * sigma).square())[0], grid).flatten()
    _, height, width = grid.shape
    z, y, x = (torch.arange(n, device=noisy.device) * s for n, s in zip(grid.references, grid.step, strict=True))
    corners = ((z[:, None] * height + y)[..., None] * width + x).flatten()
    batches = torch.split(corners, BATCH_GROUPS if noisy.device.type == "cpu" else BATCH_GROUPS_GPU)
    for number, batch in enumerate(batches):
        place = batch[:, None].contiguous()
        patches = torch.cat([read_patches(channel, place, grid.size) for channel in values], dim=1)
        mean = patches.mean(2, keepdim=True)
        detail = patches - mean if noise is None else (patches - mean) @ noise.whiten.to(patches)
        filtered = shrink_singular_values(detail.mT.contiguous(), variance[batch])
        detail = filtered.patches.mT if noise is None else filtered.patches.mT @ noise.colour.to(patches)
        for channel, total in enumerate(average):
            total.add(place, Filtered((mean + detail)[:, channel, None].contiguous(), filtered.weight))
        progress((number + 1) / len(batches))
    d, h, w = shape
    return torch.stack([total.result()[:d, :h, :w] for total in average])


def shrink_singular_values(noisy: Tensor, variance: Tensor, correlated: Whitening | None = None) -> Filtered:
    """Shrink the singular values of each group minus its mean patch so that the expected squared error is least.

    A group is a K × n matrix, with n voxels in a patch; β = K/n. A singular value y, in units of σ√n, becomes
    √((y²−β−1)²−4β)/y, and 0 if it is below 1+√β (Gavish and Donoho 2017). The weight of a group is
    1 / ((1 + its rank) · σ²). Correlated noise is whitened before and coloured afterwards.

    Args:
        noisy: (groups, K, patch voxels).
        variance: variance of the noise, (groups,).
        correlated: the correlation of the noise over a patch; None for white noise.
    """
    count, voxels = noisy.shape[1:]
    short, long = min(count, voxels), max(count, voxels)
    ratio = short / long
    mean = noisy.mean(1, keepdim=True)
    detail = noisy - mean
    if correlated is not None:
        detail = detail @ correlated.whiten.to(detail)
    gram = detail @ detail.mT if count <= voxels else detail.mT @ detail
    energies, vectors = eigenvectors(gram)
    energies = energies / (long * variance[:, None])
    gain = ((energies - ratio - 1).square() - 4 * ratio).clamp_min(0).sqrt() / energies.clamp_min(ratio)
    gain = torch.where(energies > (1 + math.sqrt(ratio)) ** 2, gain, 0)
    projection = (vectors * gain[:, None, :]) @ vectors.mT
    shrunk = projection @ detail if count <= voxels else detail @ projection
    if correlated is not None:
        shrunk = shrunk @ correlated.colour.to(shrunk)
    return Filtered(shrunk.add_(mean), 1 / ((1 + gain.count_nonzero(1)) * variance.clamp_min(LEAST_VARIANCE)))


def eigenvectors(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues and eigenvectors of symmetric matrices, (groups, K, K), with one thread per matrix.

    Several threads on one small matrix mostly wait for each other: where other processes keep the cores busy, they take
    a hundred times as long. A GPU would process one matrix after the other, which is slower than the CPU.
    """
    source, threads = matrices.cpu(), torch.get_num_threads()
    values, vectors = torch.empty_like(source[..., 0]), torch.empty_like(source)

    def work(first: int, last: int) -> None:
        with shared_among(threads):
            values[first:last], vectors[first:last] = torch.linalg.eigh(source[first:last])

    in_threads(work, len(source))
    return values.to(matrices.device), vectors.to(matrices.device)
