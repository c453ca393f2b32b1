"""Correlated noise: its level and autocovariance, measured in the flattest blocks of a volume.

Subtract the best plane from a block of pure Gaussian noise: its variance then follows nearly a gamma distribution. The
correlation of the noise determines the shape: the more correlated, the fewer independent values a block has. Structure
only adds variance. Sigma is therefore estimated from the lower end of the distribution alone, from blocks below a
threshold, by maximum likelihood for a truncated distribution. Plain averaging of the flattest blocks would give too low
a value, because noise decides which blocks are flattest. A fit to simulated noise shows how far sigma is still off.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from nlmeans.core.axes import Axes
from nlmeans.core.lags import covariance_over, mean_over_lags, whitening
from nlmeans.core.threads import shared_among

BLOCK, LAG = {2: 12, 3: 6}, {2: 5, 3: 3}
"""Edge of a block, and largest lag of the autocovariance, in voxels, for images and volumes."""

QUANTILE = 0.3
"""Share of pure noise blocks below the threshold."""

BLOCKS_READ = 20_000

FEWEST_BLOCKS = 30

SIMULATED_BLOCKS = 5_000
"""Blocks of pure noise by which sigma is corrected."""

ROUNDS = 6
"""The shape of the distribution follows from the correlation, and the correlation from the blocks chosen."""


class CorrelatedNoise(NamedTuple):
    """What was found."""

    sigma: float
    autocovariance: Tensor
    """In units of sigma², at lags −l … l along depth, height and width; 1 in the middle. float64."""
    blocks: int
    """Blocks that it was read from."""


def estimate_correlated_noise(volume: Tensor, inside: Tensor | None = None) -> CorrelatedNoise | None:
    """Find level and correlation of Gaussian noise in one volume (D, H, W).

    Args:
        volume: floating point; a depth of 1 is an image.
        inside: where to look, (D, H, W); a block counts if all of it is inside.

    Returns:
        None where fewer than `FEWEST_BLOCKS` blocks can be used.

    References:
        M. Lebrun, M. Colom, J.-M. Morel, "Multiscale image blind denoising", IEEE Trans. Image Process. 24, 2015,
        doi:10.1109/TIP.2015.2439041 (the covariance of noise from the flattest patches).
    """
    size, lag = block_and_lag(tuple(volume.shape))
    with shared_among(torch.get_num_threads()):  # many short steps, which several threads do not make shorter
        return fit_volume(volume, inside, size, lag)


def fit_volume(volume: Tensor, inside: Tensor | None, size: Axes, lag: Axes) -> CorrelatedNoise | None:
    """Find level and correlation from blocks of a given size, with lags as large as given."""
    blocks = detrended_blocks(volume, inside, size)
    if len(blocks) < FEWEST_BLOCKS or not bool(blocks.any()):
        return None
    found = fit_blocks(blocks, size, lag)
    return found if found.sigma == 0 else found._replace(sigma=found.sigma / sigma_found_for_one(found, size, lag))


def fit_blocks(blocks: Tensor, size: Axes, lag: Axes) -> CorrelatedNoise:
    """Fit sigma and autocovariance to detrended blocks, (blocks, voxels)."""
    variance = blocks.square().mean(1)
    projector = plane_projector(size).to(blocks)
    autocovariance = torch.zeros([2 * n + 1 for n in lag], dtype=torch.float64, device=blocks.device)
    autocovariance[lag] = 1
    threshold = float(variance.quantile(0.1))
    sigma, chosen = 0.0, blocks[:0]
    for _ in range(ROUNDS):
        covariance = projector @ covariance_over(autocovariance, size) @ projector
        trace, square = float(covariance.diagonal().sum()), float(covariance.square().sum())
        mean, shape = trace / len(projector), trace**2 / square / 2
        scale, threshold = fit_lower_end(variance, shape, threshold)
        if scale == 0:
            break
        sigma = math.sqrt(scale * shape / mean)
        chosen = blocks[variance < threshold]
        found, expected = mean_products(chosen, size, lag), mean_over_lags(covariance, size, lag)
        autocovariance = symmetric(autocovariance + found / found[lag] - expected / expected[lag])
    return CorrelatedNoise(sigma, autocovariance, len(chosen))


def sigma_found_for_one(found: CorrelatedNoise, size: Axes, lag: Axes) -> float:
    """Return the sigma that is found for simulated noise with a sigma of 1 and the autocovariance found.

    It is not 1, because blocks with a low variance look less correlated than all blocks. The autocovariance stays as it
    is: corrected in the same way, it made results up to 2 dB worse where parts of k-space have no noise.
    """
    colour = whitening(found.autocovariance.cpu(), size).colour
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(SIMULATED_BLOCKS, len(colour), generator=generator, dtype=torch.float64)
    return fit_blocks(noise @ colour @ plane_projector(size), size, lag).sigma


def symmetric(autocovariance: Tensor) -> Tensor:
    """Make the same at opposite lags what must be the same, 1 at lag 0, and no more than that elsewhere."""
    both = (autocovariance + autocovariance.flip(0, 1, 2)) / 2
    middle = tuple(n // 2 for n in both.shape)
    return (both / both[middle]).clamp(-1, 1)


def block_and_lag(shape: tuple[int, ...]) -> tuple[Axes, Axes]:
    """Edges of a block, and the largest lag along each axis."""
    dimensions = 2 if 1 in shape else 3
    d, h, w = (min(BLOCK[dimensions], n) for n in shape)
    z, y, x = (min(LAG[dimensions], n - 1) for n in (d, h, w))
    return (d, h, w), (z, y, x)


def detrended_blocks(volume: Tensor, inside: Tensor | None, size: Axes) -> Tensor:
    """Return evenly spaced blocks without their best plane, (blocks, voxels): at most about `BLOCKS_READ`."""
    counts = [n - b + 1 for n, b in zip(volume.shape, size, strict=True)]
    long = sum(n > 1 for n in counts)
    stride = max(2, math.ceil((math.prod(counts) / BLOCKS_READ) ** (1 / max(long, 1))))

    def cut(values: Tensor) -> Tensor:
        for axis, edge in enumerate(size):
            values = values.unfold(axis, edge, stride)
        return values.reshape(-1, math.prod(size))

    blocks = cut(volume).double()
    usable = (blocks != 0).all(1)  # exact zeros are a removed background
    if inside is not None:
        usable &= cut(inside).all(1)
    blocks = blocks[usable]
    projected: Tensor = (blocks - blocks.mean(1, keepdim=True)) @ plane_projector(size).to(blocks)
    return projected


def plane_projector(size: Axes) -> Tensor:
    """Return the matrix that subtracts the best plane from a block, (voxels, voxels)."""
    axes = [torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in size]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)
    columns = torch.cat([torch.ones(1, places.shape[1], dtype=torch.float64), places[[n > 1 for n in size]]])
    basis: Tensor = torch.linalg.qr(columns.T).Q
    return torch.eye(len(basis), dtype=torch.float64) - basis @ basis.T


def mean_products(blocks: Tensor, size: Axes, lag: Axes) -> Tensor:
    """Return the mean product of two voxels of a block at each lag."""
    values = blocks.view(-1, *size)
    means = torch.zeros([2 * n + 1 for n in lag], dtype=torch.float64, device=blocks.device)
    for offset in itertools.product(*(range(-n, n + 1) for n in lag)):
        here = tuple(slice(max(0, -o), n - max(0, o)) for o, n in zip(offset, size, strict=True))
        there = tuple(slice(max(0, o), n - max(0, -o)) for o, n in zip(offset, size, strict=True))
        place = tuple(o + n for o, n in zip(offset, lag, strict=True))
        means[place] = (values[:, *here] * values[:, *there]).mean()
    return means


def fit_lower_end(variance: Tensor, shape: float, threshold: float) -> tuple[float, float]:
    """Fit the scale of a gamma distribution to the values below a threshold. Return the scale and the threshold.

    The threshold is the `QUANTILE` of the distribution, so both are found in turn.
    """
    ordered = variance.sort().values
    scale = threshold / shape
    for _ in range(30):
        below = ordered[ordered < threshold]
        if len(below) < FEWEST_BLOCKS:
            below = ordered[:FEWEST_BLOCKS]
            threshold = float(below[-1])
        if threshold == 0:
            return 0.0, 0.0
        scale = scale_of_truncated(float(below.mean()), shape, threshold)
        updated = scale * gamma_quantile(shape, QUANTILE)
        if abs(updated - threshold) < 1e-3 * threshold:
            break
        threshold = updated
    return scale, threshold


def scale_of_truncated(mean: float, shape: float, threshold: float) -> float:
    """Return the scale for which values below the threshold have this mean: the maximum likelihood."""
    low, high = math.log(mean / shape) - 1, math.log(mean / shape) + 3
    for _ in range(50):
        middle = (low + high) / 2
        limit = threshold / math.exp(middle)
        expected = math.exp(middle) * shape * gamma_below(shape + 1, limit) / max(gamma_below(shape, limit), 1e-300)
        low, high = (middle, high) if expected < mean else (low, middle)
    return math.exp((low + high) / 2)


def gamma_below(shape: float, value: float) -> float:
    """Return the probability that a gamma variable of scale 1 is below a value."""
    arguments = torch.tensor([shape, value], dtype=torch.float64)
    return float(torch.special.gammainc(*arguments))


def gamma_quantile(shape: float, share: float) -> float:
    """Return the value below which a gamma variable of scale 1 lies with this probability.

    >>> round(gamma_quantile(1.0, 0.5), 4)  # of the exponential distribution: the logarithm of 2
    0.6931
    """
    low, high = 0.0, shape + 20 * math.sqrt(shape) + 20
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if gamma_below(shape, middle) < share else (low, middle)
    return (low + high) / 2
