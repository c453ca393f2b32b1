"""Measure the finest detail of a volume, which is mostly noise, and how much other detail surrounds each voxel."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nlmeans.core.padding import reflect
from nlmeans.noise.search.usable import measured_voxels

OUTER, INNER = 3, 2
"""Radii of the ring that the detail around a voxel is averaged over: 7 × 7 × 7 voxels without the inner 5 × 5 × 5. The
inner ones overlap the filter: with them, the choice of flat voxels would depend on the noise to be measured."""

MEDIAN_OF_ABSOLUTE_NORMAL = 0.6744897501960817
"""Median of |x| for a standard normal x."""

DEVIATION_WITHIN_THREE = 0.9866
"""Standard deviation of a standard normal variable given that it lies within ±3."""


class DetailMaps(NamedTuple):
    """Measures around each voxel, (D, H, W), without the first and last voxel of axes of three or more."""

    finest: Tensor
    """Second differences along all axes. On pure noise their standard deviation is sigma."""
    brightness: Tensor
    """Mean of the 3 × 3 × 3 voxels."""
    detail: Tensor
    """Mean square of voxel minus brightness, over the ring around the voxel. On pure noise it is sigma²."""
    usable: Tensor
    """False where one of the 3 × 3 × 3 voxels holds no measurement; see `measured_voxels`."""
    inside: Tensor | None
    """The mask, if there is one."""

    def at(self, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return brightness, finest detail and detail around it of the voxels that are chosen, (voxels,) each."""
        measures = self.brightness, self.finest, self.detail
        brightness, finest, detail = (values.masked_select(chosen) for values in measures)
        return brightness, finest, detail


def grey_step(volume: Tensor) -> float:
    """Return the step between grey values that are whole multiples of it, as integers are; 0 if there is none.

    >>> grey_step(torch.arange(600).view(1, 20, 30) % 50 / 4), grey_step(torch.rand(1, 30, 30))
    (0.25, 0.0)
    """
    values = volume.flatten()[:: max(1, volume.numel() // MOST_FOR_STEP)].double()
    levels = torch.from_numpy(np.unique(values.cpu().numpy()))
    if not 1 < len(levels) < len(values):  # values of which none repeats are not quantised
        return 0.0
    step = float(levels.diff().min())
    multiples = levels / step
    whole = bool((multiples - multiples.round()).abs().max() < NEARLY_WHOLE)
    return step if whole and len(levels) < len(values) / MANY_OF_EACH else 0.0


MOST_FOR_STEP, NEARLY_WHOLE, MANY_OF_EACH = 100_000, 0.01, 1.5
"""Values looked at for a step between grey values, how far they may be from its multiples, and how often each must be
there on average."""


def finest_detail(volume: Tensor, inside: Tensor | None, measured: Tensor | None = None) -> DetailMaps:
    """Measure a volume with at least one axis of three or more voxels.

    Args:
        volume: (D, H, W).
        inside: a mask, whose middle voxels are returned.
        measured: which voxels hold a measurement; None for those that are not exactly zero.
    """
    axes = filtered_axes(volume)
    finest, middle, brightness = volume, volume, volume
    usable = volume != 0 if measured is None else measured
    for axis in axes:
        finest = combine_neighbours(
            finest, axis, lambda before, here, after: (before - 2 * here + after) / math.sqrt(6)
        )
        brightness = combine_neighbours(brightness, axis, lambda before, here, after: (before + here + after) / 3)
        usable = combine_neighbours(usable, axis, lambda before, here, after: before & here & after)
        middle = combine_neighbours(middle, axis, lambda _, here, __: here)
        inside = None if inside is None else combine_neighbours(inside, axis, lambda _, here, __: here)
    left_out = (middle - brightness).square_()
    detail = ring_means(left_out, OUTER) / (1 - 3.0 ** -len(axes))
    return DetailMaps(finest, brightness, detail, usable, inside)


DETAIL_SLAB_VOXELS = 2**20
"""Voxels measured at once on a CPU."""


def finest_detail_by_slabs(
    volume: Tensor, scale: float, inside: Tensor | None, measured: Tensor | None = None
) -> DetailMaps:
    """Measure a volume divided by `scale`; a large one slab by slab, which takes less memory. `measured` says which
    voxels hold a measurement; None finds that."""
    measured = measured_voxels(volume) if measured is None else measured
    longest = max(range(3), key=lambda axis: volume.shape[axis])
    length = volume.shape[longest] - 2
    thickness = max(1, DETAIL_SLAB_VOXELS * length // volume.numel())
    if volume.numel() <= 2 * DETAIL_SLAB_VOXELS or volume.device.type != "cpu":
        return finest_detail(volume / scale, inside, measured)
    shape = [n - 2 if n >= 3 else n for n in volume.shape]
    finest, brightness, detail = (volume.new_empty(shape) for _ in range(3))
    usable = torch.empty(shape, dtype=torch.bool, device=volume.device)
    within = None if inside is None else torch.empty_like(usable)
    whole = DetailMaps(finest, brightness, detail, usable, within)
    for start in range(0, length, thickness):
        first, stop = max(start - OUTER, 0), min(start + thickness, length)
        rows = min(stop + 2 + OUTER, volume.shape[longest]) - first
        slab = volume.narrow(longest, first, rows) / scale
        within_slab = None if inside is None else inside.narrow(longest, first, rows)
        part = finest_detail(slab, within_slab, measured.narrow(longest, first, rows))
        for values, target in zip(part, whole, strict=True):
            if values is not None and target is not None:
                target.narrow(longest, start, stop - start).copy_(values.narrow(longest, start - first, stop - start))
    return whole


def filtered_axes(volume: Tensor) -> list[int]:
    """Return the axes that are long enough for second differences."""
    return [axis for axis, n in enumerate(volume.shape) if n >= 3]


def combine_neighbours(values: Tensor, axis: int, function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    """Apply a function to each voxel and those before and after it along an axis, which loses its two ends."""
    length = values.shape[axis] - 2
    before, here, after = (values.narrow(axis, start, length) for start in range(3))
    return function(before, here, after)


def box_sums(values: Tensor, radius: int) -> Tensor:
    """Sum over 2r + 1 voxels along each axis longer than 1; the borders are reflected."""
    long = [axis for axis, n in enumerate(values.shape) if n > 1]
    d, h, w = (radius * (n > 1) for n in values.shape)
    sums = reflect(values, (d, h, w))
    for axis in long:
        length = values.shape[axis]
        here = sums.narrow(axis, 0, length).clone()
        for start in range(1, 2 * radius + 1):
            here += sums.narrow(axis, start, length)
        sums = here
    return sums


def ring_means(values: Tensor, outer: int) -> Tensor:
    """Average over the voxels up to `outer` away, without those within `INNER`, which depend on the middle voxel."""
    ring = box_sums(values, outer).sub_(box_sums(values, INNER))
    return ring.clamp_min_(0) / max(box_voxels(values, outer) - box_voxels(values, INNER), 1)


def box_voxels(values: Tensor, radius: int) -> int:
    """Return the number of voxels that `box_sums` sums over."""
    return math.prod(2 * radius * (n > 1) + 1 for n in values.shape)


def robust_deviation(values: Tensor) -> float:
    """Estimate the standard deviation of normal values around 0: by the median of their absolute values, then by the
    mean square of the values within three deviations."""
    sizes = values.abs()
    first = float(sizes.median()) / MEDIAN_OF_ABSOLUTE_NORMAL
    inner = sizes[sizes < 3 * first]
    return float(inner.square().mean().sqrt()) / DEVIATION_WITHIN_THREE if len(inner) else 0.0
