"""The kernel of the backend `gpu`.

Each lane of a warp computes a small column of TY × TZ voxels of the result. The 32 lanes lie side by side along x. A
lane runs over the whole search window and keeps its sums in registers:

- For each offset it subtracts the column and the voxels around it, (TY + 2·PY) × (TZ + 2·PZ), once from their
  neighbours. Each squared difference serves all patches of the column that contain it.
- From one offset along y to the next the neighbours move by one row, so it loads only one new row.
- It sums patches along z and y itself, and then along x together with the lanes beside it. The outermost PX lanes on
  either side of a warp only serve these sums.

A block of shape (WARPS, 32) has one element per thread. A tuple of such blocks is therefore an array of registers of
each thread, which Triton cannot express otherwise. Columns are tuples in the order (y, z), with z fastest.

Every sum has the same order for any column, so the choice of a column never changes a bit of the result.
"""

from __future__ import annotations

# mypy: ignore-errors
# (Triton has no types, and its language shares only the syntax with Python.)
import triton
import triton.language as tl

LANES_PER_WARP = tl.constexpr(32)
TRITON_LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def load_column(source, mask, line, volume, plane, NY: tl.constexpr, FEATURES: tl.constexpr, NZ: tl.constexpr):
    """Load the (NY, FEATURES, NZ) voxels from `source` on, in the lanes of `mask`."""
    voxels = ()
    for y in tl.static_range(NY):
        for feature in tl.static_range(FEATURES):
            for z in tl.static_range(NZ):
                voxels += (tl.load(source + (y * line + feature * volume + z * plane), mask=mask).to(tl.float32),)
    return voxels


@triton.jit
def zeros(COUNT: tl.constexpr, WARPS: tl.constexpr):
    """A tuple of COUNT blocks of zeros."""
    blocks = ()
    for _ in tl.static_range(COUNT):
        blocks += (tl.zeros([WARPS, LANES_PER_WARP], tl.float32),)
    return blocks


@triton.jit
def add_squares(sums, near, middle, NY: tl.constexpr, FEATURES: tl.constexpr, TZ: tl.constexpr, RADIUS: tl.constexpr):
    """Add squared differences of (NY, FEATURES, TZ + 2·RADIUS) voxels, summed along z, to the (NY, TZ) `sums`."""
    NZ: tl.constexpr = TZ + 2 * RADIUS
    differences = ()
    for n in tl.static_range(NY * FEATURES * NZ):
        differences += (near[n] - middle[n],)
    result = ()
    for y in tl.static_range(NY):
        for z in tl.static_range(TZ):
            total = sums[y * TZ + z]
            for feature in tl.static_range(FEATURES):
                for further in tl.static_range(2 * RADIUS + 1):
                    difference = differences[(y * FEATURES + feature) * NZ + z + further]
                    total = tl.fma(difference, difference, total)
            result += (total,)
    return result


@triton.jit
def add_along_y(values, TY: tl.constexpr, TZ: tl.constexpr, RADIUS: tl.constexpr):
    """Sum (TY + 2·RADIUS, TZ) values along y to (TY, TZ)."""
    sums = ()
    for n in tl.static_range(TY * TZ):
        total = values[n]
        for further in tl.static_range(1, 2 * RADIUS + 1):
            total += values[n + further * TZ]
        sums += (total,)
    return sums


@triton.jit
def add_along_x(values, COUNT: tl.constexpr, WARPS: tl.constexpr, RADIUS: tl.constexpr):
    """Sum over neighbouring lanes. The result is not valid in the RADIUS outermost lanes on either side."""
    lanes = tl.arange(0, LANES_PER_WARP)[None, :] + tl.zeros([WARPS, 1], tl.int32)
    sums = ()
    for n in tl.static_range(COUNT):
        total = values[n]
        for distance in tl.static_range(1, RADIUS + 1):
            total += tl.gather(values[n], tl.maximum(lanes - distance, 0), 1)
            total += tl.gather(values[n], tl.minimum(lanes + distance, LANES_PER_WARP - 1), 1)
        sums += (total,)
    return sums


UNSPECIALISED = ["first_tile", "depth", "height", "width", "search_z", "search_y", "search_x"]
"""Sizes. They differ between the tiles of a volume, and Triton must not compile a kernel for each of them."""


