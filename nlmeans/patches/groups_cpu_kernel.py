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

LANES_AT_ONCE = 64
"""Reference patches whose distances are in memory at once, about."""


class Search(NamedTuple):
    """A guide, the reference patches in it, and the search window."""

    guide: NDArray[np.float32]
    """Flat (C, D, step, step, rows, columns), with room before and after it for a window and vectors. What lies a step
    apart in the volume lies side by side, so that vectors hold the same voxel of neighbouring reference patches."""
    lead: int
    """Index at which the guide begins in this array."""
    lines: NDArray[np.int64]
    """Where the lines of a plane begin, relative to the first: from `radius` before it to the end of a window."""
    places: NDArray[np.int64]
    """Where the voxels of a line lie, relative to its first, likewise."""
    plane: int
    """Length of a plane, step × step × rows × columns."""
    pitch: int
    """Distance between reference patches of neighbouring rows: columns."""
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
    """Sum of squared differences below which patches are equally similar, one per reference patch, rows `pitch` apart,
    and room."""
    order: NDArray[np.int64]
    """Candidates of a window as flat distances from the reference patch. Of equally similar ones, the first are
    taken."""
    slots: NDArray[np.int64]
    """Place of each candidate in `order`; see `grid.candidates`."""


@vector_kernel
def match_lines(search, lines, found):
    """Write the groups of all reference patches in some lines to the rows of `found`.

    Neighbouring lines of a plane are searched together.
    """
    _, rows, columns = search.references
    _, height, width = search.shape
    candidates = len(search.slots)
    depth = -(-candidates // LANES) * LANES
    at_once = max(1, LANES_AT_ONCE // search.pitch)
    most = -(-at_once * search.pitch // LANES) * LANES
    distance = np.empty(2 * depth * most, np.float32)  # candidates × reference patches, and transposed
    line = 0
    while line < len(lines):
        z, y = lines[line] // rows, lines[line] % rows
        count = 1
        while (count < at_once and line + count < len(lines) and y + count < rows
               and lines[line + count] == lines[line] + count):  # fmt: skip
            count += 1
        row = -(-((count - 1) * search.pitch + columns) // LANES) * LANES
        transposed = depth * row
        distance[:transposed] = np.inf
        floor = search.floor[lines[line] * search.pitch :]
        measure_lines(search, z, y, count, floor, distance, row)
        for k in range(0, depth, LANES):
            for x in range(0, row, LANES):
                transpose(distance, k * row + x, row, transposed + x * depth + k, depth)
        for number in range(count * columns):
            r, column = number // columns, number % columns
            at = r * search.pitch + column
            first = transposed + at * depth
            distance[first + search.slots[candidates // 2]] = -1  # the reference patch itself
            corner = (z * search.step[0] * height + (y + r) * search.step[1]) * width + column * search.step[2]
            take_nearest(search.order, distance, first, depth, floor[at], corner, found[line * columns + number])
        line += count


@inner_kernel
def measure_lines(search, z, y, count, floor, distance, row):
    """Measure the squared differences of some lines' reference patches to all candidates inside the volume.

    Differences below `floor` become `floor`.
    """
    size, radius = search.size, search.radius
    corner = z * search.step[0]
    here = np.empty(search.channels * size[0] * size[1], np.int64)
    there = np.empty(here.size, np.int64)
    begin_rows(search, corner, y, 0, here)
    candidate = 0
    for dz in range(-radius[0], radius[0] + 1):
        for dy in range(-radius[1], radius[1] + 1):
            first, last = inside_axis(y, count, dy, search.shape[1] - size[1], search.step[1])
            if 0 <= corner + dz <= search.shape[0] - size[0] and first < last:
                begin_rows(search, corner + dz, y, dy, there)
                for dx in range(-radius[2], radius[2] + 1, SHIFTS):
                    slots = search.slots[candidate + dx + radius[2] : candidate + 2 * radius[2] + 1]
                    sum_squares(search, here, there, dx + radius[2], slots, floor, distance, row)
                    for k in range(min(SHIFTS, slots.size)):
                        mask_outside(search, first, last, count, dx + k, distance, slots[k] * row)
            candidate += 2 * radius[2] + 1


@inlined_kernel
def inside_axis(first, count, shift, room, step):
    """Return the first of `count` reference patches whose shifted twins lie inside an axis, and one past the last."""
    low = max(0, (step - 1 - shift) // step - first)
    high = (room - shift) // step + 1 - first
    return min(low, count), min(max(high, 0), count)


@inner_kernel
def begin_rows(search, z, y, shift, rows):
    """Write where each row of a patch begins for the first reference patch of a line, shifted along the height."""
    at = 0
    for c in range(search.channels):
        for u in range(search.size[0]):
            for v in range(search.size[1]):
                plane = search.lead + (c * search.shape[0] + z + u) * search.plane
                rows[at] = plane + search.lines[search.radius[1] + v + shift] + y * search.pitch
                at += 1


@inlined_kernel
def mask_outside(search, first, last, count, shift, distance, to):
    """Make the distance of a candidate infinite for reference patches whose twins lie outside the volume."""
    columns = search.references[2]
    left, right = inside_axis(0, columns, shift, search.shape[2] - search.size[2], search.step[2])
    for r in range(count):
        at = to + r * search.pitch
        low, high = (left, right) if first <= r < last else (columns, columns)
        for column in range(low):
            distance[at + column] = np.inf
        for column in range(max(high, low), columns):
            distance[at + column] = np.inf


@inlined_kernel
def sum_squares(search, here, there, window, slots, floor, distance, row):
    """Sum squared differences over reference patches, for SHIFTS candidates from `window` on.

    Of a row of a patch, each voxel but the first two is read once for all candidates.
    """
    guide, places, reach = search.guide, search.places, search.radius[2]
    for x in range(0, row // (2 * LANES) * (2 * LANES), 2 * LANES):
        a0 = a1 = a2 = b0 = b1 = b2 = splat(np.float32(0))
        for r in range(here.size):
            at, then = there[r] + x + places[window], there[r] + x + places[window + 1]
            p0, p1, q0, q1 = load(guide, at), load(guide, then), load(guide, at + LANES), load(guide, then + LANES)
            for v in range(search.size[2]):
                at, then = here[r] + x + places[reach + v], there[r] + x + places[window + v + 2]
                p, q, p2, q2 = load(guide, at), load(guide, at + LANES), load(guide, then), load(guide, then + LANES)
                a0, a1, a2 = a0 + (p - p0) * (p - p0), a1 + (p - p1) * (p - p1), a2 + (p - p2) * (p - p2)
                b0, b1, b2 = b0 + (q - q0) * (q - q0), b1 + (q - q1) * (q - q1), b2 + (q - q2) * (q - q2)
                p0, p1, q0, q1 = p1, p2, q1, q2
        keep_distances(slots, a0, a1, a2, floor, distance, row, x)
        keep_distances(slots, b0, b1, b2, floor, distance, row, x + LANES)
    for x in range(row // (2 * LANES) * (2 * LANES), row, LANES):
        a0 = a1 = a2 = splat(np.float32(0))
        for r in range(here.size):
            p0, p1 = load(guide, there[r] + x + places[window]), load(guide, there[r] + x + places[window + 1])
            for v in range(search.size[2]):
                p, p2 = load(guide, here[r] + x + places[reach + v]), load(guide, there[r] + x + places[window + v + 2])
                a0, a1, a2 = a0 + (p - p0) * (p - p0), a1 + (p - p1) * (p - p1), a2 + (p - p2) * (p - p2)
                p0, p1 = p1, p2
        keep_distances(slots, a0, a1, a2, floor, distance, row, x)


@inlined_kernel
def keep_distances(slots, first, second, third, floor, distance, row, x):
    """Write the distances of up to SHIFTS candidates to a vector of reference patches."""
    least = load(floor, x)
    for k in range(min(SHIFTS, slots.size)):
        store(distance, slots[k] * row + x, max(first if k == 0 else second if k == 1 else third, least))


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
