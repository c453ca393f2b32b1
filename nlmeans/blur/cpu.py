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

from torch import Tensor

from nlmeans.blur.full_cpu_kernel import blur_full, full_by_image, full_by_precision
from nlmeans.blur.loop import Sizes
from nlmeans.blur.separable_cpu_kernel import blur_separable, separable_by_image, separable_by_precision
from nlmeans.core.axes import Axes
from nlmeans.kernels.turns import chequerboard, in_threads, in_turns

log = logging.getLogger("nlmeans")

MOST_BLOCKS = 16
"""Along an axis."""


@functools.cache
def announce() -> None:
    log.info("blur: first use here; compiling takes seconds, unless numba has it on disk")


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

        def work(block: tuple[tuple[int, int], ...]) -> None:
            planes, rows = block
            spread(target, inverse, radius, sizes, scaled, (*planes, *rows))

        in_turns(work, chequerboard(bounds(shape[0], radius[0]), bounds(shape[1], radius[1])))


def bounds(length: int, reach: int) -> list[tuple[int, int]]:
    """Parts of an axis; what those on either side of a part reach does not overlap."""
    count = max(1, min(MOST_BLOCKS, length // max(2 * reach, 1)))
    return list(itertools.pairwise(length * k // count for k in range(count + 1)))
