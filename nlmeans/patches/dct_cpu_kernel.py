"""What the sliding DCT compiles for a CPU.

The lanes of a vector (kernels/vector.py) are patches that are neighbours along the width. Their coefficients take 4 kB,
so the patches of a plane are transformed, shrunk, transformed back and added to the volume without leaving the nearest
cache.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nlmeans.core.axes import Axes
from nlmeans.kernels.matrix import multiply
from nlmeans.kernels.vector import LANES, compiled, inner, load, splat, store, where_above

EDGE = 4
"""Voxels along the edge of a patch."""


class Slide(NamedTuple):
    """Which patches, and how they are filtered."""

    positions: Axes
    """Patches along each axis."""
    size: Axes
    shape: Axes
    """Of the padded volume, in which rows have room for whole vectors of patches."""
    pitch: int
    """From row to row of levels and weights."""
    per_patch: int
    """1 if levels differ from patch to patch, else 0."""
    strength: float
    """Threshold² of a hard threshold; the noise's multiple of a Wiener filter."""


@inner
def transform(array, matrix, step, pitch, here, there, size):
    """Along all axes, back and forth between two blocks of patches; where the result is."""
    row = size[2] * LANES
    plane = size[1] * row
    if size[0] > 1:
        multiply(array, there, plane, matrix, step, pitch, here, plane, EDGE, size[1] * size[2], False)
        here, there = there, here
    if size[1] > 1:
        for at in range(0, size[0] * plane, plane):
            multiply(array, there + at, row, matrix, step, pitch, here + at, row, EDGE, size[2], False)
        here, there = there, here
    for at in range(0, size[0] * plane, row):
        multiply(array, there + at, LANES, matrix, step, pitch, here + at, LANES, EDGE, 1, False)
    return there


@inner
def read_patches(volume, slide, corner, array, block):
    size = slide.size
    for u in range(size[0]):
        for v in range(size[1]):
            at = corner + (u * slide.shape[1] + v) * slide.shape[2]
            for w in range(size[2]):
                store(array, block, load(volume, at + w))
                block += LANES


@inner
def add_patches(array, block, weight, slide, corner, total):
    size = slide.size
    for w in range(size[2]):  # outermost, as a vector cannot be read soon after a part of it was written
        for u in range(size[0]):
            for v in range(size[1]):
                at = corner + (u * slide.shape[1] + v) * slide.shape[2] + w
                value = load(array, block + ((u * size[1] + v) * size[2] + w) * LANES)
                store(total, at, load(total, at) + weight * value)


@inner
def threshold(array, block, voxels, limit):
    """Drop small coefficients; how many stay."""
    one = splat(np.float32(1))
    kept = one
    for i in range(block + LANES, block + voxels * LANES, LANES):
        value = load(array, i)
        energy = value * value
        store(array, i, where_above(energy, limit, value))
        kept = kept + where_above(energy, limit, one)
    return kept


@inner
def shrink(array, block, pilot, voxels, noise):
    """The Wiener filter with the pilot's coefficients; Σ gain²."""
    kept = splat(np.float32(1))
    for i in range(LANES, voxels * LANES, LANES):
        oracle = load(array, pilot + i)
        energy = oracle * oracle
        gain = energy / (energy + noise)
        store(array, block + i, load(array, block + i) * gain)
        kept = kept + gain * gain
    return kept


@compiled
def filter_rows(noisy, pilot, levels, dct, slide, wiener, z0, z1, y0, y1, total, weights):
    """All patches that begin in some rows of some planes."""
    voxels = slide.size[0] * slide.size[1] * slide.size[2]
    array = np.empty(4 * voxels * LANES + EDGE * EDGE, np.float32)
    size = voxels * LANES
    matrix = 4 * size
    zero, one, edge = np.int64(0), np.int64(1), np.int64(EDGE)  # numba compiles a function anew for each literal
    for i in range(EDGE * EDGE):
        array[matrix + i] = dct[i]
    lanes = np.zeros(LANES, np.float32)
    strength = splat(np.float32(slide.strength))
    for z in range(z0, z1):
        for y in range(y0, y1):
            for x in range(0, slide.positions[2], LANES):
                corner = (z * slide.shape[1] + y) * slide.shape[2] + x
                at = (z * slide.positions[1] + y) * slide.pitch + x
                level = load(levels, at * slide.per_patch)
                read_patches(noisy, slide, corner, array, zero)
                block = transform(array, matrix, edge, one, zero, size, slide.size)
                if wiener:
                    read_patches(pilot, slide, corner, array, 2 * size)
                    oracle = transform(array, matrix, edge, one, 2 * size, 3 * size, slide.size)
                    kept = shrink(array, block, oracle, voxels, strength * level)
                else:
                    kept = threshold(array, block, voxels, strength * level)
                weight = splat(np.float32(1)) / (kept * level)
                if x + LANES > slide.positions[2]:  # patches beyond the end
                    for lane in range(LANES):
                        lanes[lane] = x + lane < slide.positions[2]
                    weight = weight * load(lanes, 0)
                store(weights, at, weight)
                block = transform(array, matrix, one, edge, block, size - block, slide.size)
                add_patches(array, block, weight, slide, corner, total)
