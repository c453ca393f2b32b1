"""GPU kernel of the sliding DCT, in Triton: each lane filters one patch in its registers.

The patches of the 32 lanes of a warp lie side by side along x. A patch is a tuple of blocks of shape (WARPS, 32), each
with one element per thread, in the order of its voxels. It is read, transformed and added plane by plane: unrolled
entirely, the kernel would compile for a minute. A lane sums what its own patch and those of the three lanes before it
add to one voxel of each row, so that every voxel is written by one lane.

A launch filters patches that do not overlap along z and y: every fourth one. So sums need no atomics, and always have
the same order.
"""

from __future__ import annotations

# mypy: ignore-errors
# (Triton has no types, and its language shares only the syntax of Python.)
import triton
import triton.language as tl

LANES_SUMMED = tl.constexpr(29)
"""Lanes of a warp whose sums are complete: the first three only add to those of others."""

HALF = tl.constexpr(0.5)
COSINE, SINE = tl.constexpr(0.6532814824381883), tl.constexpr(0.2705980500730985)
"""Of an eighth of pi, times √½."""


@triton.jit
def forth(a, b, c, d):
    """Return the orthonormal DCT-II of four values."""
    outer, inner = a - d, b - c
    even, odd = (a + d) * HALF, (b + c) * HALF
    return even + odd, outer * COSINE + inner * SINE, even - odd, outer * SINE - inner * COSINE


@triton.jit
def back(a, b, c, d):
    """Return the inverse of `forth`."""
    even, odd = (a + c) * HALF, (a - c) * HALF
    outer, inner = b * COSINE + d * SINE, b * SINE - d * COSINE
    return even + outer, odd + inner, odd - inner, even - outer


