"""Methods that filter groups of similar patches: bayes, best and subspace."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from nlmeans.core.axes import Axes
from nlmeans.core.progress import Report, part
from nlmeans.methods.coarser import COARSER_REACH
from nlmeans.methods.means import classic_pilot, pilot_radius
from nlmeans.methods.method import Method, Options, flatter_window, is_flat, is_narrow, whole_tile
from nlmeans.methods.transform import dct_pilot, patch_memory
from nlmeans.patches.bayes.nl_bayes import nl_bayes
from nlmeans.patches.low_rank.similar import low_rank

GRAIN = 12
"""Tiles start at multiples of this many voxels, because the grids of patches have steps of 2, 3 and 4 voxels."""

FEW_CONTROLS = {
    "h": "only its first estimate has an h, which changes little; set the strength",
    "patch_radius": "the patches of its groups have a size of their own",
}
"""Why the methods of this module have no such controls."""

CUBE = 4
"""Edge of the patches of a volume that are grouped, in voxels."""

IMAGE_PATCH = 6
"""Edge of those of an image in `subspace` and `series`, in pixels."""

IMAGE_LARGEST = 8
"""Edge of the largest patches of an image in any method, in pixels."""


def pilot(noisy: Tensor, sigma: float | Tensor, options: Options, progress: Report) -> Tensor:
    """Average two first estimates with different errors: the DCT rings, non-local means blurs rare patches.

    If the noise is correlated, the DCT alone: non-local means takes correlated noise for structure.
    """
    white = options.autocovariance is None
    thresholded = dct_pilot(noisy, sigma, options, part(progress, 0.0, 0.5) if white else progress)
    if not white:
        return thresholded
    return (thresholded + classic_pilot(noisy, sigma, options, part(progress, 0.5, 1.0))) / 2


def is_plane(noisy: Tensor) -> bool:
    return 1 in noisy.shape[1:]


def largest_patch(search_radius: Axes) -> Axes:
    """Return the size of the largest patches that are grouped."""
    if not all(search_radius):
        return (IMAGE_LARGEST,) * 3
    return flattened(CUBE, FLAT_PATCH, is_narrow(search_radius))


def flattened(voxels: int, flat: Mapping[int, tuple[int, int]], across: Axes) -> Axes:
    """Return so many voxels along each axis; with thick slices, those of the table, within the slices and across."""
    d, h, w = (flat[voxels][axis] if any(across) else voxels for axis in across)
    return d, h, w


def across_slices(noisy: Tensor, options: Options) -> Axes:
    """Return 1 for the axes along which patches are short."""
    return is_flat(options.search_radius, noisy.shape[1:], options.spacing)


def cut(noisy: Tensor, across: Axes, *, patch: int, step: int, count: int = 48) -> dict[str, Any]:
    """Return the arguments of `nl_bayes` that say which patches a group has.

    Patches of a volume have about patch³ voxels, but are short across thick slices, where neighbours are less alike.
    Those of an image have 6²; `bayes` and `best` have their own, see `filter_image`. A group has no more patches than a
    patch has voxels where the volume cuts them short.

    >>> import torch
    >>> cut(torch.zeros(1, 32, 64, 64), (0, 0, 0), patch=4, step=4, count=64)
    {'patch': (4, 4, 4), 'step': (4, 4, 4), 'count': 64}
    >>> cut(torch.zeros(1, 32, 64, 64), (1, 0, 0), patch=4, step=4, count=64)
    {'patch': (2, 5, 5), 'step': (2, 4, 4), 'count': 48}
    >>> cut(torch.zeros(1, 2, 64, 64), (0, 0, 0), patch=4, step=4, count=64)
    {'patch': (4, 4, 4), 'step': (4, 4, 4), 'count': 32}
    """
    if is_plane(noisy):
        return {"patch": (IMAGE_PATCH,) * 3, "step": (step,) * 3, "count": count}
    size = flattened(patch, FLAT_PATCH, across)
    if any(across):
        count = min(count, 48)
    if any(n < edge for n, edge in zip(noisy.shape[1:], size, strict=True)):
        count = min(count, math.prod(min(n, edge) for n, edge in zip(noisy.shape[1:], size, strict=True)))
    return {"patch": size, "step": flattened(step, FLAT_STEP, across), "count": count}


FLAT_PATCH = {3: (4, 2), 4: (5, 2)}
"""Edges within thick slices and across them, of patches that have about as many voxels as cubes."""

FLAT_STEP = {2: (2, 1), 3: (4, 2), 4: (4, 2)}
"""Distances between such patches, likewise."""


def pilot_halo(patch_radius: Axes, search_radius: Axes) -> Axes:
    """Return the reach of the pilot: that of the DCT, 3 voxels to a patch and 3 within it, or that of `classic`."""
    d, h, w = (max(6, p + s) for p, s in zip(patch_radius, pilot_radius(search_radius), strict=True))
    return d, h, w


def grouped_memory(backend: str, channels: int, patch_radius: Axes, search_radius: Axes) -> float:
    """Return the bytes per voxel: those of the pilot and of the patches. Those of the groups do not grow."""
    return patch_memory(backend, channels, patch_radius, pilot_radius(search_radius))


def stages_halo(stages: int, patch_radius: Axes, search_radius: Axes, patch: Axes) -> Axes:
    """Return the reach of the pilot and several stages.

    A stage reaches from a voxel to the corner of a patch, to its reference patch, to another patch of the group, and
    to the far end of that.
    """
    stage = [2 * r + 2 * (edge - 1) for r, edge in zip(search_radius, patch, strict=True)]
    d, h, w = (a + stages * b for a, b in zip(pilot_halo(patch_radius, search_radius), stage, strict=True))
    return d, h, w


@dataclass(frozen=True)
class Groups:
    """Groups of patches of an image, in pixels."""

    patch: int
    """Edge of a patch."""
    step: int
    """Distance between reference patches."""
    count: int
    """Number of patches in a group."""


def filter_image(
    noisy: Tensor, sigma: float | Tensor, options: Options, later: Sequence[Sequence[Groups]], progress: Report
) -> Tensor:
    """Filter groups of patches of an image, in stages.

    The first has small patches side by side, but not as small if the noise is correlated, which these take for
    structure. Each later stage averages the results of patches of several sizes: small ones keep fine patterns, large
    ones see weak edges through noise. They smooth across the patches of a group as well.

    Args:
        noisy: (C, D, H, W), of which one axis has a length of 1.
        sigma: standard deviation of the noise, a number or a (D, H, W) map.
        options: search radius and correlation of the noise.
        later: groups that each stage after the first averages over.
        progress: called with the fraction done.
    """
    lags = options.autocovariance
    stages = [[Groups(4, 4, 32) if lags is None else Groups(6, 6, 48)], *later]
    guide = pilot(noisy, sigma, options, part(progress, 0.0, 0.1))
    filtering = part(progress, 0.1, 1.0)
    for number, stage in enumerate(stages):
        report = part(filtering, number / len(stages), (number + 1) / len(stages))
        strength, tolerance = (strength_across(lags), 0.1) if number else (1.5, 0.2)
        results = [
            nl_bayes(
                noisy,
                guide,
                sigma,
                patch=groups.patch,
                step=groups.step,
                count=groups.count,
                search_radius=options.search_radius,
                strength=strength,
                across=number > 0,
                tolerance=max(tolerance, alike(lags)),
                autocovariance=lags,
                progress=part(report, n / len(stage), (n + 1) / len(stage)),
            )
            for n, groups in enumerate(stage)
        ]
        guide = sum(results[1:], results[0]) / len(results)
    return guide


def bayes(noisy: Tensor, sigma: float | Tensor, options: Options, progress: Report) -> Tensor:
    """Non-local Bayes (Lebrun, Buades and Morel 2013) in two stages, on the mean of a DCT and a non-local means pilot.

    The first stage may step by as much as a patch, because the second averages again. White noise in a volume is also
    smoothed across the patches of a group, see `best`: then neither stage needs patches that overlap. An image has the
    stages of `filter_image`.
    """
    if is_plane(noisy):
        return filter_image(noisy, sigma, options, [(Groups(6, 4, 32), Groups(8, 6, 48))], progress)
    reports = [part(progress, 0.2, 0.5), part(progress, 0.5, 1.0)]
    radius, lags, across = options.search_radius, options.autocovariance, across_slices(noisy, options)
    guide = pilot(noisy, sigma, options, part(progress, 0.0, 0.2))
    stage = partial(nl_bayes, noisy, search_radius=radius, autocovariance=lags)
    if lags is None:
        small, large = cut(noisy, across, patch=3, step=3, count=32), cut(noisy, across, patch=4, step=4, count=64)
        guide = stage(guide, sigma, **small, across=True, tolerance=0.2, progress=reports[0])
        return stage(guide, sigma, **large, strength=0.6, across=True, progress=reports[1])
    same, strength = alike(lags), later_strength(lags, stages=1)
    side_by_side, overlapping = (cut(noisy, across, patch=4, step=step) for step in (4, 3))
    guide = stage(guide, sigma, **side_by_side, strength=1.5, tolerance=max(0.2, same), progress=reports[0])
    return stage(guide, sigma, **overlapping, strength=strength, tolerance=max(0.05, same), progress=reports[1])


def later_strength(autocovariance: Tensor | None, stages: int = 2) -> float:
    """Return the strength of the stages after the first.

    The patches of a group overlap. Correlated noise in them does not average out, so the guide has some of it left: it
    is taken for structure, unless the filter counts with more noise than there is. A single stage has to remove more of
    it than each of two.
    """
    return 1.0 if autocovariance is None else 2.5 if stages == 1 else 2.0


def alike(autocovariance: Tensor | None) -> float:
    """Return the mean squared difference, in units of sigma², of patches that differ only by correlated noise left in a
    guide: in proportion to the number of voxels that share a value of the noise."""
    return 0.0 if autocovariance is None else 0.1 * float(autocovariance.square().sum())


def strength_across(autocovariance: Tensor | None) -> float:
    """Return the strength of a stage that also smooths across the patches of a group, after the first: less than 1, or
    than 2 if the noise is correlated, as there are two ways to smooth."""
    return 0.6 if autocovariance is None else 1.4


def bayes_halo(patch_radius: Axes, search_radius: Axes) -> Axes:
    return stages_halo(2, patch_radius, search_radius, largest_patch(search_radius))


BAYES = Method(
    "non-local Bayes on groups of similar patches, in two stages",
    whole_tile(bayes),
    halo=bayes_halo,
    bytes_per_voxel=grouped_memory,
    search_radius=4,
    window=flatter_window,
    flat_search_radius=20,
    without=FEW_CONTROLS,
    shrinks=True,
    whitens=True,
    coarser_reach=COARSER_REACH,
    grain=GRAIN,
)


def best(noisy: Tensor, sigma: float | Tensor, options: Options, progress: Report) -> Tensor:
    """Non-local Bayes that also smooths across the patches of a group, in three stages.

    The second has patches of 3³, which err elsewhere than those of 4³ around it; they are too small to tell correlated
    noise from structure. Groups have about as many patches as a patch has voxels, so that smoothing across patches is
    as strong as within. The last stages have less strength than those of `bayes`, as there are two ways to smooth. An
    image has the stages of `filter_image`.
    """
    if is_plane(noisy):
        two = [(Groups(4, 3, 16), Groups(8, 6, 48)), (Groups(6, 3, 32), Groups(8, 6, 48))]
        return filter_image(noisy, sigma, options, two, progress)
    reports = [part(progress, 0.05, 0.15), part(progress, 0.15, 0.6), part(progress, 0.6, 1.0)]
    radius, lags, across = options.search_radius, options.autocovariance, across_slices(noisy, options)
    guide = pilot(noisy, sigma, options, part(progress, 0.0, 0.05))
    stage = partial(nl_bayes, noisy, search_radius=radius, autocovariance=lags)
    later = partial(stage, strength=strength_across(lags), across=True)
    side_by_side = cut(noisy, across, patch=4, step=4)
    tolerance = max(0.2, alike(lags))
    guide = stage(guide, sigma, **side_by_side, across=True, tolerance=tolerance, progress=reports[0])
    if lags is None:
        guide = later(guide, sigma, **cut(noisy, across, patch=3, step=2, count=32), progress=reports[1])
    else:
        overlapping = cut(noisy, across, patch=4, step=3)
        guide = later(guide, sigma, **overlapping, tolerance=max(0.05, alike(lags)), progress=reports[1])
    last = cut(noisy, across, patch=4, step=3, count=64)
    return later(guide, sigma, **last, tolerance=max(0.02, alike(lags)), progress=reports[2])


def best_halo(patch_radius: Axes, search_radius: Axes) -> Axes:
    return stages_halo(3, patch_radius, search_radius, largest_patch(search_radius))


BEST = Method(
    "non-local Bayes that also smooths across the patches of a group, in three stages",
    whole_tile(best),
    halo=best_halo,
    bytes_per_voxel=grouped_memory,
    search_radius=6,
    window=flatter_window,
    flat_search_radius=20,
    without=FEW_CONTROLS,
    shrinks=True,
    whitens=True,
    coarser_reach=COARSER_REACH,
    grain=GRAIN,
)


def subspace(noisy: Tensor, sigma: float | Tensor, options: Options, progress: Report) -> Tensor:
    """Low-rank approximation of groups of similar patches (Gavish and Donoho 2017)."""
    guide = pilot(noisy, sigma, options, part(progress, 0.0, 0.1))
    return low_rank(
        noisy,
        guide,
        sigma,
        **cut(noisy, across_slices(noisy, options), patch=4, step=3, count=64),
        search_radius=options.search_radius,
        tolerance=max(0.2, alike(options.autocovariance)),
        autocovariance=options.autocovariance,
        progress=part(progress, 0.1, 1.0),
    )


def subspace_halo(patch_radius: Axes, search_radius: Axes) -> Axes:
    return stages_halo(1, patch_radius, search_radius, largest_patch(search_radius))


SUBSPACE = Method(
    "low-rank approximation of groups of similar patches",
    whole_tile(subspace),
    halo=subspace_halo,
    bytes_per_voxel=grouped_memory,
    search_radius=4,
    window=flatter_window,
    flat_search_radius=10,
    without=FEW_CONTROLS,
    shrinks=True,
    whitens=True,
    coarser_reach=COARSER_REACH,
    grain=GRAIN,
)
