"""The method for series: all volumes together."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d

from nlmeans.core.axes import Axes
from nlmeans.core.progress import Report, part, silent
from nlmeans.methods.grouped import (
    CUBE,
    GRAIN,
    IMAGE_PATCH,
    alike,
    grouped_memory,
    is_plane,
    later_strength,
    stages_halo,
)
from nlmeans.methods.method import Method, Options, same_distance, whole_tile
from nlmeans.patches.bayes.nl_bayes import nl_bayes
from nlmeans.patches.kernel_constants import TINY
from nlmeans.patches.low_rank.series import each_batch, series_low_rank

COMPONENTS_PATCH, COMPONENTS_IMAGE_PATCH = 3, 5
"""Edge of the patches in which components are filtered first, in a volume and in an image. There are few components, so
that small patches do."""

GROUP_STEP = 4
"""Distance between the reference patches of the groups. Less, or a wider search, gains .05 dB, for twice the time."""

GROUP_COUNT = 32
"""Patches in a group. 48 gain .1 dB, for twice the time."""

STRENGTH = 2.0
"""Factor on the noise variance, where components are filtered one by one. Where they are filtered together, the noise
of all counts in each, so this is multiplied by their number."""

LEFT, WEAK_EDGE = 0.03, 5
"""Variance of the noise that is left in a component, in units of sigma², and edge of the box in which a component has
to show more, in voxels."""


def denoise_series(noisy: Tensor, sigma: float | Tensor, options: Options, progress: Report) -> Tensor:
    """Denoise the components of a series, (components, D, H, W).

    First low rank of local patches × components, with singular values shrunk optimally (Gavish and Donoho 2017). That
    guides non-local Bayes (Lebrun, Buades and Morel 2013) on each component, which guides non-local Bayes on all of
    them: each shrinks weak signal, of which the last one brings back what several components show. Where a component
    shows hardly anything in the end, it goes.

    References:
        W. James, C. Stein, "Estimation with quadratic loss", Proceedings of the Fourth Berkeley Symposium 1, 1961.
    """
    stages = part(progress, 0.0, 0.25), part(progress, 0.25, 0.5), part(progress, 0.5, 1.0)
    lags = options.autocovariance
    patch = COMPONENTS_IMAGE_PATCH if is_plane(noisy) else COMPONENTS_PATCH
    found = series_low_rank(noisy, sigma, patch=patch, autocovariance=lags, progress=stages[0])
    if options.rank is not None:
        options.rank.copy_(found.rank)
    guide = found.series.contiguous()
    del found
    bayes = partial(
        nl_bayes,
        noisy,
        guide,
        sigma,
        patch=patch_of_equal_sides(IMAGE_PATCH if is_plane(noisy) else CUBE, options.spacing),
        step=GROUP_STEP,
        count=GROUP_COUNT,
        search_radius=options.search_radius,
        tolerance=max(0.05, alike(lags)),
        autocovariance=lags,
        out=guide,
    )
    strength = STRENGTH * later_strength(lags)
    bayes(strength=strength, progress=stages[1])
    return without_weak(bayes(joint=True, strength=strength * len(noisy), progress=stages[2]), sigma)


def patch_of_equal_sides(patch: int, spacing: tuple[float, float, float]) -> Axes:
    """Return how many voxels long a patch is along each axis, for sides of about the same length in millimetres.

    >>> patch_of_equal_sides(4, (1.0, 1.0, 3.0)), patch_of_equal_sides(4, (1.2, 1.0, 1.0))
    ((4, 4, 2), (3, 4, 4))
    """
    d, h, w = (max(2, edge) for edge in same_distance(patch, spacing))
    return d, h, w


def without_weak(denoised: Tensor, sigma: float | Tensor) -> Tensor:
    """Shrink components, (components, D, H, W), where they show less than the noise that is left in them.

    A component of a few voxels is noise everywhere else. Each is multiplied by 1 − left / energy around a voxel, or by
    0 (James and Stein 1961).
    """
    left = torch.as_tensor(LEFT * sigma**2).to(denoised)

    def shrink(component: Tensor) -> None:
        energy = component.square()[None]
        for axis, n in enumerate(component.shape):
            edge, beside = [1, 1, 1], [0, 0, 0]
            edge[axis] = min(WEAK_EDGE, n - 1 + n % 2)
            beside[axis] = edge[axis] // 2
            energy = avg_pool3d(energy, edge, 1, beside, count_include_pad=False)
        component.mul_((1 - left / energy[0].clamp_min_(TINY)).clamp_min_(0))

    each_batch(shrink, [denoised.unbind()], denoised.device, silent)
    return denoised


def series_halo(patch_radius: Axes, search_radius: Axes) -> Axes:
    """Return the reach of the first filter, which is less than that of a pilot, and of two stages of groups."""
    patch = CUBE if all(search_radius) else IMAGE_PATCH
    return stages_halo(2, patch_radius, search_radius, (patch,) * 3)


SERIES = Method(
    "what the volumes of a series have in common, denoised by low rank and non-local Bayes",
    whole_tile(denoise_series),
    halo=series_halo,
    bytes_per_voxel=grouped_memory,
    flat_search_radius=7,
    without={
        "h": "it averages nothing by similarity; set the strength",
        "patch_radius": "its patches have a size of their own",
    },
    shrinks=True,
    whitens=True,
    joint=True,
    grain=GRAIN,
)
