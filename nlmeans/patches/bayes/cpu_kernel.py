"""CPU kernel of non-local Bayes: the filter of `nl_bayes.filter_group` and the averaging, one group at a time.

All matrices of a group lie in one array of about 100 kB (`GroupLayout`), which fits the caches of a core. They are
stored row by row, and rows are padded with zeros to whole vectors (kernels/vector.py). Q and P are those of
`nl_bayes.filter_group`; A = P Pᵀ + ρI has the Cholesky factor U (A = UᵀU)::

    [A | P]  →  [U | V]      by Gaussian elimination, V = U⁻ᵀP, so that PᵀA⁻¹P = VᵀV
    S = Q Vᵀ                 ‖S‖² = ⟨F, Q⟩
    F = S V                  f = ‖V‖², the degrees of freedom

This needs neither an inverse nor a sum across lanes. Smoothing across patches needs the inverse::

    [A | P | I]  →  [U | V | J]      J = U⁻ᵀ, so that A⁻¹ = JᵀJ
    D = −ρ Jᵀ (J F)

Steep groups are filtered by the same code in float64. Where a product needs the columns of a factor as vectors, the
array holds the transposed factor as well. Compiled functions have no type hints, because vectors and literals have no
Python type.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from nlmeans.core.lags import Whitening
from nlmeans.kernels.matrix import TILE_ROWS, multiply, multiply_row, transpose
from nlmeans.kernels.vector import (
    LANES,
    Floats,
    Reals,
    add_four,
    add_two,
    copy_four,
    inlined_kernel,
    inner_kernel,
    load,
    number_like,
    splat,
    store,
    total,
    vector_kernel,
)
from nlmeans.patches.kernel_constants import ACROSS_FREEDOM, LEAST_DETERMINANT, TINY


class GroupLayout(NamedTuple):
    """Positions of the matrices of a group in the scratch array, and their sizes, in floats."""

    patches: int
    """K, the number of patches in a group."""
    voxels: int
    """Voxels in a patch."""
    height: int
    """K, padded to whole vectors."""
    width: int
    """Voxels in a patch, padded to whole vectors."""
    pitch: int
    """Distance between rows of [A | P], or of [A | P | I] if patches are smoothed across the group."""
    system: int
    """[A | P] or [A | P | I], then [U | V] or [U | V | J]: height × pitch."""
    guide: int
    """P within [A | P]."""
    half: int
    """I within [A | P | I], then J; the next row if there is none."""
    guide_columns: int
    """Pᵀ, width × height; then F, height × width."""
    noisy: int
    """Q, height × width."""
    noisy_columns: int
    """Qᵀ, width × height; then J F, height × width."""
    shares: int
    """Sᵀ, height × height."""
    guide_mean: int
    """ḡ, width."""
    noisy_mean: int
    """ȳ, then m, width."""
    guide_spectrum: int
    """DCT of ḡ, width."""
    noisy_spectrum: int
    """DCT of ȳ, width."""
    window: int
    """Taper of a patch times the weight of the group, width."""
    finished: int
    """Filtered patch as it is added to the volume, width."""
    taper: int
    """Taper of a patch, width."""
    basis: int
    """DCT matrix, width × width: a row is a basis function."""
    basis_columns: int
    """DCT matrix, transposed."""
    spectrum: int
    """Variance of the noise in each coefficient of the DCT, relative to its mean, width."""
    whiten: int
    """Matrix that makes the noise of a patch white, width × width."""
    colour: int
    """Its inverse, width × width."""
    spare: int
    """Patches as they were read, before they are whitened, height × width; then D."""
    size: int
    """Length of the whole array."""

    @classmethod
    def of(cls, count: int, voxels: int, across: bool = False) -> GroupLayout:
        """Lay out the matrices for `count` patches of `voxels` voxels, which are smoothed across the group or not."""
        height, width = (-(-n // LANES) * LANES for n in (count, voxels))
        half = height + width
        pitch = half + height if across else half
        sizes = {
            "system": height * pitch,
            "guide_columns": width * height,
            "noisy": height * width,
            "noisy_columns": width * height,
            "shares": height * height,
            **dict.fromkeys(
                ("guide_mean", "noisy_mean", "guide_spectrum", "noisy_spectrum", "window", "finished", "taper"), width
            ),
            "basis": width * width,
            "basis_columns": width * width,
            "spectrum": width,
            "whiten": width * width,
            "colour": width * width,
            "spare": height * width,
        }
        return cls(count, voxels, height, width, pitch, guide=height, half=half, **side_by_side(sizes))


def side_by_side(sizes: dict[str, int]) -> dict[str, int]:
    """Place matrices one after the other; return the start of each, and as `size` the length of all.

    >>> side_by_side({"system": 6, "noisy": 4})
    {'system': 0, 'noisy': 6, 'size': 10}
    """
    ends = itertools.accumulate(sizes.values(), initial=0)
    return dict(zip([*sizes, "size"], ends, strict=True))


class FilterConstants(NamedTuple):
    """Numbers that are the same for all groups of a volume."""

    strength: float
    """Factor on the noise variance."""
    steepest: float
    """Steepness above which a group is left out."""
    least_variance: float
    """Lower limit of the noise variance in the weight of a group."""
    patch_rows: npt.NDArray[np.int64]
    """Flat distance of each row of a patch from its corner."""
    row_length: int
    """Voxels in a row of a patch."""
    rounding: float
    """Distance from 1 to the next number in the precision of the scratch array."""
    correlated: bool
    """Whether the noise of neighbouring voxels is correlated, so that patches are whitened."""
    across: bool
    """Whether patches are also smoothed across the group."""


def scratch_array(
    layout: Any,
    taper: Floats,
    basis: npt.NDArray[np.float64],
    noise: Whitening | None,
    dtype: type[np.floating] = np.float32,
) -> Reals:
    """Make the scratch array of a thread. Everything that is the same for all groups is in it already.

    The layout is a `GroupLayout`, or that of another kernel with the same names. Groups are filtered in the precision
    of this array.
    """
    array: Reals = np.zeros(layout.size, dtype)
    square = np.zeros((layout.width, layout.width), dtype)
    square[: layout.voxels, : layout.voxels] = basis
    array[layout.taper : layout.taper + layout.voxels] = taper
    array[layout.basis : layout.basis + square.size] = square.ravel()
    array[layout.basis_columns : layout.basis_columns + square.size] = square.T.ravel()
    array[layout.spectrum : layout.spectrum + layout.voxels] = 1
    if noise is not None:
        array[layout.spectrum : layout.spectrum + layout.voxels] = noise.spectrum(torch.from_numpy(basis)).numpy()
        for place, matrix in ((layout.whiten, noise.whiten), (layout.colour, noise.colour)):
            square[: layout.voxels, : layout.voxels] = matrix.numpy()
            array[place : place + square.size] = square.ravel()
    return array


@inlined_kernel
def read_row(volume, source, array, at, length):
    """Copy one row of a patch."""
    for x in range(0, length - 3, 4):
        copy_four(volume, source + x, array, at + x)
    for x in range(length // 4 * 4, length):
        array[at + x] = volume[source + x]


@inner_kernel
def read_group(volume, corners, patch_rows, row_length, array, target, pitch):
    """Copy patches to the rows of a matrix.

    Up to 3 voxels beyond a row are copied too, which is faster, and replaced by the next row.
    """
    last = patch_rows.size - 1
    for k in range(corners.size):
        at = target + k * pitch
        for r in range(last):
            source = corners[k] + patch_rows[r]
            if row_length < 3:
                read_row(volume, source, array, at, row_length)
            else:
                for x in range(0, row_length, 4):
                    copy_four(volume, source + x, array, at + x)
            at += row_length
        read_row(volume, corners[k] + patch_rows[last], array, at, row_length)


@inner_kernel
def centre(array, matrix, pitch, width, count, mean):
    """Subtract the mean of `count` rows from them. Return the sum of squares that is left."""
    share, zero = splat(number_like(array, 1 / count)), splat(number_like(array, 0))
    squares = zero
    for x in range(0, width, LANES):
        sums = zero
        for k in range(count):
            sums = sums + load(array, matrix + k * pitch + x)
        middle = sums * share
        store(array, mean + x, middle)
        for k in range(count):
            value = load(array, matrix + k * pitch + x) - middle
            store(array, matrix + k * pitch + x, value)
            squares = squares + value * value
    return total(squares)


@inlined_kernel
def sum_of_squares(array, first, size):
    """Sum the squares of a matrix whose `size` is a multiple of four vectors."""
    a = b = c = d = splat(number_like(array, 0))
    for i in range(first, first + size, 4 * LANES):
        v0, v1, v2, v3 = load(array, i), load(array, i + LANES), load(array, i + 2 * LANES), load(array, i + 3 * LANES)
        a, b, c, d = a + v0 * v0, b + v1 * v1, c + v2 * v2, d + v3 * v3
    return total((a + b) + (c + d))


@inner_kernel
def filter_mean(array, layout, variance):
    """Replace the noisy mean by the filtered one; return Σ gain². See `nl_bayes.filter_mean_patches`."""
    vectors = layout.width // LANES
    multiply_row(array, layout.guide_spectrum, layout.guide_mean, layout.basis_columns, layout.width, vectors)
    multiply_row(array, layout.noisy_spectrum, layout.noisy_mean, layout.basis_columns, layout.width, vectors)
    freedom = 1.0
    for u in range(1, layout.voxels):
        energy = array[layout.guide_spectrum + u] ** 2
        gain = energy / (energy + variance * array[layout.spectrum + u])
        array[layout.noisy_spectrum + u] *= gain
        freedom += gain * gain
    multiply_row(array, layout.noisy_mean, layout.noisy_spectrum, layout.basis, layout.width, vectors)
    return freedom


@inner_kernel
def eliminate(array, layout, ridge):
    """Turn [A | P] into [U | V], TILE_ROWS = 4 rows at a time; return ‖V‖². Only the upper half of A is read.

    Columns after P are eliminated as well: row i of J has i + 1 of them, the others are zeros already.
    """
    pitch = layout.pitch
    squares = splat(number_like(array, 0))
    one, least = number_like(array, 1), number_like(array, ridge)
    for i in range(0, layout.height, TILE_ROWS):
        first = i // LANES * LANES
        row, end = layout.system + i * pitch, min(pitch, layout.half + first + LANES)
        multiply(array, row + first, pitch, layout.system + i, 1, pitch, layout.system + first, pitch, i,
                 (end - first) // LANES, True)  # fmt: skip
        d = row + i
        # in exact arithmetic, no pivot is less than the ridge on the diagonal
        r0 = one / np.sqrt(max(array[d], least))
        l01, l02, l03 = array[d + 1] * r0, array[d + 2] * r0, array[d + 3] * r0
        d += pitch
        r1 = one / np.sqrt(max(array[d + 1] - l01 * l01, least))
        l12, l13 = (array[d + 2] - l01 * l02) * r1, (array[d + 3] - l01 * l03) * r1
        d += pitch
        r2 = one / np.sqrt(max(array[d + 2] - l02 * l02 - l12 * l12, least))
        l23 = (array[d + 3] - l02 * l03 - l12 * l13) * r2
        d += pitch
        r3 = one / np.sqrt(max(array[d + 3] - l03 * l03 - l13 * l13 - l23 * l23, least))
        for x in range(first, end, LANES):
            at = row + x
            v0 = load(array, at) * splat(r0)
            v1 = (load(array, at + pitch) - splat(l01) * v0) * splat(r1)
            v2 = (load(array, at + 2 * pitch) - splat(l02) * v0 - splat(l12) * v1) * splat(r2)
            v3 = load(array, at + 3 * pitch) - splat(l03) * v0 - splat(l13) * v1 - splat(l23) * v2
            v3 = v3 * splat(r3)
            store(array, at, v0)
            store(array, at + pitch, v1)
            store(array, at + 2 * pitch, v2)
            store(array, at + 3 * pitch, v3)
            if layout.height <= x < layout.half:
                squares = squares + (v0 * v0 + v1 * v1) + (v2 * v2 + v3 * v3)
    return total(squares)


@inner_kernel
def regularise(array, layout, noise, rounding):
    """Add to the diagonal of A the noise, and what rounding needs, and write I if there is room. Return the ridge."""
    pitch = layout.pitch
    diagonal = 0.0
    for i in range(layout.patches):
        diagonal += array[layout.system + i * (pitch + 1)]
    ridge = number_like(array, noise + 2 * rounding * diagonal + 1e-12)
    for i in range(layout.height):
        array[layout.system + i * (pitch + 1)] += ridge
        for j in range(layout.half, pitch):
            array[layout.system + i * pitch + j] = 0
        if layout.half < pitch:
            array[layout.system + i * pitch + layout.half + i] = 1
    return ridge


@inner_kernel
def wiener_of_group(array, layout, noise, rounding):
    """Compute V and F from P and Q; return f, the degrees of freedom, and the ridge on the diagonal of A."""
    height, width, pitch = layout.height, layout.width, layout.pitch
    for i in range(0, height, TILE_ROWS):
        first = i // LANES * LANES
        multiply(array, layout.system + i * pitch + first, pitch, layout.guide_columns + i, 1, height,
                 layout.guide_columns + first, height, layout.voxels, (height - first) // LANES, False)  # fmt: skip
    ridge = regularise(array, layout, noise, rounding)
    freedom = eliminate(array, layout, ridge)
    for k in range(0, height, TILE_ROWS):
        multiply(array, layout.shares + k * height, height, layout.guide + k * pitch, pitch, 1,
                 layout.noisy_columns, height, layout.voxels, height // LANES, False)  # fmt: skip
    for i in range(0, height, TILE_ROWS):
        multiply(array, layout.guide_columns + i * width, width, layout.shares + i, 1, height,
                 layout.guide, pitch, layout.patches, width // LANES, False)  # fmt: skip
    return freedom, ridge


@inlined_kernel
def clamp(value, low, high):
    """Limit a value to a range."""
    return min(max(value, low), high)


@inner_kernel
def inner_product(array, first, second, size):
    """Return the inner product of two matrices whose `size` is a multiple of a vector."""
    products = splat(number_like(array, 0))
    for i in range(0, size, LANES):
        products = products + load(array, first + i) * load(array, second + i)
    return total(products)


@inner_kernel
def smooth_group_across(array, layout, variance, freedom, ridge, ff, fq):
    """Replace F by F + t·D of `bayes.filter_group`; return the new f, ⟨F, F⟩ and ⟨F, Q⟩."""
    height, width, pitch = layout.height, layout.width, layout.pitch
    half = layout.system + layout.half
    for i in range(0, height, TILE_ROWS):
        multiply(array, layout.noisy_columns + i * width, width, half + i * pitch, pitch, 1,
                 layout.guide_columns, width, i + TILE_ROWS, width // LANES, False)  # fmt: skip
    for i in range(0, height, TILE_ROWS):
        multiply(array, layout.spare + i * width, width, half + i * pitch + i, 1, pitch,
                 layout.noisy_columns + i * width, width, height - i, width // LANES, False)  # fmt: skip
    size, scale = height * width, -np.float64(ridge)
    df = scale * np.float64(sum_of_squares(array, layout.noisy_columns, size))
    dq = scale * np.float64(inner_product(array, layout.spare, layout.noisy, size))
    dd = scale * scale * np.float64(sum_of_squares(array, layout.spare, size))
    saved = freedom * (layout.patches - 1 - freedom)
    share = clamp((dq - df + ACROSS_FREEDOM * variance * saved) / (dd + TINY), 0.0, 1.0)
    part = splat(number_like(array, share * scale))
    for x in range(0, size, LANES):
        at = layout.guide_columns + x
        store(array, at, load(array, at) + part * load(array, layout.spare + x))
    freedom -= share * saved / max(layout.patches - 1, 1)
    return freedom, ff + share * (2 * df + share * dd), fq + share * dq


@inlined_kernel
def scalar_least_risk(ff, fq, qq, f_noise, q_noise):
    """Compute a and b of one group; see `nl_bayes.least_risk`."""
    held = ff + f_noise + TINY
    q_gain = qq - q_noise
    determinant = max(held * qq - fq * fq, LEAST_DETERMINANT * held * qq + TINY)
    kept = clamp((held * q_gain - fq * fq) / determinant, 0.0, 1.0)
    return clamp((fq - kept * fq) / held, 0.0, 1.5), kept


@inner_kernel
def multiply_patches(array, layout, rows, matrix, target, pitch):
    """Multiply the patches of a group, height × width, by a square matrix; return the sum of squares of the result."""
    width = layout.width
    squares = splat(number_like(array, 0))
    for i in range(0, layout.height, TILE_ROWS):
        multiply(array, target + i * pitch, pitch, rows + i * width, width, 1, matrix, width, width, width // LANES,
                 False)  # fmt: skip
        for r in range(i, i + TILE_ROWS):
            for x in range(0, width, LANES):
                value = load(array, target + r * pitch + x)
                squares = squares + value * value
    return total(squares)


@inner_kernel
def read_centred(volume, corners, options, array, layout, target, pitch, mean):
    """Read the patches of a group without their mean, whitened if need be; return the sum of squares."""
    rows, row_pitch = (layout.spare, layout.width) if options.correlated else (target, pitch)
    read_group(volume, corners, options.patch_rows, options.row_length, array, rows, row_pitch)
    squares = centre(array, rows, row_pitch, layout.width, layout.patches, mean)
    if options.correlated:
        squares = multiply_patches(array, layout, rows, layout.whiten, target, pitch)
    return squares


@inner_kernel
def mix(array, layout, amplitude, kept):
    """Replace Q by a·F + b·Q."""
    a, b = splat(number_like(array, amplitude)), splat(number_like(array, kept))
    for x in range(0, layout.height * layout.width, LANES):
        value = a * load(array, layout.guide_columns + x) + b * load(array, layout.noisy + x)
        store(array, layout.noisy + x, value)


@inner_kernel
def add_group(array, layout, amplitude, kept, weight, corners, patch_rows, row_length, sums, weights):
    """Add the patches m + a·F + b·Q to `sums`, and the weight of the group to `weights` at their corners."""
    width = layout.width
    a, b, scale = (
        splat(number_like(array, amplitude)),
        splat(number_like(array, kept)),
        splat(number_like(array, weight)),
    )
    for x in range(0, width, LANES):
        store(array, layout.window + x, load(array, layout.taper + x) * scale)
    for k in range(corners.size):
        weights[corners[k]] += np.float32(weight)
        for x in range(0, width, LANES):
            at = k * width + x
            value = load(array, layout.noisy_mean + x) + a * load(array, layout.guide_columns + at)
            value = value + b * load(array, layout.noisy + at)
            store(array, layout.finished + x, value * load(array, layout.window + x))
        at = layout.finished
        for r in range(patch_rows.size):
            target = corners[k] + patch_rows[r]
            for x in range(0, row_length - 3, 4):
                add_four(array, at + x, sums, target + x)
            x = row_length // 4 * 4
            if row_length - x >= 2:
                add_two(array, at + x, sums, target + x)
                x += 2
            if x < row_length:
                sums[target + x] += array[at + x]
            at += row_length


@inlined_kernel
def variance_of_group(variances, corners):
    """Return the one number that there is, or the mean at the corners of the patches."""
    if variances.size == 1:
        return variances[0]
    variance = np.float32(0)
    for k in range(corners.size):
        variance += variances[corners[k]]
    return variance / np.float32(corners.size)


@inlined_kernel
def transpose_rows(array, layout, rows, pitch, columns):
    """Write the transpose of a matrix, height × width, to `columns`, width × height."""
    for k in range(0, layout.height, LANES):
        for x in range(0, layout.width, LANES):
            transpose(array, rows + k * pitch + x, pitch, columns + x * layout.height + k, layout.height)


@inner_kernel
def finish_group(array, layout, options, variance, freedom, mean_freedom, ff, fq, qq, corners, sums, weights):
    """Mix F and Q with the least risk, and add them and the mean patch to `sums`, and the weight to `weights`."""
    count, width = layout.patches, layout.width
    noise = (count - 1) * np.float64(variance)
    amplitude, kept = scalar_least_risk(ff, fq, qq, noise * freedom, noise * layout.voxels)
    freedom = (amplitude * freedom + kept * layout.voxels) * (count - 1) / count + mean_freedom / count
    weight = 1 / (freedom * max(np.float64(variance), options.least_variance))
    if options.correlated:
        mix(array, layout, amplitude, kept)
        multiply_patches(array, layout, layout.noisy, layout.colour, layout.guide_columns, width)
        amplitude, kept = 1.0, 0.0
    add_group(array, layout, amplitude, kept, weight, corners, options.patch_rows, options.row_length, sums, weights)


@vector_kernel
def filter_groups(noisy, guide, corners, variances, layout, options, array, sums, weights, steep):
    """Filter the groups at `corners`, (groups, K), and add them to the flat `sums` and `weights`.

    `variances` has the variance of the noise: one number, or one per patch at its corner. Groups are filtered in the
    precision of `array`. Those too steep for that are left out and marked in `steep`.
    """
    count, height, width = layout.patches, layout.height, layout.width
    for g in range(len(corners)):
        at = corners[g]
        variance = variance_of_group(variances, at)
        noise = (count - 1) * np.float64(variance)
        contrast = read_centred(guide, at, options, array, layout, layout.guide, layout.pitch, layout.guide_mean)
        steep[g] = contrast > options.steepest * max(noise, TINY)
        if steep[g]:
            continue
        energy = read_centred(noisy, at, options, array, layout, layout.noisy, width, layout.noisy_mean)
        transpose_rows(array, layout, layout.guide, layout.pitch, layout.guide_columns)
        transpose_rows(array, layout, layout.noisy, width, layout.noisy_columns)
        mean_freedom = filter_mean(array, layout, number_like(array, variance / count))
        left, ridge = wiener_of_group(array, layout, options.strength * noise, options.rounding)
        freedom = np.float64(left)
        fq = np.float64(sum_of_squares(array, layout.shares, height * height))
        ff = np.float64(sum_of_squares(array, layout.guide_columns, height * width))
        if options.across:
            freedom, ff, fq = smooth_group_across(array, layout, np.float64(variance), freedom, ridge, ff, fq)
        finish_group(
            array, layout, options, variance, freedom, mean_freedom, ff, fq, np.float64(energy), at, sums, weights
        )
