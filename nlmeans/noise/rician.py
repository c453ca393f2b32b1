"""Rician noise: its mean and variance, and how its bias is removed."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

RAYLEIGH_MEAN = math.sqrt(math.pi / 2)
"""Mean of the magnitude where there is no signal, in units of sigma."""


def rician_moments(signal: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of the magnitude of a signal with Gaussian noise of sigma 1 in both of its parts.

    >>> mean, variance = rician_moments(torch.tensor([0.0, 10.0]))
    >>> [round(v, 4) for v in mean.tolist()], [round(v, 4) for v in variance.tolist()]
    ([1.2533, 10.0501], [0.4292, 0.995])
    """
    quarter = signal.square() / 4
    bessel = (1 + 2 * quarter) * torch.special.i0e(quarter) + 2 * quarter * torch.special.i1e(quarter)
    mean = RAYLEIGH_MEAN * bessel
    # far from zero the difference of squares would lose all its digits
    return mean, torch.where(signal > STRONG, 1 - 0.5 / signal.square(), 2 + signal.square() - mean.square())


STRONG = 30.0
"""Signal, in units of sigma, above which mean and variance have simple forms: signal + 1/(2·signal) to seven digits,
1 − 1/(2·signal²) to six."""


@functools.cache
def inverse_mean_table() -> tuple[Tensor, float]:
    """The signal for evenly spaced √(mean − Rayleigh mean), in which it is smooth, and the spacing."""
    signal = torch.linspace(0, STRONG + 1, 100_001, dtype=torch.float64)
    root = (rician_moments(signal)[0] - RAYLEIGH_MEAN).clamp_min(0).sqrt()
    even = torch.linspace(0, float(root[-1]), 8192, dtype=torch.float64)
    after = torch.searchsorted(root, even).clamp(1, len(root) - 1)
    share = (even - root[after - 1]) / (root[after] - root[after - 1])
    return torch.lerp(signal[after - 1], signal[after], share).float(), float(even[1])


def look_up(table: Tensor, position: Tensor) -> Tensor:
    """The table between its entries, which stand for positions 0, 1, …, and its ends beyond them."""
    table, position = table.to(position), position.clamp(0, len(table) - 1)
    before = position.long().clamp_max(len(table) - 2)
    return torch.lerp(table[before], table[before + 1], position - before)


def rician_deviation(mean: Tensor) -> Tensor:
    """Standard deviation of a magnitude with this mean, both in units of sigma: from 0.655 in the dark to 1.

    >>> [round(v, 3) for v in rician_deviation(torch.tensor([1.0, 1.2533, 2.2724, 10.0501])).tolist()]
    [0.655, 0.655, 0.914, 0.997]
    """
    return rician_moments(without_rician_bias(mean, 1.0))[1].sqrt()


def without_rician_bias(mean: Tensor, sigma: float | Tensor) -> Tensor:
    """The signal whose Rician magnitude has this mean: the exact inverse of the first moment.

    Averaging a magnitude image estimates its mean, which lies above the signal, by 1.25 sigma where there is none.
    At or below that the signal is 0.

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
    return torch.where(mean > STRONG, strong, signal) * sigma
