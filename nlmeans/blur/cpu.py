"""Local blur on the CPU in float32, row by row of the image (numba); gives what `loop` gives.

`cpu_separable` has the kernels for spherical and diagonal covariances, `cpu_full` those for full ones.

Sums are over differences from the voxel's own value, so that a constant image stays exactly as it is, and a derivative
by the precision does not suffer from a large offset of the image.

What is added to the image's derivative lands on other rows. Threads therefore take blocks of rows that lie apart by at
least a kernel, in four turns. Each number is summed in an order that does not depend on the number of threads.

The inner loops run over x on whole rows, for LLVM to make vectors of them.
"""

from __future__ import annotations

import functools
import itertools
import logging

import torch
from torch import Tensor

from nlmeans.backends.request import Axes
from nlmeans.blur.cpu_common import Block
from nlmeans.blur.cpu_full import blur_full, full_by_image, full_by_precision
from nlmeans.blur.cpu_separable import blur_separable, separable_by_image, separable_by_precision
from nlmeans.blur.loop import Sizes
from nlmeans.group_kernels import in_threads

log = logging.getLogger("nlmeans")

MOST_BLOCKS = 16
"""Along an axis."""


@functools.cache
def announce() -> None:
    log.info("blur: first use here; compiling takes seconds, unless numba has it on disk")


def serves(padded: Tensor) -> bool:
    return padded.device.type == "cpu" and padded.dtype == torch.float32


def blur(padded: Tensor, precision: Tensor, radius: Axes, sizes: Sizes) -> tuple[Tensor, Tensor]:
    """See `loop.blur`."""
    announce()
    shape = precision.shape[1:]
    result, totals = padded.new_empty(len(padded), *shape), padded.new_empty(shape)
    kernel = blur_full if len(precision) == 6 else blur_separable
    arrays = padded.numpy(), precision.contiguous().numpy(), radius, sizes, result.numpy(), totals.numpy()
    in_threads(lambda first, last: kernel(*arrays, first, last), shape[0] * shape[1])
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
    """See `loop.derivatives`."""
    full, inverse, shape = len(precision) == 6, precision.contiguous().numpy(), precision.shape[1:]
    scaled = (gradient / totals).contiguous().numpy()
    if by_precision is not None:
        kernel = full_by_precision if full else separable_by_precision
        arrays = padded.numpy(), inverse, radius, sizes, scaled, result.numpy(), by_precision.numpy()
        in_threads(lambda first, last: kernel(*arrays, first, last), shape[0] * shape[1])
    if by_image is not None:
        spread = full_by_image if full else separable_by_image
        target = by_image.numpy()
        for blocks in block_turns(shape, radius):

            def work(first: int, last: int, turn: list[Block] = blocks) -> None:
                for block in turn[first:last]:
                    spread(target, inverse, radius, sizes, scaled, block)

            in_threads(work, len(blocks))


def block_turns(shape: torch.Size, radius: Axes) -> list[list[Block]]:
    """Blocks of rows in turns; what two blocks of a turn reach does not overlap."""

    def bounds(length: int, reach: int) -> list[tuple[int, int]]:
        count = max(1, min(MOST_BLOCKS, length // max(2 * reach, 1)))
        return list(itertools.pairwise(length * k // count for k in range(count + 1)))

    planes, rows = bounds(shape[0], radius[0]), bounds(shape[1], radius[1])
    turns = ([(*p, *r) for p in planes[a::2] for r in rows[b::2]] for a, b in itertools.product((0, 1), (0, 1)))
    return [turn for turn in turns if turn]
