"""The finest detail of a volume, which is mostly noise, and how much other detail there is around it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nlmeans.core.padding import reflect

OUTER, INNER = 3, 2
"""The detail around a voxel is that of the 7 × 7 × 7 voxels without the 5 × 5 × 5 in the middle. With these, which
overlap the filter, the choice would depend on the very noise to be measured."""

MEDIAN_OF_ABSOLUTE_NORMAL = 0.6744897501960817
DEVIATION_WITHIN_THREE = 0.9866
"""Standard deviation of a normal variable with sigma 1 that is known to lie within ±3."""


class Finest(NamedTuple):
    """Measured around each voxel, (D, H, W); axes of three or more voxels have lost the first and the last."""

    finest: Tensor
    """Second differences along all axes; sigma is that of the noise."""
    brightness: Tensor
    """Mean of the 3 × 3 × 3 voxels."""
    detail: Tensor
    """Mean square of what the brightness leaves out, around the voxel; sigma² where there is nothing but noise."""
    usable: Tensor
    """No exact zero, such as of a removed background, among the 3 × 3 × 3 voxels."""
    inside: Tensor | None


def finest_detail(volume: Tensor, inside: Tensor | None) -> Finest:
    """Of a volume with at least one axis of three or more voxels."""
    axes = filtered_axes(volume)
    finest, middle, brightness, usable = volume, volume, volume, volume != 0
    for axis in axes:
        finest = combine(finest, axis, lambda before, here, after: (before - 2 * here + after) / math.sqrt(6))
        brightness = combine(brightness, axis, lambda before, here, after: (before + here + after) / 3)
        usable = combine(usable, axis, lambda before, here, after: before & here & after)
        middle = combine(middle, axis, lambda _, here, __: here)
        inside = None if inside is None else combine(inside, axis, lambda _, here, __: here)
    left_out = (middle - brightness).square_()
    detail = ring_means(left_out, OUTER) / (1 - 3.0 ** -len(axes))
    return Finest(finest, brightness, detail, usable, inside)


SLAB_VOXELS = 2**20


def finest_detail_by_slabs(volume: Tensor, scale: float, inside: Tensor | None) -> Finest:
    """`finest_detail` of a volume over `scale`; of a large one slab by slab, which takes less memory."""
    longest = max(range(3), key=lambda axis: volume.shape[axis])
    length = volume.shape[longest] - 2
    thickness = max(1, SLAB_VOXELS * length // volume.numel())
    if volume.numel() <= 2 * SLAB_VOXELS or volume.device.type != "cpu":
        return finest_detail(volume / scale, inside)
    shape = [n - 2 if n >= 3 else n for n in volume.shape]
    finest, brightness, detail = (volume.new_empty(shape) for _ in range(3))
    usable = torch.empty(shape, dtype=torch.bool, device=volume.device)
    within = None if inside is None else torch.empty_like(usable)
    whole = Finest(finest, brightness, detail, usable, within)
    for start in range(0, length, thickness):
        first, stop = max(start - OUTER, 0), min(start + thickness, length)
        rows = min(stop + 2 + OUTER, volume.shape[longest]) - first
        slab = volume.narrow(longest, first, rows) / scale
        part = finest_detail(slab, None if inside is None else inside.narrow(longest, first, rows))
        for values, target in zip(part, whole, strict=True):
            if values is not None and target is not None:
                target.narrow(longest, start, stop - start).copy_(values.narrow(longest, start - first, stop - start))
    return whole


def filtered_axes(volume: Tensor) -> list[int]:
    return [axis for axis, n in enumerate(volume.shape) if n >= 3]


def combine(values: Tensor, axis: int, function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    """Combine each voxel with those before and after it along an axis; the first and the last voxel are lost."""
    length = values.shape[axis] - 2
    before, here, after = (values.narrow(axis, start, length) for start in range(3))
    return function(before, here, after)


def box_sums(values: Tensor, radius: int) -> Tensor:
    """Sums over 2r + 1 voxels along each axis that is longer than one; borders reflect."""
    d, h, w = (radius * (n > 1) for n in values.shape)
    means = F.avg_pool3d(reflect(values[None], (d, h, w)), (2 * d + 1, 2 * h + 1, 2 * w + 1), stride=1)[0]
    return means * box_voxels(values, radius)


def ring_means(values: Tensor, outer: int) -> Tensor:
    """Means over the voxels around, without those too near to be independent of the one in the middle."""
    ring = box_sums(values, outer).sub_(box_sums(values, INNER))
    return ring.clamp_min_(0) / max(box_voxels(values, outer) - box_voxels(values, INNER), 1)


def box_voxels(values: Tensor, radius: int) -> int:
    return math.prod(2 * radius * (n > 1) + 1 for n in values.shape)


def robust_deviation(values: Tensor) -> float:
    """Standard deviation of normal values around 0: by the median of their sizes, then by those within three of it."""
    sizes = values.abs()
    first = float(sizes.median()) / MEDIAN_OF_ABSOLUTE_NORMAL
    inner = sizes[sizes < 3 * first]
    return float(inner.square().mean().sqrt()) / DEVIATION_WITHIN_THREE if len(inner) else 0.0
