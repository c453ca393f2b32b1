"""The air around the object: in magnitude images, its distribution shows level, coils and correlation of the noise."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nlmeans.noise.rician import coils_of_air, mean_of_air
from nlmeans.noise.search.correlation import estimate_correlated_noise
from nlmeans.noise.search.finest import DetailMaps
from nlmeans.noise.search.usable import MOST_SORTED, object_threshold, range_without_ends

Numbers = npt.NDArray[np.float64]


class Air(NamedTuple):
    """The values of the dark part of a volume."""

    mean: float
    deviation: float
    skewness: float
    voxels: int
    share: float
    """Share of all voxels."""
    limit: float
    """Mean of the 3 × 3 × 3 voxels below which a voxel belongs to it."""

    @property
    def coils(self) -> float | None:
        """Effective number of coils, if these are magnitudes without signal: 1 for Rician noise. Otherwise None."""
        if self.voxels < LEAST_AIR or self.deviation == 0 or self.mean < LEAST_RATIO * self.deviation:
            return None
        coils = coils_of_air(self.mean, self.deviation)
        mean = mean_of_air(coils)
        variance = 2 * coils - mean**2
        skewness = mean * (1 - 2 * variance) / variance**1.5
        if coils > MOST_COILS_SEEN or abs(self.skewness - skewness) > SKEWNESS_ERROR:
            return None
        return 1.0 if coils < MORE_THAN_ONE else coils


NO_AIR = Air(0.0, 0.0, 0.0, 0, 0.0, 0.0)

AIR_REACHES, NEAREST_REACH = (1.5, 2.0), 1.2
"""Multiples of the median of the air up to which a mean of 3 × 3 × 3 voxels may belong to it. The noise of several
coils varies less: the nearest multiple, tried last and for much air alone, leaves out dark tissue beside it."""

DARKEST = 1 / 16
"""Share of the range of intensities that is dark in any case."""

LEAST_AIR = 500
"""Voxels from which the distribution of air can be told."""

MUCH_AIR = 0.05
"""Share of all voxels that is no coincidence."""

LEAST_RATIO = 1.75
"""Least mean of air over its deviation; with a single coil it is 1.91."""

SKEWNESS_ERROR = 0.12
"""Largest error of the skewness of air. It is 0.63 for one coil, 0.27 for four, and 0 for Gaussian noise."""

MORE_THAN_ONE = 1.15
"""Effective number of coils from which the noise is not Rician."""

MOST_COILS_SEEN = 12.0
"""Largest number of coils that is told from Gaussian noise and from dark tissue."""


def air_of(volume: Tensor, around: DetailMaps, usable: Tensor) -> Air:
    """Measure the air in a volume: what is dark by its range or by Otsu's threshold, if these are magnitudes.

    Args:
        volume: (D, H, W).
        around: measures around each voxel of it.
        usable: which of these count.
    """
    brightness = around.brightness.masked_select(usable)
    if len(brightness) < LEAST_AIR:
        return NO_AIR
    low, high = range_without_ends(brightness)
    values, every = without_border(volume).masked_select(usable), max(1, len(brightness) // MOST_SORTED)
    some = np.sort(brightness[::every].cpu().numpy())
    starts = object_threshold(brightness), low + (high - low) * DARKEST
    for start, factor in (*itertools.product(starts, AIR_REACHES), *((start, NEAREST_REACH) for start in starts)):
        limit = start
        for _ in range(3):  # towards everything up to a multiple of the median of the air
            below = int(np.searchsorted(some, limit))
            if below * every >= LEAST_AIR:
                limit = factor * float(some[(below - 1) // 2])
        dark = brightness < limit
        if int(dark.sum()) < LEAST_AIR:
            continue
        air = values.masked_select(dark).double()
        mean, deviation = float(air.mean()), float(air.std())
        skewness = float(((air - mean) / max(deviation, 1e-300)).pow(3).mean())
        found = Air(mean, deviation, skewness, len(air), len(air) / len(brightness), limit)
        several = found.share > MUCH_AIR and (found.coils or 1) > 1
        if found.coils is not None and (several or factor != NEAREST_REACH):
            return found
    return NO_AIR


def without_border(volume: Tensor) -> Tensor:
    """Return the voxels of a volume that `DetailMaps` has measures around."""
    return volume[tuple(slice(1, -1) if n >= 3 else slice(None) for n in volume.shape)]


def correlation_in_air(volume: Tensor, measured: Tensor, around: DetailMaps, air: Air) -> Tensor | None:
    """Find the autocovariance of the noise from the air of a magnitude image.

    Magnitudes correlate nearly as the square of what the noise does. The sign is lost, so that all is positive.

    Returns:
        In units of sigma², at lags −l … l along each axis, 1 in the middle; None where the air is not even.
    """
    inside = torch.zeros_like(volume, dtype=torch.bool)
    without_border(inside).copy_((around.brightness < air.limit) & around.usable)
    found = estimate_correlated_noise(volume, inside, measured)
    if found is None or found.blocks < FEWEST_IN_AIR or not EVEN_AIR < found.sigma / air.deviation < 1 / EVEN_AIR:
        return None
    magnitudes = found.autocovariance.where(found.autocovariance > LEAST_CORRELATION, torch.zeros(()).double())
    return torch.from_numpy(np.interp(magnitudes.numpy(), of_magnitudes(TABULATED), TABULATED))


EVEN_AIR = 0.8
"""Ratio of the deviation within blocks of air and of all air, either way, to which the air is even."""

FEWEST_IN_AIR = 25
"""Flat blocks of air that are believed. What is dark in a small volume may be tissue."""

LEAST_CORRELATION = 0.03
"""Correlation of magnitudes below which it may be chance."""

TABULATED = np.linspace(0, 1, 201)


def of_magnitudes(correlation: Numbers) -> Numbers:
    """Return the correlation of Rayleigh magnitudes from that of the noise: a series in its square.

    >>> of_magnitudes(np.array([0.0, 0.5, 1.0])).round(2)
    array([0.  , 0.23, 1.  ])
    """
    square, term, total = correlation**2, np.ones_like(correlation), np.zeros_like(correlation)
    for order in range(1, SERIES_TERMS):
        term = term * square * ((order - 1.5) / order) ** 2
        total = total + term
    return total / (4 / np.pi - 1)


SERIES_TERMS = 2000
"""Terms of the series of 2F1(−½, −½; 1; ρ²), which is slow only at 1."""
