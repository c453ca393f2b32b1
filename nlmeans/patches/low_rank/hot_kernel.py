"""CPU kernel that finds hot voxels. It reads each value once, and writes only where it finds one.

Compiled functions have no type hints, because vectors and literals have no Python type.
"""

from __future__ import annotations

import numpy as np

from nlmeans.kernels.vector import LANES, at_most, inner_kernel, load, number_like, splat, vector_kernel

ALL_LANES = 2**LANES - 1


@vector_kernel
def mark_hot_voxels(signals, shape, inner, limits, ratio, first, end, hot):
    """Write True to `hot` where a value stands out of its neighbours, for some rows.

    Args:
        signals: flat (V, D, H, W), or (D, H, W, V).
        shape: (D, H, W).
        inner: 1 in the first case, V in the second.
        limits: least distance from the neighbours, in units of the signals: one number, or flat (D, H, W).
        ratio: least distance in units of the range of the neighbours.
        first: number of the first row, among those of all planes and volumes.
        end: number after the last.
        hot: False everywhere, as long as `signals`.
    """
    depth, height, width = shape
    row, plane = width * inner, height * width * inner
    even = limits.size == 1 and width > 2  # then all values of a row but those at its ends are one run
    for line in range(first, end):
        y, z = line % height, line // height % depth
        for run in range(3 if even else width):
            x = width - 1 if even and run == 2 else run
            stop = width - 1 if even and run == 1 else x + 1
            # beyond an end lies what lies before it, which changes neither the least nor the greatest neighbour
            left, right = (-inner if x > 0 else inner), (inner if x < width - 1 else -inner)
            up, down = (-row if y > 0 else row), (row if y < height - 1 else -row)
            above, below = (-plane if z > 0 else plane), (plane if z < depth - 1 else -plane)
            if height == 1:  # no neighbours along this axis: those along another, once more
                up, down = (above, below) if depth > 1 else (left, right)
            if depth == 1:
                above, below = up, down
            if width == 1:
                left, right = up, down
            limit = limits[line % (depth * height) * width + x] if limits.size > 1 else limits[0]
            at = line * row
            mark_run(
                signals, at + x * inner, at + stop * inner, (left, right, up, down, above, below), limit, ratio, hot
            )


@inner_kernel
def mark_run(signals, start, stop, beside, limit, ratio, hot):
    """Mark hot voxels of a run of values whose neighbours lie at the same distances."""
    left, right, up, down, above, below = beside
    if stop - start < LANES:
        for i in range(start, stop):
            value = signals[i]
            low, high = signals[i + left], signals[i + left]
            for n in (right, up, down, above, below):
                low, high = min(low, signals[i + n]), max(high, signals[i + n])
            if max(value - high, low - value) > max(np.float32(ratio) * (high - low), limit):
                hot[i] = True
        return
    ratios, limits = splat(number_like(signals, ratio)), splat(limit)
    at = start
    while at < stop:
        i = min(at, stop - LANES)  # the last vector overlaps the one before
        a, b, c, d = load(signals, i + left), load(signals, i + right), load(signals, i + up), load(signals, i + down)
        e, f, value = load(signals, i + above), load(signals, i + below), load(signals, i)
        low = min(min(min(a, b), min(c, d)), min(e, f))
        high = max(max(max(a, b), max(c, d)), max(e, f))
        far = max(ratios * (high - low), limits)
        calm = at_most(max(value - high, low - value), far)
        if calm != ALL_LANES:
            for lane in range(LANES):
                if not calm >> lane & 1:
                    hot[i + lane] = True
        at += LANES
