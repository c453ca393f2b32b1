"""CPU kernel of non-local Bayes on several channels together: `nl_bayes.filter_channels`, one group at a time.

The matrices of `cpu_kernel` are those of one channel after the other; A and the products of Q and P are summed over
all. What all channels share is then found by one elimination::

    [A | Σ P Qᵀ | I]  →  [U | R | S]      R = U⁻ᵀ Σ P Qᵀ, S = U⁻ᵀ
    W = Rᵀ S          A⁻¹ = Sᵀ S          F = W P in each channel

Patches are read twice, which takes less memory than keeping them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nlmeans.kernels.matrix import TILE_ROWS, multiply
from nlmeans.kernels.vector import (
    LANES,
    inlined_kernel,
    inner_kernel,
    load,
    number_like,
    store,
    vector_kernel,
)
from nlmeans.patches.bayes.cpu_kernel import (
    eliminate,
    filter_mean,
    finish_group,
    inner_product,
    read_centred,
    regularise,
    side_by_side,
    sum_of_squares,
    transpose_rows,
    variance_of_group,
)
from nlmeans.patches.kernel_constants import TINY


class JointLayout(NamedTuple):
    """Positions of the matrices in the scratch array, and their sizes, in floats; names as in `GroupLayout`."""

    channels: int
    """Number of channels."""
    patches: int
    voxels: int
    height: int
    width: int
    pitch: int
    """Distance between rows of [A | Σ P Qᵀ | I]."""
    half: int
    """I within [A | Σ P Qᵀ | I]."""
    system: int
    """[A | Σ P Qᵀ | I], height × pitch."""
    grams: int
    """P Pᵀ of each channel, channels × height × height."""
    product: int
    """P Qᵀ of one channel; then W, height × height."""
    inverse: int
    """A⁻¹, height × height."""
    guide: int
    """P, height × width."""
    guide_columns: int
    """Pᵀ, width × height; then F, height × width."""
    noisy: int
    noisy_columns: int
    guide_mean: int
    noisy_mean: int
    guide_spectrum: int
    noisy_spectrum: int
    window: int
    finished: int
    taper: int
    basis: int
    basis_columns: int
    spectrum: int
    whiten: int
    colour: int
    spare: int
    size: int

    @classmethod
    def of(cls, channels: int, count: int, voxels: int) -> JointLayout:
        """Lay out the matrices for `count` patches of `voxels` voxels in each channel."""
        height, width = (-(-n // LANES) * LANES for n in (count, voxels))
        rows = ("guide_mean", "noisy_mean", "guide_spectrum", "noisy_spectrum", "window", "finished", "taper")
        sizes = {
            "system": height * 3 * height,
            "grams": channels * height * height,
            "product": height * height,
            "inverse": height * height,
            **dict.fromkeys(("guide", "guide_columns", "noisy", "noisy_columns", "spare"), height * width),
            **dict.fromkeys(("basis", "basis_columns", "whiten", "colour"), width * width),
            **dict.fromkeys((*rows, "spectrum"), width),
        }
        return cls(channels, count, voxels, height, width, 3 * height, 2 * height, **side_by_side(sizes))


@inner_kernel
def multiply_columns(array, layout, target, left, right):
    """Multiply two matrices, height × width, whose columns are given, into a height × height matrix."""
    height = layout.height
    for i in range(0, height, TILE_ROWS):
        multiply(array, target + i * height, height, left + i, 1, height, right, height, layout.voxels, height // LANES,
                 False)  # fmt: skip


@inlined_kernel
def add_to_system(array, layout, matrix, column):
    """Add a height × height matrix to the columns of the system from `column` on."""
    for i in range(layout.height):
        for x in range(0, layout.height, LANES):
            at = layout.system + i * layout.pitch + column + x
            store(array, at, load(array, at) + load(array, matrix + i * layout.height + x))


@inner_kernel
def add_channel(noisy, guide, corners, options, array, layout, channel):
    """Add the products of the patches of a channel to the system; return ‖P‖²."""
    height, width = layout.height, layout.width
    contrast = read_centred(guide, corners, options, array, layout, layout.guide, width, layout.guide_mean)
    read_centred(noisy, corners, options, array, layout, layout.noisy, width, layout.noisy_mean)
    transpose_rows(array, layout, layout.guide, width, layout.guide_columns)
    transpose_rows(array, layout, layout.noisy, width, layout.noisy_columns)
    gram = layout.grams + channel * height * height
    multiply_columns(array, layout, gram, layout.guide_columns, layout.guide_columns)
    multiply_columns(array, layout, layout.product, layout.guide_columns, layout.noisy_columns)
    add_to_system(array, layout, gram, 0)
    add_to_system(array, layout, layout.product, height)
    return contrast


@inner_kernel
def solve(array, layout, noise, rounding):
    """Compute W and A⁻¹. `noise` is added to the diagonal of A."""
    height, pitch = layout.height, layout.pitch
    eliminate(array, layout, regularise(array, layout, noise, rounding))
    for i in range(0, height, TILE_ROWS):
        for column, target in ((height, layout.product), (layout.half, layout.inverse)):
            multiply(array, target + i * height, height, layout.system + column + i, 1, pitch,
                     layout.system + layout.half, pitch, height, height // LANES, False)  # fmt: skip


@inner_kernel
def filter_channel(noisy, guide, corners, variance, options, array, layout, channel, sums, weights):
    """Filter the patches of a channel, and add them to its `sums` and `weights`."""
    height, width = layout.height, layout.width
    read_centred(guide, corners, options, array, layout, layout.guide, width, layout.guide_mean)
    energy = read_centred(noisy, corners, options, array, layout, layout.noisy, width, layout.noisy_mean)
    mean_freedom = filter_mean(array, layout, number_like(array, variance / layout.patches))
    for i in range(0, height, TILE_ROWS):
        multiply(array, layout.guide_columns + i * width, width, layout.product + i * height, height, 1,
                 layout.guide, width, layout.patches, width // LANES, False)  # fmt: skip
    freedom = inner_product(array, layout.inverse, layout.grams + channel * height * height, height * height)
    ff = sum_of_squares(array, layout.guide_columns, height * width)
    fq = inner_product(array, layout.guide_columns, layout.noisy, height * width)
    finish_group(array, layout, options, variance, np.float64(freedom), mean_freedom, np.float64(ff), np.float64(fq),
                 np.float64(energy), corners, sums, weights)  # fmt: skip


@vector_kernel
def filter_groups_jointly(noisy, guide, corners, variances, layout, options, array, sums, weights, steep):
    """Filter the groups at `corners`, (groups, K), in all channels, and add them to `sums` and `weights`.

    `noisy`, `guide`, `sums` and `weights` are (channels, voxels). The other arguments are those of `filter_groups`.
    """
    for g in range(len(corners)):
        at = corners[g]
        variance = variance_of_group(variances, at)
        noise = (layout.patches - 1) * np.float64(variance)
        limit = options.steepest * max(noise, TINY)
        array[layout.system : layout.grams] = 0
        contrast = 0.0
        for channel in range(layout.channels):
            contrast += add_channel(noisy[channel], guide[channel], at, options, array, layout, channel)
            if contrast > limit:
                break
        steep[g] = contrast > limit
        if steep[g]:
            continue
        solve(array, layout, options.strength * noise, options.rounding)
        for channel in range(layout.channels):
            filter_channel(noisy[channel], guide[channel], at, variance, options, array, layout, channel, sums[channel],
                           weights[channel])  # fmt: skip
