"""Noise whose standard deviation is a curve over intensity: the transform that makes it Gaussian with a deviation of 1,
and the exact unbiased inverse.

Between the points of a curve, sigma is linear. Below the first and above the last, it is constant, because noise takes
values beyond the intensities at which a curve is told.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nlmeans.core.modes import outside_autocast

Curve = tuple[tuple[float, float], ...]
"""Pairs of an intensity and the standard deviation of the noise there, both in image units."""

MOST_POINTS = 500
"""Most points of a curve."""


def checked_curve(curve: Any) -> Curve:
    """Return a curve as pairs of floats.

    Args:
        curve: pairs of intensity and sigma, an array of shape (N, 2), or text such as ``"0:3,500:8"``.

    Raises:
        ValueError, TypeError: there are too few points, intensities do not rise, or sigma is not above 0 or too steep.

    Example:
        >>> checked_curve("0:3, 500:8")
        ((0.0, 3.0), (500.0, 8.0))
    """
    if isinstance(curve, str):
        try:
            curve = [[float(number) for number in point.split(":")] for point in curve.split(",")]
        except ValueError as error:
            raise ValueError(
                f"curve={curve!r} is not understood; give pairs of intensity and sigma, such as '0:3,500:8'"
            ) from error
    try:
        points = np.asarray(curve, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"curve={curve!r} must be pairs of intensity and sigma, such as [(0, 3), (500, 8)]") from error
    if points.ndim != 2 or points.shape[1] != 2 or not 2 <= len(points) <= MOST_POINTS:
        raise ValueError(
            f"curve has shape {points.shape}; give 2 to {MOST_POINTS} pairs of intensity and sigma, such as "
            "[(0, 3), (500, 8)]"
        )
    if not np.isfinite(points).all():
        raise ValueError("curve has numbers that are not finite; correct them")
    intensity, sigma = points.T
    if (np.diff(intensity) <= 0).any():
        at = int(np.argmax(np.diff(intensity) <= 0))
        raise ValueError(
            f"curve has the intensity {intensity[at + 1]:g} after {intensity[at]:g}; intensities must rise"
        )
    if sigma.min() <= 0:
        raise ValueError(
            f"curve has sigma={sigma.min():g} at intensity {intensity[sigma.argmin()]:g}; noise must be stronger than 0"
        )
    told = tuple((float(t), float(s)) for t, s in points)
    if is_too_steep(told):
        steepest = int(np.abs(np.diff(sigma) / np.diff(intensity)).argmax())
        (first, before), (last, after) = told[steepest : steepest + 2]
        raise ValueError(
            f"curve goes from sigma={before:g} at intensity {first:g} to {after:g} at {last:g}, which is so steep that "
            "noisy values say nothing about the intensity; give points that are farther apart, or less noise"
        )
    return told


MOST_FALL = 0.5
"""How far the mean of the stabilised noise may fall while the intensity rises, in units of the noise."""


def is_too_steep(curve: Curve) -> bool:
    """Whether the mean of the stabilised noise falls somewhere by more than `MOST_FALL` while the intensity rises."""
    means, _ = means_on_curve(curve)
    return float((means.cummax(0).values - means).max()) > MOST_FALL


def gentle_curve(curve: Curve) -> Curve:
    """Return a curve with less noise beside steep pieces where it is so steep that `checked_curve` would refuse it.

    >>> gentle_curve(((0.0, 30.0), (10.0, 1.0)))
    ((0.0, 10.0), (10.0, 1.0))
    """
    intensity, sigma = np.array(curve).T
    for steepest in STEEPNESS:
        if not is_too_steep(curve):
            break
        curve = tuple(zip(intensity.tolist(), no_steeper(intensity, sigma, steepest).tolist(), strict=True))
    return curve


def no_steeper(intensity: NDArray[np.float64], sigma: NDArray[np.float64], steepest: float) -> NDArray[np.float64]:
    """Return the largest sigma, (N,), that changes by at most `steepest` per intensity and is nowhere larger."""
    reach: NDArray[np.float64] = np.min(sigma + steepest * np.abs(intensity[:, None] - intensity), axis=1)
    return reach


STEEPNESS = (0.9, 0.7, 0.5, 0.35, 0.25)
"""Changes of sigma per intensity to which a curve that is too steep is limited, one after the other; the last is never
too steep."""


def curve_as_text(curve: Curve) -> str:
    """Write a curve as `checked_curve` reads it.

    >>> curve_as_text(((0.0, 3.0), (500.0, 8.25)))
    '0:3,500:8.25'
    """
    return ",".join(f"{t:.10g}:{s:.10g}" for t, s in curve)


def curve_in_words(curve: Curve) -> str:
    """Say between what sigma lies, and over what intensities.

    >>> curve_in_words(((10.0, 3.1), (900.0, 8.2)))
    'sigma 3.1 to 8.2 over intensities 10 to 900'
    """
    sigmas = [sigma for _, sigma in curve]
    return f"sigma {min(sigmas):.3g} to {max(sigmas):.3g} over intensities {curve[0][0]:.4g} to {curve[-1][0]:.4g}"


class Pieces(NamedTuple):
    """The straight pieces of a curve, float64."""

    intensity: Tensor
    """Of each point, (N,)."""
    sigma: Tensor
    slope: Tensor
    """How much sigma rises per intensity in each piece, (N − 1,)."""
    stabilised: Tensor
    """The integral of 1/sigma from the first point to each."""


@functools.lru_cache(maxsize=64)
@outside_autocast
def pieces_of(curve: Curve) -> Pieces:
    """Return the pieces of a curve."""
    intensity, sigma = torch.tensor(curve, dtype=torch.float64).T.contiguous()
    width = intensity.diff()
    slope = sigma.diff() / width
    areas = logarithmic(width / sigma[:-1], slope)
    return Pieces(intensity, sigma, slope, torch.cat([areas.new_zeros(1), areas.cumsum(0)]))


def logarithmic(distance: Tensor, slope: Tensor) -> Tensor:
    """Integrate 1/(1 + slope·u) from 0 to `distance`: log(1 + slope·distance) / slope."""
    return torch.where(slope == 0, distance, torch.log1p(slope * distance) / torch.where(slope == 0, 1, slope))


def sigma_on_curve(intensity: Tensor, curve: Curve) -> Tensor:
    """Return sigma at each intensity, any shape.

    >>> sigma_on_curve(torch.tensor([-5.0, 250.0, 900.0]), ((0.0, 3.0), (500.0, 8.0)))
    tensor([3.0000, 5.5000, 8.0000])
    """
    points, sigma, slope, _ = (part.to(intensity) for part in pieces_of(curve))
    within = intensity.clamp(points[0], points[-1])
    piece = piece_at(within, points)
    return sigma[piece] + slope[piece] * (within - points[piece])


def piece_at(values: Tensor, points: Tensor) -> Tensor:
    """Return the number of the piece that each value lies in; values lie between the first point and the last."""
    return torch.bucketize(values.contiguous(), points[1:-1].contiguous(), out_int32=True, right=True)


def stabilise_level(image: Tensor, curve: Curve) -> Tensor:
    """Integrate 1/sigma over the intensity, after which the noise has a standard deviation of about 1 everywhere.

    Args:
        image: floating point, any shape, in image units.
        curve: sigma at several intensities, as `checked_curve` returns it.

    References:
        P. R. Prucnal, B. E. A. Saleh, "Transformation of image-signal-dependent noise into image-signal-independent
        noise", Optics Letters 6, 1981, doi:10.1364/OL.6.000316.

    Example:
        >>> noise = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
        >>> curve = ((100.0, 3.0), (600.0, 8.0))
        >>> [round(float(stabilise_level(t + s * noise, curve).std()), 2) for t, s in ((100.0, 3.0), (400.0, 6.0))]
        [1.0, 1.0]
    """
    points, sigma, slope, stabilised = (part.to(image) for part in pieces_of(curve))
    within = image.clamp(points[0], points[-1])
    beyond = image - within
    piece = piece_at(within, points)
    inner = stabilised[piece] + logarithmic((within - points[piece]) / sigma[piece], slope[piece])
    return inner + beyond / torch.where(beyond < 0, sigma[0], sigma[-1])


def unstabilised(values: Tensor, curve: Curve) -> Tensor:
    """Invert `stabilise_level`: the algebraic inverse, which is biased for the mean of stabilised values."""
    points, sigma, slope, stabilised = (part.to(values) for part in pieces_of(curve))
    within = values.clamp(stabilised[0], stabilised[-1])
    beyond = values - within
    piece = piece_at(within, stabilised)
    along, rise = within - stabilised[piece], slope[piece]
    distance = torch.where(rise == 0, along, torch.expm1(rise * along) / torch.where(rise == 0, 1, rise))
    return points[piece] + sigma[piece] * distance + beyond * torch.where(beyond < 0, sigma[0], sigma[-1])


TABLE_REACH, TABLE_SPACING = 8.0, 0.25
"""Around each point of a curve, in units of the noise, how far the table of the inverse goes, and in what steps. In the
middle of a piece, the bias is the same everywhere, and far outside of the curve there is none."""

NODES = torch.linspace(-6, 6, 121, dtype=torch.float64)
"""Deviations of the noise that the mean is taken over."""


@functools.lru_cache(maxsize=64)
@outside_autocast
def means_on_curve(curve: Curve) -> tuple[Tensor, Tensor]:
    """Tabulate the means of the stabilised noisy image, and the stabilised values of the noise-free one, rising."""
    knots = pieces_of(curve).stabilised
    around = (
        knots[:, None] + torch.arange(-TABLE_REACH, TABLE_REACH + TABLE_SPACING, TABLE_SPACING, dtype=torch.float64)
    ).flatten()
    values = torch.from_numpy(np.unique(torch.cat([around, (knots[1:] + knots[:-1]) / 2]).numpy()))
    return mean_of_curve(unstabilised(values, curve), curve), values


def mean_of_curve(intensity: Tensor, curve: Curve) -> Tensor:
    """Compute the mean of the stabilised image for each noise-free intensity, (N,), float64."""
    weights = torch.exp(-NODES.square() / 2)
    noisy = intensity[:, None] + sigma_on_curve(intensity, curve)[:, None] * NODES
    return stabilise_level(noisy, curve).mul_(weights / weights.sum()).sum(1)


def restore_level(mean: Tensor, curve: Curve) -> Tensor:
    """Return the noise-free image from the mean of its stabilised version: the exact unbiased inverse.

    Args:
        mean: floating point, any shape: the stabilised image after denoising.
        curve: as for `stabilise_level`.

    References:
        M. Mäkitalo, A. Foi, "Optimal inversion of the generalized Anscombe transformation for Poisson-Gaussian noise",
        IEEE Trans. Image Process. 2013, doi:10.1109/TIP.2012.2202675, whose idea is used for any curve here.

    Example:
        >>> curve = ((0.0, 5.0), (100.0, 30.0))
        >>> mean = mean_of_curve(torch.tensor([-20.0, 10.0, 80.0], dtype=torch.float64), curve)
        >>> [round(v, 1) for v in restore_level(mean, curve).tolist()]
        [-20.0, 10.0, 80.0]
    """
    means, values = (table.to(mean) for table in means_on_curve(curve))
    means = means.cummax(0).values
    within = mean.clamp(means[0], means[-1])
    after = torch.searchsorted(means, within.contiguous()).clamp(1, len(means) - 1)
    step = (means[after] - means[after - 1]).clamp_min(torch.finfo(mean.dtype).tiny)
    share = ((within - means[after - 1]) / step).clamp(0, 1)
    stabilised = torch.lerp(values[after - 1], values[after], share)
    return unstabilised(stabilised + (mean - within), curve)
