"""Low-rank approximation of local patches of a series: the voxels of a patch by the volumes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nlmeans.core.axes import Axes
from nlmeans.core.lags import Whitening, whitening
from nlmeans.core.modes import kernel_threads
from nlmeans.core.progress import Report, silent
from nlmeans.kernels.turns import BlockT, ResultT, in_turns
from nlmeans.patches.grid import grid_view, offsets
from nlmeans.patches.groups import LEAST_VARIANCE, Grid, covering, patch_means, taper_of
from nlmeans.patches.low_rank.spectrum import Shrunk, shrink_singular_values

PATCH, PATCH_STEP = 5, 2
"""Edge of a patch, and distance between patches, in voxels."""

BATCH, BATCH_GPU = 512, 8192
"""Most patches that are filtered at once."""

BATCH_VALUES, BATCH_VALUES_GPU = 2**19, 2**28
"""Most values of these patches: two megabytes in each thread."""


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
    d, h, w = noisy.shape[1:]
    grid = Grid.of((d, h, w), patch, step, 1, (0, 0, 0))
    variance = None
    if sigma is not None:
        uneven = torch.ones_like(noisy[:1]) * sigma
        variance = patch_means(grid.covered(uneven.square())[0], grid)
    values = volumes_last(noisy, grid)
    sums = torch.zeros_like(values)
    noise = whitening_of(autocovariance, grid)
    weights, levels, ranks = (
        fact[:d, :h, :w] for fact in shrunk_patches(values, grid, variance, noise, progress, sums)
    )
    series = sums[:d, :h, :w].div_(weights[..., None]).movedim(-1, 0)
    return SeriesResult(series, (levels / weights).sqrt(), ranks / weights)


def sigma_of_patches(noisy: Tensor, autocovariance: Tensor | None) -> Tensor:
    """Measure the noise at each voxel of a series, (D, H, W), as `series_low_rank` does without a sigma."""
    d, h, w = noisy.shape[1:]
    grid = Grid.of((d, h, w), PATCH, PATCH_STEP, 1, (0, 0, 0))
    weights, levels, _ = shrunk_patches(volumes_last(noisy, grid), grid, None, whitening_of(autocovariance, grid))
    return (levels / weights).sqrt()[:d, :h, :w]


def whitening_of(autocovariance: Tensor | None, grid: Grid) -> Whitening | None:
    """Return the correlation of the noise over a patch; None for white noise."""
    return None if autocovariance is None else whitening(autocovariance, grid.size)


def shrunk_patches(
    values: Tensor,
    grid: Grid,
    variance: Tensor | None,
    noise: Whitening | None,
    progress: Report = silent,
    sums: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Filter all patches, and sum what is found where they overlap.

    Args:
        values: (D, H, W, V), extended to fit the grid.
        grid: positions of the patches.
        variance: of the noise in the patch at each corner, (D, H, W); None measures it.
        noise: correlation of the noise over a patch; None for white noise.
        progress: called with the fraction done.
        sums: where to add the weighted patches, as `values`; None for nowhere.

    Returns:
        The sums of weight, level × weight and rank × weight of the patches at each voxel, (D, H, W).
    """
    window = taper_of(grid.size).tolist()
    floor = LEAST_MEASURED if variance is None else LEAST_VARIANCE
    facts = values.new_empty(3, *grid.references)

    def work(batch: PatchBatch) -> None:
        given = None
        if variance is not None:
            given = grid_view(variance[batch.box], (0, 0, 0), grid.step, batch.places).reshape(-1)
        filtered, shrunk = filter_patches_of_series(batch.read(values, grid), given, noise)
        level = shrunk.variance.clamp_min(floor)
        weight = 1 / ((1 + shrunk.rank) * level)
        facts[:, *batch.at] = torch.stack([weight, weight * level, weight * shrunk.rank]).view(3, *batch.places[1:])
        if sums is None:
            return
        weight, target = weight.view(*batch.places, 1), sums[batch.box]
        for number, offset in enumerate(offsets(grid.size)):
            one = filtered[:, number].view(*batch.places, -1)
            grid_view(target, offset, grid.step, batch.places).addcmul_(one, weight, value=window[number])

    each_batch(work, batches_of_patches(grid, values.shape[-1], values.device), values.device, progress)
    weights, levels, ranks = (covering(at_corners(fact, grid), grid.size) for fact in facts)
    return weights, levels, ranks


