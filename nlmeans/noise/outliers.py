"""Find and replace impulses and dead voxels: values that have nothing to do with their surroundings."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from nlmeans.core import arrays, checks
from nlmeans.core.arrays import ArrayT
from nlmeans.core.axes import Axes
from nlmeans.core.layout import Layout
from nlmeans.core.modes import outside_autocast
from nlmeans.core.padding import reflect
from nlmeans.noise.search.finest import MEDIAN_OF_ABSOLUTE_NORMAL

SIMILAR_NEIGHBOURS = 4
"""Number of most similar neighbours that a voxel is compared with. If 3 % of all voxels are impulses, one voxel in
1,000 has four impulses of one kind among its neighbours, and one in 20 has two."""

LEAST_DIFFERENCE = 3.0
"""Least mean difference of an outlier to these neighbours, in units of sigma. Noise exceeds it in 1 voxel of 1,000."""

OUTLIER_RATIO, TWO_THIRDS = 4.0, 2 / 3
"""Least ratio between the difference of an outlier and the difference that two thirds of its neighbours do not exceed.
In fine texture, all voxels differ about equally."""

DESPECKLE_REACH = 2
"""Distance of the farthest voxels that decide whether a voxel is an outlier: the neighbours of its neighbours."""


@outside_autocast
def despeckle(
    volume: ArrayT, sigma: float | None = None, *, channels: int | None = None, series: int | None = None
) -> ArrayT:
    """Replace impulses and dead voxels by the median of their neighbours. All other voxels stay unchanged.

    The difference of a voxel is its mean absolute difference to the four most similar of its 26 neighbours (8 in an
    image). A voxel is an outlier if this difference is more than 3 sigma, and more than 4 times the usual difference
    around it, so that fine texture stays. Two similar neighbours on opposite sides are enough to keep a voxel, so that
    straight lines one voxel wide stay as well.

    ``denoise(..., despeckle=True)`` does this before it denoises. Points of one or two voxels, such as
    microcalcifications, count as impulses: do not use `despeckle` where they matter.

    Args:
        volume: (H, W) or (D, H, W), plus the axes that `channels` and `series` name; real, finite, any dtype.
        sigma: standard deviation of the noise apart from impulses, in image units. None estimates it robustly, on the
            high side.
        channels: axis of channels, which are treated one by one.
        series: axis of volumes, which are treated one by one.

    Returns:
        Same type, shape, dtype and device; the input is not written to.

    Raises:
        ValueError, TypeError: an argument is out of range or does not fit the volume.

    References:
        R. Garnett, T. Huegerich, C. Chui, W. He, "A universal noise removal algorithm with an impulse detector", IEEE
        Transactions on Image Processing 14, 2005 (rank-ordered absolute differences).

    Example:
        >>> import numpy as np
        >>> volume = 100 + np.random.default_rng(0).standard_normal((12, 12, 12))
        >>> volume[6, 6, 6] = 0
        >>> bool(abs(despeckle(volume)[6, 6, 6] - 100) < 2)
        True
    """
    layout = Layout.of(arrays.check_array(volume, "volume"), channels, series)
    arrays.value_range(volume, "volume")
    level = None if sigma is None else checks.not_negative("sigma", sigma)
    result = arrays.empty_like(volume)
    dtype, device = arrays.precise_dtype(volume), arrays.device_of(volume)
    for index in range(layout.volumes):
        place = layout.index(index, layout.everywhere)
        values = layout.to_engine(arrays.read(volume, place, dtype, device))
        cleaned = [
            without_outliers(channel, sigma_between_outliers(channel) if level is None else level) for channel in values
        ]
        arrays.write(result, place, layout.from_engine(torch.stack(cleaned)))
    return cast(ArrayT, result)


def without_outliers(volume: Tensor, sigma: float | Tensor) -> Tensor:
    """Replace the outliers of one (D, H, W), with sigma a number or a map; see `despeckle`.

    The result depends on voxels up to `DESPECKLE_REACH` away.
    """
    reach, around = neighbour_offsets(volume)
    if not around:
        return volume
    height, width = (n + 2 * r for n, r in zip(volume.shape[1:], reach[1:], strict=True))
    steps = torch.tensor([(z * height + y) * width + x for z, y, x in around], device=volume.device)

    def neighbours(values: Tensor, voxels: Tensor) -> Tensor:
        """Gather the neighbours of voxels, (voxels, neighbours); `voxels` are indices into the padded volume."""
        return reflect(values[None], reach).flatten()[voxels[:, None] + steps]

    unlike = difference_to_neighbours(volume, reach, around)
    suspects = (unlike > LEAST_DIFFERENCE * sigma).nonzero()
    if not len(suspects):
        return volume
    indices = suspects + torch.tensor(reach, device=volume.device)
    voxels = (indices[:, 0] * height + indices[:, 1]) * width + indices[:, 2]
    usual = [neighbours(unlike, some).quantile(TWO_THIRDS, dim=1) for some in torch.split(voxels, SUSPECTS_AT_ONCE)]
    certain = unlike[tuple(suspects.T)] > OUTLIER_RATIO * torch.cat(usual)
    suspects, voxels = suspects[certain], voxels[certain]
    result = volume.clone()
    if len(suspects):
        result[tuple(suspects.T)] = math.nan
        middle = [neighbours(result, some).nanmedian(1).values for some in torch.split(voxels, SUSPECTS_AT_ONCE)]
        own = volume[tuple(suspects.T)]
        result[tuple(suspects.T)] = torch.where(torch.cat(middle).isnan(), own, torch.cat(middle))
    return result


def neighbour_offsets(volume: Tensor) -> tuple[Axes, list[Axes]]:
    """Return how far neighbours lie along each axis (0 or 1), and their offsets."""
    d, h, w = (int(n > 1) for n in volume.shape)
    around = itertools.product(range(-d, d + 1), range(-h, h + 1), range(-w, w + 1))
    return (d, h, w), [offset for offset in around if any(offset)]


def difference_to_neighbours(volume: Tensor, reach: Axes, around: list[Axes]) -> Tensor:
    """Compute how much each voxel differs from its neighbours.

    It is the mean absolute difference to the `SIMILAR_NEIGHBOURS` most similar neighbours. If the most similar pair of
    opposite neighbours differs less, it is the larger difference to these two.
    """
    padded = reflect(volume[None], reach)[0]

    def unlike(offset: Sequence[int]) -> Tensor:
        there = [slice(r + o, r + o + n) for r, o, n in zip(reach, offset, volume.shape, strict=True)]
        return (padded[*there] - volume).abs_()

    least = [torch.full_like(volume, math.inf) for _ in range(min(SIMILAR_NEIGHBOURS, len(around)))]
    in_line = torch.full_like(volume, math.inf)
    for offset in around[: len(around) // 2]:  # the other half of the offsets are their opposites
        before, after = unlike(offset), unlike([-o for o in offset])
        in_line = torch.minimum(in_line, torch.maximum(before, after))
        for values in (before, after):
            for place, kept in enumerate(least):
                least[place], values = torch.minimum(kept, values), torch.maximum(kept, values)
    return torch.minimum(torch.stack(least).mean(0), in_line)


def sigma_between_outliers(volume: Tensor) -> float:
    """Estimate sigma from first differences, which outliers hardly affect. It is never too low; texture raises it."""
    medians = []
    for axis, n in enumerate(volume.shape):
        before, after = volume.narrow(axis, 0, n - 1), volume.narrow(axis, 1, n - 1)
        steps = (after - before).abs()[(before != 0) | (after != 0)]  # a removed background has no noise
        medians += [float(steps.median())] if len(steps) else []
    return min(medians, default=0.0) / (MEDIAN_OF_ABSOLUTE_NORMAL * math.sqrt(2))


SUSPECTS_AT_ONCE = 2**20
"""Suspected voxels whose neighbours are gathered at once."""
