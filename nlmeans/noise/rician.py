"""Rician noise: its mean and variance, and the removal of its bias; for one coil or several.

Coils add up as the root of the sum of their squared magnitudes. Such noise is called non-central chi.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from nlmeans.core.modes import outside_autocast

RAYLEIGH_MEAN = math.sqrt(math.pi / 2)
"""Mean of the magnitude where there is no signal, in units of sigma."""


def rician_moments(signal: Tensor, coils: float = 1) -> tuple[Tensor, Tensor]:
    """Compute mean and variance of the magnitude of a complex signal with Gaussian noise of sigma 1 in both parts.

    Args:
        signal: in units of sigma, floating point, any shape; with several coils, the root of the sum of their squares.
        coils: effective number of coils, 1 to 64, not necessarily whole.

    References:
        C. D. Constantinides, E. Atalar, E. R. McVeigh, "Signal-to-noise measurements in magnitude images from NMR
        phased arrays", Magn. Reson. Med. 1997, doi:10.1002/mrm.1910380524.

    Example:
        >>> mean, variance = rician_moments(torch.tensor([0.0, 10.0]))
        >>> [round(v, 4) for v in mean.tolist()], [round(v, 4) for v in variance.tolist()]
        ([1.2533, 10.0501], [0.4292, 0.995])
        >>> mean, variance = rician_moments(torch.tensor([0.0, 10.0]), coils=8)
        >>> [round(v, 4) for v in mean.tolist()], [round(v, 4) for v in variance.tolist()]
        ([3.938, 10.7269], [0.492, 0.9337])
    """
    if coils != 1:
        energy = 2 * coils + signal.square()
        table = variances_by_share(coils)
        variance = look_up(table, 2 * coils / energy * (len(table) - 1))
        return torch.hypot(signal, (2 * coils - variance).sqrt()), variance
    quarter = signal.square() / 4
    bessel = (1 + 2 * quarter) * torch.special.i0e(quarter) + 2 * quarter * torch.special.i1e(quarter)
    mean = RAYLEIGH_MEAN * bessel
    # for strong signals, the difference of squares would lose all digits
    return mean, torch.where(signal > STRONG_SIGNAL, 1 - 0.5 / signal.square(), 2 + signal.square() - mean.square())


STRONG_SIGNAL = 30.0
"""Signal, in units of sigma, above which mean and variance of one coil have simple forms: signal + 1/(2·signal), exact
to seven digits, and 1 − 1/(2·signal²), exact to six."""


@functools.lru_cache(maxsize=64)
@outside_autocast
def variances_by_share(coils: float) -> Tensor:
    """Tabulate the variance over an evenly spaced share of noise in the mean square, 2·coils / (2·coils + signal²).

    The variance is a smooth function of that share, from 0 (infinite signal) to 1 (no signal).
    """
    share = torch.linspace(0, 1, 4097, dtype=torch.float64)[1:]
    mean = integrated_mean((2 * coils * (1 / share - 1)).sqrt(), coils)
    return torch.cat([share.new_ones(1), 2 * coils / share - mean.square()])


def integrated_mean(signal: Tensor, coils: float) -> Tensor:
    """Compute the mean of the magnitude for a vector of signals in float64, in units of sigma, to twelve digits.

    For a non-negative m², the mean of m is the integral of −L'(t) / √(πt) over t > 0, where L is the Laplace transform
    of the density of m²: here (1 + 2t)^−coils · exp(−signal²·t / (1 + 2t)). With √(2t) = sinh(u), the sum over evenly
    spaced u converges exponentially.
    """
    square = signal.square()[:, None]
    width = (square + 2 * coils + 1).rsqrt()
    step = 0.25
    nodes = step * torch.arange(160, dtype=torch.float64)
    weights = torch.full_like(nodes, step * math.sqrt(2 / math.pi))
    weights[0] /= 2
    tanh, sech = torch.tanh(nodes * width), 1 / torch.cosh(nodes * width)
    decay = sech ** (2 * coils + 1) * torch.exp(-square / 2 * tanh.square())
    return (decay * (2 * coils + square * sech.square()) * width) @ weights


def mean_of_air(coils: float = 1) -> float:
    """Return the mean of the magnitude where there is no signal, in units of sigma.

    >>> [round(mean_of_air(coils), 4) for coils in (1, 2, 8)]
    [1.2533, 1.88, 3.938]
    """
    return RAYLEIGH_MEAN * math.exp(math.lgamma(coils + 0.5) - math.lgamma(coils) - math.lgamma(1.5))


def sigma_of_air(mean: float, coils: float = 1) -> float:
    """Return sigma of each Gaussian part from the mean of magnitudes where there is no signal, in the same units.

    >>> round(sigma_of_air(39.38, coils=8), 2)
    10.0
    """
    return mean / mean_of_air(coils)


def coils_of_air(mean: float, deviation: float) -> float:
    """Return the effective number of coils, 1 to 64, from mean and standard deviation of magnitudes without signal.

    >>> round(coils_of_air(39.38, 7.014), 1)
    8.0
    """
    low, high = 1.0, 64.0
    for _ in range(50):
        middle = (low + high) / 2
        square = mean_of_air(middle) ** 2
        if mean**2 * (2 * middle - square) > deviation**2 * square:
            low = middle
        else:
            high = middle
    return round(low, 6)


@functools.lru_cache(maxsize=64)
@outside_autocast
def inverse_mean_table(coils: float) -> tuple[Tensor, float]:
    """Tabulate the signal over evenly spaced √(mean − mean of air), in which it is smooth; return the spacing too."""
    signal = torch.linspace(0, STRONG_SIGNAL + 1, 100_001, dtype=torch.float64)
    mean = rician_moments(signal, coils)[0]
    root = (mean - mean[0]).clamp_min(0).sqrt()
    even = torch.linspace(0, float(root[-1]), 8192, dtype=torch.float64)
    after = torch.searchsorted(root, even).clamp(1, len(root) - 1)
    share = (even - root[after - 1]) / (root[after] - root[after - 1])
    return torch.lerp(signal[after - 1], signal[after], share).float(), float(even[1])


def look_up(table: Tensor, position: Tensor) -> Tensor:
    """Interpolate a table linearly; its entries stand for positions 0, 1, …, and beyond its ends it is constant."""
    table, position = table.to(position), position.clamp(0, len(table) - 1)
    before = position.long().clamp_max(len(table) - 2)
    return torch.lerp(table[before], table[before + 1], position - before)


def rician_deviation(mean: Tensor, coils: float = 1) -> Tensor:
    """Return the standard deviation of a magnitude with this mean, both in units of sigma.

    It rises from 0.655, where there is no signal (from nearly 0.707 with many coils), to 1.

    >>> [round(v, 3) for v in rician_deviation(torch.tensor([1.0, 1.2533, 2.2724, 10.0501])).tolist()]
    [0.655, 0.655, 0.914, 0.997]
    """
    return rician_moments(without_rician_bias(mean, 1.0, coils), coils)[1].sqrt()


def without_rician_bias(mean: Tensor, sigma: float | Tensor, coils: float = 1) -> Tensor:
    """Return the signal whose Rician magnitude has this mean: the exact inverse of the first moment.

    An average of magnitudes estimates their mean, which is larger than the signal: 1.25 sigma where there is no signal,
    and more with several coils (`mean_of_air`). Means at or below that become 0.

    Args:
        mean: floating point, any shape.
        sigma: standard deviation of the noise in both parts of the signal; a number, or a tensor that broadcasts
            against `mean`.
        coils: effective number of coils, 1 to 64, not necessarily whole.

    References:
        C. G. Koay, P. J. Basser, J. Magn. Reson. 2006, doi:10.1016/j.jmr.2006.01.016.

    Example:
        >>> [round(v, 3) for v in without_rician_bias(torch.tensor([1.0, 1.2533, 2.2724, 10.0501]), 1.0).tolist()]
        [0.0, 0.0, 2.0, 10.0]
        >>> [round(v, 2) for v in without_rician_bias(torch.tensor([3.9, 10.7269]), 1.0, coils=8).tolist()]
        [0.0, 10.0]
    """
    table, spacing = inverse_mean_table(coils)
    mean = mean / sigma
    signal = look_up(table, (mean - mean_of_air(coils)).clamp_min(0).sqrt() / spacing)
    square = mean.square()
    if coils == 1:
        strong = mean * (1 + (1 - 2 / square).clamp_min(0).sqrt()) / 2
    else:  # signal² = mean² + variance − 2·coils, where the variance is 1 − (coils − ½) / (mean² − 2)
        strong = mean * (1 - (2 * coils - 1) * (1 + 0.5 / (square - 2)) / square).clamp_min(0).sqrt()
    return torch.where(mean > STRONG_SIGNAL, strong, signal) * sigma
