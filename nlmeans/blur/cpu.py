"""Local blur on the CPU in float32, row by row of the image (numba); gives what `loop` gives.

- Spherical and diagonal weights are products of one factor per axis, which a row computes once. Rows of the image that
  mirror each other about it are added up first, as they share their weights, and neighbours along x in pairs.
- Full covariances weigh opposite neighbours alike, in pairs.

Sums are over differences from the voxel's own value, so that a constant image stays exactly as it is, and a derivative
by the precision does not suffer from a large offset of the image.

What is added to the image's derivative lands on other rows. Threads therefore take blocks of rows that lie apart by at
least a kernel, in four turns. Each number is summed in an order that does not depend on the number of threads.

The inner loops run over x on whole rows, for LLVM to make vectors of them.
"""

from __future__ import annotations

import functools
import itertools
import logging
import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from torch import Tensor

from nlmeans.backends.request import Axes
from nlmeans.blur.loop import Sizes
from nlmeans.group_kernels import in_threads

log = logging.getLogger("nlmeans")

Floats = npt.NDArray[np.float32]
Kernel = TypeVar("Kernel", bound=Callable[..., Any])
Block = tuple[int, int, int, int]
"""Planes from, to; rows from, to."""

MOST_BLOCKS = 16
"""Along an axis."""


@functools.cache
def announce() -> None:
    log.info("blur: first use here; compiling takes seconds, unless numba has it on disk")


def serves(padded: Tensor) -> bool:
    return padded.device.type == "cpu" and padded.dtype == torch.float32


def blur(padded: Tensor, precision: Tensor, radius: Axes, sizes: Sizes) -> tuple[Tensor, Tensor]:
    """See `loop.blur`."""
    announce()
    shape = precision.shape[1:]
    result, totals = padded.new_empty(len(padded), *shape), padded.new_empty(shape)
    kernel = blur_full if len(precision) == 6 else blur_separable
    arrays = padded.numpy(), in_3d(precision), radius, sizes, result.numpy(), totals.numpy()
    in_threads(lambda first, last: kernel(*arrays, first, last), shape[0] * shape[1])
    return result, totals


def derivatives(
    padded: Tensor,
    precision: Tensor,
    result: Tensor,
    totals: Tensor,
    gradient: Tensor,
    radius: Axes,
    sizes: Sizes,
    by_image: Tensor | None,
    by_precision: Tensor | None,
) -> None:
    """See `loop.derivatives`."""
    full, inverse, shape = len(precision) == 6, in_3d(precision), precision.shape[1:]
    scaled = (gradient / totals).numpy()
    if by_precision is not None:
        kernel = full_by_precision if full else separable_by_precision
        arrays = padded.numpy(), inverse, radius, sizes, scaled, result.numpy(), by_precision.numpy()
        in_threads(lambda first, last: kernel(*arrays, first, last), shape[0] * shape[1])
    if by_image is not None:
        spread = full_by_image if full else separable_by_image
        target = by_image.numpy()
        for blocks in block_turns(shape, radius):

            def work(first: int, last: int, turn: list[Block] = blocks) -> None:
                for block in turn[first:last]:
                    spread(target, inverse, radius, sizes, scaled, block)

            in_threads(work, len(blocks))


def in_3d(precision: Tensor) -> Floats:
    """(3, D, H, W) or (6, D, H, W); one spherical map stands for the three without being copied."""
    return (precision.expand(3, *precision.shape[1:]) if len(precision) == 1 else precision.contiguous()).numpy()


