"""GPU kernels of the local blur, in Triton: a program computes a block of voxels and loops over the kernel's offsets.

They compute what `loop` computes, for spherical, diagonal and full covariances. Opposite offsets share their weight, so
the loops begin after the middle of the kernel: in the row that has it, and with whole rows from the next one on.
Nothing is added to voxels of other programs, so results have the same bits every time: the derivative with respect to
the image gathers what each voxel has contributed to its neighbours.
"""

from __future__ import annotations

# mypy: ignore-errors
# (Triton has no types, and its language shares only the syntax of Python.)
import triton
import triton.language as tl

NUMBERS = ["voxels", "height", "width", "planes", "padded_voxels", "padded_height", "padded_width", "channels",
           "reach_z", "reach_y", "reach_x"]  # fmt: skip
"""Arguments for whose values no kernel is compiled anew."""


@triton.jit
def position_of(number, height, width):
    """Return z, y, x of a voxel, counted row by row and plane by plane."""
    return number // width // height, number // width % height, number % width


@triton.jit
def place_in_padded(number, height, width, padded_height, padded_width, reach_z, reach_y, reach_x):
    """Return where a voxel lies in the padded volume."""
    z, y, x = position_of(number, height, width)
    return ((z + reach_z) * padded_height + y + reach_y) * padded_width + x + reach_x


@triton.jit
def entries_of(precision, at, inside, voxels, ENTRIES: tl.constexpr):
    """Read the precision: zz, zy, zx, yy, yx and xx. Only full ones have zy, zx and yx."""
    zz = tl.load(precision + at, mask=inside, other=0.0)
    zy, zx, yx, yy, xx = zz, zz, zz, zz, zz
    if ENTRIES == 3:
        yy = tl.load(precision + at + voxels, mask=inside, other=0.0)
        xx = tl.load(precision + at + 2 * voxels, mask=inside, other=0.0)
    if ENTRIES == 6:
        zy = tl.load(precision + at + voxels, mask=inside, other=0.0)
        zx = tl.load(precision + at + 2 * voxels, mask=inside, other=0.0)
        yy = tl.load(precision + at + 3 * voxels, mask=inside, other=0.0)
        yx = tl.load(precision + at + 4 * voxels, mask=inside, other=0.0)
        xx = tl.load(precision + at + 5 * voxels, mask=inside, other=0.0)
    return zz, zy, zx, yy, yx, xx


@triton.jit
def terms_of_row(zz, zy, zx, yy, yx, z, y, ENTRIES: tl.constexpr):
    """Return the terms of the logarithm of the weights at a distance z, y, ·, that of x⁰ and that of x¹."""
    constant = -0.5 * (zz * (z * z) + yy * (y * y))
    if ENTRIES == 6:
        return constant - zy * (z * y), -(zx * z + yx * y)
    return constant, tl.zeros_like(constant)


@triton.jit(do_not_specialize=NUMBERS)
def blur_voxels_kernel(
    padded,  # (channels, planes + 2·reach_z, padded_height, padded_width)
    precision,  # (ENTRIES, planes, height, width)
    result,  # (channels, planes, height, width)
    totals,  # (planes, height, width)
    channels,
    voxels,
    height,
    width,
    padded_voxels,
    padded_height,
    padded_width,
    reach_z,
    reach_y,
    reach_x,
    size_z,
    size_y,
    size_x,
    ENTRIES: tl.constexpr,
    CHANNELS: tl.constexpr,  # of a program
    BLOCK: tl.constexpr,  # voxels of a program
):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    channel = (tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)).to(tl.int64)[:, None]
    inside = at < voxels
    mask = (channel < channels) & inside[None, :]
    centre = place_in_padded(at, height, width, padded_height, padded_width, reach_z, reach_y, reach_x)
    places = padded + channel * padded_voxels + centre[None, :]
    own = tl.load(places, mask=mask, other=0.0)
    zz, zy, zx, yy, yx, xx = entries_of(precision, at, inside, voxels, ENTRIES)
    plane = padded_height.to(tl.int64) * padded_width
    total = tl.full([BLOCK], 1.0, tl.float32)
    change = tl.zeros([CHANNELS, BLOCK], tl.float32)
    rows = 2 * reach_y + 1
    middle = reach_z * rows + reach_y
    for row in range(middle, 2 * middle + 1):
        oz, oy = row // rows - reach_z, row % rows - reach_y
        constant, linear = terms_of_row(zz, zy, zx, yy, yx, oz * size_z, oy * size_y, ENTRIES)
        for ox in range(tl.where(row == middle, 1, -reach_x), reach_x + 1):
            dx = ox * size_x
            weight = tl.exp(constant + dx * (linear - 0.5 * dx * xx))
            step = oz * plane + oy * padded_width + ox
            near, far = tl.load(places + step, mask=mask, other=0.0), tl.load(places - step, mask=mask, other=0.0)
            change += weight[None, :] * (near + far - 2 * own)
            total += 2 * weight
    tl.store(result + channel * voxels + at[None, :], own + change / total[None, :], mask=mask)
    if tl.program_id(1) == 0:
        tl.store(totals + at, total, mask=inside)


