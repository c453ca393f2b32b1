"""The backend `loop`: one neighbour offset after another, with memory that does not depend on the search window.

It treats the padded volume as one row of voxels. A neighbour offset is then a single number, the step, and every
operation runs over contiguous memory. It compares a pair of voxels (k, k + step) once and uses the weight for both.
Pairs that wrap around the end of a line change only voxels of the margin, which it drops at the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from nlmeans.core.axes import Axes
from nlmeans.operator.request import SMALLEST_EXPONENT, Backend, Request, with_center

PAIRS_AT_ONCE = 1 << 17
"""Pairs compared at once on a CPU, few enough for intermediate results to stay in its caches."""


class Row(NamedTuple):
    """Position of the voxels of a request in its padded volume, read as one row."""

    strides: Axes
    first: int
    """The first voxel of the result."""
    stop: int
    """One past the last voxel of the result."""
    length: int

    def step(self, offset: Axes) -> int:
        """Distance along the row between voxels that are `offset` apart."""
        return sum(o * s for o, s in zip(offset, self.strides, strict=True))


def row_of(request: Request) -> Row:
    """The row of the padded volume of a request."""
    _, d, h, w = request.guide.shape
    strides = (h * w, w, 1)
    first = sum(m * s for m, s in zip(request.margin, strides, strict=True))
    last = first + sum((n - 1) * s for n, s in zip(request.shape, strides, strict=True))
    return Row(strides, first, last + 1, d * h * w)


class Pairs(NamedTuple):
    """The voxels k in `here`, which are compared with the voxels k + step in `there`."""

    offset: int
    """Index of the neighbour offset in `Request.neighbours`."""
    factor: float
    """Factor of the weights of this offset."""
    here: slice
    there: slice
    distance: Tensor
    """Mean squared difference of the patches around k and k + step. The next pairs overwrite it."""


def compare_pairs(request: Request, block: int | None = None) -> Iterator[Pairs]:
    """Compare every voxel of the result with its neighbours: each pair once, and `block` pairs at a time."""
    row = row_of(request)
    block = block or row.length
    guide = request.guide.reshape(len(request.guide), row.length)
    reach = row.step(request.patch_radius)
    scratch = guide.new_empty(2, min(block, row.length) + 2 * reach)
    neighbours = request.neighbours
    lows = range(row.first - row.step(request.search_radius), row.stop, block)
    for number, low in enumerate(lows):
        for index, (offset, factor) in enumerate(neighbours):
            step = row.step(offset)
            start, stop = max(low, row.first - step), min(low + block, row.stop)
            if start < stop:
                distance = patch_distance(guide, step, start, stop, reach, scratch, request.patch_radius, row.strides)
                yield Pairs(index, factor, slice(start, stop), slice(start + step, stop + step), distance)
            if index % 16 == 0:
                request.progress((number + index / len(neighbours)) / len(lows))
    request.progress(1.0)


def patch_distance(
    guide: Tensor, step: int, start: int, stop: int, reach: int, scratch: Tensor, patch_radius: Axes, strides: Axes
) -> Tensor:
    """Mean squared difference of the patches around k and k + step, for k from `start` to `stop`."""
    first, length = start - reach, stop - start + 2 * reach
    squared, other = scratch[0, :length], scratch[1, :length]
    for index, feature in enumerate(guide):
        target = squared if index == 0 else other
        torch.sub(feature[first : first + length], feature[first + step : first + step + length], out=target)
        target.mul_(target)
        if index:
            squared += target
    voxels = math.prod(2 * p + 1 for p in patch_radius)
    return sum_patches_on_row(squared, other, patch_radius, strides).mul_(1 / voxels)


def sum_patches_on_row(values: Tensor, other: Tensor, patch_radius: Axes, strides: Axes) -> Tensor:
    """Sum over the patch around each voxel, where `values` reaches one patch radius beyond these voxels at either end.

    `values` and `other` are overwritten. The result is a view of one of them.
    """
    for radius, stride in zip(patch_radius, strides, strict=True):
        if radius:
            length = values.numel() - 2 * radius * stride
            sums = torch.add(values[:length], values[stride : stride + length], out=other[:length])
            for position in range(2, 2 * radius + 1):
                sums += values[position * stride : position * stride + length]
            values, other = sums, values
    return values


def on_row(parameter: Tensor, request: Request) -> Tensor:
    """Place a map (..., D, H, W) on the row of the padded volume, with zeros in the margin. A number stays a number."""
    if parameter.ndim == 0:
        return parameter
    padded = parameter.new_zeros(*parameter.shape[:-3], *request.guide.shape[1:])
    request.inside(padded).copy_(parameter)
    return padded.flatten(-3)


def off_row(row: Tensor, request: Request) -> Tensor:
    """Cut the voxels of the result, (..., D, H, W), from values on the row of the padded volume."""
    return request.inside(row.reshape(*row.shape[:-1], *request.guide.shape[1:]))


def part_of(parameter: Tensor, voxels: slice) -> Tensor:
    """The values of a parameter at some voxels of the row; a number stays a number."""
    return parameter if parameter.ndim == 0 else parameter[voxels]


@torch.no_grad()
def run(request: Request) -> Tensor:
    image = request.image.flatten(1)
    falloff, offset = on_row(request.falloff, request), on_row(request.offset, request)
    weighted, total = torch.zeros_like(image), torch.zeros_like(image[0])
    largest = torch.zeros_like(total) if request.center == "max" else total

    block = PAIRS_AT_ONCE if image.device.type == "cpu" else image.shape[1]
    scratch = image.new_empty(2, min(block, image.shape[1]))
    for _, factor, here, there, distance in compare_pairs(request, block):
        weights, product = scratch[:, : distance.numel()]
        for receiver, giver in ((here, there), (there, here)):
            if receiver is here or not request.uniform:
                torch.sub(part_of(offset, receiver), distance, out=weights)
                weights.mul_(part_of(falloff, receiver)).clamp_(SMALLEST_EXPONENT, 0.0).exp_()
            if request.center == "max":
                torch.maximum(largest[receiver], weights, out=largest[receiver])
            for sums, values in zip(weighted, image, strict=True):
                sums[receiver].add_(torch.mul(weights, values[giver], out=product), alpha=factor)
            total[receiver].add_(weights, alpha=factor)
    weighted, total, largest = (off_row(sums, request) for sums in (weighted, total, largest))
    return with_center(weighted, total, largest, request)


def refusal(request: Request) -> str:
    return ""


def bytes_per_voxel(channels: int, features: int, patch_radius: Axes, search_radius: Axes) -> float:
    # padded image and guide, sums, weights, largest weights, the result, and the terms of the voxel itself
    return 4.0 * (5 * channels + features + 6)


LOOP = Backend("loop", "one offset after another, any window and device (torch)", refusal, run, bytes_per_voxel)
