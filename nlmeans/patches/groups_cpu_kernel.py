"""CPU kernels for groups of similar patches: find, read and add them.

The kernels release the GIL. Compiled functions have no type hints, because vectors and literals have no Python type.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nlmeans.core.axes import Axes
from nlmeans.kernels.matrix import transpose
from nlmeans.kernels.vector import (
    LANES,
    at_most,
    count_bits,
    inlined_kernel,
    inner_kernel,
    load,
    lowest_bit,
    splat,
    store,
    vector_kernel,
)

LARGEST_DISTANCE = np.finfo(np.float32).max
"""Largest distance of a candidate inside the volume. Candidates outside have an infinite one."""

SHIFTS = 3
"""Neighbouring candidates along the width that are measured at once, with six sums in registers."""


class Search(NamedTuple):
    """A guide, the reference patches in it, and the search window."""

    guide: NDArray[np.float32]
    """Flat (C, D, H, W), with room before and after it for a window and vectors."""
    lead: int
    """Index at which the guide begins in this array."""
    channels: int
    shape: Axes
    """Shape of a channel."""
    references: Axes
    """Number of reference patches along each axis."""
    size: Axes
    """Size of a patch."""
    step: Axes
    """Distance between reference patches."""
    radius: Axes
    """Radius of the search window."""
    floor: NDArray[np.float32]
    """Sum of squared differences below which patches are equally similar, one per reference patch."""
    order: NDArray[np.int64]
    """Candidates of a window as flat distances from the reference patch. Of equally similar ones, the first are
    taken."""
    slots: NDArray[np.int64]
    """Place of each candidate in `order`; see `grid.candidates`."""


@vector_kernel
def match_lines(search, lines, found):
    """Write the groups of all reference patches in some lines to the rows of `found`."""
    _, rows, columns = search.references
    _, height, width = search.shape
    candidates = len(search.slots)
    pitch, row = -(-candidates // LANES) * LANES, -(-columns // LANES) * LANES
    distance = np.empty(2 * pitch * row, np.float32)  # candidates × columns, and transposed
    by_column = pitch * row
    for line in range(len(lines)):
        z, y = lines[line] // rows * search.step[0], lines[line] % rows * search.step[1]
        floor = search.floor[lines[line] * columns : (lines[line] + 1) * columns]
        distance[:by_column] = np.inf
        measure_line(search, z, y, floor, distance, row)
        for k in range(0, pitch, LANES):
            for column in range(0, row, LANES):
                transpose(distance, k * row + column, row, by_column + column * pitch + k, pitch)
        for column in range(columns):
            first = by_column + column * pitch
            distance[first + search.slots[candidates // 2]] = -1  # the reference patch itself
            corner = (z * height + y) * width + column * search.step[2]
            take_nearest(search.order, distance, first, pitch, floor[column], corner, found[line * columns + column])


@inner_kernel
def measure_line(search, z, y, floor, distance, row):
    """Measure the squared differences of a line's reference patches to all candidates inside the volume.

    Differences below `floor` become `floor`.
    """
    depth, height, width = search.shape
    size, step, radius = search.size, search.step, search.radius
    columns = search.references[2]
    patch_rows = np.empty(search.channels * size[0] * size[1], np.int64)
    at = 0
    for c in range(search.channels):
        for u in range(size[0]):
            for v in range(size[1]):
                patch_rows[at] = search.lead + ((c * depth + z + u) * height + y + v) * width
                at += 1
    end = (columns - 1) * step[2] + size[2]
    pitch = end + size[2] + 3 * LANES
    squares = np.zeros(SHIFTS * pitch, np.float32)
    candidate = 0
    for dz in range(-radius[0], radius[0] + 1):
        for dy in range(-radius[1], radius[1] + 1):
            if 0 <= z + dz <= depth - size[0] and 0 <= y + dy <= height - size[1]:
                shift = (dz * height + dy) * width
                for dx in range(-radius[2], radius[2] + 1, SHIFTS):
                    sum_squares(search.guide, patch_rows, shift + dx, end, size[2], squares, pitch)
                    for k in range(min(SHIFTS, radius[2] + 1 - dx)):
                        first = (max(0, -dx - k) + step[2] - 1) // step[2]
                        last = min(columns, (width - size[2] - max(0, dx + k)) // step[2] + 1)
                        to = search.slots[candidate + dx + k + radius[2]] * row
                        for column in range(first, last):
                            distance[to + column] = max(squares[k * pitch + column * step[2]], floor[column])
            candidate += 2 * radius[2] + 1


@inlined_kernel
def square_difference_at(here, there, i):
    difference = here - load(there, i)
    return difference * difference


@inlined_kernel
def sum_squares(guide, patch_rows, shift, end, length, squares, pitch):
    """Sum squared differences over the patch at each voxel of a line, for SHIFTS candidates from `shift` on."""
    for x in range(0, end, 2 * LANES):
        a0 = a1 = a2 = b0 = b1 = b2 = splat(np.float32(0))
        for r in range(patch_rows.size):
            at = patch_rows[r] + x
            here, there = load(guide, at), at + shift
            a0 = a0 + square_difference_at(here, guide, there)
            a1 = a1 + square_difference_at(here, guide, there + 1)
            a2 = a2 + square_difference_at(here, guide, there + 2)
            here, there = load(guide, at + LANES), there + LANES
            b0 = b0 + square_difference_at(here, guide, there)
            b1 = b1 + square_difference_at(here, guide, there + 1)
            b2 = b2 + square_difference_at(here, guide, there + 2)
        store(squares, x, a0)
        store(squares, x + LANES, b0)
        store(squares, pitch + x, a1)
        store(squares, pitch + x + LANES, b1)
        store(squares, 2 * pitch + x, a2)
        store(squares, 2 * pitch + x + LANES, b2)
    for first in range(0, SHIFTS * pitch, pitch):
        for x in range(first, first + end, LANES):
            sums = load(squares, x)
            for v in range(1, length):
                sums = sums + load(squares, x + v)
            store(squares, x, sums)


@inner_kernel
def take_nearest(order, distance, first, pitch, floor, corner, found):
    """Find the flat corners of the candidates with the smallest distances; of equal ones, those first in `order`.

    The largest distance taken is found by bisection over the bits of floats. Non-negative floats have the order of
    their bits.
    """
    wanted = found.size
    found[:] = corner  # so that the corners lie inside the volume even if differences overflow
    bits = np.empty(1, np.int32)
    number = bits.view(np.float32)
    number[0] = LARGEST_DISTANCE
    low, high = np.int64(0), np.int64(bits[0])
    number[0] = floor
    limit = floor
    below = 1  # the reference patch itself
    here = count_at_most(distance, first, pitch, floor)
    if here < wanted:
        low, below = np.int64(bits[0]), here
        while high - low > 1:
            bits[0] = (low + high) // 2
            here = count_at_most(distance, first, pitch, number[0])
            if here < wanted:
                low, below = np.int64(bits[0]), here
            else:
                high = np.int64(bits[0])
                if here == wanted:
                    below = 0
                    break
        bits[0] = high
        limit = number[0]
    ties = wanted - below
    kept = 0
    for k in range(0, pitch, LANES):
        hits = at_most(load(distance, first + k), splat(limit))
        while hits:
            candidate = k + lowest_bit(hits)
            hits &= hits - 1
            if distance[first + candidate] == limit:
                if ties == 0:
                    continue
                ties -= 1
            found[kept] = corner + order[candidate]
            kept += 1


@inlined_kernel
def count_at_most(values, first, size, limit):
    """Count the values up to `limit`."""
    count = 0
    for k in range(first, first + size, LANES):
        count += count_bits(at_most(load(values, k), splat(limit)))
    return count


@vector_kernel
def copy_patches(volume, corners, size, first, last, patches):
    """Copy the patches at `corners` to rows `first` to `last` of `patches`."""
    _, height, width = volume.shape
    flat = volume.reshape(-1)
    for k in range(first, last):
        at = 0
        for u in range(size[0]):
            for v in range(size[1]):
                start = corners[k] + (u * height + v) * width
                for w in range(size[2]):
                    patches[k, at] = flat[start + w]
                    at += 1


@vector_kernel
def add_planes(total, weights, corners, patches, weight, window, size, first, last):
    """Add weight × window × patch to planes `first` to `last` of `total`, and weights at corners to `weights`."""
    _, height, width = total.shape
    flat, flat_weights = total.reshape(-1), weights.reshape(-1)
    for k in range(corners.size):
        z = corners[k] // (height * width)
        if first <= z < last:
            flat_weights[corners[k]] += weight[k]
        for u in range(max(0, first - z), min(size[0], last - z)):
            for v in range(size[1]):
                start = corners[k] + (u * height + v) * width
                at = (u * size[1] + v) * size[2]
                for w in range(size[2]):
                    flat[start + w] += weight[k] * window[at + w] * patches[k, at + w]
