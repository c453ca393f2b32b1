"""The kernel that finds similar patches on a GPU: one program per reference patch, `group_kernels.match` in Triton.

Candidates are measured in the order in which they lie in memory, so that neighbours load together. Sorted are integers
that hold the distance above and the place in the order of `groups.find` below, which decides between equals.
"""

from __future__ import annotations

# mypy: ignore-errors
# (Triton has no types, and its language is Python's in syntax only.)
import triton
import triton.language as tl

LAST = tl.constexpr(2**63 - 1)
"""Of candidates outside the volume."""


@triton.jit(do_not_specialize=["first_plane", "channels", "depth", "height", "width"])
def nearest_patches(
    guide,  # (channels, depth, height, width)
    floor,  # one number per reference patch
    slots,  # (candidates,): the place of each in the order
    order,  # (candidates,): from a corner to each corner, in the order
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
        for u in tl.static_range(SIZE_Z):
            for v in tl.static_range(SIZE_Y):
                for w in tl.static_range(SIZE_X):
                    voxel = (u * height + v) * width + w
                    neighbour = tl.load(volume + there + voxel, mask=inside, other=0.0)
                    difference = neighbour - tl.load(volume + here + voxel)
                    total += difference * difference
        volume += depth.to(tl.int64) * height * width

    total = tl.maximum(total, tl.load(floor + reference))
    bits = total.to(tl.int32, bitcast=True).to(tl.int64)  # of numbers that are not negative, in the order of these
    bits = tl.where(k == CANDIDATES // 2, -1, bits)  # the reference patch itself
    slot = tl.load(slots + k, mask=k < CANDIDATES, other=0)
    key = tl.where(inside, (bits << 32) + slot, LAST)
    found = tl.sort(key) & 0xFFFFFFFF
    shift = tl.load(order + found, mask=k < COUNT, other=0)
    tl.store(corners + reference.to(tl.int64) * COUNT + k, here + shift, mask=k < COUNT)
