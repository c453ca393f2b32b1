"""GPU kernel that finds similar patches, in Triton: one program per reference patch.

It measures candidates in the order in which they lie in memory, so that neighbours load together. As on a CPU, it finds
the largest distance taken by bisection: this compiles in one second, a sort in fifteen.
"""

from __future__ import annotations

# mypy: ignore-errors
# (Triton has no types, and its language shares only the syntax of Python.)
import triton
import triton.language as tl

OUTSIDE_BITS = tl.constexpr(2**31 - 3)
"""Stands for the distance of a candidate outside the volume: larger than the bits of any float, and small enough that
adding 2 does not overflow an int32."""


@triton.jit
def smallest_with(values, mask, wanted, LOW: tl.constexpr, HIGH: tl.constexpr, STEPS: tl.constexpr):
    """Find the smallest number above LOW, at most HIGH, that `wanted` of the values in the mask do not exceed."""
    low, high = tl.full((), LOW, tl.int32), tl.full((), HIGH, tl.int32)
    for _ in range(STEPS):
        middle = low + (high - low) // 2
        enough = tl.sum((mask & (values <= middle)).to(tl.int32)) >= wanted
        high = tl.where(enough, middle, high)
        low = tl.where(enough, low, middle)
    return high


@triton.jit(do_not_specialize=["first_plane", "channels", "depth", "height", "width"])
def nearest_patches(
    guide,  # (channels, depth, height, width)
    floor,  # one number per reference patch
    slots,  # (candidates,): see `grid.candidates`
    corners,  # (references, COUNT)
    first_plane,
    rows,
    columns,
    channels,
    depth,
    height,
    width,
    STEP_Z: tl.constexpr,
    STEP_Y: tl.constexpr,
    STEP_X: tl.constexpr,
    SIZE_Z: tl.constexpr,
    SIZE_Y: tl.constexpr,
    SIZE_X: tl.constexpr,
    RADIUS_Z: tl.constexpr,
    RADIUS_Y: tl.constexpr,
    RADIUS_X: tl.constexpr,
    COUNT: tl.constexpr,
    BLOCK: tl.constexpr,  # candidates, rounded up to a power of two
    LOG_BLOCK: tl.constexpr,
):
    WINDOW_Y: tl.constexpr = 2 * RADIUS_Y + 1
    WINDOW_X: tl.constexpr = 2 * RADIUS_X + 1
    CANDIDATES: tl.constexpr = (2 * RADIUS_Z + 1) * WINDOW_Y * WINDOW_X
    reference = tl.program_id(0)
    z = (first_plane + reference // (rows * columns)) * STEP_Z
    y = reference // columns % rows * STEP_Y
    x = reference % columns * STEP_X

    k = tl.arange(0, BLOCK)
    near_z = z + k // (WINDOW_Y * WINDOW_X) - RADIUS_Z
    near_y = y + k // WINDOW_X % WINDOW_Y - RADIUS_Y
    near_x = x + k % WINDOW_X - RADIUS_X
    inside = (near_z >= 0) & (near_z <= depth - SIZE_Z) & (near_y >= 0) & (near_y <= height - SIZE_Y)
    inside = inside & (near_x >= 0) & (near_x <= width - SIZE_X) & (k < CANDIDATES)

    here = (z.to(tl.int64) * height + y) * width + x
    there = (near_z.to(tl.int64) * height + near_y) * width + near_x
    total = tl.zeros([BLOCK], tl.float32)
    volume = guide
    for _ in range(channels):
        for row in range(SIZE_Z * SIZE_Y):
            first = (row // SIZE_Y * height + row % SIZE_Y) * width
            for w in tl.static_range(SIZE_X):
                neighbour = tl.load(volume + there + (first + w), mask=inside, other=0.0)
                difference = neighbour - tl.load(volume + here + (first + w))
                total += difference * difference
        volume += depth.to(tl.int64) * height * width

    total = tl.minimum(tl.maximum(total, tl.load(floor + reference)), 3e38)
    bits = total.to(tl.int32, bitcast=True)  # non-negative floats have the order of their bits
    bits = tl.where(k == CANDIDATES // 2, -1, bits)  # the reference patch itself
    bits = tl.where(inside, bits, OUTSIDE_BITS)
    limit = smallest_with(bits, inside, COUNT, -2, OUTSIDE_BITS, 31)
    equal = inside & (bits == limit)
    slot = tl.load(slots + k, mask=k < CANDIDATES, other=BLOCK)
    last = smallest_with(slot, equal, COUNT - tl.sum((bits < limit).to(tl.int32)), -1, BLOCK, LOG_BLOCK + 1)
    taken = (bits < limit) | (equal & (slot <= last))
    place = reference.to(tl.int64) * COUNT + tl.cumsum(taken.to(tl.int32)) - 1
    tl.store(corners + place, there, mask=taken)
