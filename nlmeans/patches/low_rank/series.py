"""Low-rank approximation of local patches of a series: the voxels of a patch by the volumes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from nlmeans.core.axes import Axes
from nlmeans.core.lags import Whitening, whitening
from nlmeans.core.progress import Report, silent
from nlmeans.patches.grid import grid_view, offsets
from nlmeans.patches.groups import LEAST_VARIANCE, Grid, patch_means, taper_of
from nlmeans.patches.low_rank.spectrum import Shrunk, shrink_singular_values

PATCH, PATCH_STEP = 5, 2
"""Edge of a patch, and distance between patches, in voxels."""

BATCH, BATCH_GPU = 512, 8192
"""Patches filtered at once."""


LEAST_MEASURED = 1e-12
"""Lower limit of a measured variance, for values up to 1."""


class SeriesResult(NamedTuple):
    """A denoised series, and what was found on the way."""

    series: Tensor
    """(V, D, H, W)."""
    sigma: Tensor
    """Standard deviation of the noise, given or measured, (D, H, W)."""
    rank: Tensor
    """Components kept, averaged over the patches of a voxel, (D, H, W)."""


def series_low_rank(
    noisy: Tensor,
    sigma: float | Tensor | None = 1.0,
    *,
    patch: int = PATCH,
    step: int = PATCH_STEP,
    autocovariance: Tensor | None = None,
    progress: Report = silent,
) -> SeriesResult:
    """Denoise a series by shrinking the singular values of (patch voxels × volumes); see `shrink_singular_values`.

    The signals of neighbouring voxels over the volumes, such as their decay with diffusion weighting, have a few
    components; noise has all. Without the mean of each volume over the patch, components that stand out of the noise
    are kept and shrunk. Patches overlap, and each counts in inverse proportion to the noise that it has left.

    Args:
        noisy: (V, D, H, W), where V are the volumes of the series.
        sigma: standard deviation of the noise, a number or a (D, H, W) map; None measures it in every patch, of values
            up to 1.
        patch: edge of a patch in voxels; axes shorter than that have patches of their own length.
        step: distance between patches in voxels.
        autocovariance: of the noise within a volume, in units of sigma², with lag 0 in the middle; None for white
            noise.
        progress: called with the fraction done.

    Returns:
        The series has the same shape, dtype and device.

    References:
        J. Veraart, D. S. Novikov, D. Christiaens, B. Ades-aron, J. Sijbers, E. Fieremans, "Denoising of diffusion MRI
        using random matrix theory", NeuroImage 142, 2016, doi:10.1016/j.neuroimage.2016.08.016 (the matrices; how
        singular values are shrunk and noise is measured differs).
    """
    shape = (noisy.shape[1], noisy.shape[2], noisy.shape[3])
    grid = Grid.of(shape, patch, step, 1, (0, 0, 0))
    noise = None if autocovariance is None else whitening(autocovariance, grid.size)
    values = grid.covered(noisy).movedim(0, -1).contiguous()
    variance = None
    if sigma is not None:
        uneven = torch.ones_like(noisy[:1]) * sigma
        variance = patch_means(grid.covered(uneven.square())[0], grid)
    floor = LEAST_MEASURED if sigma is None else LEAST_VARIANCE
    window = taper_of(grid.size).tolist()
    sums = torch.zeros_like(values)
    found = values.new_zeros(*values.shape[:3], 3)  # of the weights, of level × weight, and of rank × weight
    for box, places, patches, done in batches_of_patches(values, grid):
        given = None
        if variance is not None:
            given = grid_view(variance[box], (0, 0, 0), grid.step, places).reshape(-1)
        filtered, shrunk = filter_patches_of_series(patches, given, noise)
        level = shrunk.variance.clamp_min(floor)
        weight = 1 / ((1 + shrunk.rank) * level)
        facts = torch.stack([weight, weight * level, weight * shrunk.rank], -1).view(*places, 3)
        weight = weight.view(*places, 1)
        for number, offset in enumerate(offsets(grid.size)):
            view = (offset, grid.step, places)
            grid_view(found[box], *view).add_(facts, alpha=window[number])
            one = filtered[:, number].view(*places, -1)
            grid_view(sums[box], *view).addcmul_(one, weight, value=window[number])
        progress(done)
    del values
    d, h, w = shape
    inside = (slice(0, d), slice(0, h), slice(0, w))
    weights, levels, ranks = found[inside].unbind(-1)
    series = sums[inside].div_(weights[..., None]).movedim(-1, 0)
    return SeriesResult(series, (levels / weights).sqrt(), ranks / weights)


def filter_patches_of_series(
    patches: Tensor, variance: Tensor | None, correlated: Whitening | None
) -> tuple[Tensor, Shrunk]:
    """Shrink the singular values of patches, (patches, voxels, volumes), without the mean of each volume."""
    mean = patches.mean(1, keepdim=True)
    detail = patches - mean
    if correlated is not None:
        detail = correlated.whiten.to(detail) @ detail
    shrunk = shrink_singular_values(detail, variance, removed=1)
    signal = shrunk.matrix if correlated is None else correlated.colour.to(detail) @ shrunk.matrix
    return signal + mean, shrunk


class PatchBatch(NamedTuple):
    """Some rows of the patches of a grid."""

    box: tuple[slice, slice]
    """The planes and rows of voxels that they cover."""
    places: Axes
    """Number of patches along each axis."""
    patches: Tensor
    """(patches, voxels, V)."""
    done: float
    """Fraction of all patches up to these."""


def batches_of_patches(values: Tensor, grid: Grid) -> Iterator[PatchBatch]:
    """Iterate over all patches of a series with the volumes last, (D, H, W, V), some rows at a time."""
    depth, height, width = grid.references
    rows = max(1, (BATCH if values.device.type == "cpu" else BATCH_GPU) // width)
    for z in range(depth):
        for y in range(0, height, rows):
            count = min(rows, height - y)
            box, places = patches_box(grid, z, y, count), (1, count, width)
            yield PatchBatch(box, places, stack_rows(values[box], grid, places), (z + (y + count) / height) / depth)


def patches_box(grid: Grid, z: int, y: int, count: int) -> tuple[slice, slice]:
    """Return the voxels of `count` rows of patches, from row y of plane z of the grid on."""
    first, top = z * grid.step[0], y * grid.step[1]
    return slice(first, first + grid.size[0]), slice(top, top + (count - 1) * grid.step[1] + grid.size[1])


def stack_rows(box: Tensor, grid: Grid, places: tuple[int, int, int]) -> Tensor:
    """Read the patches of a box, (D, H, W, V), as (patches, voxels, V)."""
    views = [grid_view(box, offset, grid.step, places) for offset in offsets(grid.size)]
    return torch.stack(views, dim=3).view(math.prod(places), len(views), -1)
