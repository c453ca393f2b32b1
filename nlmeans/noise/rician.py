"""Rician noise: its mean and variance, and the removal of its bias."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

RAYLEIGH_MEAN = math.sqrt(math.pi / 2)
"""Mean of the magnitude where there is no signal, in units of sigma."""


def rician_moments(signal: Tensor) -> tuple[Tensor, Tensor]:
    """Compute mean and variance of the magnitude of a complex signal with Gaussian noise of sigma 1 in both parts.

    >>> mean, variance = rician_moments(torch.tensor([0.0, 10.0]))
    >>> [round(v, 4) for v in mean.tolist()], [round(v, 4) for v in variance.tolist()]
    ([1.2533, 10.0501], [0.4292, 0.995])
    """
    quarter = signal.square() / 4
    bessel = (1 + 2 * quarter) * torch.special.i0e(quarter) + 2 * quarter * torch.special.i1e(quarter)
    mean = RAYLEIGH_MEAN * bessel
    # for strong signals, the difference of squares would lose all digits
    return mean, torch.where(signal > STRONG_SIGNAL, 1 - 0.5 / signal.square(), 2 + signal.square() - mean.square())


STRONG_SIGNAL = 30.0
"""Signal, in units of sigma, above which mean and variance have simple forms: signal + 1/(2·signal), exact to seven
digits, and 1 − 1/(2·signal²), exact to six."""


@functools.cache
def inverse_mean_table() -> tuple[Tensor, float]:
    """Tabulate the signal over evenly spaced √(mean − Rayleigh mean), in which it is smooth; return the spacing too."""
    signal = torch.linspace(0, STRONG_SIGNAL + 1, 100_001, dtype=torch.float64)
    root = (rician_moments(signal)[0] - RAYLEIGH_MEAN).clamp_min(0).sqrt()
    even = torch.linspace(0, float(root[-1]), 8192, dtype=torch.float64)
    after = torch.searchsorted(root, even).clamp(1, len(root) - 1)
    share = (even - root[after - 1]) / (root[after] - root[after - 1])
    return torch.lerp(signal[after - 1], signal[after], share).float(), float(even[1])


def look_up(table: Tensor, position: Tensor) -> Tensor:
    """Interpolate a table linearly; its entries stand for positions 0, 1, …, and beyond its ends it is constant."""
    table, position = table.to(position), position.clamp(0, len(table) - 1)
    before = position.long().clamp_max(len(table) - 2)
    return torch.lerp(table[before], table[before + 1], position - before)


def rician_deviation(mean: Tensor) -> Tensor:
    """Return the standard deviation of a magnitude with this mean, both in units of sigma.

    It rises from 0.655, where there is no signal, to 1.

    >>> [round(v, 3) for v in rician_deviation(torch.tensor([1.0, 1.2533, 2.2724, 10.0501])).tolist()]
    [0.655, 0.655, 0.914, 0.997]
    """
    return rician_moments(without_rician_bias(mean, 1.0))[1].sqrt()


def without_rician_bias(mean: Tensor, sigma: float | Tensor) -> Tensor:
    """Return the signal whose Rician magnitude has this mean: the exact inverse of the first moment.

    An average of magnitudes estimates their mean, which is larger than the signal: 1.25 sigma where there is no signal.
    Means at or below 1.25 sigma become 0.

    Args:
        mean: floating point, any shape.
        sigma: standard deviation of the noise in both parts of the signal; a number, or a tensor that broadcasts
            against `mean`.

    References:
        C. G. Koay, P. J. Basser, J. Magn. Reson. 2006, doi:10.1016/j.jmr.2006.01.016.

    Example:
        >>> [round(v, 3) for v in without_rician_bias(torch.tensor([1.0, 1.2533, 2.2724, 10.0501]), 1.0).tolist()]
        [0.0, 0.0, 2.0, 10.0]
    """
    table, spacing = inverse_mean_table()
    mean = mean / sigma
    signal = look_up(table, (mean - RAYLEIGH_MEAN).clamp_min(0).sqrt() / spacing)
    strong = mean * (1 + (1 - 2 / mean.square()).clamp_min(0).sqrt()) / 2
    return torch.where(mean > STRONG_SIGNAL, strong, signal) * sigma
