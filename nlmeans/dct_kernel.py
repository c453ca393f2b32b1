"""The sliding DCT on a CPU, for patches of 4 voxels along each axis that is longer than one, one at every voxel.

The lanes of a vector (backends/cpu_vector.py) are patches that are neighbours along the width. Their coefficients take
4 kB, so the patches of a plane are transformed, shrunk, transformed back and added to the volume without leaving the
nearest cache. Threads work on chunks of planes; first on every other one, which do not overlap, then on the rest. So
each voxel is summed in the same order on any number of threads.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nlmeans.backends.cpu_matrix import multiply
from nlmeans.backends.cpu_vector import LANES, compiled, inner, load, splat, store, where_above
from nlmeans.backends.request import Axes

EDGE = 4
"""Of a patch."""

CHUNK = 4
"""Planes of patches (rows, in an image); EDGE − 1 or more."""


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


def fits(volumes: list[Tensor], size: Axes, step: Axes) -> bool:
    """Whether the kernel can do this."""
    return (
        all(volume.device.type == "cpu" and volume.dtype == torch.float32 for volume in volumes)
        and step == (1, 1, 1)
        and size[2] == EDGE
        and all(n in (1, EDGE) for n in size)
    )


def filtered(volumes: list[Tensor], variance: Tensor, size: Axes, strength: float, matrix: Tensor) -> Tensor:
    """`dct.filtered_channel` of padded (D, H, W) volumes, noisy or noisy and pilot.

    `variance` is 0-dimensional or of the padded shape, `matrix` the DCT along one axis.
    """
    depth, height, width = volumes[0].shape
    positions = (depth - size[0] + 1, height - size[1] + 1, width - size[2] + 1)
    pitch = -(-positions[2] // LANES) * LANES
    extra = pitch - positions[2]
    noisy, pilot = (F.pad(volume, (0, extra)).view(-1).numpy() for volume in (volumes[0], volumes[-1]))
    if variance.ndim:
        levels = F.pad(sliding_sums(variance, size) / math.prod(size), (0, extra), value=1.0)
    else:
        levels = variance.expand(LANES)
    slide = Slide(positions, size, (depth, height, width + extra), pitch, min(variance.ndim, 1), strength)
    total = np.zeros(noisy.size, np.float32)
    weights = torch.zeros(*positions[:2], pitch, dtype=torch.float32)
    flat_levels, flat_weights = levels.contiguous().view(-1).numpy(), weights.view(-1).numpy()
    axis = 0 if positions[0] > 1 else 1
    chunks = [range(first, min(first + CHUNK, positions[axis])) for first in range(0, positions[axis], CHUNK)]
    dct = matrix.float().numpy().ravel()

    def work(chunk: range) -> None:
        planes, rows = (chunk, range(positions[1])) if axis == 0 else (range(1), chunk)
        filter_rows(
            noisy, pilot, flat_levels, dct, slide, len(volumes) > 1, planes.start, planes.stop, rows.start, rows.stop,
            total, flat_weights,
        )  # fmt: skip

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for colour in (chunks[::2], chunks[1::2]):
            list(pool.map(work, colour))
    margins = [m for n in reversed(size) for m in (n - 1, n - 1)]
    covering = sliding_sums(F.pad(weights[..., : positions[2]], margins), size)
    return torch.from_numpy(total).view(slide.shape)[..., :width] / covering


def sliding_sums(volume: Tensor, size: Axes) -> Tensor:
    """The sum over each patch, at its first voxel."""
    for axis, n in enumerate(size):
        length = volume.shape[axis] - n + 1
        volume = sum((volume.narrow(axis, k, length) for k in range(1, n)), volume.narrow(axis, 0, length))
    return volume


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
