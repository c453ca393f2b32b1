"""Between which bounds the variance of the noise lies at each intensity, and what that says about the kind of noise.

The high frequencies of a flat block are noise, and the low ones show how flat it is. Structure has less in its high
frequencies than in its low ones. So the noise has at most the variance of the high frequencies, and at least what is
left of it without a share of the low ones. Where both agree, the block is surely flat; where little is left, it says
nothing. Bounds tell photon counts from Gaussian noise where the volume has a texture of its own. Where the noise is of
no known kind, they say how far the variance at an intensity is to be believed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor

from nlmeans.core.lags import dct_basis
from nlmeans.noise.kinds import MAGNITUDES
from nlmeans.noise.level_curve import no_steeper
from nlmeans.noise.search.air import Numbers
from nlmeans.noise.search.correlation import usable_blocks
from nlmeans.noise.search.curve import (
    BINS,
    CLEARLY,
    FEWEST_BINS,
    LEAST_RISE,
    LEAST_SPAN,
    LEAST_TOLERANCE,
    MOST_RISE_OF_MAGNITUDES,
    WIDE_SPAN,
    Fit,
    VarianceCurve,
    cost_of,
    fit_constant,
    fit_line,
    fit_magnitudes,
    fit_several_coils,
    rise_of,
)
from nlmeans.noise.search.finest import robust_deviation
from nlmeans.noise.search.usable import members, range_without_ends, smallest

EDGE_OF_BLOCK = {1: 8, 2: 6, 3: 4}
"""Edge of a block in voxels, by the number of axes longer than 1."""

HIGH = 0.6
"""Mean of the frequencies along the axes, in units of the highest, from which a frequency is high."""

FLATTEST_BLOCKS, FEWEST_IN_BIN = 0.1, 40
"""Share of the blocks of a part of the range of intensities that is taken: those with the least low frequencies. At
least so many are."""

LEAKAGE = 0.2
"""Most energy of structure per high frequency, relative to that per low one: 0.02 to 0.18 in heads and phantoms."""

SHARED = 3.0
"""Blocks overlap: so many high frequencies count as one independent value."""


def variance_bounds(volume: Tensor, measured: Tensor, inside: Tensor | None = None) -> VarianceCurve:
    """Measure the bounds of the variance of the noise at several intensities.

    Args:
        volume: (D, H, W).
        measured: which voxels hold a measurement, (D, H, W).
        inside: where to look, (D, H, W); None for everywhere.

    Example:
        >>> ramp = torch.linspace(0, 100, 48).expand(1, 48, 48)
        >>> noisy = ramp + torch.randn(1, 48, 48, generator=torch.Generator().manual_seed(0))
        >>> curve = variance_bounds(noisy, torch.ones_like(noisy, dtype=torch.bool))
        >>> bool((curve.variance > 0.5).all()), bool((curve.least < curve.variance).all())
        (True, True)
    """
    size = block_size(tuple(volume.shape))
    read = usable_blocks(volume, measured if inside is None else measured & inside, size).double().cpu().numpy()
    # NumPy, as products of matrices in torch hang in processes that were forked
    spectra = read @ dct_basis(size).numpy().T
    frequency = mean_frequency(size)
    high, low = frequency >= HIGH, (frequency < HIGH) & (frequency > 0)
    mean = torch.from_numpy(spectra[:, 0] / math.sqrt(spectra.shape[1]))
    found = []
    if len(mean) >= FEWEST_IN_BIN and low.any() and high.any():
        uneven = torch.from_numpy(np.square(spectra[:, low]).mean(1))
        first, last = range_without_ends(mean)
        edges = torch.linspace(first, last, BINS + 1, dtype=torch.float64)[1:-1]
        part = torch.bucketize(mean, edges)
        for here in members(part, BINS):
            if len(here) < FEWEST_IN_BIN:
                continue
            count = max(math.ceil(FLATTEST_BLOCKS * len(here)), FEWEST_IN_BIN)
            flat = here[smallest(uneven[here], count)]
            variance = robust_deviation(torch.from_numpy(spectra[flat.numpy()][:, high]).flatten()) ** 2
            if variance > 0:
                tolerance = math.hypot(math.sqrt(2 * SHARED / (count * int(high.sum()))), LEAST_TOLERANCE)
                structure = max(float(uneven[flat].mean()) - variance, 0.0)
                least = max(variance - LEAKAGE * structure, 0.0)
                found.append((float(mean[flat].mean()), variance, tolerance, least))
    return VarianceCurve(*np.array(found).reshape(-1, 4).T)


def block_size(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the edges of a block."""
    edge = EDGE_OF_BLOCK[max(1, sum(n > 1 for n in shape))]
    d, h, w = (min(edge, n) for n in shape)
    return d, h, w


