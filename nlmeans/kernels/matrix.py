"""Products of small matrices, of floats or doubles, that lie in one flat array, in tiles that stay in registers.

Matrices are stored row by row, with rows padded to whole vectors (kernels/vector.py). A tile has TILE_ROWS rows of up
to TILE_VECTORS vectors. Each step of a product multiplies one number per row, which may lie anywhere, by one row of
the right factor. Nothing is summed across lanes.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from nlmeans.kernels.vector import (
    FAST,
    INTEGER_VECTOR,
    LANES,
    in_all_lanes,
    inlined_kernel,
    inner_kernel,
    lane_pointer,
    load,
    number_like,
    repeat,
    splat,
    store,
)

# A tile and one row of the right factor fit into 32 registers, or into 16 with vectors of 8 floats.
TILE_ROWS, TILE_VECTORS = 4, 4 if LANES == 16 else 3


@intrinsic
def widest_tile(typing_context, array):
    """Most vectors in a row of a tile: vectors of doubles take two registers each."""
    most = TILE_VECTORS if array.dtype == types.float32 else TILE_VECTORS // 2
    return types.intp(array), lambda context, builder, sig, args: context.get_constant(types.intp, most)


@intrinsic
def add_outer_product(typing_context, tile, array, left, left_step, right):
    """tile[r][c] + array[left + r·left_step] · (vector c from `right` on); the tile is a tuple of rows of vectors."""
    rows, vectors = tile.count, tile.dtype.count

    def emit(context, builder, sig, args):
        values, array, left, left_step, right = args
        factors = []
        for _ in range(rows):
            data = context.make_array(sig.args[1])(context, builder, array).data
            factors.append(in_all_lanes(builder, builder.load(builder.gep(data, [left]))))
            left = builder.add(left, left_step)
        columns = [
            builder.load(
                lane_pointer(context, builder, sig.args[1], array, builder.add(right, right.type(c * LANES))), align=4
            )
            for c in range(vectors)
        ]
        result = []
        for r, factor in enumerate(factors):
            row = builder.extract_value(values, r)
            sums = [
                builder.fadd(builder.extract_value(row, c), builder.fmul(factor, column, flags=FAST), flags=FAST)
                for c, column in enumerate(columns)
            ]
            result.append(cgutils.pack_array(builder, sums))
        return cgutils.pack_array(builder, result)

    return tile(tile, array, types.intp, types.intp, types.intp), emit


@intrinsic
def transpose(typing_context, array, source, source_pitch, target, target_pitch):
    """Copy a square of LANES × LANES numbers, transposed."""

    def emit(context, builder, sig, args):
        array, source, source_pitch, target, target_pitch = args
        values = []
        for _ in range(LANES):
            values.append(builder.load(lane_pointer(context, builder, sig.args[0], array, source), align=4))
            source = builder.add(source, source_pitch)
        distance = LANES // 2
        while distance:  # swap the off-diagonal quarters of all blocks of this size
            low = [lane - distance + LANES if lane & distance else lane for lane in range(LANES)]
            high = [lane + LANES if lane & distance else lane + distance for lane in range(LANES)]
            for first in range(LANES):
                if not first & distance:
                    pair = values[first], values[first + distance]
                    values[first] = builder.shuffle_vector(*pair, ir.Constant(INTEGER_VECTOR, low))
                    values[first + distance] = builder.shuffle_vector(*pair, ir.Constant(INTEGER_VECTOR, high))
            distance //= 2
        for value in values:
            builder.store(value, lane_pointer(context, builder, sig.args[0], array, target), align=4)
            target = builder.add(target, target_pitch)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, types.intp, types.intp), emit


@inlined_kernel
def tile_product(array, out, out_pitch, left, left_step, left_pitch, right, right_pitch, depth, zeros, subtract):
    """Compute `multiply` for one tile, with as many rows and vectors as `zeros` has."""
    tile = zeros
    for k in range(depth):
        tile = add_outer_product(tile, array, left + k * left_pitch, left_step, right + k * right_pitch)
    for row in tile:
        at = out
        for value in row:
            if subtract:
                value = load(array, at) - value
            store(array, at, value)
            at += LANES
        out += out_pitch


@inlined_kernel
def multiply(array, out, out_pitch, left, left_step, left_pitch, right, right_pitch, depth, vectors, subtract):
    """TILE_ROWS rows of a product, of `vectors` vectors each: out[r, :] = Σ_k left(k, r) · right[k, :].

    If `subtract` is true, the product is subtracted from `out`. `out`, `left` and `right` are offsets in `array`:
    left(k, r) lies at left + k·left_pitch + r·left_step, and row k of the right factor at right + k·right_pitch. The
    result must not overlap the rows of the factors.
    """
    # plain integers, because numba would compile the function anew for each literal
    multiply_rows(
        array, np.int64(out), np.int64(out_pitch), np.int64(left), np.int64(left_step), np.int64(left_pitch),
        np.int64(right), np.int64(right_pitch), np.int64(depth), np.int64(vectors), np.bool_(subtract),
    )  # fmt: skip


@inner_kernel
def multiply_rows(array, out, out_pitch, left, left_step, left_pitch, right, right_pitch, depth, vectors, subtract):
    """Compute `multiply` in tiles of up to TILE_VECTORS vectors."""
    zero, widest = splat(number_like(array, 0)), widest_tile(array)
    while vectors:
        if vectors >= 4 and vectors != 6 and widest >= 4:
            tile_product(array, out, out_pitch, left, left_step, left_pitch, right, right_pitch, depth,
                         repeat(repeat(zero, 4), TILE_ROWS), subtract)  # fmt: skip
            done = 4
        elif vectors >= 3 and vectors != 4 and widest >= 3:
            tile_product(array, out, out_pitch, left, left_step, left_pitch, right, right_pitch, depth,
                         repeat(repeat(zero, 3), TILE_ROWS), subtract)  # fmt: skip
            done = 3
        elif vectors >= 2 and widest >= 2:
            tile_product(array, out, out_pitch, left, left_step, left_pitch, right, right_pitch, depth,
                         repeat(repeat(zero, 2), TILE_ROWS), subtract)  # fmt: skip
            done = 2
        else:
            tile_product(array, out, out_pitch, left, left_step, left_pitch, right, right_pitch, depth,
                         repeat(repeat(zero, 1), TILE_ROWS), subtract)  # fmt: skip
            done = 1
        vectors -= done
        out += done * LANES
        right += done * LANES


@inner_kernel
def multiply_row(array, out, left, right, pitch, vectors):
    """A row times a square matrix: out[:] = Σ_k left[k] · right[k, :]. `out` must not overlap the factors."""
    zero, widest = splat(number_like(array, 0)), widest_tile(array)
    depth = vectors * LANES
    while vectors >= 4 and widest >= 3:
        tile_product(array, out, 0, left, 0, 1, right, pitch, depth, repeat(repeat(zero, 4), 1), False)
        vectors -= 4
        out += 4 * LANES
        right += 4 * LANES
    for _ in range(vectors):
        tile_product(array, out, 0, left, 0, 1, right, pitch, depth, repeat(repeat(zero, 1), 1), False)
        out += LANES
        right += LANES
