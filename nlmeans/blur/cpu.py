"""The local blur on the CPU in float32, with compiled kernels (numba); it computes the same as `loop`.

The kernels for spherical and diagonal covariances are in `separable_cpu_kernel`, those for full ones in
`full_cpu_kernel`. Their inner loops run over x on whole rows, from which LLVM makes vectors.

The kernels sum differences from the value of the voxel itself. A constant image therefore stays exactly the same, and a
large offset of the image does not harm the derivative with respect to the precision.

The derivative with respect to the image adds to other rows. Threads therefore work on blocks of rows that are at least
one kernel apart, in four turns. The order of the sums does not depend on the number of threads.
"""

from __future__ import annotations

import itertools

from torch import Tensor

from nlmeans.blur.loop import Sizes
from nlmeans.core.axes import Axes
from nlmeans.kernels.turns import chequerboard, in_threads, in_turns

MOST_BLOCKS = 16
"""Largest number of blocks along an axis."""


def blur(padded: Tensor, precision: Tensor, radius: Axes, sizes: Sizes) -> tuple[Tensor, Tensor]:
    """Compute what `loop.blur` computes."""
    from nlmeans.blur.full_cpu_kernel import blur_full  # imports numba
    from nlmeans.blur.separable_cpu_kernel import blur_separable

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
    """Compute what `loop.derivatives` computes."""
    from nlmeans.blur.full_cpu_kernel import full_by_image, full_by_precision  # imports numba
    from nlmeans.blur.separable_cpu_kernel import separable_by_image, separable_by_precision

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
    """Cut an axis into parts such that two parts with a part between them reach no voxel in common."""
    count = max(1, min(MOST_BLOCKS, length // max(2 * reach, 1)))
    return list(itertools.pairwise(length * k // count for k in range(count + 1)))