@functools.lru_cache(maxsize=8)
def mean_frequency(size: tuple[int, int, int]) -> Numbers:
    """Return the mean of each cosine's frequencies along the axes longer than 1, from 0 to 1."""
    d, h, w = (np.arange(edge) / max(edge - 1, 1) for edge in size)
    total: Numbers = np.add.outer(np.add.outer(d, h), w).ravel()
    return total / max(1, sum(edge > 1 for edge in size))


def second_opinion(first: Fit, curve: VarianceCurve, bounds: VarianceCurve, kinds: Collection[str]) -> Fit:
    """Decide between Gaussian noise and photon counts again, by bounds of the variance.

    A constant that lies within all bounds explains what looked like photon counts. A line that does, where no other
    kind comes near, shows photon counts that looked like Gaussian noise with structure, or like magnitudes, as few
    photons are distributed like the air of several coils.

    Args:
        first: what the curve says.
        curve: the variance at several intensities, with structure.
        bounds: its bounds.
        kinds: the kinds that are possible.
    """
    if len(bounds.variance) < FEWEST_BINS:
        return first
    constant, line = fit_constant(bounds), fit_line(bounds)
    if first.kind == "poisson":
        reach = float(bounds.intensity[0] - curve.intensity[0])
        as_dark = reach < AS_DARK * float(curve.intensity[-1] - curve.intensity[0])
        return constant if as_dark and constant.cost < SURELY and is_white(bounds) else first
    if "poisson" not in kinds or bounds.span < LEAST_SPAN or rise_of(line, bounds) <= LEAST_RISE:
        return first
    if first.kind in MAGNITUDES:
        if rise_of(line, bounds) < MOST_RISE_OF_MAGNITUDES:
            return first
        other = fit_magnitudes(bounds, first.parameters[1]).cost - AGAINST_AIR * len(bounds.variance) + CLEARLY
    else:
        surer = 2 if bounds.span < WIDE_SPAN else 1
        others = fit_magnitudes(bounds), fit_several_coils(bounds)
        other = min(constant.cost - (surer - 1) * CLEARLY, *(fit.cost for fit in others))
    return line if line.cost < min(other - CLEARLY, WORST_WITHIN * len(bounds.variance)) else first


def follows_a_curve(curve: VarianceCurve, bounds: VarianceCurve) -> bool:
    """Tell whether white noise surely follows the intensity, and in a way that no other kind explains.

    A smooth curve of sigma must lie within the bounds, nearly everywhere, and change clearly, and one level,
    magnitudes, and photon counts must all be far outside of them.

    Args:
        curve: the variance at several intensities.
        bounds: its bounds.
    """
    if min(len(curve.variance), len(bounds.variance)) < FEWEST_BINS or not is_white(bounds):
        return False
    intensity, sigma = level_over_intensity(curve, bounds)
    if curve.span < LEAST_SPAN or sigma.max() < LEAST_CHANGE * sigma.min():
        return False
    cost = float(cost_of(bounds, np.interp(bounds.intensity, intensity, sigma) ** 2))
    if cost > WORST_WITHIN * len(bounds.variance):
        return False
    line = fit_line(bounds)
    others = [fit_constant(bounds), fit_magnitudes(bounds), fit_several_coils(bounds)]
    others += [line] if rise_of(line, bounds) > 1 else []  # what falls is no line of photon counts
    return cost + 2 * CLEARLY < min(other.cost for other in others)


