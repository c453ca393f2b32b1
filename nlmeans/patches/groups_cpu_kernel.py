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

MARGIN = 2 * LANES + SHIFTS
"""Numbers that vectors may touch beyond those that are wanted."""


class Search(NamedTuple):
    """A guide, the reference patches in it, and the search window."""

    guide: NDArray[np.float32]
    """Flat (C, D, H, step, columns), with room before and after it for a window and vectors. What lies a step apart in
    a row of the volume lies side by side, so that vectors hold the same voxel of neighbouring reference patches."""
    lead: int
    """Index at which the guide begins in this array."""
    places: NDArray[np.int64]
    """Where the voxels of a row lie, relative to the first: from `radius` before it to the end of a window."""
    row: int
    """Length of a row, step × columns."""
    channels: int
    shape: Axes
    """Shape of a channel of the volume."""
    references: Axes
    """Number of reference patches along each axis."""
    size: Axes
    """Size of a patch."""
    step: Axes
    """Distance between reference patches."""
    radius: Axes
    """Radius of the search window."""
    floor: NDArray[np.float32]
    """Sum of squared differences below which patches are equally similar, one per reference patch, and room."""
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
        floor = search.floor[lines[line] * columns :]
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
                patch_rows[at] = search.lead + ((c * depth + z + u) * height + y + v) * search.row
                at += 1
    candidate = 0
    for dz in range(-radius[0], radius[0] + 1):
        for dy in range(-radius[1], radius[1] + 1):
            if 0 <= z + dz <= depth - size[0] and 0 <= y + dy <= height - size[1]:
                shift = (dz * height + dy) * search.row
                for dx in range(-radius[2], radius[2] + 1, SHIFTS):
                    slots = search.slots[candidate + dx + radius[2] : candidate + 2 * radius[2] + 1]
                    sum_squares(search, patch_rows, shift, dx + radius[2], slots, floor, distance, row)
                    for k in range(min(SHIFTS, slots.size)):
                        first = (max(0, -dx - k) + step[2] - 1) // step[2]
                        last = min(columns, (width - size[2] - max(0, dx + k)) // step[2] + 1)
                        to = slots[k] * row
                        for column in range(min(first, columns)):
                            distance[to + column] = np.inf
                        for column in range(max(last, 0), columns):
                            distance[to + column] = np.inf
            candidate += 2 * radius[2] + 1


@inlined_kernel
def sum_squares(search, patch_rows, shift, window, slots, floor, distance, row):
    """Sum squared differences over the reference patches of a line, for SHIFTS candidates from `window` on.

    Of a row of a patch, each voxel but the first two is read once for all candidates.
    """
    guide, places, reach = search.guide, search.places, search.radius[2]
    for x in range(0, search.references[2], 2 * LANES):
        a0 = a1 = a2 = b0 = b1 = b2 = splat(np.float32(0))
        for r in range(patch_rows.size):
            here = patch_rows[r] + x
            there = here + shift
            at, then = there + places[window], there + places[window + 1]
            p0, p1, q0, q1 = load(guide, at), load(guide, then), load(guide, at + LANES), load(guide, then + LANES)
            for v in range(search.size[2]):
                at, then = here + places[reach + v], there + places[window + v + 2]
                p, q, p2, q2 = load(guide, at), load(guide, at + LANES), load(guide, then), load(guide, then + LANES)
                a0, a1, a2 = a0 + (p - p0) * (p - p0), a1 + (p - p1) * (p - p1), a2 + (p - p2) * (p - p2)
                b0, b1, b2 = b0 + (q - q0) * (q - q0), b1 + (q - q1) * (q - q1), b2 + (q - q2) * (q - q2)
                p0, p1, q0, q1 = p1, p2, q1, q2
        least = load(floor, x)
        more = load(floor, x + LANES)
        for k in range(min(SHIFTS, slots.size)):
            a, b = (a0, b0) if k == 0 else (a1, b1) if k == 1 else (a2, b2)
            to = slots[k] * row + x
            store(distance, to, max(a, least))
            if x + LANES < search.references[2]:
                store(distance, to + LANES, max(b, more))


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
