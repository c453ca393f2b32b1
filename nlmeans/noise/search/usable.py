"""Which voxels speak for the noise of a volume: those that hold a measurement, and the object among them."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from nlmeans.core import arrays


def measured_voxels(volume: Tensor) -> Tensor:
    """Tell which voxels hold a measurement.

    Exact zeros beside each other are a removed background; single ones are values like any other, of few photons for
    example. Many equal voxels at the least or the greatest value, far more than at the next value, are clipped or
    padded. A few voxels far from all others are hot pixels, metal, or a hot organ.

    >>> counts = torch.poisson(torch.full((1, 100, 100), 50.0), torch.Generator().manual_seed(0))
    >>> int((~measured_voxels(counts)).sum()), int((~measured_voxels(counts.clamp(45, 55))).sum()) > 4000
    (0, True)
    """
    zero = volume == 0
    measured = ~zero | stands_alone(zero)
    for end in torch.aminmax(volume):
        piled = measured & (volume == end)
        count = int(piled.sum())
        if count <= max(LEAST_PILED, PILED * volume.numel()):
            continue
        others = volume[measured & ~piled]
        if len(others):
            beside = others.min() if end < others[0] else others.max()
            if count > HIGHER * int((others == beside).sum()):
                measured &= ~piled
    low, high = limits_of_most(volume[measured])
    return measured & (volume >= low) & (volume <= high)


LEAST_PILED, PILED, HIGHER = 50, 1e-4, 3
"""A value at the end of the range counts as clipped if so many voxels, such a share of all, and so many times as many
as have the next value, have it."""


def stands_alone(chosen: Tensor) -> Tensor:
    """Tell which voxels have few neighbours that are chosen: at most a third of those that share a face with them.

    >>> stands_alone(torch.tensor([[[True, False, True, True, True]]]))[0, 0]
    tensor([ True, False, False, False, False])
    """
    beside, axes = torch.zeros_like(chosen, dtype=torch.uint8), [axis for axis in range(3) if chosen.shape[axis] > 1]
    for axis in axes:
        length = chosen.shape[axis] - 1
        beside.narrow(axis, 1, length).add_(chosen.narrow(axis, 0, length))
        beside.narrow(axis, 0, length).add_(chosen.narrow(axis, 1, length))
    return beside <= 2 * len(axes) // 3


def limits_of_most(values: Tensor) -> tuple[float, float]:
    """Return the range outside of which there are only a few values, far from all others; infinite if there are none.

    >>> bulk = torch.linspace(0, 1, 1000)
    >>> low, high = limits_of_most(torch.cat([bulk, torch.tensor([40.0])]))
    >>> low, 1 < high < 40, limits_of_most(bulk)
    (-inf, True, (-inf, inf))
    """
    return -upper_limit_of_most(-values), upper_limit_of_most(values)


def upper_limit_of_most(values: Tensor) -> float:
    """Return the value above which there are only a few, far from all others; infinity if there are none."""
    limit, left = math.inf, FEW * len(values)
    while len(values) > 1 and far_from_most(float(values.max()), values):
        threshold = otsu_threshold(values)
        above = values > threshold
        left -= int(above.sum())
        if left < 0 or not far_from_most(float(values[above].double().mean()), values[~above]):
            break
        limit, values = threshold, values[~above]
    return limit


def far_from_most(value: float, values: Tensor) -> bool:
    """Whether a value is far above nearly all of others, compared with how far these spread."""
    some = values[:: max(1, len(values) // MOST_SORTED)].double().cpu().numpy()
    middle, end = np.quantile(some, [0.5, 0.995])
    return bool(value - middle > FAR_OFF * (end - middle) + NEARBY * abs(middle))


FEW, FAR_OFF, NEARBY = 0.03, 3.0, 1e-6
"""Share of all voxels that is few; how far above the middle they must be, in units of how far nearly all others are, to
count as far; and a difference relative to the middle that is rounding."""

MOST_SORTED = 100_000


def range_without_ends(values: Tensor) -> tuple[float, float]:
    """Return the values below and above which a thousandth of them lies; of very many, of an even sample of them."""
    ordered = values[:: max(1, len(values) // MOST_SORTED)].sort().values
    return float(ordered[len(ordered) // 1000]), float(ordered[-1 - len(ordered) // 1000])


def object_threshold(values: Tensor) -> float:
    """Return the threshold above which the object is: Otsu's, unless only a few voxels are brighter than that.

    >>> values = torch.cat([torch.zeros(600), torch.ones(390), torch.full((10,), 20.0)])
    >>> 0 < object_threshold(values) < 1 < otsu_threshold(values)
    True
    """
    values = values[~values.isnan()] if arrays.is_nan(values) is not None else values
    threshold, fewest = otsu_threshold(values), FEW * values.numel()
    for _ in range(MOST_TIMES):
        if int((values > threshold).sum()) >= fewest:
            break
        values = values[values <= threshold]
        threshold = otsu_threshold(values)
    return threshold


MOST_TIMES = 10


def otsu_threshold(values: Tensor) -> float:
    """Return the threshold between dark and bright, apart from NaN, with the least variance within both (Otsu 1979)."""
    values = values[~values.isnan()] if arrays.is_nan(values) is not None else values
    if values.numel() == 0:
        return -math.inf
    numbers = values.double().cpu().numpy()
    low = numbers.min()
    span = (numbers.max() - low) or 1.0
    with np.errstate(over="ignore"):  # NumPy 1 warns needlessly about tiny spans
        # scaled to 0..1, so that neither a large offset nor a tiny span costs digits
        counts, edges = np.histogram((numbers - low) / span, bins=256)
    middles = (edges[:-1] + edges[1:]) / 2
    below, above = counts.cumsum(), counts[::-1].cumsum()[::-1]
    mean_below = (counts * middles).cumsum() / np.maximum(below, 1)
    mean_above = (counts * middles)[::-1].cumsum()[::-1] / np.maximum(above, 1)
    between = below[:-1] * above[1:] * (mean_below[:-1] - mean_above[1:]) ** 2
    return float(low + span * edges[1 + between.argmax()])