def at_corners(facts: Tensor, grid: Grid) -> Tensor:
    """Place what is known of each patch of a grid at its corner, in a (D, H, W) volume of zeros."""
    corners = facts.new_zeros(grid.shape)
    grid_view(corners, (0, 0, 0), grid.step, grid.references).copy_(facts)
    return corners


def volumes_last(noisy: Tensor, grid: Grid) -> Tensor:
    """Return volumes, (V, D, H, W), extended to fit a grid, as (D, H, W, V) in this order in memory."""
    if tuple(noisy.shape[1:]) == grid.shape:
        return noisy.movedim(0, -1).contiguous()
    voxels = torch.arange(noisy[0].numel(), device=noisy.device).view(noisy.shape[1:])
    return noisy.flatten(1).mT.index_select(0, grid.covered(voxels).flatten()).view(*grid.shape, len(noisy))


def filter_patches_of_series(
    patches: Tensor, variance: Tensor | None, correlated: Whitening | None
) -> tuple[Tensor, Shrunk]:
    """Shrink the singular values of patches, (patches, voxels, volumes), without the mean of each volume.

    Of correlated noise, the mean of least variance is taken off: a plain one would take most of the noise with it.
    """
    if correlated is None:
        mean = patches.mean(1, keepdim=True)
        detail = patches - mean
    else:
        precision = correlated.whiten @ correlated.whiten.sum(1)
        mean = ((precision / precision.sum()).to(patches) @ patches)[:, None]
        detail = correlated.whiten.to(patches) @ (patches - mean)
    shrunk = shrink_singular_values(detail, variance, removed=1)
    signal = shrunk.matrix if correlated is None else correlated.colour.to(detail) @ shrunk.matrix
    return signal + mean, shrunk


class PatchBatch(NamedTuple):
    """Some rows of the patches of a grid."""

    box: tuple[slice, slice]
    """The planes and rows of voxels that they cover."""
    places: Axes
    """Number of patches along each axis."""
    at: tuple[int, slice]
    """The plane and rows of the grid."""

    def read(self, values: Tensor, grid: Grid) -> Tensor:
        """Read the patches from (D, H, W, V), as (patches, voxels, V)."""
        return patches_in(values[self.box], grid, self.places)


def patches_in(box: Tensor, grid: Grid, places: Axes) -> Tensor:
    """Return the patches in a box, (D, H, W, V), `places` along each axis, as (patches, voxels, V)."""
    volumes = box.shape[-1]
    for axis, (length, step) in enumerate(zip(grid.size, grid.step, strict=True)):
        box = box.unfold(axis, length, step)
    return box.permute(0, 1, 2, 4, 5, 6, 3).reshape(math.prod(places), -1, volumes)


def batches_of_patches(grid: Grid, volumes: int, device: torch.device) -> list[list[PatchBatch]]:
    """Return the batches of all patches of a grid, in turns: those of one turn do not overlap."""
    depth, height, width = grid.references
    most, values = (BATCH, BATCH_VALUES) if device.type == "cpu" else (BATCH_GPU, BATCH_VALUES_GPU)
    rows = min(height, max(1, min(most, values // (math.prod(grid.size) * volumes)) // width))
    apart = [-(-size // step) for size, step in zip(grid.size, grid.step, strict=True)]
    planes, stripes = apart[0], 1 + -(-(apart[1] - 1) // rows)
    turns: dict[tuple[int, int], list[PatchBatch]] = {}
    for z in range(depth):
        for y in range(0, height, rows):
            count = min(rows, height - y)
            batch = PatchBatch(patches_box(grid, z, y, count), (1, count, width), (z, slice(y, y + count)))
            turns.setdefault((z % planes, y // rows % stripes), []).append(batch)
    return list(turns.values())


def each_batch(
    work: Callable[[BlockT], ResultT], turns: Sequence[Sequence[BlockT]], device: torch.device, progress: Report
) -> list[ResultT]:
    """Call `work` for all batches: on a CPU in as many threads as torch uses, elsewhere one after the other."""
    if device.type == "cpu" and kernel_threads() > 1:
        return in_turns(work, turns, progress, torch_shared=True)
    batches, results = list(itertools.chain.from_iterable(turns)), list[ResultT]()
    for batch in batches:
        results.append(work(batch))
        progress(len(results) / len(batches))
    return results


def patches_box(grid: Grid, z: int, y: int, count: int) -> tuple[slice, slice]:
    """Return the voxels of `count` rows of patches, from row y of plane z of the grid on."""
    first, top = z * grid.step[0], y * grid.step[1]
    return slice(first, first + grid.size[0]), slice(top, top + (count - 1) * grid.step[1] + grid.size[1])
