"""Impulses and dead voxels: values that have nothing to do with what lies around them."""

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
from nlmeans.core.padding import reflect
from nlmeans.noise.finest import MEDIAN_OF_ABSOLUTE_NORMAL

ALIKE = 4
"""Neighbours that vouch for a voxel: those nearest to it in value. Where 3 % of all voxels are impulses, four of one
kind are neighbours of the same voxel in one of 1,000 places, two in one of 20."""

LEAST = 3.0
"""Difference to those neighbours, in units of sigma, that noise does not reach: in one of 1,000 voxels."""

RATIO, TWO_THIRDS = 4.0, 2 / 3
"""An outlier differs this many times as much as two thirds of its neighbours do from theirs. In fine texture all do."""

REACH = 2
"""Voxels that decide over one: its neighbours, and theirs."""


def despeckle(
    volume: ArrayT, sigma: float | None = None, *, channels: int | None = None, series: int | None = None
) -> ArrayT:
    """Replace impulses and dead voxels by the median of their neighbours; all other voxels come back as they are.

    A voxel is an outlier if the four of its 26 neighbours (8 in an image) that are most like it differ from it by more
    than 3 sigma on average, and by more than 4 times what is usual around there: rank-ordered absolute differences
    (R. Garnett, T. Huegerich, C. Chui, W. He, "A universal noise removal algorithm with an impulse detector", IEEE
    Transactions on Image Processing 14, 2005), relative to their surroundings, so that fine texture is kept. Two alike
    on opposite sides are enough, so that straight lines one voxel wide are kept as well. `denoise` does all this first
    with ``despeckle=True``. Points of a voxel or two, such as microcalcifications, are impulses to it: leave it off
    where such matter.

    Args:
        volume: (H, W) or (D, H, W), plus the axes that `channels` and `series` name; real, finite, any dtype.
        sigma: standard deviation of the other noise, in image units; None estimates it robustly, on the high side.
        channels: axis of channels, each on its own.
        series: axis of volumes, each on its own.

    Returns:
        Same type, shape, dtype and device; the input is not written to.

    Raises:
        ValueError, TypeError: an argument is out of range or does not fit the volume.

    Example:
        >>> import numpy as np
        >>> volume = 100 + np.random.default_rng(0).standard_normal((12, 12, 12))
        >>> volume[6, 6, 6] = 0
        >>> bool(abs(despeckle(volume)[6, 6, 6] - 100) < 2)
        True
    """
    layout = Layout.of(arrays.checked(volume, "volume"), channels, series)
    arrays.value_range(volume, "volume")
    level = None if sigma is None else checks.not_negative("sigma", sigma)
    result = arrays.empty_like(volume)
    dtype, device = arrays.precise_dtype(volume), arrays.device_of(volume)
    for index in range(layout.volumes):
        place = layout.index(index, layout.everywhere)
        values = layout.to_engine(arrays.read(volume, place, dtype, device))
        cleaned = [without_outliers(channel, deviation(channel) if level is None else level) for channel in values]
        arrays.write(result, place, layout.from_engine(torch.stack(cleaned)))
    return cast(ArrayT, result)


def without_outliers(volume: Tensor, sigma: float | Tensor) -> Tensor:
    """`despeckle` of one (D, H, W), with sigma a number or a map; voxels `REACH` away count."""
    reach, around = neighbourhood(volume)
    if not around:
        return volume
    height, width = (n + 2 * r for n, r in zip(volume.shape[1:], reach[1:], strict=True))
    steps = torch.tensor([(z * height + y) * width + x for z, y, x in around], device=volume.device)

    def beside(values: Tensor, voxels: Tensor) -> Tensor:
        """(voxels, neighbours) of a (D, H, W), at indices of its padded form."""
        return reflect(values[None], reach).flatten()[voxels[:, None] + steps]

    unlike = difference(volume, reach, around)
    suspects = (unlike > LEAST * sigma).nonzero()
    if not len(suspects):
        return volume
    indices = suspects + torch.tensor(reach, device=volume.device)
    voxels = (indices[:, 0] * height + indices[:, 1]) * width + indices[:, 2]
    usual = [beside(unlike, some).quantile(TWO_THIRDS, dim=1) for some in torch.split(voxels, BLOCK_VOXELS)]
    certain = unlike[tuple(suspects.T)] > RATIO * torch.cat(usual)
    suspects, voxels = suspects[certain], voxels[certain]
    result = volume.clone()
    if len(suspects):
        result[tuple(suspects.T)] = math.nan
        middle = [beside(result, some).nanmedian(1).values for some in torch.split(voxels, BLOCK_VOXELS)]
        own = volume[tuple(suspects.T)]
        result[tuple(suspects.T)] = torch.where(torch.cat(middle).isnan(), own, torch.cat(middle))
    return result


def neighbourhood(volume: Tensor) -> tuple[Axes, list[Axes]]:
    """How far neighbours lie along each axis, and where they are."""
    d, h, w = (int(n > 1) for n in volume.shape)
    around = itertools.product(range(-d, d + 1), range(-h, h + 1), range(-w, w + 1))
    return (d, h, w), [offset for offset in around if any(offset)]


def difference(volume: Tensor, reach: Axes, around: list[Axes]) -> Tensor:
    """Mean absolute difference of each voxel to the `ALIKE` neighbours most like it, or to two on opposite sides."""
    padded = reflect(volume[None], reach)[0]

    def unlike(offset: Sequence[int]) -> Tensor:
        there = [slice(r + o, r + o + n) for r, o, n in zip(reach, offset, volume.shape, strict=True)]
        return (padded[*there] - volume).abs_()

    least = [torch.full_like(volume, math.inf) for _ in range(min(ALIKE, len(around)))]
    in_line = torch.full_like(volume, math.inf)
    for offset in around[: len(around) // 2]:  # those opposite are the other half
        before, after = unlike(offset), unlike([-o for o in offset])
        in_line = torch.minimum(in_line, torch.maximum(before, after))
        for values in (before, after):
            for place, kept in enumerate(least):
                least[place], values = torch.minimum(kept, values), torch.maximum(kept, values)
    return torch.minimum(torch.stack(least).mean(0), in_line)


def deviation(volume: Tensor) -> float:
    """Sigma of the noise between outliers, seen from first differences: no less than it is, more in fine texture."""
    medians = []
    for axis, n in enumerate(volume.shape):
        before, after = volume.narrow(axis, 0, n - 1), volume.narrow(axis, 1, n - 1)
        steps = (after - before).abs()[(before != 0) | (after != 0)]  # a removed background has no noise
        medians += [float(steps.median())] if len(steps) else []
    return min(medians, default=0.0) / (MEDIAN_OF_ABSOLUTE_NORMAL * math.sqrt(2))


BLOCK_VOXELS = 2**20
"""Suspects looked at together."""
