"""CPU kernels of the local blur for spherical and diagonal covariances.

Weights are products of one factor per axis. The kernels compute these factors once per row. Rows of the image that
mirror each other have the same weights, so the kernels first add them, and then the neighbours along x in pairs.
Precisions, the inverses of the covariances, are (1, D, H, W), the same for all axes, or (3, D, H, W).
"""

from __future__ import annotations

import numpy as np

from nlmeans.blur.cpu_kernel import RowBlock, blur_kernel, exponential, set_mean
from nlmeans.blur.loop import Sizes
from nlmeans.core.axes import Axes
from nlmeans.kernels.vector import Floats


@blur_kernel
def sum_mirrored_rows(padded: Floats, z: int, oz: int, y: int, oy: int, row: Floats) -> int:
    """Write the sum of the rows at (z ± oz, y ± oy) to `row`, and return their number."""
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


@blur_kernel
def add_to_rows(row: Floats, padded: Floats, z: int, oz: int, y: int, oy: int) -> None:
    """Add `row` to the rows at (z ± oz, y ± oy)."""
    for sign_z in range(-1, 2 if oz else 0, 2):
        for sign_y in range(-1, 2 if oy else 0, 2):
            target = padded[z + sign_z * oz, y + sign_y * oy]
            for x in range(row.size):
                target[x] += row[x]


@blur_kernel
def fill_factors(precision: Floats, size: float, factors: Floats) -> None:
    """Write the factors of the weights along one axis, (r + 1, W), for a row of voxels."""
    for step in range(factors.shape[0]):
        scale = np.float32(-0.5 * (step * size) ** 2)
        target = factors[step]
        for x in range(precision.size):
            target[x] = exponential(scale * precision[x])


@blur_kernel
def fill_all_factors(
    precision: Floats, sizes: Sizes, z: int, y: int, along_z: Floats, along_y: Floats, along_x: Floats
) -> None:
    """Write the factors of the weights along each axis, for a row of voxels. A spherical precision serves all axes."""
    fill_factors(precision[0, z, y], sizes[0], along_z)
    fill_factors(precision[1 % len(precision), z, y], sizes[1], along_y)
    fill_factors(precision[2 % len(precision), z, y], sizes[2], along_x)


@blur_kernel
def add_moments(factors: Floats, total: Floats, second: Floats) -> None:
    """Write the sum of the factors over both sides of an axis, and the sum of factors × squared steps."""
    total[:] = factors[0]
    second[:] = 0
    for step in range(1, factors.shape[0]):
        square, source = np.float32(step * step), factors[step]
        for x in range(total.size):
            total[x] += 2 * source[x]
            second[x] += 2 * square * source[x]


@blur_kernel
def sum_along_x(factors: Floats, row: Floats, count: int, own: Floats, total: Floats) -> None:
    """Write the sum along x of factors × differences from the voxel itself; `row` is the sum of `count` rows."""
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


@blur_kernel
def sum_squares_along_x(factors: Floats, row: Floats, count: int, own: Floats, total: Floats, second: Floats) -> None:
    """Do what `sum_along_x` does, and write the same sum with factors × squared steps to `second`."""
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


@blur_kernel
def blur_separable(
    padded: Floats, precision: Floats, radius: Axes, sizes: Sizes, result: Floats, totals: Floats, first: int, last: int
) -> None:
    """Blur the rows from `first` to `last`."""
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
        fill_all_factors(precision, sizes, z, y, along_z, along_y, along_x)
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
                    count = sum_mirrored_rows(padded[c], z + rz, oz, y + ry, oy, row)
                    sum_along_x(along_x, row, count, own, value)
                    by_z, by_y = along_z[oz], along_y[oy]
                    for x in range(width):
                        target[x] += by_z[x] * by_y[x] * value[x]
            for x in range(width):
                target[x] = own[x] + target[x] / weights[x]


@blur_kernel
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
    """Add ∂L/∂ precision of the rows from `first` to `last`; `scaled` is ∂L/∂ result over the sum of the weights."""
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
        fill_all_factors(precision, sizes, z, y, along_z, along_y, along_x)
        add_moments(along_x, total, total_second)
        set_mean(padded, radius, scaled, result, z, y, mean)
        slope[:] = 0
        for oz in range(rz + 1):
            for oy in range(ry + 1):
                plain[:] = 0
                squares[:] = 0
                count = 0
                for c in range(channels):
                    count = sum_mirrored_rows(padded[c], z + rz, oz, y + ry, oy, row)
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


@blur_kernel
def separable_by_image(
    by_image: Floats, precision: Floats, radius: Axes, sizes: Sizes, scaled: Floats, block: RowBlock
) -> None:
    """Add what the voxels of a block contribute to ∂L/∂ padded image."""
    channels, _, _, width = scaled.shape
    rz, ry, rx = radius
    along_z, along_y, along_x = (
        np.empty((rz + 1, width), np.float32), np.empty((ry + 1, width), np.float32),
        np.empty((rx + 1, width), np.float32),
    )  # fmt: skip
    row, share, value = np.empty(width + 2 * rx, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
    for z in range(block[0], block[1]):
        for y in range(block[2], block[3]):
            fill_all_factors(precision, sizes, z, y, along_z, along_y, along_x)
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
