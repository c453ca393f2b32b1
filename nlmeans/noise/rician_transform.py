"""Magnitude noise: the transform that makes it Gaussian, and the exact way back.

The magnitude of an MR signal whose two parts have Gaussian noise of standard deviation sigma varies less where the
signal is weak: by 0.66 sigma where there is none. Filters that expect the same noise everywhere want it stabilised.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nlmeans.noise.rician import look_up

STRONG = 20.0
"""In units of sigma; above it the forms for strong signals hold to five digits."""

STEP = 0.02

ROUNDS = 20
"""The deviation is then within 3 % of 1 for every signal; more rounds gain little and make the transform uneven."""


class Tables(NamedTuple):
    """float32, in units of sigma."""

    stabilised: Tensor
    """For magnitudes 0, `STEP`, …, `STRONG`."""
    squared_signal: Tensor
    """For means of the stabilised magnitude `darkest`, `darkest` + `STEP`, … The square: its slope is finite at 0."""
    darkest: float
    """The mean of the stabilised magnitude where there is no signal."""
    excess: float
    """Of a strong signal's stabilised magnitude z over √(z² − 1/2)."""


@functools.cache
def tables() -> Tables:
    """Stabilise again and again by the deviation that is left: f' ← f' / deviation of f, where the mean is z."""
    signal = torch.arange(0, STRONG + 1, STEP, dtype=torch.float64)
    magnitude = torch.arange(0, STRONG + 8, STEP, dtype=torch.float64)
    chance = rice_density(magnitude, signal[:, None])
    chance /= chance.sum(1, keepdim=True)
    mean = chance @ magnitude
    slope = torch.ones_like(magnitude)
    for _ in range(ROUNDS):
        values = integral(slope)
        deviation = (chance @ values.square() - (chance @ values).square()).sqrt()
        slope /= torch.from_numpy(np.interp(magnitude, mean, deviation))
    stabilised = integral(slope)
    mean = chance @ stabilised
    even = np.arange(float(mean[0]), float(mean[-1]), STEP)
    last = round(STRONG / STEP)
    return Tables(
        stabilised=stabilised[: last + 1].float(),
        squared_signal=torch.from_numpy(np.interp(even, mean, signal.square())).float(),
        darkest=float(mean[0]),
        excess=float(stabilised[last]) - (STRONG**2 - 0.5) ** 0.5,
    )


def rice_density(magnitude: Tensor, signal: Tensor) -> Tensor:
    """Of the magnitude of a signal with Gaussian noise of sigma 1 in both of its parts."""
    bessel: Tensor = torch.special.i0e(magnitude * signal)
    return magnitude * torch.exp(-(magnitude - signal).square() / 2) * bessel


def integral(slope: Tensor) -> Tensor:
    """From 0 to each of the evenly spaced places, by trapezoids."""
    return torch.nn.functional.pad(torch.cumsum((slope[1:] + slope[:-1]) / 2 * STEP, 0), (1, 0))


def stabilise_magnitude(image: Tensor, sigma: float | Tensor) -> Tensor:
    """Noise of standard deviation 1, nearly whatever the brightness, from the noise of a magnitude image.

    Args:
        image: magnitudes, floating point, any shape; what is negative counts as 0.
        sigma: standard deviation of the noise in both parts of the signal, greater than 0; a number, or a tensor that
            broadcasts against the image.

    References:
        A. Foi, "Noise estimation and removal in MR imaging: the variance-stabilization approach", IEEE Int. Symp.
        Biomed. Imaging 2011, doi:10.1109/ISBI.2011.5872758 (the approach, and the form for strong signals).
        R. Tibshirani, "Estimating transformations for regression via additivity and variance stabilization", J. Am.
        Stat. Assoc. 1988, doi:10.1080/01621459.1988.10478610 (the iteration).

    Example:
        >>> parts = torch.randn(2, 100_000, generator=torch.Generator().manual_seed(0))
        >>> dark, bright = (5 * ((parts[0] + signal).square() + parts[1].square()).sqrt() for signal in (0, 7))
        >>> stabilised = [stabilise_magnitude(image, 5) for image in (dark, bright)]
        >>> [round(float(image.std()), 1) for image in (dark, bright, *stabilised)]
        [3.3, 5.0, 1.0, 1.0]
    """
    magnitude = (image / sigma).clamp_min(0)
    strong = (magnitude.square() - 0.5).clamp_min(0).sqrt() + tables().excess
    return torch.where(magnitude > STRONG, strong, look_up(tables().stabilised, magnitude / STEP))


def restore_magnitude(mean: Tensor, sigma: float | Tensor) -> Tensor:
    """The signal without noise, from the mean of its stabilised magnitude: the exact unbiased inverse.

    It also removes the bias that noise adds to a magnitude: a background of nothing but noise becomes 0, as does any mean
    below that of darkness. It is not the inverse function of `stabilise_magnitude`. That one returns the noisy
    magnitudes of an image that nothing was done to, but leaves the background of a denoised image too bright.

    References:
        A. Foi 2011, as for `stabilise_magnitude`.

    Example:
        >>> image = torch.randn(2, 100_000, generator=torch.Generator().manual_seed(0)).square().sum(0).sqrt()
        >>> mean = stabilise_magnitude(image, 1.0).mean()
        >>> round(float(image.mean()), 2), bool(restore_magnitude(mean, 1.0) < 0.2)
        (1.25, True)
    """
    weak = look_up(tables().squared_signal, (mean - tables().darkest) / STEP).sqrt()
    above = mean - tables().excess
    strong = (above + (above.square() - 1).clamp_min(0).sqrt()) / 2
    return torch.where(above > STRONG, strong, weak) * sigma