@triton.jit(do_not_specialize=UNSPECIALISED)
def nonlocal_means_kernel(
    image,  # (CHANNELS, padded volume)
    guide,  # (FEATURES, padded volume)
    falloff,  # one number, or (depth, height, width)
    offset,  # one number, or (depth, height, width)
    result,  # (CHANNELS, depth, height, width)
    least_own,
    first_tile,
    depth,
    height,
    width,
    search_z,
    search_y,
    search_x,
    CHANNELS: tl.constexpr,
    GROUP: tl.constexpr,  # image channels that one program averages
    FEATURES: tl.constexpr,
    HELD: tl.constexpr,  # features that registers hold: all of them, or 0
    SELF_GUIDED: tl.constexpr,  # image and guide are the same array, with one channel
    FALLOFF_MAP: tl.constexpr,
    OFFSET: tl.constexpr,  # "none", "number" or "map"
    CENTER: tl.constexpr,
    SMALLEST_EXPONENT: tl.constexpr,
    PZ: tl.constexpr,
    PY: tl.constexpr,
    PX: tl.constexpr,
    TZ: tl.constexpr,
    TY: tl.constexpr,
    WARPS: tl.constexpr,
    UNROLL: tl.constexpr,
):
    NZ: tl.constexpr = TZ + 2 * PZ
    NY: tl.constexpr = TY + 2 * PY
    VOXELS: tl.constexpr = TZ * TY
    line = (width + 2 * (search_x + PX)).to(tl.int64)
    plane = line * (height + 2 * (search_y + PY))
    volume = plane * (depth + 2 * (search_z + PZ))

    lane = tl.arange(0, LANES_PER_WARP)[None, :]
    tiles_y = tl.cdiv(height, WARPS * TY)
    tile = first_tile + tl.program_id(0)
    first_channel = tl.program_id(2) * GROUP

    # A column that would reach beyond the result is moved inside. Two columns then store the same bits.
    x = tl.program_id(1) * (LANES_PER_WARP - 2 * PX) + lane - PX
    is_padded = x < width + PX
    is_inside = (lane >= PX) & (lane < LANES_PER_WARP - PX) & (x < width)
    y = tl.minimum(((tile % tiles_y) * WARPS + tl.arange(0, WARPS)[:, None]) * TY, height - TY)
    z = tl.minimum(tile // tiles_y * TZ, depth - TZ)
    around = (z + search_z) * plane + (y + search_y) * line + (x + search_x + PX)  # index into the padded volume
    inside = around + PZ * plane + PY * line
    here = (z.to(tl.int64) * height + y) * width + x  # index into the result
    layer = height.to(tl.int64) * width

    slope, level = (), ()
    for n in tl.static_range(VOXELS):
        at = here + (n // TZ * width + n % TZ * layer)
        if FALLOFF_MAP:
            binary = tl.load(falloff + at, mask=is_inside).to(tl.float32) * TRITON_LOG2_E
        else:
            binary = tl.load(falloff).to(tl.float32) * TRITON_LOG2_E
        slope += (binary * (-1.0 / ((2 * PZ + 1) * (2 * PY + 1) * (2 * PX + 1))),)
        if OFFSET == "map":
            level += (tl.load(offset + at, mask=is_inside).to(tl.float32) * binary,)
        elif OFFSET == "number":
            level += (tl.load(offset).to(tl.float32) * binary,)

    total, weighted = zeros(VOXELS, WARPS), zeros(VOXELS * GROUP, WARPS)
    largest = zeros(VOXELS if CENTER == "max" else 0, WARPS)
    middle = load_column(guide + around, is_padded, line, volume, plane, NY, HELD, NZ)

    for dz in range(-search_z, search_z + 1):
        for dx in range(-search_x, search_x + 1):
            step = dz * plane - search_y * line + dx
            near = load_column(guide + step + around, is_padded, line, volume, plane, NY - 1, HELD, NZ)
            for dy in tl.range(-search_y, search_y + 1, loop_unroll_factor=UNROLL):
                squares = zeros(NY * TZ, WARPS)
                if HELD:
                    above = guide + (step + (NY - 1) * line) + around
                    near += load_column(above, is_padded, line, volume, plane, 1, HELD, NZ)
                    squares = add_squares(squares, near, middle, NY, HELD, TZ, PZ)
                else:
                    for feature in range(FEATURES):
                        source = guide + feature * volume
                        there = load_column(source + step + around, is_padded, line, volume, plane, NY, 1, NZ)
                        own = load_column(source + around, is_padded, line, volume, plane, NY, 1, NZ)
                        squares = add_squares(squares, there, own, NY, 1, TZ, PZ)
                distance = add_along_x(add_along_y(squares, TY, TZ, PY), VOXELS, WARPS, PX)

                is_self = (dz == 0) & (dy == 0) & (dx == 0)
                totals, sums, maxima = (), (), ()
                for n in tl.static_range(VOXELS):
                    if OFFSET == "none":
                        exponent = distance[n] * slope[n]
                    else:
                        exponent = tl.minimum(tl.fma(distance[n], slope[n], level[n]), 0.0)
                    if CENTER == "one":  # relative to the weight 1 of the voxel itself, the bound e⁻⁶⁴ is negligible
                        weight = tl.exp2(exponent)
                    else:
                        weight = tl.where(is_self, 0.0, tl.exp2(tl.maximum(exponent, SMALLEST_EXPONENT)))
                    totals += (total[n] + weight,)
                    if CENTER == "max":
                        maxima += (tl.maximum(largest[n], weight),)
                    for k in tl.static_range(GROUP):
                        if SELF_GUIDED:
                            value = near[(n // TZ + PY) * NZ + n % TZ + PZ]
                        else:
                            channel = tl.minimum(first_channel + k, CHANNELS - 1)
                            value_at = channel * volume + step + (n // TZ * line + n % TZ * plane)
                            value = tl.load(image + value_at + inside, mask=is_inside).to(tl.float32)
                        sums += (tl.fma(weight, value, weighted[n * GROUP + k]),)
                total, weighted, largest = totals, sums, maxima
                near = near[HELD * NZ :]
                step += line

    for n in tl.static_range(VOXELS):
        own_weight = 0.0  # for center "one" the sums contain it already
        if CENTER == "max":
            own_weight = tl.maximum(largest[n], least_own)
        elif CENTER == "zero":
            own_weight = tl.where(total[n] == 0.0, 1.0, 0.0)
        for k in tl.static_range(GROUP):
            channel = tl.minimum(first_channel + k, CHANNELS - 1)
            mean = weighted[n * GROUP + k]
            if CENTER != "one":
                value_at = channel * volume + (n // TZ * line + n % TZ * plane)
                mean = tl.fma(own_weight, tl.load(image + value_at + inside, mask=is_inside).to(tl.float32), mean)
            mean = mean / (total[n] + own_weight)
            target = result + channel * layer * depth + (n // TZ * width + n % TZ * layer) + here
            tl.store(target, mean.to(result.dtype.element_ty), mask=is_inside)
