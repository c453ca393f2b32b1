"""CPU kernels of the local blur for full covariances.

Opposite neighbours have the same weight, so the kernels add them in pairs. Precisions, the inverses of the covariances,
are (6, D, H, W), the upper triangle row by row.
"""

from __future__ import annotations

import numpy as np

from nlmeans.blur.cpu_kernel import RowBlock, blur_kernel, exponential, set_mean
from nlmeans.blur.loop import Sizes
from nlmeans.core.axes import Axes
from nlmeans.kernels.vector import Floats


@blur_kernel
def set_exponents(precision: Floats, sizes: Sizes, oz: int, oy: int, z: int, y: int, terms: Floats) -> None:
    """Write `terms` for a row such that terms[0] + ox·(terms[1] + ox·terms[2]) is the logarithm of a weight."""
    step_z, step_y, size = np.float32(oz * sizes[0]), np.float32(oy * sizes[1]), np.float32(sizes[2])
    zz, zy, zx = precision[0, z, y], precision[1, z, y], precision[2, z, y]
    yy, yx, xx = precision[3, z, y], precision[4, z, y], precision[5, z, y]
    constant, linear, square = terms[0], terms[1], terms[2]
    half = np.float32(-0.5)
    for x in range(constant.size):
        constant[x] = half * (step_z * step_z * zz[x] + step_y * step_y * yy[x]) - step_z * step_y * zy[x]
        linear[x] = -size * (step_z * zx[x] + step_y * yx[x])
        square[x] = half * size * size * xx[x]


@blur_kernel
def set_weights(terms: Floats, ox: int, weight: Floats) -> None:
    """Write the weights of a row at ox from the terms of `set_exponents`."""
    step = np.float32(ox)
    constant, linear, square = terms[0], terms[1], terms[2]
    for x in range(weight.size):
        weight[x] = exponential(constant[x] + step * (linear[x] + step * square[x]))


@blur_kernel
def blur_full(
    padded: Floats, precision: Floats, radius: Axes, sizes: Sizes, result: Floats, totals: Floats, first: int, last: int
) -> None:
    """Blur the rows from `first` to `last`."""
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


@blur_kernel
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
    """Add ∂L/∂ precision of the rows from `first` to `last`; `scaled` is ∂L/∂ result over the sum of the weights."""
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


@blur_kernel
def full_by_image(
    by_image: Floats, precision: Floats, radius: Axes, sizes: Sizes, scaled: Floats, block: RowBlock
) -> None:
    """Add what the voxels of a block contribute to ∂L/∂ padded image."""
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
