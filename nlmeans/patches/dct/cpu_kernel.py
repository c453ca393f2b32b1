"""CPU kernel of the sliding DCT.

Each lane of a vector (kernels/vector.py) holds one patch; the patches of a vector are neighbours along the width. Their
coefficients take 4 kB. So patches are transformed, shrunk, transformed back and added to the volume within the nearest
cache.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nlmeans.core.axes import Axes
from nlmeans.kernels.matrix import multiply
from nlmeans.kernels.vector import LANES, inner_kernel, load, splat, store, vector_kernel, where_above
from nlmeans.patches.kernel_constants import EDGE


class Slide(NamedTuple):
    """Geometry of the patches, and how strongly they are filtered."""

    positions: Axes
    """Patches along each axis."""
    size: Axes
    """Size of a patch."""
    shape: Axes
    """Shape of the padded volume, whose rows have room for whole vectors of patches."""
    pitch: int
    """Distance between rows of levels and weights, in numbers."""
    per_patch: int
    """1 if the noise variance differs from patch to patch, else 0."""
    strength: float
    """Threshold² for a hard threshold; the factor on the noise variance for a Wiener filter."""


@inner_kernel
def transform(array, matrix, step, pitch, here, there, size):
    """Transform patches along all axes, back and forth between two blocks of `array`. Return where the result is."""
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


@inner_kernel
def load_patches(volume, slide, corner, array, block):
    """Copy the patches of one vector to a block of `array`."""
    size = slide.size
    for u in range(size[0]):
        for v in range(size[1]):
            at = corner + (u * slide.shape[1] + v) * slide.shape[2]
            for w in range(size[2]):
                store(array, block, load(volume, at + w))
                block += LANES


@inner_kernel
def add_patches(array, block, weight, slide, corner, total):
    """Add the weighted patches of one vector to the volume."""
    size = slide.size
    for w in range(size[2]):  # outermost: reading a vector soon after a part of it was written stalls
        for u in range(size[0]):
            for v in range(size[1]):
                at = corner + (u * slide.shape[1] + v) * slide.shape[2] + w
                value = load(array, block + ((u * size[1] + v) * size[2] + w) * LANES)
                store(total, at, load(total, at) + weight * value)


@inner_kernel
def threshold(array, block, voxels, limit, spectrum):
    """Set small coefficients to 0. Return the noise variance of those that stay, per patch, relative to its mean."""
    kept = splat(array[spectrum])
    for i in range(block + LANES, block + voxels * LANES, LANES):
        value = load(array, i)
        energy = value * value
        share = splat(array[spectrum + (i - block) // LANES])
        store(array, i, where_above(energy, limit * share, value))
        kept = kept + where_above(energy, limit * share, share)
    return kept


@inner_kernel
def shrink(array, block, pilot, voxels, noise, spectrum):
    """Apply the Wiener filter with the pilot's coefficients. Return the relative noise variance left, per patch."""
    kept = splat(array[spectrum])
    for i in range(LANES, voxels * LANES, LANES):
        oracle = load(array, pilot + i)
        energy = oracle * oracle
        share = splat(array[spectrum + i // LANES])
        gain = energy / (energy + noise * share)
        store(array, block + i, load(array, block + i) * gain)
        kept = kept + gain * gain * share
    return kept


@vector_kernel
def filter_rows(noisy, pilot, levels, constants, slide, wiener, z0, z1, y0, y1, total, weights):
    """Filter all patches that begin in rows y0 to y1 of planes z0 to z1."""
    voxels = slide.size[0] * slide.size[1] * slide.size[2]
    array = np.empty(4 * voxels * LANES + EDGE * EDGE + voxels, np.float32)
    size = voxels * LANES
    matrix = 4 * size
    zero, one, edge = np.int64(0), np.int64(1), np.int64(EDGE)  # numba would compile a function per literal
    spectrum = matrix + EDGE * EDGE
    for i in range(constants.size):
        array[matrix + i] = constants[i]
    lanes = np.zeros(LANES, np.float32)
    strength = splat(np.float32(slide.strength))
    for z in range(z0, z1):
        for y in range(y0, y1):
            for x in range(0, slide.positions[2], LANES):
                corner = (z * slide.shape[1] + y) * slide.shape[2] + x
                at = (z * slide.positions[1] + y) * slide.pitch + x
                level = load(levels, at * slide.per_patch)
                load_patches(noisy, slide, corner, array, zero)
                block = transform(array, matrix, edge, one, zero, size, slide.size)
                if wiener:
                    load_patches(pilot, slide, corner, array, 2 * size)
                    oracle = transform(array, matrix, edge, one, 2 * size, 3 * size, slide.size)
                    kept = shrink(array, block, oracle, voxels, strength * level, spectrum)
                else:
                    kept = threshold(array, block, voxels, strength * level, spectrum)
                weight = splat(np.float32(1)) / (kept * level)
                if x + LANES > slide.positions[2]:  # lanes beyond the end of the row get no weight
                    for lane in range(LANES):
                        lanes[lane] = x + lane < slide.positions[2]
                    weight = weight * load(lanes, 0)
                store(weights, at, weight)
                block = transform(array, matrix, one, edge, block, size - block, slide.size)
                add_patches(array, block, weight, slide, corner, total)