LEAST_CHANGE = 2.0
"""Largest sigma relative to the least from which a curve is believed without being asked for."""


def level_over_intensity(curve: VarianceCurve, bounds: VarianceCurve) -> tuple[Numbers, Numbers]:
    """Fit a smooth curve to what was measured of the variance at several intensities, of at least `FEWEST_BINS` parts.

    Structure only adds to the variance. So the curve keeps above nothing that was measured, may stay below what the
    bounds do not believe, and forgets what is far above it.

    Args:
        curve: the variance at several intensities.
        bounds: its bounds.

    Returns:
        Intensities, rising, and the standard deviation of the noise at each.
    """
    believed = np.interp(curve.intensity, *belief_in(bounds)) if len(bounds.variance) else np.ones(len(curve.variance))
    intensity, measured, tolerance, belief = (
        np.concatenate(parts)
        for parts in (
            (curve.intensity, bounds.intensity),
            (np.log(curve.variance), np.log(bounds.variance)),
            (curve.tolerance, bounds.tolerance),
            (believed, belief_in(bounds)[1]),
        )
    )
    span = (intensity.max() - intensity.min()) / math.sqrt(float(curve.variance.max()))
    knots = np.linspace(intensity.min(), intensity.max(), max(2, min(MOST_KNOTS, int(span) + 1)))
    shares = np.array([np.interp(intensity, knots, one) for one in np.eye(len(knots))]).T
    bends = np.diff(np.eye(len(knots)), 2, axis=0)
    trust = LEAST_BELIEF + (1 - LEAST_BELIEF) * belief**2
    weight = trust / tolerance**2
    for _ in range(FITS):
        matrix = shares.T @ (weight[:, None] * shares) + STIFFNESS * bends.T @ bends
        level = np.linalg.solve(matrix, shares.T @ (weight * measured))
        above = measured - shares @ level
        far = (1 + (above / (FAR_ABOVE_CURVE * tolerance)) ** 2) ** 2
        weight = np.where(above < 0, 1.0, trust / far) / tolerance**2
    return knots, no_steeper(knots, np.exp(level / 2), STEEPEST_FOUND)


def belief_in(bounds: VarianceCurve) -> tuple[Numbers, Numbers]:
    """Return at what intensities bounds were found, and what share of the variance is surely noise there."""
    least = np.zeros(0) if bounds.least is None else bounds.least
    return bounds.intensity, least / np.maximum(bounds.variance, 1e-300)


MOST_KNOTS = 12
"""Most points of a fitted curve. They are at least one deviation of the noise apart."""

STIFFNESS = 30.0
"""How much the curve resists bending: weight of the squared second differences of its logarithm."""

LEAST_BELIEF = 0.05
"""Weight of what was measured where it may all be structure."""

FAR_ABOVE_CURVE, FITS = 3.0, 40
"""Tolerances above the curve from which a measurement is forgotten, and how often the curve is fitted."""

STEEPEST_FOUND = 0.9
"""Largest change of sigma per intensity that is believed."""


AS_DARK = 0.1
"""Share of the range of intensities that blocks may be short of at its dark end, where they are to speak against photon
counts."""

SURELY = 3.0
"""Largest cost of a constant that explains everything."""

AGAINST_AIR = 2.0
"""Cost per part by which a line must be better than magnitudes that the air speaks for. Noise that a scan had before
makes up to 1.9."""

WORST_WITHIN = 0.4
"""Largest cost per part of a line that lies within the bounds."""


def is_white(bounds: VarianceCurve) -> bool:
    """Whether blocks somewhere show noise alone, with no more in low frequencies than in high ones.

    Correlated noise has more everywhere, so that its bounds say nothing.
    """
    assert bounds.least is not None
    return bool((bounds.least > (1 - LEAKAGE * (WHITE_LOW - 1)) * bounds.variance).any())


WHITE_LOW = 1.35
"""Variance of the low frequencies in units of that of the high ones, up to which noise is white."""