def block_turns(shape: torch.Size, radius: Axes) -> list[list[Block]]:
    """Blocks of rows in turns; what two blocks of a turn reach does not overlap."""

    def bounds(length: int, reach: int) -> list[tuple[int, int]]:
        count = max(1, min(MOST_BLOCKS, length // max(2 * reach, 1)))
        return list(itertools.pairwise(length * k // count for k in range(count + 1)))

    planes, rows = bounds(shape[0], radius[0]), bounds(shape[1], radius[1])
    turns = ([(*p, *r) for p in planes[a::2] for r in rows[b::2]] for a, b in itertools.product((0, 1), (0, 1)))
    return [turn for turn in turns if turn]


def compiled(kernel: Kernel) -> Kernel:
    """Compiled when first called. Without reassociation, which would undo `exponential`."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "nsz", "nnan", "ninf"}}
    try:
        decorated: Kernel = njit(cache=True, **options)(kernel)
    except RuntimeError:  # neither the package's folder nor the user's cache folder is writable
        decorated = njit(**options)(kernel)
    return decorated


ROUNDER = np.float32(1.5 * 2**23)
"""A number whose last mantissa bit is worth 1: adding it rounds to integers."""

LOG2_E = np.float32(1 / math.log(2))

SMALLEST = np.float32(-20)
"""Exponent below which a weight is 0; beside that of the voxel itself, e⁻²⁰ is less than float32 can tell. Products of
three such weights and a derivative stay out of the subnormal numbers, which would be slow."""

C1, C2, C3, C4, C5, C6 = (np.float32(math.log(2) ** k / math.factorial(k)) for k in range(1, 7))


@compiled
def exponential(t: Any) -> Any:
    """e**t for t <= 0 in float32, as code that LLVM can make vectors of; relative error 3e-7."""
    binary = max(t, SMALLEST) * LOG2_E
    rounded = binary + ROUNDER
    f = binary - (rounded - ROUNDER)
    value = np.float32(1) + f * (C1 + f * (C2 + f * (C3 + f * (C4 + f * (C5 + f * C6)))))
    bits = np.int32(np.float32(value).view(np.int32) + (np.float32(rounded).view(np.int32) << 23))
    return np.int32(bits).view(np.float32) if t > SMALLEST else np.float32(0)


@compiled
def add_rows(padded: Floats, z: int, oz: int, y: int, oy: int, row: Floats) -> int:
    """Write the sum of the rows at (z ± oz, y ± oy) to `row`; return how many they are."""
    upper, lower = padded[z + oz], padded[z - oz]
    if oz == 0 and oy == 0:
        row[:] = upper[y]
        return 1
    if oz == 0 or oy == 0:
        one, other = upper[y + oy], lower[y - oy]
        for x in range(row.size):
            row[x] = one[x] + other[x]
        return 2
    a, b, c, d = upper[y + oy], upper[y - oy], lower[y + oy], lower[y - oy]
    for x in range(row.size):
        row[x] = (a[x] + b[x]) + (c[x] + d[x])
    return 4


@compiled
def add_to_rows(row: Floats, padded: Floats, z: int, oz: int, y: int, oy: int) -> None:
    """Add `row` to the rows at (z ± oz, y ± oy)."""
    for sign_z in range(-1, 2 if oz else 0, 2):
        for sign_y in range(-1, 2 if oy else 0, 2):
            target = padded[z + sign_z * oz, y + sign_y * oy]
            for x in range(row.size):
                target[x] += row[x]


@compiled
def fill_factors(precision: Floats, size: float, factors: Floats) -> None:
    """The weights along one axis, (r + 1, W), of a row of voxels."""
    for step in range(factors.shape[0]):
        scale = np.float32(-0.5 * (step * size) ** 2)
        target = factors[step]
        for x in range(precision.size):
            target[x] = exponential(scale * precision[x])


@compiled
def add_moments(factors: Floats, total: Floats, second: Floats) -> None:
    """The sum of weights over both sides of an axis, and of weights times steps squared."""
    total[:] = factors[0]
    second[:] = 0
    for step in range(1, factors.shape[0]):
        square, source = np.float32(step * step), factors[step]
        for x in range(total.size):
            total[x] += 2 * source[x]
            second[x] += 2 * square * source[x]


@compiled
def sum_along_x(factors: Floats, row: Floats, count: int, own: Floats, total: Floats) -> None:
    """Σ over x of weights × differences from the voxel's own value, where `row` is the sum of `count` rows."""
    width, radius = total.size, factors.shape[0] - 1
    middle, source = row[radius : radius + width], factors[0]
    once, twice = np.float32(count), np.float32(2 * count)
    for x in range(width):
        total[x] = source[x] * (middle[x] - once * own[x])
    for step in range(1, radius + 1):
        left, right = row[radius - step : radius - step + width], row[radius + step : radius + step + width]
        source = factors[step]
        for x in range(width):
            total[x] += source[x] * (left[x] + right[x] - twice * own[x])


@compiled
def sum_squares_along_x(factors: Floats, row: Floats, count: int, own: Floats, total: Floats, second: Floats) -> None:
    """`sum_along_x`, and the same with weights × steps squared."""
    width, radius = total.size, factors.shape[0] - 1
    middle, source = row[radius : radius + width], factors[0]
    once, twice = np.float32(count), np.float32(2 * count)
    for x in range(width):
        total[x] = source[x] * (middle[x] - once * own[x])
        second[x] = 0
    for step in range(1, radius + 1):
        left, right = row[radius - step : radius - step + width], row[radius + step : radius + step + width]
        source, square = factors[step], np.float32(step * step)
        for x in range(width):
            value = source[x] * (left[x] + right[x] - twice * own[x])
            total[x] += value
            second[x] += square * value


@compiled
def blur_separable(
    padded: Floats, precision: Floats, radius: Axes, sizes: Sizes, result: Floats, totals: Floats, first: int, last: int
) -> None:
    """`blur` of the rows from `first` to `last`."""
    channels, _, height, width = result.shape
    rz, ry, rx = radius
    along_z, along_y, along_x = (
        np.empty((rz + 1, width), np.float32), np.empty((ry + 1, width), np.float32),
        np.empty((rx + 1, width), np.float32),
    )  # fmt: skip
    row, total, unused = np.empty(width + 2 * rx, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    value = np.empty(width, np.float32)
    for line in range(first, last):
        z, y = line // height, line % height
        fill_factors(precision[0, z, y], sizes[0], along_z)
        fill_factors(precision[1, z, y], sizes[1], along_y)
        fill_factors(precision[2, z, y], sizes[2], along_x)
        weights = totals[z, y]
        weights[:] = 1
        for factors in (along_z, along_y, along_x):
            add_moments(factors, total, unused)
            for x in range(width):
                weights[x] *= total[x]
        for c in range(channels):
            target, own = result[c, z, y], padded[c, z + rz, y + ry, rx : rx + width]
            target[:] = 0
            for oz in range(rz + 1):
                for oy in range(ry + 1):
                    count = add_rows(padded[c], z + rz, oz, y + ry, oy, row)
                    sum_along_x(along_x, row, count, own, value)
                    by_z, by_y = along_z[oz], along_y[oy]
                    for x in range(width):
                        target[x] += by_z[x] * by_y[x] * value[x]
            for x in range(width):
                target[x] = own[x] + target[x] / weights[x]


@compiled
def set_mean(padded: Floats, radius: Axes, scaled: Floats, result: Floats, z: int, y: int, mean: Floats) -> None:
    """Σ over channels of derivative × what the blur changed, of a row."""
    rz, ry, rx = radius
    mean[:] = 0
    for c in range(scaled.shape[0]):
        by_value, value, own = scaled[c, z, y], result[c, z, y], padded[c, z + rz, y + ry, rx : rx + mean.size]
        for x in range(mean.size):
            mean[x] += by_value[x] * (value[x] - own[x])


@compiled
def separable_by_precision(
    padded: Floats,
    precision: Floats,
    radius: Axes,
    sizes: Sizes,
    scaled: Floats,
    result: Floats,
    by_precision: Floats,
    first: int,
    last: int,
) -> None:
    """∂L/∂ precision of the rows from `first` to `last`; `scaled` is ∂L/∂ result over the sum of the weights."""
    channels, _, height, width = result.shape
    rz, ry, rx = radius
    along_z, along_y, along_x = (
        np.empty((rz + 1, width), np.float32), np.empty((ry + 1, width), np.float32),
        np.empty((rx + 1, width), np.float32),
    )  # fmt: skip
    row, mean = np.empty(width + 2 * rx, np.float32), np.empty(width, np.float32)
    value, second = np.empty(width, np.float32), np.empty(width, np.float32)
    plain, squares = np.empty(width, np.float32), np.empty(width, np.float32)
    total, total_second = np.empty(width, np.float32), np.empty(width, np.float32)
    slope = np.empty((3, width), np.float32)
    square_z, square_y, square_x = (
        np.float32(-0.5 * sizes[0] ** 2), np.float32(-0.5 * sizes[1] ** 2), np.float32(-0.5 * sizes[2] ** 2)
    )  # fmt: skip
    for line in range(first, last):
        z, y = line // height, line % height
        fill_factors(precision[0, z, y], sizes[0], along_z)
        fill_factors(precision[1, z, y], sizes[1], along_y)
        fill_factors(precision[2, z, y], sizes[2], along_x)
        add_moments(along_x, total, total_second)
        set_mean(padded, radius, scaled, result, z, y, mean)
        slope[:] = 0
        for oz in range(rz + 1):
            for oy in range(ry + 1):
                plain[:] = 0
                squares[:] = 0
                count = 0
                for c in range(channels):
                    count = add_rows(padded[c], z + rz, oz, y + ry, oy, row)
                    own = padded[c, z + rz, y + ry, rx : rx + width]
                    sum_squares_along_x(along_x, row, count, own, value, second)
                    by_value = scaled[c, z, y]
                    for x in range(width):
                        plain[x] += by_value[x] * value[x]
                        squares[x] += by_value[x] * second[x]
                by_z, by_y, rows = along_z[oz], along_y[oy], np.float32(count)
                step_z, step_y = square_z * np.float32(oz * oz), square_y * np.float32(oy * oy)
                slope_z, slope_y, slope_x = slope[0], slope[1], slope[2]
                for x in range(width):
                    weight = by_z[x] * by_y[x]
                    change = weight * (plain[x] - rows * mean[x] * total[x])
                    slope_z[x] += step_z * change
                    slope_y[x] += step_y * change
                    slope_x[x] += square_x * weight * (squares[x] - rows * mean[x] * total_second[x])
        for axis in range(3):
            target, source = by_precision[axis % by_precision.shape[0], z, y], slope[axis]
            for x in range(width):
                target[x] += source[x]


@compiled
def separable_by_image(
    by_image: Floats, precision: Floats, radius: Axes, sizes: Sizes, scaled: Floats, block: Block
) -> None:
    """∂L/∂ padded image, as far as the voxels of a block contribute to it."""
    channels, _, _, width = scaled.shape
    rz, ry, rx = radius
    along_z, along_y, along_x = (
        np.empty((rz + 1, width), np.float32), np.empty((ry + 1, width), np.float32),
        np.empty((rx + 1, width), np.float32),
    )  # fmt: skip
    row, share, value = np.empty(width + 2 * rx, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    for z in range(block[0], block[1]):
        for y in range(block[2], block[3]):
            fill_factors(precision[0, z, y], sizes[0], along_z)
            fill_factors(precision[1, z, y], sizes[1], along_y)
            fill_factors(precision[2, z, y], sizes[2], along_x)
            for c in range(channels):
                by_value = scaled[c, z, y]
                for oz in range(rz + 1):
                    for oy in range(ry + 1):
                        by_z, by_y = along_z[oz], along_y[oy]
                        for x in range(width):
                            share[x] = by_value[x] * by_z[x] * by_y[x]
                        row[:] = 0
                        row[rx : rx + width] = share
                        for step in range(1, rx + 1):
                            left, right = row[rx - step : rx - step + width], row[rx + step : rx + step + width]
                            source = along_x[step]
                            for x in range(width):
                                value[x] = share[x] * source[x]
                            for x in range(width):
                                left[x] += value[x]
                            for x in range(width):
                                right[x] += value[x]
                        add_to_rows(row, by_image[c], z + rz, oz, y + ry, oy)


@compiled
def set_exponents(precision: Floats, sizes: Sizes, oz: int, oy: int, z: int, y: int, terms: Floats) -> None:
    """The logarithm of the weights at (oz, oy, ox), as ``terms[0] + ox·(terms[1] + ox·terms[2])``, of a row."""
    step_z, step_y, size = np.float32(oz * sizes[0]), np.float32(oy * sizes[1]), np.float32(sizes[2])
    zz, zy, zx = precision[0, z, y], precision[1, z, y], precision[2, z, y]
    yy, yx, xx = precision[3, z, y], precision[4, z, y], precision[5, z, y]
    constant, linear, square = terms[0], terms[1], terms[2]
    half = np.float32(-0.5)
    for x in range(constant.size):
        constant[x] = half * (step_z * step_z * zz[x] + step_y * step_y * yy[x]) - step_z * step_y * zy[x]
        linear[x] = -size * (step_z * zx[x] + step_y * yx[x])
        square[x] = half * size * size * xx[x]


@compiled
def set_weights(terms: Floats, ox: int, weight: Floats) -> None:
    step = np.float32(ox)
    constant, linear, square = terms[0], terms[1], terms[2]
    for x in range(weight.size):
        weight[x] = exponential(constant[x] + step * (linear[x] + step * square[x]))


@compiled
def blur_full(
    padded: Floats, precision: Floats, radius: Axes, sizes: Sizes, result: Floats, totals: Floats, first: int, last: int
) -> None:
    """`blur` of the rows from `first` to `last`."""
    channels, _, height, width = result.shape
    rz, ry, rx = radius
    terms, weight = np.empty((3, width), np.float32), np.empty(width, np.float32)
    for line in range(first, last):
        z, y = line // height, line % height
        total = totals[z, y]
        total[:] = 1
        result[:, z, y] = 0
        for oz in range(rz + 1):
            for oy in range(-ry if oz else 0, ry + 1):
                set_exponents(precision, sizes, oz, oy, z, y, terms)
                for ox in range(-rx if oz or oy else 1, rx + 1):
                    set_weights(terms, ox, weight)
                    for x in range(width):
                        total[x] += 2 * weight[x]
                    for c in range(channels):
                        near = padded[c, z + rz + oz, y + ry + oy, rx + ox : rx + ox + width]
                        far = padded[c, z + rz - oz, y + ry - oy, rx - ox : rx - ox + width]
                        target, own = result[c, z, y], padded[c, z + rz, y + ry, rx : rx + width]
                        for x in range(width):
                            target[x] += weight[x] * (near[x] + far[x] - 2 * own[x])
        for c in range(channels):
            target, own = result[c, z, y], padded[c, z + rz, y + ry, rx : rx + width]
            for x in range(width):
                target[x] = own[x] + target[x] / total[x]


@compiled
def full_by_precision(
    padded: Floats,
    precision: Floats,
    radius: Axes,
    sizes: Sizes,
    scaled: Floats,
    result: Floats,
    by_precision: Floats,
    first: int,
    last: int,
) -> None:
    """∂L/∂ precision of the rows from `first` to `last`; `scaled` is ∂L/∂ result over the sum of the weights."""
    channels, _, height, width = result.shape
    rz, ry, rx = radius
    terms, weight = np.empty((3, width), np.float32), np.empty(width, np.float32)
    mean, difference = np.empty(width, np.float32), np.empty(width, np.float32)
    plain, linear, square = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    size_z, size_y, size_x = np.float32(sizes[0]), np.float32(sizes[1]), np.float32(sizes[2])
    half = np.float32(-0.5)
    for line in range(first, last):
        z, y = line // height, line % height
        set_mean(padded, radius, scaled, result, z, y, mean)
        zz, zy, zx = by_precision[0, z, y], by_precision[1, z, y], by_precision[2, z, y]
        yy, yx, xx = by_precision[3, z, y], by_precision[4, z, y], by_precision[5, z, y]
        for oz in range(rz + 1):
            for oy in range(-ry if oz else 0, ry + 1):
                set_exponents(precision, sizes, oz, oy, z, y, terms)
                plain[:] = 0
                linear[:] = 0
                square[:] = 0
                for ox in range(-rx if oz or oy else 1, rx + 1):
                    set_weights(terms, ox, weight)
                    for x in range(width):
                        difference[x] = -2 * mean[x]
                    for c in range(channels):
                        near = padded[c, z + rz + oz, y + ry + oy, rx + ox : rx + ox + width]
                        far = padded[c, z + rz - oz, y + ry - oy, rx - ox : rx - ox + width]
                        by_value, own = scaled[c, z, y], padded[c, z + rz, y + ry, rx : rx + width]
                        for x in range(width):
                            difference[x] += by_value[x] * (near[x] + far[x] - 2 * own[x])
                    step = np.float32(ox) * size_x
                    for x in range(width):
                        change = weight[x] * difference[x]
                        plain[x] += change
                        linear[x] += step * change
                        square[x] += step * step * change
                step_z, step_y = size_z * np.float32(oz), size_y * np.float32(oy)
                for x in range(width):
                    zz[x] += half * step_z * step_z * plain[x]
                    zy[x] -= step_z * step_y * plain[x]
                    zx[x] -= step_z * linear[x]
                for x in range(width):
                    yy[x] += half * step_y * step_y * plain[x]
                    yx[x] -= step_y * linear[x]
                    xx[x] += half * square[x]


@compiled
def full_by_image(
    by_image: Floats, precision: Floats, radius: Axes, sizes: Sizes, scaled: Floats, block: Block
) -> None:
    """∂L/∂ padded image, as far as the voxels of a block contribute to it."""
    channels, _, _, width = scaled.shape
    rz, ry, rx = radius
    terms = np.empty((3, width), np.float32)
    weight, share = np.empty(width, np.float32), np.empty(width, np.float32)
    for z in range(block[0], block[1]):
        for y in range(block[2], block[3]):
            for c in range(channels):
                target, source = by_image[c, z + rz, y + ry, rx : rx + width], scaled[c, z, y]
                for x in range(width):
                    target[x] += source[x]
            for oz in range(rz + 1):
                for oy in range(-ry if oz else 0, ry + 1):
                    set_exponents(precision, sizes, oz, oy, z, y, terms)
                    for ox in range(-rx if oz or oy else 1, rx + 1):
                        set_weights(terms, ox, weight)
                        for c in range(channels):
                            source = scaled[c, z, y]
                            for x in range(width):
                                share[x] = weight[x] * source[x]
                            near = by_image[c, z + rz + oz, y + ry + oy, rx + ox : rx + ox + width]
                            for x in range(width):
                                near[x] += share[x]
                            far = by_image[c, z + rz - oz, y + ry - oy, rx - ox : rx - ox + width]
                            for x in range(width):
                                far[x] += share[x]
