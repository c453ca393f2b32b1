"""Correlated noise: its level and autocovariance, measured in the flattest blocks of a volume.

Subtract the best plane from a block of pure Gaussian noise: its variance then follows nearly a gamma distribution. The
correlation of the noise determines the shape: the more correlated, the fewer independent values a block has. Structure
only adds variance. Sigma is therefore estimated from the lower end of the distribution alone, from blocks below a
threshold, by maximum likelihood for a truncated distribution. Plain averaging of the flattest blocks would give too low
a value, because noise decides which blocks are flattest. A fit to simulated noise shows how far sigma is still off.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nlmeans.core.axes import Axes
from nlmeans.core.lags import Whitening, covariance_over, mean_over_lags, whitening
from nlmeans.noise.search.usable import measured_voxels

Samples = npt.NDArray[np.float64]

BLOCK, LAG = {2: 12, 3: 6}, {2: 5, 3: 3}
"""Edge of a block, and largest lag of the autocovariance, in voxels, for images and volumes."""

WIDE_BLOCK = {3: 7}
"""Edge of the blocks from which the autocovariance of a volume is read, once its noise is known to be correlated: fewer
are flat, but a plane takes less from them."""

QUANTILE = 0.3
"""Share of pure noise blocks below the threshold."""

BLOCKS_READ = 20_000

FEWEST_BLOCKS, FEWEST_OVERLAPPING = 30, 240
"""Blocks that are needed, if they are two or more voxels apart along all axes, and if they are one apart."""

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
    of: int
    """Blocks looked at."""


def estimate_correlated_noise(
    volume: Tensor, inside: Tensor | None = None, measured: Tensor | None = None
) -> CorrelatedNoise | None:
    """Find level and correlation of Gaussian noise in one volume (D, H, W).

    Args:
        volume: floating point; a depth of 1 is an image.
        inside: where to look, (D, H, W); a block counts if all of it is inside.
        measured: which voxels hold a measurement, (D, H, W); None for `measured_voxels`.

    Returns:
        None where fewer than `FEWEST_BLOCKS` blocks can be used.

    References:
        M. Lebrun, M. Colom, J.-M. Morel, "Multiscale image blind denoising", IEEE Trans. Image Process. 24, 2015,
        doi:10.1109/TIP.2015.2439041 (the covariance of noise from the flattest patches).
    """
    size, lag = block_and_lag(tuple(volume.shape))
    blocks = detrended_blocks(volume, inside, size, measured)
    if len(blocks) < FEWEST_BLOCKS or not blocks.any():
        return None
    found = fit_blocks(blocks, size, lag)
    if found.sigma == 0:
        return found
    one = sigma_found_for_one(found, size, lag)
    sigma = found.sigma / one if one > 0 else 0.0
    # rounded, so that the number of threads, by which sums differ in their last digits, makes no difference
    return found._replace(sigma=float(f"{sigma:.7g}"), autocovariance=found.autocovariance.round(decimals=7))


def measured_again(
    found: CorrelatedNoise, volume: Tensor, inside: Tensor | None = None, measured: Tensor | None = None
) -> CorrelatedNoise:
    """Measure the autocovariance again of noise that `estimate_correlated_noise` found, and that is surely correlated.

    Flat blocks look less correlated than all blocks, and lose low frequencies with their best plane. How much of each
    frequency they lose shows in simulated noise. Frequencies without noise stay so, as the correction is a factor.

    Args:
        found: what was found.
        volume: (D, H, W), the same as there. Images stay as found, as their blocks are large.
        inside: where to look, as there.
        measured: which voxels hold a measurement, as there.
    """
    if 1 in volume.shape:
        return found
    shape = tuple(volume.shape)
    size, lag = block_and_lag(shape, WIDE_BLOCK)
    blocks = detrended_blocks(volume, inside, size, measured, least_stride=1)
    fewest = FEWEST_BLOCKS if stride_of_blocks(shape, size) > 1 else FEWEST_OVERLAPPING
    if len(blocks) < fewest:
        return found
    again = fit_blocks(blocks, size, lag)
    if again.blocks < fewest:
        return found
    return found._replace(autocovariance=without_loss(again.autocovariance, size, lag))


def without_loss(autocovariance: Tensor, size: Axes, lag: Axes) -> Tensor:
    """Return the autocovariance of noise from that of its flat blocks."""
    noise = whitening(autocovariance, size)
    true, seen = mean_over_lags(noise.covariance, size, lag), fit_blocks(simulated_noise(noise, size), size, lag)
    lost = spectrum(true).clip(LEAST_POWER) / spectrum(seen.autocovariance).clip(LEAST_POWER)
    corrected = spectrum(autocovariance) * lost.clip(1 / MOST_LOST, MOST_LOST)
    return symmetric(lags_of_spectrum(corrected)).round(decimals=7)


LEAST_POWER, MOST_LOST = 0.03, 1.5
"""Power, relative to the mean, below which a frequency counts as a hole; and the largest factor of the correction."""


def spectrum(autocovariance: Tensor) -> Samples:
    """Return the power at each frequency. The autocovariance gets one more lag, which is 0, along each axis."""
    padded = np.pad(autocovariance.numpy(), [(int(n > 1), 0) for n in autocovariance.shape])
    power: Samples = np.fft.fftn(np.fft.ifftshift(padded)).real  # torch hangs in processes that were forked
    return power


def lags_of_spectrum(power: Samples) -> Tensor:
    """Return the autocovariance for the power at each frequency: the inverse of `spectrum`."""
    padded = np.fft.fftshift(np.fft.ifftn(power).real)
    return torch.from_numpy(padded[tuple(slice(int(n > 1), None) for n in padded.shape)].copy())


def fit_blocks(blocks: Samples, size: Axes, lag: Axes) -> CorrelatedNoise:
    """Fit sigma and autocovariance to detrended blocks, (blocks, voxels)."""
    variance = np.einsum("bv,bv->b", blocks, blocks) / blocks.shape[1]
    order = np.argsort(variance)
    ordered = variance[order]
    autocovariance = torch.zeros([2 * n + 1 for n in lag], dtype=torch.float64)
    autocovariance[lag] = 1
    threshold = float(ordered[len(ordered) // 10])
    sigma, chosen, products = 0.0, 0, np.zeros((blocks.shape[1],) * 2)
    for _ in range(ROUNDS):
        covariance = without_planes(without_planes(covariance_over(autocovariance, size).numpy(), size).T, size)
        trace, square = float(np.trace(covariance)), float(np.square(covariance).sum())
        mean, shape = trace / len(covariance), trace**2 / square / 2 if square > 0 else math.inf
        scale, threshold = fit_lower_end(ordered, shape, threshold) if 0 < shape < math.inf else (0.0, 0.0)
        if scale == 0:
            return CorrelatedNoise(0.0, autocovariance, 0, len(blocks))
        sigma, before = math.sqrt(scale * shape / mean), chosen
        chosen = int(np.searchsorted(ordered, threshold))
        if not chosen:  # all that are flat are equally so
            return CorrelatedNoise(0.0, autocovariance, 0, len(blocks))
        others = blocks[order[min(before, chosen) : max(before, chosen)]]
        products += math.copysign(1, chosen - before) * (others.T @ others)  # few change from round to round
        found, expected = (mean_over_lags(torch.from_numpy(m), size, lag) for m in (products / chosen, covariance))
        autocovariance = symmetric(autocovariance + found / found[lag] - expected / expected[lag])
    return CorrelatedNoise(sigma, autocovariance, chosen, len(blocks))


def sigma_found_for_one(found: CorrelatedNoise, size: Axes, lag: Axes) -> float:
    """Return the sigma that is found for simulated noise with a sigma of 1 and the autocovariance found.

    It is not 1, because blocks with a low variance look less correlated than all blocks.
    """
    return fit_blocks(simulated_noise(whitening(found.autocovariance, size), size), size, lag).sigma


def simulated_noise(noise: Whitening, size: Axes) -> Samples:
    """Return blocks of correlated noise with a sigma of 1, without their best plane, (blocks, voxels)."""
    return without_planes(simulated_blocks(math.prod(size)) @ noise.colour.numpy(), size)


@functools.lru_cache(maxsize=2)
def simulated_blocks(voxels: int) -> Samples:
    """Return white noise, (blocks, voxels), always the same."""
    return np.random.default_rng(0).standard_normal((SIMULATED_BLOCKS, voxels))


def symmetric(autocovariance: Tensor) -> Tensor:
    """Make the same at opposite lags what must be the same, 1 at lag 0, and no more than that elsewhere."""
    both = (autocovariance + autocovariance.flip(0, 1, 2)) / 2
    middle = tuple(n // 2 for n in both.shape)
    return (both / both[middle]).clamp(-1, 1)


def block_and_lag(shape: tuple[int, ...], edges: dict[int, int] = BLOCK) -> tuple[Axes, Axes]:
    """Edges of a block, and the largest lag along each axis."""
    dimensions = 2 if 1 in shape else 3
    d, h, w = (min(edges[dimensions], n) for n in shape)
    z, y, x = (min(LAG[dimensions], n - 1) for n in (d, h, w))
    return (d, h, w), (z, y, x)


def stride_of_blocks(shape: tuple[int, ...], size: Axes) -> int:
    """Return the distance between blocks, of which there are at most about `BLOCKS_READ`."""
    counts = [n - b + 1 for n, b in zip(shape, size, strict=True)]
    stride: float = (math.prod(counts) / BLOCKS_READ) ** (1 / max(sum(n > 1 for n in counts), 1))
    return math.ceil(stride)


def usable_blocks(volume: Tensor, usable: Tensor, size: Axes, least_stride: int = 2) -> Tensor:
    """Return evenly spaced blocks of usable voxels, (blocks, voxels): at most about `BLOCKS_READ`."""
    stride = max(least_stride, stride_of_blocks(tuple(volume.shape), size))
    return all_blocks(volume, size, stride)[all_blocks(usable, size, stride).all(3)]


def all_blocks(volume: Tensor, size: Axes, stride: int) -> Tensor:
    """Return evenly spaced blocks of a volume, (D, H, W, voxels)."""
    for axis, edge in enumerate(size):
        volume = volume.unfold(axis, edge, stride)
    return volume.reshape(*volume.shape[:3], -1)


def detrended_blocks(
    volume: Tensor, inside: Tensor | None, size: Axes, measured: Tensor | None = None, least_stride: int = 2
) -> Samples:
    """Return evenly spaced blocks without their best plane, (blocks, voxels): at most about `BLOCKS_READ`.

    From here on NumPy computes: products of matrices in torch hang in processes that were forked.
    """
    usable = measured_voxels(volume) if measured is None else measured
    read = usable_blocks(volume, usable if inside is None else usable & inside, size, least_stride)
    blocks: Samples = np.empty(tuple(read.shape))
    largest = float(read.abs().max()) if len(read) else 0.0
    for first in range(0, len(blocks), BLOCKS_AT_ONCE):  # what NumPy copies for a product stays small
        some = read[first : first + BLOCKS_AT_ONCE].double().cpu().numpy()
        some = without_planes(some - some.mean(1, keepdims=True), size)
        some[np.abs(some).max(1) < FLAT_TO_ROUNDING * largest] = 0.0  # a constant or a plane
        blocks[first : first + BLOCKS_AT_ONCE] = some
    return blocks


BLOCKS_AT_ONCE = 1024
"""Blocks whose planes are subtracted at once: two megabytes, which fit the cache of a core."""

FLAT_TO_ROUNDING = 1e-6
"""Deviation from a plane, relative to the largest value of all, that is rounding."""


def without_planes(blocks: Samples, size: Axes) -> Samples:
    """Subtract the best plane from each block, (blocks, voxels)."""
    basis = planes(size)
    return blocks - (blocks @ basis) @ basis.T


@functools.lru_cache(maxsize=8)
def planes(size: Axes) -> Samples:
    """Return an orthonormal basis of the planes over a block, (voxels, planes)."""
    places = np.indices(size).reshape(3, -1).astype(np.float64)
    columns = np.concatenate([np.ones((1, places.shape[1])), places[[n > 1 for n in size]]])
    return np.linalg.qr(columns.T).Q


def fit_lower_end(ordered: Samples, shape: float, threshold: float) -> tuple[float, float]:
    """Fit the scale of a gamma distribution to the values below a threshold. Return the scale and the threshold.

    The threshold is the `QUANTILE` of the distribution: the one nearest to the first guess for which that holds. It is
    found by bisection. Between two samples the quantile falls while the threshold rises, so a last digit of the samples
    changes no more than a last digit of the result; taking threshold and scale in turn made it 0.05 per cent.

    Args:
        ordered: the values, rising.
        shape: shape of the distribution.
        threshold: a first guess.
    """
    limits, means, quantile = truncated_gamma(shape)
    sums, fewest = np.cumsum(ordered), min(FEWEST_BLOCKS, len(ordered))
    least = float(ordered[fewest - 1])
    if least == 0:
        return 0.0, 0.0

    def scale_below(limit: float) -> float:
        count = max(int(np.searchsorted(ordered, limit)), fewest)
        return limit / float(np.interp(-float(sums[count - 1]) / count / limit, means, limits))

    low = high = max(threshold, least)
    while scale_below(high) * quantile > high:
        low, high = high, high * BRACKET
    while scale_below(low) * quantile < low and low > least:
        low, high = max(low / BRACKET, least), low
    if scale_below(low) * quantile < low:
        scale = scale_below(low)
        return scale, scale * quantile
    while high - low > 1e-14 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if scale_below(middle) * quantile > middle else (low, middle)
    return scale_below(low), low


BRACKET = 1.02
"""Ratio of the thresholds tried, one after another, until one is too low and the next too high."""


@functools.lru_cache(maxsize=64)
def truncated_gamma(shape: float) -> tuple[Samples, Samples, float]:
    """Tabulate a gamma distribution of scale 1 below a limit.

    Returns:
        Limits, rising; minus the mean of the values below each limit, divided by the limit, rising too; and the
        `QUANTILE` of the distribution. With the mean below a known threshold, the table gives the scale of maximum
        likelihood.

    >>> limits, means, quantile = truncated_gamma(1.0)  # the exponential distribution
    >>> round(quantile, 4), round(float(np.interp(quantile, limits, -means)), 4)  # -log(0.7), and the mean below it
    (0.3567, 0.4703)
    """
    limits = torch.logspace(-2.5, 1.5, 2000, dtype=torch.float64) * shape
    below, more = (torch.special.gammainc(torch.full_like(limits, s), limits) for s in (shape, shape + 1))
    known = below > 1e-200
    limits, below, more = limits[known], below[known], more[known]
    means = -shape * more / below / limits
    quantile = float(np.interp(QUANTILE, below.numpy(), limits.numpy()))
    return limits.numpy(), means.numpy(), quantile


LEAST_RESPONSE = 0.01
"""Least share of the deviation of correlated noise that its finest detail must hold. With less, the finest detail says
nothing about the noise."""


def deviation_of_finest(finest: float, autocovariance: Tensor | None) -> float | None:
    """Return the deviation of noise whose finest detail has this one; None if such noise shows in no finest detail.

    >>> deviation_of_finest(2.0, None), deviation_of_finest(2.0, torch.ones(1, 1, 3))
    (2.0, None)
    """
    response = 1.0 if autocovariance is None else response_of_finest(autocovariance)
    return finest / response if response >= LEAST_RESPONSE else None


def response_of_finest(autocovariance: Tensor) -> float:
    """Standard deviation of second differences along all axes, normalised to 1 for white noise.

    >>> response_of_finest(torch.tensor([[[0.0, 1.0, 0.0]]], dtype=torch.float64))
    1.0
    """
    taps = torch.tensor([1.0, -4.0, 6.0, -4.0, 1.0], dtype=torch.float64) / 6  # of the squared filter
    values = autocovariance.double()
    for axis, lags in enumerate(autocovariance.shape):
        if lags > 1:
            reach, kept = lags // 2, min(2, lags // 2)
            near = values.narrow(axis, reach - kept, 2 * kept + 1)
            shape = [1] * 3
            shape[axis] = -1
            values = (near * taps[2 - kept : 3 + kept].view(shape)).sum(axis, keepdim=True)
    return math.sqrt(max(float(values), 0.0))
