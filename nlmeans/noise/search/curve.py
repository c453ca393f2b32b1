"""The variance of the noise against intensity, and the kind of noise that it speaks for.

Gaussian noise is equally strong everywhere. Rician noise is weaker in the dark. The variance of photon counts rises in
a straight line. Structure only adds variance, so a curve may lie below what was measured, but not above it.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nlmeans.noise.rician import mean_of_air, rician_deviation
from nlmeans.noise.search.air import MUCH_AIR, NO_AIR, Air, Numbers
from nlmeans.noise.search.finest import DetailMaps, robust_deviation
from nlmeans.noise.search.usable import members, range_without_ends, smallest

BINS = 16
"""Parts of equal width that the range of intensities is divided into."""

LEAST_IN_BIN = 150
"""Voxels below which a part is left out."""

FLATTEST_OF_BIN = 0.1
"""Share of the voxels of a part that the noise is measured in: those with the least detail around them. At least
`LEAST_IN_BIN` are used."""

FEWEST_BINS = 4
"""Parts below which the curve says nothing about the kind of noise."""


class VarianceCurve(NamedTuple):
    """Variance of the finest detail in flat parts of a volume, for several intensities."""

    intensity: Numbers
    """Mean of the voxels in each part, rising."""
    variance: Numbers
    tolerance: Numbers
    """Standard deviation of the logarithm of each variance."""
    least: Numbers | None = None
    """The least variance of the noise, where structure may be part of what was measured; None: it is that."""

    @property
    def span(self) -> float:
        """Range of the intensities, in units of the largest standard deviation."""
        return float((self.intensity[-1] - self.intensity[0]) / np.sqrt(self.variance.max()))


class Fit(NamedTuple):
    """A kind of noise fitted to a curve of variance."""

    kind: str
    cost: float
    """How badly it fits: 0 if it explains all that was measured."""
    parameters: tuple[float, ...]
    """Sigma, and for magnitudes the number of coils; for photon counts, the slope of the variance and its value at
    intensity 0."""


def variance_curve(around: DetailMaps, usable: Tensor) -> VarianceCurve:
    """Measure the variance of the noise for several intensities.

    Args:
        around: measures around each voxel; see `finest_detail`.
        usable: which voxels count.
    """
    brightness, finest, detail = around.at(usable)
    found = []
    for flat in flattest_parts(brightness, detail):
        variance = robust_deviation(finest[flat]) ** 2
        if variance > 0:
            tolerance = math.hypot(math.sqrt(4 / len(flat)), LEAST_TOLERANCE)
            found.append((float(brightness[flat].double().mean()), variance, tolerance))
    return VarianceCurve(*np.array(found).reshape(-1, 3).T)


def flattest_parts(brightness: Tensor, detail: Tensor, flat: Tensor | None = None) -> list[Tensor]:
    """Choose the voxels with the least detail around them at each of several intensities; return their indices.

    Args:
        brightness: of each voxel.
        detail: around each voxel.
        flat: which voxels are flat. If there are more of these, as many are chosen.
    """
    if len(brightness) < LEAST_IN_BIN:
        return []
    low, high = range_without_ends(brightness)
    edges = torch.linspace(low, high, BINS + 1, dtype=torch.float64)[1:-1].to(brightness)
    part = torch.bucketize(brightness, edges)

    def flattest(here: Tensor) -> Tensor:
        count = max(math.ceil(FLATTEST_OF_BIN * len(here)), LEAST_IN_BIN, 0 if flat is None else int(flat[here].sum()))
        return here[smallest(detail[here], count)]

    return [flattest(here) for here in members(part, BINS) if len(here) >= LEAST_IN_BIN]


def magnitudes_of_series(intensity: Tensor, variance: Tensor) -> float | None:
    """Return sigma if blocks of a series show that it has Rician noise, which is weaker in the dark; else None.

    Args:
        intensity: mean of each block, float64.
        variance: variance of the noise in it.
    """
    if not len(intensity) or float(intensity.max()) <= 0:
        return None
    peak = float(intensity.max())
    edges = torch.linspace(0, 1, BINS + 1, dtype=torch.float64)[1:-1] ** 2  # most volumes are much darker than a few
    part = torch.bucketize(intensity / peak, edges)
    found = []
    for number in range(BINS):
        here = part == number
        if int(here.sum()) >= FEWEST_BLOCKS_IN_BIN:
            mean, median = float(intensity[here].mean()), float(variance[here].median())
            found.append((mean / peak, median / peak**2, LEAST_TOLERANCE))
    if len(found) < FEWEST_BINS or min(row[1] for row in found) <= 0:
        return None
    curve = VarianceCurve(*np.array(found).T)
    fit = kind_of_noise(curve, NO_AIR, ("rician",))
    return fit.parameters[0] * peak if fit.kind == "rician" else None


FEWEST_BLOCKS_IN_BIN = 40

LEAST_TOLERANCE = 0.05


def kind_of_noise(curve: VarianceCurve, air: Air, kinds: Collection[str]) -> Fit:
    """Find the kind of noise that explains a curve best: Gaussian, unless another kind is clearly better.

    Args:
        curve: the variance at several intensities of a volume without negative values.
        air: the dark part of the volume.
        kinds: the kinds that are possible.
    """
    constant, line, magnitudes = fit_constant(curve), fit_line(curve), fit_magnitudes(curve)
    if "rician" in kinds and air.coils is not None:
        # the deviation of the air, unlike that of its finest detail, does not depend on the correlation of neighbours
        scale = max(air.deviation**2 / curve.variance[0], 1.0)
        whole = curve._replace(variance=curve.variance * scale)
        white, much = scale < MOST_ABOVE_FINEST, air.share > MUCH_AIR
        several, rising, least = fit_magnitudes(whole, air.coils), fit_line(whole), math.inf
        surely, rise = white and much, rise_of(rising, whole)
        if several.kind == "chi" or (rise > MOST_RISE_OF_MAGNITUDES and not surely):
            least = fit_constant(whole).cost - CLEARLY
        if rise > 1 and not surely:  # what falls is no line of photon counts
            least = min(least, rising.cost + CLEARLY * (4 if much else 1))
        if several.cost < least and (several.kind == "rician" or ("chi" in kinds and white)):
            return several
    if curve.span < LEAST_SPAN:  # all intensities are those of noise around one value
        return constant
    surer = 2 if curve.span < WIDE_SPAN else 1
    if "rician" in kinds and magnitudes.cost < min(constant.cost - surer * CLEARLY / 2, line.cost):
        return magnitudes
    several = fit_several_coils(curve) if "chi" in kinds else Fit("chi", math.inf, ())
    if several.cost < min(constant.cost - surer * CLEARLY, magnitudes.cost - CLEARLY, line.cost - CLEARLY):
        return several
    others = constant.cost - surer * CLEARLY, magnitudes.cost - CLEARLY, several.cost - CLEARLY
    explained = line.cost < min(*others, WORST * len(curve.variance))
    return line if "poisson" in kinds and rise_of(line, curve) > LEAST_RISE and explained else constant


def rise_of(line: Fit, curve: VarianceCurve) -> float:
    """Return the ratio between the variances of a line in the brightest and in the darkest part."""
    slope, at_zero = line.parameters
    return float((slope * curve.intensity[-1] + at_zero) / (slope * curve.intensity[0] + at_zero))


CLEARLY = 8.0
"""Cost by which another kind of noise must be better than Gaussian noise."""

MOST_ABOVE_FINEST = 1.5
"""Largest variance of the air of several coils over that of its finest detail. Tissue has more."""

LEAST_SPAN, WIDE_SPAN = 2.2, 6.0
"""Range of intensities in units of the largest deviation: below the first, noise alone makes such a range; below the
second, correlated noise might, so that another kind must be twice as clearly better."""

LEAST_RISE = 1.7
"""Least ratio between the variances in the brightest and in the darkest part that speaks for photon counts."""

MOST_RISE_OF_MAGNITUDES = 3.0
"""The same ratio from which a line speaks against magnitudes, whose variance rises by 2.3 at most."""

WORST = 3.0
"""Largest cost per part with which a curve counts as explained by photon counts."""


def cost_of(curve: VarianceCurve, model: Numbers) -> Numbers:
    """Return how badly modelled variances, (..., bins), fit: structure may add to them, but nothing takes from them."""
    most = MOST_ABOVE if curve.least is None else MOST_OUTSIDE
    least = curve.variance if curve.least is None else np.maximum(curve.least, 1e-12 * curve.variance)
    modelled = np.log(np.maximum(model, 1e-300))
    above = np.maximum(np.log(least) - modelled, 0) / curve.tolerance
    below = np.maximum(modelled - np.log(curve.variance), 0) / curve.tolerance
    costs: Numbers = (np.minimum(above**2, most) + np.minimum(below**2, MOST_BELOW)).sum(-1)
    return costs


MOST_ABOVE, MOST_OUTSIDE, MOST_BELOW = 6.0, 12.0, 60.0
"""Largest cost of a part whose variance is above the model's, as structure makes it; of one that is above it even
without what may be structure; and of one below."""

STEPS = 120
"""Values tried for each parameter, first over the whole range of variances and then around the best."""


def levels_tried(curve: VarianceCurve) -> Numbers:
    levels: Numbers = np.geomspace(curve.variance.min() / 2, curve.variance.max() * 1.2, STEPS)
    return levels


def fit_constant(curve: VarianceCurve) -> Fit:
    """Fit Gaussian noise: the same variance everywhere."""
    levels = levels_tried(curve)
    costs = cost_of(curve, np.broadcast_to(levels[:, None], (STEPS, len(curve.variance))))
    return Fit("gaussian", float(costs.min()), (math.sqrt(levels[costs.argmin()]),))


def fit_line(curve: VarianceCurve) -> Fit:
    """Fit photon counts: a variance that rises in a straight line."""
    first, last = curve.intensity[0], curve.intensity[-1]
    share = (curve.intensity - first) / (last - first)
    starts = stops = levels_tried(curve)
    for _ in range(3):
        costs = cost_of(curve, starts[:, None, None] * (1 - share) + stops[:, None] * share)
        best, other = np.unravel_index(costs.argmin(), costs.shape)
        cost, start, stop = float(costs.min()), float(starts[best]), float(stops[other])
        around = np.geomspace(0.8, 1.25, STEPS) ** (1.0 if len(starts) == STEPS else 0.2)
        starts, stops = start * around, stop * around
    slope = (stop - start) / (last - first)
    return Fit("poisson", cost, (float(slope), float(start - slope * first)))


def refined_line(line: Fit, around: DetailMaps, usable: Tensor) -> Fit:
    """Fit a line again, now to all voxels that are about as flat as its noise makes them.

    The flattest tenth suffices to tell the kinds apart. Where most of the volume is flat, as the background of cells
    is, all of it tells the variance there several times as exactly.

    Args:
        line: a line of the variance of photon counts against intensity, which fits roughly.
        around: measures around each voxel.
        usable: which voxels count.
    """
    slope, at_zero = line.parameters
    brightness, finest, detail = around.at(usable)
    flat = detail < NEARLY_FLAT * (slope * brightness + at_zero)
    found = []
    for part in flattest_parts(brightness, detail, flat):
        mean, variance = float(brightness[part].double().mean()), robust_deviation(finest[part]) ** 2
        expected = slope * mean + at_zero
        if expected > 0 and abs(variance / expected - 1) < MOST_OFF_LINE:  # else there is structure
            found.append((mean, variance, 1 / (expected * math.hypot(math.sqrt(4 / len(part)), LEAST_ERROR))))
    if len(found) < FEWEST_BINS:
        return line
    intensity, variances, weight = np.array(found).T
    if at_zero == 0:
        slope = float((weight**2 * intensity * variances).sum() / (weight**2 * intensity**2).sum())
    else:
        slope, at_zero = (float(number) for number in np.polyfit(intensity, variances, 1, w=weight))
    return Fit("poisson", line.cost, (slope, at_zero)) if slope > 0 else line


NEARLY_FLAT = 1.3
"""Detail relative to the variance of the noise up to which a voxel counts as flat."""

MOST_OFF_LINE = 0.2
"""Largest error of the first line."""

LEAST_ERROR = 0.01
"""Least relative error of a variance."""


def fit_line_through_zero(curve: VarianceCurve) -> Fit:
    """Fit photon counts of a detector without offset and read noise: a variance proportional to the intensity."""
    if curve.intensity[0] <= 0:
        return Fit("poisson", math.inf, (0.0, 0.0))
    slopes = (levels_tried(curve)[:, None] / curve.intensity).ravel()
    costs = cost_of(curve, slopes[:, None] * curve.intensity)
    return Fit("poisson", float(costs.min()), (float(slopes[costs.argmin()]), 0.0))


def fit_several_coils(curve: VarianceCurve) -> Fit:
    """Fit noise of several coils without looking at the air: the darkest part must have the mean of magnitudes without
    signal, as its variance does."""
    fits = [fit_magnitudes(curve, coils) for coils in COILS_TRIED]
    airs = [curve.intensity[0] / (fit.parameters[0] * mean_of_air(fit.parameters[1])) for fit in fits]
    possible = [fit for fit, air in zip(fits, airs, strict=True) if abs(air - 1) < AIR_ERROR]
    return min(possible, key=lambda fit: fit.cost, default=Fit("chi", math.inf, ()))


COILS_TRIED = (1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0)

AIR_ERROR = 0.15
"""Largest relative error of the mean of the air."""


def fit_magnitudes(curve: VarianceCurve, coils: float = 1.0) -> Fit:
    """Fit Rician noise, or that of several coils, which are weaker in the dark."""
    levels = np.sqrt(levels_tried(curve))
    means = torch.from_numpy(curve.intensity / levels[:, None])
    costs = cost_of(curve, (levels[:, None] * rician_deviation(means, coils).numpy()) ** 2)
    return Fit("rician" if coils == 1 else "chi", float(costs.min()), (float(levels[costs.argmin()]), coils))
