"""Rician noise: the transform that makes it Gaussian, and its exact unbiased inverse.

If both parts of a complex MR signal have Gaussian noise of standard deviation sigma, its magnitude varies less where
the signal is weak: by 0.66 sigma where there is no signal. For filters that expect equal noise everywhere, the
transform makes it equal.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nlmeans.core.modes import outside_autocast
from nlmeans.noise.rician import look_up

STRONG_MAGNITUDE = 20.0
"""Magnitude, in units of sigma, above which the forms for strong signals are exact to five digits."""

TABLE_STEP = 0.02
"""Spacing of the tables in units of sigma."""

STABILISING_ROUNDS = 20
"""Iterations of the transform. They bring the deviation to within 3 % of 1 for every signal. More rounds gain little
and make the transform uneven."""


class TransformTables(NamedTuple):
    """Tables of the transform and its inverse, float32, in units of sigma."""

    stabilised: Tensor
    """Stabilised magnitude, for magnitudes 0, `TABLE_STEP`, …, `STRONG_MAGNITUDE`."""
    squared_signal: Tensor
    """Squared signal, for means of the stabilised magnitude `darkest`, `darkest` + `TABLE_STEP`, … The square has a
    finite slope at 0, unlike the signal."""
    darkest: float
    """Mean of the stabilised magnitude where there is no signal."""
    excess: float
    """Stabilised magnitude of a strong magnitude z, minus √(z² − 1/2)."""


@functools.cache
@outside_autocast
def transform_tables() -> TransformTables:
    """Compute the transform f by iteration: f'(z) ← f'(z) / deviation of f(magnitudes whose mean is z)."""
    signal = torch.arange(0, STRONG_MAGNITUDE + 1, TABLE_STEP, dtype=torch.float64)
    magnitude = torch.arange(0, STRONG_MAGNITUDE + 8, TABLE_STEP, dtype=torch.float64)
    chance = rice_density(magnitude, signal[:, None])
    chance /= chance.sum(1, keepdim=True)
    mean = chance @ magnitude
    slope = torch.ones_like(magnitude)
    for _ in range(STABILISING_ROUNDS):
        values = integral(slope)
        deviation = (chance @ values.square() - (chance @ values).square()).sqrt()
        slope /= torch.from_numpy(np.interp(magnitude, mean, deviation))
    stabilised = integral(slope)
    mean = chance @ stabilised
    even = np.arange(float(mean[0]), float(mean[-1]), TABLE_STEP)
    last = round(STRONG_MAGNITUDE / TABLE_STEP)
    return TransformTables(
        stabilised=stabilised[: last + 1].float(),
        squared_signal=torch.from_numpy(np.interp(even, mean, signal.square())).float(),
        darkest=float(mean[0]),
        excess=float(stabilised[last]) - (STRONG_MAGNITUDE**2 - 0.5) ** 0.5,
    )


def rice_density(magnitude: Tensor, signal: Tensor) -> Tensor:
    """Compute the density of the magnitude of a complex signal with Gaussian noise of sigma 1 in both parts."""
    bessel: Tensor = torch.special.i0e(magnitude * signal)
    return magnitude * torch.exp(-(magnitude - signal).square() / 2) * bessel


def integral(slope: Tensor) -> Tensor:
    """Integrate from 0 to each of the evenly spaced places, by the trapezoidal rule."""
    return torch.nn.functional.pad(torch.cumsum((slope[1:] + slope[:-1]) / 2 * TABLE_STEP, 0), (1, 0))


def stabilise_magnitude(image: Tensor, sigma: float | Tensor) -> Tensor:
    """Transform a magnitude image so that its noise has standard deviation 1 nearly everywhere.

    Args:
        image: magnitudes, floating point, any shape; negative values count as 0.
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
    strong = (magnitude.square() - 0.5).clamp_min(0).sqrt() + transform_tables().excess
    return torch.where(
        magnitude > STRONG_MAGNITUDE, strong, look_up(transform_tables().stabilised, magnitude / TABLE_STEP)
    )


def restore_magnitude(mean: Tensor, sigma: float | Tensor) -> Tensor:
    """Return the noise-free signal from the mean of its stabilised magnitude: the exact unbiased inverse.

    It also removes the bias that noise adds to a magnitude: a background of pure noise becomes 0, and so does any
    smaller mean. It is not the inverse function of `stabilise_magnitude`, which would leave the background of a
    denoised image too bright.

    Args:
        mean: floating point, any shape: the stabilised magnitude after denoising.
        sigma: as for `stabilise_magnitude`.

    References:
        A. Foi 2011, as for `stabilise_magnitude`.

    Example:
        >>> image = torch.randn(2, 100_000, generator=torch.Generator().manual_seed(0)).square().sum(0).sqrt()
        >>> mean = stabilise_magnitude(image, 1.0).mean()
        >>> round(float(image.mean()), 2), bool(restore_magnitude(mean, 1.0) < 0.2)
        (1.25, True)
    """
    weak = look_up(transform_tables().squared_signal, (mean - transform_tables().darkest) / TABLE_STEP).sqrt()
    above = mean - transform_tables().excess
    strong = (above + (above.square() - 1).clamp_min(0).sqrt()) / 2
    return torch.where(above > STRONG_MAGNITUDE, strong, weak) * sigma
