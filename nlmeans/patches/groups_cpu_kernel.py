"""What groups of similar patches compile for a CPU.

The kernels release the GIL. What numba compiles has no type hints: vectors and literals have none.
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
    compiled,
    count_bits,
    inlined,
    inner,
    load,
    lowest_bit,
    splat,
    store,
)

LARGEST = np.finfo(np.float32).max

SHIFTS = 3
"""Along the width, measured at once, with six sums in registers."""


class Search(NamedTuple):
    """A guide and where to look in it."""

    guide: NDArray[np.float32]
    """Flat (C, D, H, W), with room for a window and vectors before and after it."""
    lead: int
    """Where it begins."""
    channels: int
    shape: Axes
    references: Axes
    size: Axes
    step: Axes
    radius: Axes
    floor: NDArray[np.float32]
    """Squared differences over a patch below this are equal; one number per reference patch."""
    order: NDArray[np.int64]
    """Of the candidates of a window: from equals, those are taken that come first. From a corner to each corner."""
    slots: NDArray[np.int64]
    """The place of each candidate in that order."""


@compiled
def match_lines(search, lines, found):
    """The groups of all reference patches in some lines, to the rows of `found`."""
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


@inner
def measure_line(search, z, y, floor, distance, row):
    """Squared differences of a line's reference patches to all candidates inside the volume, but at least `floor`."""
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


@inlined
def squared_difference(here, there, i):
    difference = here - load(there, i)
    return difference * difference


@inlined
def sum_squares(guide, patch_rows, shift, end, length, squares, pitch):
    """Squared differences over a patch that begins at each voxel of a line, at SHIFTS shifts from `shift` on."""
    for x in range(0, end, 2 * LANES):
        a0 = a1 = a2 = b0 = b1 = b2 = splat(np.float32(0))
        for r in range(patch_rows.size):
            at = patch_rows[r] + x
            here, there = load(guide, at), at + shift
            a0 = a0 + squared_difference(here, guide, there)
            a1 = a1 + squared_difference(here, guide, there + 1)
            a2 = a2 + squared_difference(here, guide, there + 2)
            here, there = load(guide, at + LANES), there + LANES
            b0 = b0 + squared_difference(here, guide, there)
            b1 = b1 + squared_difference(here, guide, there + 1)
            b2 = b2 + squared_difference(here, guide, there + 2)
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


@inner
def take_nearest(order, distance, first, pitch, floor, corner, found):
    """The flat corners of the candidates with the smallest distances, in order; of equals, those that come first.

    The largest distance taken is found by halving an interval of numbers that are not negative, which have the order of
    their bits.
    """
    wanted = found.size
    found[:] = corner  # so that what is found lies inside the volume even where differences overflow
    bits = np.empty(1, np.int32)
    number = bits.view(np.float32)
    number[0] = LARGEST  # not infinity, which stands for places outside the volume
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


@inlined
def count_at_most(values, first, size, limit):
    count = 0
    for k in range(first, first + size, LANES):
        count += count_bits(at_most(load(values, k), splat(limit)))
    return count


@compiled
def copy_patches(volume, corners, size, first, last, patches):
    """Rows `first` to `last` of `patches`."""
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


@compiled
def add_planes(total, weights, corners, patches, weight, window, size, first, last):
    """`add` for planes `first` to `last` of the volumes."""
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
