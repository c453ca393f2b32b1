"""The numba code of NL-Bayes on a CPU: `group_filters.bayes` and the averaging, one group at a time.

All that belongs to a group lies in one array of about 100 kB (`Layout`), so that it stays in a core's caches. Matrices
are stored row by row, rows padded with zeros to whole vectors (backends/cpu_vector.py). With Q and P as in `bayes`,
A = P Pᵀ + ρI and its Cholesky factor U (A = UᵀU)::

    [A | P]  →  [U | V]      by Gaussian elimination, V = U⁻ᵀP, so that PᵀA⁻¹P = VᵀV
    S = Q Vᵀ                 ‖S‖² = ⟨F, Q⟩
    F = S V                  f = ‖V‖², the degrees of freedom

which takes neither an inverse nor a sum across lanes: where a product needs a factor's columns as vectors, the factor
lies there transposed as well. What numba compiles has no type hints: vectors and literals have none.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nlmeans.kernels.matrix import TILE_ROWS, multiply, multiply_row, transpose
from nlmeans.kernels.vector import LANES, add_four, compiled, copy_four, inlined, inner, load, splat, store, total

Floats = npt.NDArray[np.float32]


class GroupLayout(NamedTuple):
    """Where the matrices of a group begin in the scratch array, and their sizes, in floats."""

    patches: int
    """K, in a group."""
    voxels: int
    """In a patch."""
    height: int
    """K, padded to whole vectors."""
    width: int
    """Voxels, padded."""
    pitch: int
    """From row to row of [A | P]."""
    system: int
    """[A | P], then [U | V]: height × pitch."""
    guide: int
    """P within it."""
    guide_columns: int
    """Pᵀ, width × height; then F, height × width."""
    noisy: int
    """Q, height × width."""
    noisy_columns: int
    """Qᵀ, width × height."""
    shares: int
    """Sᵀ, height × height."""
    guide_mean: int
    noisy_mean: int
    guide_spectrum: int
    noisy_spectrum: int
    window: int
    """The taper of a patch times the group's weight."""
    finished: int
    """A patch as it is added to the volume."""
    taper: int
    basis: int
    """The DCT, width × width: a row is a basis function."""
    basis_columns: int
    size: int
    """Of it all."""

    @classmethod
    def of(cls, count: int, voxels: int) -> GroupLayout:
        height, width = (-(-n // LANES) * LANES for n in (count, voxels))
        sizes = {
            "system": height * (height + width),
            "guide_columns": width * height,
            "noisy": height * width,
            "noisy_columns": width * height,
            "shares": height * height,
            **dict.fromkeys(
                ("guide_mean", "noisy_mean", "guide_spectrum", "noisy_spectrum", "window", "finished", "taper"), width
            ),
            "basis": width * width,
            "basis_columns": width * width,
        }
        starts, end = {}, 0
        for name, size in sizes.items():
            starts[name] = end
            end += size
        return cls(count, voxels, height, width, height + width, guide=height, **starts, size=end)


class Filter(NamedTuple):
    """What is the same for all groups of a volume."""

    strength: float
    steepest: float
    least_variance: float
    patch_rows: npt.NDArray[np.int64]
    """Where the rows of a patch begin, beside its corner."""
    row_length: int


def constants(layout: GroupLayout, taper: Floats, basis: npt.NDArray[np.float64]) -> Floats:
    """The scratch array of a thread, with the numbers in it that stay the same."""
    array = np.zeros(layout.size, np.float32)
    square = np.zeros((layout.width, layout.width), np.float32)
    square[: layout.voxels, : layout.voxels] = basis
    array[layout.taper : layout.taper + layout.voxels] = taper
    array[layout.basis : layout.basis + square.size] = square.ravel()
    array[layout.basis_columns : layout.basis_columns + square.size] = square.T.ravel()
    return array


EPSILON = float(np.finfo(np.float32).eps)
TINY = 1e-6
SINGULAR = 1e-6


@inlined
def read_row(volume, source, array, at, length):
    for x in range(0, length - 3, 4):
        copy_four(volume, source + x, array, at + x)
    for x in range(length // 4 * 4, length):
        array[at + x] = volume[source + x]


@inner
def read_group(volume, corners, patch_rows, row_length, array, target, pitch):
    """Copy patches to the rows of a matrix."""
    for k in range(corners.size):
        at = target + k * pitch
        for r in range(patch_rows.size):
            read_row(volume, corners[k] + patch_rows[r], array, at, row_length)
            at += row_length


@inner
def centre(array, matrix, pitch, width, count, mean):
    """Subtract the mean of `count` rows from them; the sum of squares that is left."""
    share = splat(np.float32(1 / count))
    squares = splat(np.float32(0))
    for x in range(0, width, LANES):
        sums = splat(np.float32(0))
        for k in range(count):
            sums = sums + load(array, matrix + k * pitch + x)
        middle = sums * share
        store(array, mean + x, middle)
        for k in range(count):
            value = load(array, matrix + k * pitch + x) - middle
            store(array, matrix + k * pitch + x, value)
            squares = squares + value * value
    return total(squares)


@inlined
def sum_of_squares(array, first, size):
    """Of a matrix; `size` is a multiple of four vectors."""
    a = b = c = d = splat(np.float32(0))
    for i in range(first, first + size, 4 * LANES):
        v0, v1, v2, v3 = load(array, i), load(array, i + LANES), load(array, i + 2 * LANES), load(array, i + 3 * LANES)
        a, b, c, d = a + v0 * v0, b + v1 * v1, c + v2 * v2, d + v3 * v3
    return total((a + b) + (c + d))


@inner
def filter_mean(array, layout, variance):
    """`group_filters.filtered_mean`: replaces the noisy mean; Σ gain²."""
    vectors = layout.width // LANES
    multiply_row(array, layout.guide_spectrum, layout.guide_mean, layout.basis_columns, layout.width, vectors)
    multiply_row(array, layout.noisy_spectrum, layout.noisy_mean, layout.basis_columns, layout.width, vectors)
    freedom = 1.0
    for u in range(1, layout.voxels):
        energy = array[layout.guide_spectrum + u] ** 2
        gain = energy / (energy + variance)
        array[layout.noisy_spectrum + u] *= gain
        freedom += gain * gain
    multiply_row(array, layout.noisy_mean, layout.noisy_spectrum, layout.basis, layout.width, vectors)
    return freedom


@inner
def eliminate(array, layout, ridge):
    """[A | P] to [U | V], A's upper half given, TILE_ROWS = 4 rows at a time; ‖V‖²."""
    pitch = layout.pitch
    squares = splat(np.float32(0))
    least = np.float32(ridge)
    for i in range(0, layout.height, TILE_ROWS):
        first = i // LANES * LANES
        row = layout.system + i * pitch
        multiply(array, row + first, pitch, layout.system + i, 1, pitch, layout.system + first, pitch, i,
                 (pitch - first) // LANES, True)  # fmt: skip
        d = row + i
        # pivots cannot be less than what was added to the diagonal
        r0 = np.float32(1) / np.sqrt(max(array[d], least))
        l01, l02, l03 = array[d + 1] * r0, array[d + 2] * r0, array[d + 3] * r0
        d += pitch
        r1 = np.float32(1) / np.sqrt(max(array[d + 1] - l01 * l01, least))
        l12, l13 = (array[d + 2] - l01 * l02) * r1, (array[d + 3] - l01 * l03) * r1
        d += pitch
        r2 = np.float32(1) / np.sqrt(max(array[d + 2] - l02 * l02 - l12 * l12, least))
        l23 = (array[d + 3] - l02 * l03 - l12 * l13) * r2
        d += pitch
        r3 = np.float32(1) / np.sqrt(max(array[d + 3] - l03 * l03 - l13 * l13 - l23 * l23, least))
        for x in range(first, pitch, LANES):
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
            if x >= layout.height:
                squares = squares + (v0 * v0 + v1 * v1) + (v2 * v2 + v3 * v3)
    return total(squares)


@inner
def wiener(array, layout, noise):
    """P to V and F; f, the degrees of freedom. `noise` is what the diagonal gets."""
    height, width, pitch = layout.height, layout.width, layout.pitch
    for i in range(0, height, TILE_ROWS):
        first = i // LANES * LANES
        multiply(array, layout.system + i * pitch + first, pitch, layout.guide_columns + i, 1, height,
                 layout.guide_columns + first, height, layout.voxels, (height - first) // LANES, False)  # fmt: skip
    diagonal = np.float32(0)
    for i in range(layout.patches):
        diagonal += array[layout.system + i * (pitch + 1)]
    ridge = np.float32(noise + 2 * EPSILON * diagonal + 1e-12)
    for i in range(height):
        array[layout.system + i * (pitch + 1)] += ridge
    freedom = eliminate(array, layout, ridge)
    for k in range(0, height, TILE_ROWS):
        multiply(array, layout.shares + k * height, height, layout.guide + k * pitch, pitch, 1,
                 layout.noisy_columns, height, layout.voxels, height // LANES, False)  # fmt: skip
    for i in range(0, height, TILE_ROWS):
        multiply(array, layout.guide_columns + i * width, width, layout.shares + i, 1, height,
                 layout.guide, pitch, layout.patches, width // LANES, False)  # fmt: skip
    return freedom


@inlined
def within(value, low, high):
    return min(max(value, low), high)


@inlined
def least_risk(ff, fq, qq, f_noise, q_noise):
    """`group_filters.least_risk`."""
    held = ff + f_noise + TINY
    q_gain = qq - q_noise
    determinant = max(held * qq - fq * fq, SINGULAR * held * qq + TINY)
    kept = within((held * q_gain - fq * fq) / determinant, 0.0, 1.0)
    return within((fq - kept * fq) / held, 0.0, 1.5), kept


@inner
def add_group(array, layout, amplitude, kept, weight, corners, patch_rows, row_length, sums, weights):
    """Add the patches m + a·F + b·Q to the volume's sums, and the group's weight to those of their corners."""
    width = layout.width
    a, b, scale = splat(np.float32(amplitude)), splat(np.float32(kept)), splat(np.float32(weight))
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
            for x in range(row_length // 4 * 4, row_length):
                sums[target + x] += array[at + x]
            at += row_length


@compiled
def filter_groups(noisy, guide, corners, variances, layout, options, array, sums, weights, steep):
    """Filter the groups at `corners`, (groups, K), and add them to the flat `sums` and `weights`.

    `variances` has the noise's variance, one number or one per patch at its corner. Groups too steep for float32 are
    left out and marked in `steep`.
    """
    count, height, width = layout.patches, layout.height, layout.width
    for g in range(len(corners)):
        at = corners[g]
        variance = variances[0]
        if variances.size > 1:
            variance = np.float32(0)
            for k in range(count):
                variance += variances[at[k]]
            variance /= np.float32(count)
        noise = (count - 1) * np.float64(variance)
        read_group(guide, at, options.patch_rows, options.row_length, array, layout.guide, layout.pitch)
        contrast = centre(array, layout.guide, layout.pitch, width, count, layout.guide_mean)
        steep[g] = contrast > options.steepest * max(noise, TINY)
        if steep[g]:
            continue
        read_group(noisy, at, options.patch_rows, options.row_length, array, layout.noisy, width)
        energy = centre(array, layout.noisy, width, width, count, layout.noisy_mean)
        for k in range(0, height, LANES):
            for x in range(0, width, LANES):
                transpose(array, layout.guide + k * layout.pitch + x, layout.pitch,
                          layout.guide_columns + x * height + k, height)  # fmt: skip
                transpose(array, layout.noisy + k * width + x, width, layout.noisy_columns + x * height + k, height)
        mean_freedom = filter_mean(array, layout, np.float32(variance / count))
        freedom = np.float64(wiener(array, layout, options.strength * noise))
        fq = np.float64(sum_of_squares(array, layout.shares, height * height))
        ff = np.float64(sum_of_squares(array, layout.guide_columns, height * width))
        amplitude, kept = least_risk(ff, fq, np.float64(energy), noise * freedom, noise * layout.voxels)
        freedom = (amplitude * freedom + kept * layout.voxels) * (count - 1) / count + mean_freedom / count
        weight = 1 / (freedom * max(np.float64(variance), options.least_variance))
        add_group(array, layout, amplitude, kept, weight, at, options.patch_rows, options.row_length, sums, weights)
