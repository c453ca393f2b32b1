"""The local blur with torch operations, one offset of the kernel after another, on any device and in any precision.

Offsets that mirror each other share their weight. The volume is computed in parts, so that intermediate results stay
small and, on the CPU, in the cache.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from nlmeans.core.axes import Axes

VOXELS_AT_ONCE = {"cpu": 2**15, "cuda": 2**20}
"""Voxels of a part. On a CPU, it stays in the cache; on a GPU, an operation on it takes longer than its start."""

Sizes = tuple[float, float, float]
"""Size of a voxel along each axis."""


def blur(padded: Tensor, precision: Tensor, radius: Axes, sizes: Sizes) -> tuple[Tensor, Tensor]:
    """Compute the blurred image (C, D, H, W), and for each voxel the sum of its weights (D, H, W).

    Args:
        padded: the image with `radius` more voxels on either side of each axis.
        precision: inverse covariances, (1, D, H, W) if spherical, (3, D, H, W) if diagonal, or (6, D, H, W) if full,
            the upper triangle row by row.
        radius: radius of the kernel along each axis, in voxels.
        sizes: size of a voxel along each axis.
    """
    shape = precision.shape[1:]
    result, totals = padded.new_empty(len(padded), *shape), padded.new_empty(shape)
    for piece in parts_of_volume(precision):
        here = precision[:, *piece]
        own = shifted_view(padded, piece, radius, (0, 0, 0), (1, 1, 1))
        total = torch.zeros_like(here[0])
        values = result[:, *piece].zero_()
        for weight, offset, mirrored in weighted_offsets(here, radius, sizes):
            values += weight * sum_of_differences(padded, piece, radius, offset, mirrored)
            total += weight * len(mirrored)
        values.div_(total).add_(own)
        totals[piece] = total
    return result, totals


def derivatives(
    padded: Tensor,
    precision: Tensor,
    result: Tensor,
    totals: Tensor,
    gradient: Tensor,
    radius: Axes,
    sizes: Sizes,
    by_image: Tensor | None,
    by_precision: Tensor | None,
) -> None:
    """Add ∂L/∂ padded to `by_image` and ∂L/∂ precision to `by_precision`; skip those that are None."""
    for piece in parts_of_volume(precision):
        scaled = gradient[:, *piece] / totals[piece]
        own = shifted_view(padded, piece, radius, (0, 0, 0), (1, 1, 1))
        mean = (scaled * (result[:, *piece] - own)).sum(0)
        for weight, offset, mirrored in weighted_offsets(precision[:, *piece], radius, sizes):
            if by_precision is not None:
                change = (scaled * sum_of_differences(padded, piece, radius, offset, mirrored)).sum(0)
                by_logarithm = weight * (change - mean * len(mirrored))
                for entry, slope in enumerate(slopes(offset, sizes, len(precision))):
                    if slope:
                        by_precision[entry, *piece].add_(by_logarithm, alpha=slope)
            if by_image is not None:
                share = weight * scaled
                for sign in mirrored:
                    shifted_view(by_image, piece, radius, offset, sign).add_(share)


def parts_of_volume(precision: Tensor) -> Iterator[tuple[slice, slice, slice]]:
    """Cut the volume into parts along its first axis that is longer than 1."""
    shape = precision.shape[1:]
    axis = next((a for a, n in enumerate(shape) if n > 1), 2)
    most = VOXELS_AT_ONCE.get(precision.device.type, VOXELS_AT_ONCE["cuda"])
    step = max(1, most * shape[axis] // math.prod(shape))
    for first in range(0, shape[axis], step):
        piece = [slice(0, n) for n in shape]
        piece[axis] = slice(first, min(first + step, shape[axis]))
        yield piece[0], piece[1], piece[2]


def shifted_view(padded: Tensor, piece: tuple[slice, slice, slice], radius: Axes, offset: Axes, sign: Axes) -> Tensor:
    """View of the voxels of the padded image that lie at `sign` × `offset` from those of the piece."""
    moved = [
        slice(part.start + r + s * o, part.stop + r + s * o)
        for part, r, o, s in zip(piece, radius, offset, sign, strict=True)
    ]
    return padded[:, *moved]


def sum_of_differences(
    padded: Tensor, piece: tuple[slice, slice, slice], radius: Axes, offset: Axes, mirrored: list[Axes]
) -> Tensor:
    """Sum of the differences from the voxel itself, over the voxels at the offset and its mirror images.

    Differences leave a constant image exactly unchanged, and a large offset of the image does not harm derivatives.
    """
    total = shifted_view(padded, piece, radius, offset, mirrored[0]).clone()
    for sign in mirrored[1:]:
        total += shifted_view(padded, piece, radius, offset, sign)
    return total.sub_(shifted_view(padded, piece, radius, (0, 0, 0), (1, 1, 1)), alpha=len(mirrored))


def weighted_offsets(precision: Tensor, radius: Axes, sizes: Sizes) -> Iterator[tuple[Tensor, Axes, list[Axes]]]:
    """Yield the weights of a piece, not normalised, with an offset and the signs of it and its mirror images."""
    if len(precision) == 6:
        yield from weighted_pairs(precision, radius, sizes)
        return
    along_z, along_y, along_x = (
        [torch.exp(values * (-0.5 * (step * size) ** 2)) for step in range(r + 1)]
        for values, size, r in zip(precision.expand(3, *precision.shape[1:]), sizes, radius, strict=True)
    )
    for z, y in itertools.product(range(radius[0] + 1), range(radius[1] + 1)):
        row = along_z[z] * along_y[y]
        for x in range(radius[2] + 1):
            signs = [(1, -1) if step else (1,) for step in (z, y, x)]
            yield row * along_x[x], (z, y, x), [(a, b, c) for a, b, c in itertools.product(*signs)]


def weighted_pairs(precision: Tensor, radius: Axes, sizes: Sizes) -> Iterator[tuple[Tensor, Axes, list[Axes]]]:
    """Yield `weighted_offsets` for full covariances, for which only opposite offsets share a weight."""
    yield torch.ones_like(precision[0]), (0, 0, 0), [(1, 1, 1)]
    for z, y, x in itertools.product(*(range(-r, r + 1) for r in radius)):
        if (z, y, x) > (0, 0, 0):
            exponent = torch.zeros_like(precision[0])
            for entry, slope in zip(precision, slopes((z, y, x), sizes, 6), strict=True):
                if slope:
                    exponent.add_(entry, alpha=slope)
            yield exponent.exp_(), (z, y, x), [(1, 1, 1), (-1, -1, -1)]


def slopes(offset: Axes, sizes: Sizes, entries: int) -> list[float]:
    """Derivative of the logarithm of a weight with respect to each entry of the precision."""
    z, y, x = (step * size for step, size in zip(offset, sizes, strict=True))
    if entries == 1:
        return [-0.5 * (z * z + y * y + x * x)]
    if entries == 3:
        return [-0.5 * z * z, -0.5 * y * y, -0.5 * x * x]
    return [-0.5 * z * z, -z * y, -z * x, -0.5 * y * y, -y * x, -0.5 * x * x]