@triton.jit(do_not_specialize=NUMBERS)
def by_precision_kernel(
    padded,  # as above
    precision,
    result,
    scaled,  # ∂L/∂ result over the sum of the weights, (channels, planes, height, width)
    by_precision,  # (ENTRIES, planes, height, width); ∂L/∂ precision is added to it
    channels,
    voxels,
    height,
    width,
    padded_voxels,
    padded_height,
    padded_width,
    reach_z,
    reach_y,
    reach_x,
    size_z,
    size_y,
    size_x,
    ENTRIES: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < voxels
    centre = place_in_padded(at, height, width, padded_height, padded_width, reach_z, reach_y, reach_x)
    zz, zy, zx, yy, yx, xx = entries_of(precision, at, inside, voxels, ENTRIES)
    plane = padded_height.to(tl.int64) * padded_width
    rows = 2 * reach_y + 1
    middle = reach_z * rows + reach_y
    nothing = tl.zeros([BLOCK], tl.float32)
    by_zz, by_zy, by_zx, by_yy, by_yx, by_xx = nothing, nothing, nothing, nothing, nothing, nothing
    for first in range(0, channels, CHANNELS):
        channel = (first + tl.arange(0, CHANNELS)).to(tl.int64)[:, None]
        mask = (channel < channels) & inside[None, :]
        places = padded + channel * padded_voxels + centre[None, :]
        own = tl.load(places, mask=mask, other=0.0)
        by_value = tl.load(scaled + channel * voxels + at[None, :], mask=mask, other=0.0)
        blurred = tl.load(result + channel * voxels + at[None, :], mask=mask, other=0.0)
        mean = tl.sum(by_value * (blurred - own), 0)
        for row in range(middle, 2 * middle + 1):
            oz, oy = row // rows - reach_z, row % rows - reach_y
            dz, dy = oz * size_z, oy * size_y
            constant, linear = terms_of_row(zz, zy, zx, yy, yx, dz, dy, ENTRIES)
            sums, sums_x, sums_xx = nothing, nothing, nothing
            for ox in range(tl.where(row == middle, 1, -reach_x), reach_x + 1):
                dx = ox * size_x
                weight = tl.exp(constant + dx * (linear - 0.5 * dx * xx))
                step = oz * plane + oy * padded_width + ox
                near, far = tl.load(places + step, mask=mask, other=0.0), tl.load(places - step, mask=mask, other=0.0)
                change = weight * (tl.sum(by_value * (near + far - 2 * own), 0) - 2 * mean)
                sums += change
                sums_x += dx * change
                sums_xx += dx * dx * change
            by_zz -= 0.5 * dz * dz * sums
            by_zy -= dz * dy * sums
            by_zx -= dz * sums_x
            by_yy -= 0.5 * dy * dy * sums
            by_yx -= dy * sums_x
            by_xx -= 0.5 * sums_xx
    if ENTRIES == 1:
        add_to(by_precision + at, by_zz + by_yy + by_xx, inside)
    if ENTRIES == 3:
        add_to(by_precision + at, by_zz, inside)
        add_to(by_precision + at + voxels, by_yy, inside)
        add_to(by_precision + at + 2 * voxels, by_xx, inside)
    if ENTRIES == 6:
        add_to(by_precision + at, by_zz, inside)
        add_to(by_precision + at + voxels, by_zy, inside)
        add_to(by_precision + at + 2 * voxels, by_zx, inside)
        add_to(by_precision + at + 3 * voxels, by_yy, inside)
        add_to(by_precision + at + 4 * voxels, by_yx, inside)
        add_to(by_precision + at + 5 * voxels, by_xx, inside)


@triton.jit
def add_to(places, values, mask):
    """Add values to those at places that no other program has."""
    tl.store(places, tl.load(places, mask=mask, other=0.0) + values, mask=mask)


@triton.jit(do_not_specialize=NUMBERS)
def by_image_kernel(
    precision,  # as above
    scaled,
    by_image,  # (channels, planes + 2·reach_z, padded_height, padded_width); ∂L/∂ padded is added to it
    channels,
    voxels,
    planes,
    height,
    width,
    padded_voxels,
    padded_height,
    padded_width,
    reach_z,
    reach_y,
    reach_x,
    size_z,
    size_y,
    size_x,
    ENTRIES: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    channel = (tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)).to(tl.int64)[:, None]
    z, y, x = position_of(at, padded_height, padded_width)
    spread = tl.zeros([CHANNELS, BLOCK], tl.float32)
    rows = 2 * reach_y + 1
    for row in range((2 * reach_z + 1) * rows):
        oz, oy = row // rows - reach_z, row % rows - reach_y
        from_z, from_y = z - reach_z - oz, y - reach_y - oy
        there = (from_z >= 0) & (from_z < planes) & (from_y >= 0) & (from_y < height)
        for ox in range(-reach_x, reach_x + 1):
            from_x = x - reach_x - ox  # `at` lies at this offset from the voxel `source` of the result
            inside = there & (from_x >= 0) & (from_x < width)
            source = (from_z * height + from_y) * width + from_x
            zz, zy, zx, yy, yx, xx = entries_of(precision, source, inside, voxels, ENTRIES)
            constant, linear = terms_of_row(zz, zy, zx, yy, yx, oz * size_z, oy * size_y, ENTRIES)
            dx = ox * size_x
            weight = tl.exp(constant + dx * (linear - 0.5 * dx * xx))
            mask = (channel < channels) & inside[None, :]
            spread += weight[None, :] * tl.load(scaled + channel * voxels + source[None, :], mask=mask, other=0.0)
    mask = (channel < channels) & (at < padded_voxels)[None, :]
    add_to(by_image + channel * padded_voxels + at[None, :], spread, mask)