@triton.jit
def along(values, COUNT: tl.constexpr, STRIDE: tl.constexpr, INVERSE: tl.constexpr):
    """Transform COUNT values along the axis on which neighbours are STRIDE apart; it is 4 long."""
    found = ()
    for n in tl.static_range(COUNT // 4):
        a = values[n // STRIDE * 4 * STRIDE + n % STRIDE]
        b = values[n // STRIDE * 4 * STRIDE + n % STRIDE + STRIDE]
        c = values[n // STRIDE * 4 * STRIDE + n % STRIDE + 2 * STRIDE]
        d = values[n // STRIDE * 4 * STRIDE + n % STRIDE + 3 * STRIDE]
        if INVERSE:
            found += back(a, b, c, d)
        else:
            found += forth(a, b, c, d)
    result = ()
    for n in tl.static_range(COUNT):
        result += (found[(n // (4 * STRIDE) * STRIDE + n % STRIDE) * 4 + n // STRIDE % 4],)
    return result


@triton.jit
def in_plane(values, SIZE_Y: tl.constexpr, INVERSE: tl.constexpr):
    """Transform a plane of a patch along x, and along y if it has more than one row."""
    result = along(values, SIZE_Y * 4, 1, INVERSE)
    if SIZE_Y > 1:
        result = along(result, SIZE_Y * 4, 4, INVERSE)
    return result


@triton.jit
def coefficients_of(
    volume, here, valid, plane, line, matrix, SIZE_Z: tl.constexpr, SIZE_Y: tl.constexpr, WARPS: tl.constexpr
):
    """Read the patches at `here` and transform them; `matrix` is the DCT along z."""
    AREA: tl.constexpr = SIZE_Y * 4
    found = ()
    for _ in tl.static_range(SIZE_Z * AREA):
        found += (tl.zeros([WARPS, 32], tl.float32),)
    for u in range(SIZE_Z):
        values = ()
        for n in tl.static_range(AREA):
            values += (tl.load(volume + (here + (n // 4 * line + n % 4)), mask=valid, other=0.0),)
        values = in_plane(values, SIZE_Y, False)
        sums = ()
        for k in tl.static_range(SIZE_Z):
            factor = tl.load(matrix + (k * SIZE_Z + u))
            for n in tl.static_range(AREA):
                sums += (found[k * AREA + n] + factor * values[n],)
        found = sums
        here += plane
    return found


@triton.jit
def plane_of(coefficients, matrix, u, SIZE_Z: tl.constexpr, SIZE_Y: tl.constexpr):
    """Transform coefficients back to the voxels of plane `u` of the patches."""
    AREA: tl.constexpr = SIZE_Y * 4
    sums = ()
    for n in tl.static_range(AREA):
        sums += (coefficients[n] * tl.load(matrix + u),)
    for k in tl.static_range(1, SIZE_Z):
        factor = tl.load(matrix + (k * SIZE_Z + u))
        more = ()
        for n in tl.static_range(AREA):
            more += (sums[n] + factor * coefficients[k * AREA + n],)
        sums = more
    return in_plane(sums, SIZE_Y, True)


@triton.jit
def before(values, lanes, DISTANCE: tl.constexpr):
    """Return the values of the lane that is DISTANCE before each."""
    return tl.gather(values, tl.maximum(lanes - DISTANCE, 0), 1)


@triton.jit(do_not_specialize=["first_z", "first_y", "positions_y", "positions_x", "plane", "line"])
def filter_patches_kernel(
    noisy,  # padded volume, flat
    pilot,
    levels,  # variance of the noise: one number, or one per patch
    matrix,  # DCT along z, (SIZE_Z, SIZE_Z)
    spectrum,  # variance of the noise in each coefficient, relative to its mean
    total,  # sums of the weighted patches, of the shape of the padded volume
    weights,  # one per patch
    strength,  # threshold², or the factor on the noise variance
    first_z,
    first_y,
    positions_y,  # patches along y
    positions_x,
    plane,  # voxels in a plane of the padded volume
    line,  # voxels in a line of the padded volume
    WIENER: tl.constexpr,
    VARYING: tl.constexpr,  # the variance differs from patch to patch
    SIZE_Z: tl.constexpr,
    SIZE_Y: tl.constexpr,
    WARPS: tl.constexpr,
):
    VOXELS: tl.constexpr = SIZE_Z * SIZE_Y * 4
    lane = tl.arange(0, 32)[None, :]
    lanes = lane + tl.zeros([WARPS, 1], tl.int32)
    x = tl.program_id(0) * LANES_SUMMED + lanes - 3
    y = first_y + SIZE_Y * (tl.program_id(1) * WARPS + tl.arange(0, WARPS)[:, None]) + tl.zeros([1, 32], tl.int32)
    z = (first_z + SIZE_Z * tl.program_id(2)).to(tl.int64)
    valid = (x >= 0) & (x < positions_x) & (y < positions_y)
    here = z * plane + y * line + x
    patch = (z * positions_y + y) * positions_x + x
    level = tl.load(levels + patch, mask=valid, other=1.0) if VARYING else tl.load(levels)

    kept = tl.zeros([WARPS, 32], tl.float32) + tl.load(spectrum)
    values = coefficients_of(noisy, here, valid, plane, line, matrix, SIZE_Z, SIZE_Y, WARPS)
    if WIENER:
        oracle = coefficients_of(pilot, here, valid, plane, line, matrix, SIZE_Z, SIZE_Y, WARPS)
        shrunk = (values[0],)
        for n in tl.static_range(1, VOXELS):
            share = tl.load(spectrum + n)
            energy = oracle[n] * oracle[n]
            gain = energy / tl.maximum(energy + strength * level * share, 1e-30)
            kept += gain * gain * share
            shrunk += (values[n] * gain,)
    else:
        shrunk = (values[0],)
        for n in tl.static_range(1, VOXELS):
            share = tl.load(spectrum + n)
            above = values[n] * values[n] > strength * level * share
            kept += tl.where(above, share, 0.0)
            shrunk += (tl.where(above, values[n], 0.0),)
    weight = tl.where(valid, 1 / (kept * level), 0.0)
    tl.store(weights + patch, weight, mask=valid & (lanes >= 3))

    written = (lanes >= 3) & (x < positions_x + 3) & (y < positions_y)
    target = total + here
    for u in range(SIZE_Z):
        restored = plane_of(shrunk, matrix, u, SIZE_Z, SIZE_Y)
        for v in tl.static_range(SIZE_Y):
            summed = restored[4 * v] * weight
            for w in tl.static_range(1, 4):
                summed += before(restored[4 * v + w] * weight, lanes, w)
            tl.store(target + v * line, tl.load(target + v * line, mask=written, other=0.0) + summed, mask=written)
        target += plane
