"""The numba kernel of the backend `cpu`, which computes one tile after another.

For each run of neighbouring x offsets and each four rows of the tile there are two passes:

1. `sum_patches` moves along z with four rows in registers. It computes squared differences and sums them over y, where
   the rows share the differences, and over z, because the last planes stay in registers too. It writes these yz sums to
   scratch arrays.
2. `add_weighted` reads the yz sums and sums them along x. It takes the exponential, and adds weights and weighted
   values to accumulators that stay in registers for all x offsets of the run.

With patch radius 0 there is no first pass. Both passes use explicit vectors (kernels/vector.py), so they do not depend
on the vectoriser of LLVM. Functions that numba compiles have no type hints, because vectors and literals have no type
in Python.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from nlmeans.kernels.exponential import ROUNDER, exp2
from nlmeans.kernels.vector import LANES, Floats, inlined_kernel, load, repeat, splat, store, vector_kernel
from nlmeans.operator.request import SMALLEST_EXPONENT

ROWS = 4
"""Rows that `sum_patches` holds in registers."""

# The distances between rows are whole cache lines and compile-time constants: otherwise LLVM would keep one pointer per
# row, for which there are too few registers.
SUM_PITCH = 160
"""Floats from one row of yz sums to the next: a tile, two patch radii, and one vector that is read beyond them."""

PITCH_STEP = 208
"""Floats from one row of the copied guide to the next, or a multiple of it for very large search windows."""


class TileLayout(NamedTuple):
    """Sizes of the scratch arrays of a tile, and distances within them, in floats."""

    tile: tuple[int, int, int]
    copied: tuple[int, int, int]  # the tile with the margins of search and patch
    pitch: int  # from one row to the next in the copies of guide and image
    plane: int
    channel: int
    guide_channels: int
    lead: int  # unused floats before each row, which align `corner`
    corner: int  # where the patch of the first voxel begins
    to_center: int  # from there to the voxel itself
    sum_width: int
    sum_size: int  # yz sums of one offset: ROWS rows for each plane
    out_pitch: int  # from one row to the next in the accumulators
    out_plane: int
    out_channel: int
    per_voxel: int  # 1 if falloff or offset differ from voxel to voxel, else 0


class Scratch(NamedTuple):
    """The flat arrays on which one thread works."""

    guide: Floats
    image: Floats
    slopes: Floats  # weight = exp2(start + slope * sum of squared differences)
    starts: Floats
    weight_totals: Floats
    value_totals: Floats
    largest_weights: Floats
    sums: Floats
    weights: Floats


class KernelOptions(NamedTuple):
    """Options that are compile-time constants after inlining."""

    patch_x: int
    patchwise: bool  # a patch has more than one voxel
    multichannel: bool
    has_offset: bool
    track_largest: bool
    sampled: bool


# An array, because LLVM would fetch literals from memory at every use instead of keeping them in registers.
EXP2_TERMS = np.array(
    [ROUNDER, SMALLEST_EXPONENT / math.log(2), 1.0, 6.93124193e-01, 2.40240986e-01, 5.59064247e-02, 9.58285426e-03],
    np.float32,
)
"""Terms of `exp2`: a minimax polynomial with the constant term 1 and a relative error of 2.8e-6."""


@inlined_kernel
def broadcast_terms(terms):
    """Copy each term to all lanes of a vector."""
    return (
        splat(terms[0]), splat(terms[1]), splat(terms[2]), splat(terms[3]),
        splat(terms[4]), splat(terms[5]), splat(terms[6]),
    )  # fmt: skip


@inlined_kernel
def squared_guide_difference(guide, i, shift):
    """Squared difference of a vector of voxels from index i on and their neighbours at `shift`."""
    difference = load(guide, i) - load(guide, i + shift)
    return difference * difference


@inlined_kernel
def add_up(values):
    """The sum of a tuple of vectors."""
    total = splat(np.float32(0))
    for value in values:
        total = total + value
    return total


@inlined_kernel
def store_sum(sums, o, values, add):
    """Write the sum of a tuple of vectors; with `add`, add it to the present value."""
    total = add_up(values)
    if add:
        total = total + load(sums, o)
    store(sums, o, total)


@inlined_kernel
def sum_patches(scratch, layout, pitch, no_rows, no_planes, corner, shift, depth, out, add):
    """Sum squared differences over y and z, for ROWS rows from `corner` on in all planes of the tile.

    `no_rows` and `no_planes` are tuples of zeros, as long as the patch is high and deep. With `add`, the sums are added
    to the present values.
    """
    guide, sums = scratch.guide, scratch.sums
    before_y, before_z = len(no_rows) - 1, len(no_planes) - 1
    for x in range(0, layout.sum_width, LANES):
        planes0 = planes1 = planes2 = planes3 = no_planes
        for z in range(-before_z, depth):
            i = corner + (z + before_z) * layout.plane + x
            rows = no_rows
            for _ in range(before_y):
                rows = rows[1:] + (squared_guide_difference(guide, i, shift),)
                i += pitch
            rows = rows[1:] + (squared_guide_difference(guide, i, shift),)
            planes0 = planes0[1:] + (add_up(rows),)
            rows = rows[1:] + (squared_guide_difference(guide, i + pitch, shift),)
            planes1 = planes1[1:] + (add_up(rows),)
            rows = rows[1:] + (squared_guide_difference(guide, i + 2 * pitch, shift),)
            planes2 = planes2[1:] + (add_up(rows),)
            rows = rows[1:] + (squared_guide_difference(guide, i + 3 * pitch, shift),)
            planes3 = planes3[1:] + (add_up(rows),)
            if z >= 0:
                o = out + z * ROWS * SUM_PITCH + x
                store_sum(sums, o, planes0, add)
                store_sum(sums, o + SUM_PITCH, planes1, add)
                store_sum(sums, o + 2 * SUM_PITCH, planes2, add)
                store_sum(sums, o + 3 * SUM_PITCH, planes3, add)


@inlined_kernel
def add_weighted(scratch, layout, options, terms, center, shift, count, factor, sums_at, out):
    """Add up weights and weighted values of one row of the tile, for `count` x offsets from `shift` on."""
    for x in range(0, layout.out_pitch, LANES):
        o = out + x
        weight_total, value_total = load(scratch.weight_totals, o), load(scratch.value_totals, o)
        slope, start = load(scratch.slopes, o * layout.per_voxel), load(scratch.starts, o * layout.per_voxel)
        largest = load(scratch.largest_weights, o)
        for k in range(count):
            if options.patchwise:
                i = sums_at + k * layout.sum_size + x
                distance = load(scratch.sums, i)
                for step in range(1, 2 * options.patch_x + 1):
                    distance = distance + load(scratch.sums, i + step)
            else:
                distance = squared_guide_difference(scratch.guide, center + x, shift + k)
                if options.multichannel:
                    for channel in range(1, layout.guide_channels):
                        i = center + x + channel * layout.channel
                        distance = distance + squared_guide_difference(scratch.guide, i, shift + k)
            logarithm = start + slope * distance
            if options.has_offset:
                logarithm = min(logarithm, splat(np.float32(0)))
            weight = exp2(logarithm, terms)
            if options.track_largest:
                largest = max(largest, weight)
            if options.sampled:
                weight = weight * splat(factor)
            weight_total = weight_total + weight
            value_total = value_total + weight * load(scratch.image, center + shift + k + x)
            if options.multichannel:
                store(scratch.weights, k * layout.out_pitch + x, weight)
        store(scratch.weight_totals, o, weight_total)
        store(scratch.value_totals, o, value_total)
        if options.track_largest:
            store(scratch.largest_weights, o, largest)


@inlined_kernel
def add_other_channels(scratch, layout, channels, neighbour, count, out):
    """Add up weighted values of the other image channels, with the weights that `add_weighted` stored."""
    for channel in range(1, channels):
        for x in range(0, layout.out_pitch, LANES):
            o = channel * layout.out_channel + out + x
            i = channel * layout.channel + neighbour + x
            value_total = load(scratch.value_totals, o)
            for k in range(count):
                value_total = value_total + load(scratch.weights, k * layout.out_pitch + x) * load(scratch.image, i + k)
            store(scratch.value_totals, o, value_total)


@inlined_kernel
def add_tile_rows(scratch, layout, options, terms, corner, shift, count, factor, depth, rows, channels, out):
    """Run the second pass for up to ROWS rows in all planes of the tile."""
    for z in range(depth):
        for row in range(rows):
            center = corner + layout.to_center + z * layout.plane + row * layout.pitch
            sums_at = (z * ROWS + row) * SUM_PITCH
            o = out + z * layout.out_plane + row * layout.out_pitch
            add_weighted(scratch, layout, options, terms, center, shift, count, factor, sums_at, o)
            if options.multichannel:
                add_other_channels(scratch, layout, channels, center + shift, count, o)


@vector_kernel
def copy_tile(source, layout, origin, copy):
    """Copy a tile with its margins from a padded volume."""
    channels, depth, height, width = source.shape
    copy_d, copy_h, copy_w = layout.copied
    for c in range(channels):
        for z in range(min(copy_d, depth - origin[0])):
            for y in range(min(copy_h, height - origin[1])):
                i = c * layout.channel + z * layout.plane + y * layout.pitch + layout.lead
                for x in range(min(copy_w, width - origin[2])):
                    copy[i + x] = source[c, origin[0] + z, origin[1] + y, origin[2] + x]


@vector_kernel
def set_curve(falloff, offset, patch_size, layout, shape, origin, size, scratch):
    """Write `slopes` and `starts` of the tile: falloff and offset, converted for exp2 and for sums instead of means."""
    for z in range(size[0]):
        for y in range(size[1]):
            i = ((origin[0] + z) * shape[1] + origin[1] + y) * shape[2] + origin[2]
            o = z * layout.out_plane + y * layout.out_pitch
            for x in range(size[2]):
                steepness = falloff[(i + x) * (falloff.size > 1)] * np.float32(1 / np.log(2))
                scratch.slopes[o + x] = -steepness / np.float32(patch_size)
                scratch.starts[o + x] = steepness * offset[(i + x) * (offset.size > 1)]


@vector_kernel
def write_tile(layout, origin, size, center_weight, scratch, out):
    """Add the voxels themselves, divide by the weights, and write. A voxel whose weights are all 0 keeps its value."""
    for c in range(out.shape[0]):
        for z in range(size[0]):
            for y in range(size[1]):
                o = z * layout.out_plane + y * layout.out_pitch
                i = c * layout.channel + layout.corner + layout.to_center + z * layout.plane + y * layout.pitch
                for x in range(size[2]):
                    own = scratch.image[i + x]
                    own_weight = max(center_weight, scratch.largest_weights[o + x])
                    weight = scratch.weight_totals[o + x] + own_weight
                    value = scratch.value_totals[c * layout.out_channel + o + x] + own_weight * own
                    out[c, origin[0] + z, origin[1] + y, origin[2] + x] = value / weight if weight > 0 else own


@functools.cache
def compile_kernel(
    patch_z: int,
    patch_y: int,
    patch_x: int,
    pitch: int,
    multichannel: bool,
    has_offset: bool,
    track_largest: bool,
    sampled: bool,
) -> Callable[..., None]:
    """Compile the loop of a thread over its tiles. It captures only numbers, as the disk cache of numba requires."""
    patch_depth, patch_height = 2 * patch_z + 1, 2 * patch_y + 1
    patchwise = max(patch_z, patch_y, patch_x) > 0

    @vector_kernel
    def run_tiles(guide, image, self_guided, falloff, offset, patch_size, center_weight, layout, runs, factors,
                  terms_array, scratch, out, first_tile, tile_step, done, stop):  # fmt: skip
        options = KernelOptions(patch_x, patchwise, multichannel, has_offset, track_largest, sampled)
        terms = broadcast_terms(terms_array)
        no_rows = repeat(splat(np.float32(0)), patch_height)
        no_planes = repeat(splat(np.float32(0)), patch_depth)
        channels, depth, height, width = out.shape
        tile_d, tile_h, tile_w = layout.tile
        tiles_y, tiles_x = -(-height // tile_h), -(-width // tile_w)
        tiles = -(-depth // tile_d) * tiles_y * tiles_x
        for tile in range(first_tile, tiles, tile_step):
            z0, y0, x0 = origin = (
                tile // (tiles_y * tiles_x) * tile_d, tile // tiles_x % tiles_y * tile_h, tile % tiles_x * tile_w
            )  # fmt: skip
            d, h, w = size = min(tile_d, depth - z0), min(tile_h, height - y0), min(tile_w, width - x0)
            copy_tile(guide, layout, origin, scratch.guide)
            if not self_guided:
                copy_tile(image, layout, origin, scratch.image)
            if layout.per_voxel:
                set_curve(falloff, offset, patch_size, layout, (depth, height, width), origin, size, scratch)
            scratch.weight_totals[:] = 0
            scratch.value_totals[:] = 0
            scratch.largest_weights[:] = 0
            for run in range(len(runs)):
                if stop[0]:
                    return
                shift = runs[run, 0] * layout.plane + runs[run, 1] * layout.pitch + runs[run, 2]
                count = runs[run, 3]
                factor = factors[run] if sampled else np.float32(1)
                for y in range(0, h, ROWS):
                    corner = layout.corner + y * layout.pitch
                    if patchwise:
                        for k in range(count):
                            for channel in range(layout.guide_channels):
                                first = corner + channel * layout.channel
                                add = multichannel and channel > 0
                                sum_patches(scratch, layout, pitch, no_rows, no_planes, first, shift + k, d,
                                            k * layout.sum_size, add)  # fmt: skip
                    add_tile_rows(scratch, layout, options, terms, corner, shift, count, factor, d, min(ROWS, h - y),
                             channels, y * layout.out_pitch)  # fmt: skip
                done[0] += 1
            write_tile(layout, origin, size, center_weight, scratch, out)

    return run_tiles  # type: ignore[no-any-return]
