"""Methods that use the discrete cosine transform (DCT): dct, wiener and pri."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from nlmeans.core.axes import Axes
from nlmeans.core.progress import Report, part
from nlmeans.methods.coarser import COARSER_REACH, with_coarser_level
from nlmeans.methods.means import classic, operator_memory
from nlmeans.methods.method import Method, Options, whole_tile
from nlmeans.operator.nonlocal_means import nonlocal_means
from nlmeans.patches.dct.sliding import hard_threshold, wiener_filter


def patch_memory(backend: str, channels: int, patch_radius: Axes, search_radius: Axes) -> float:
    """Return the bytes per voxel: those of the pilot, and those of the patches.

    The latter hold the extended image and guide, sums and weights, the estimate, and coefficients.
    """
    return operator_memory(backend, channels, patch_radius, search_radius) + 4.0 * (14 * channels + 6)


def dct(noisy: Tensor, sigma: float | Tensor, options: Options, progress: Report) -> Tensor:
    """Hard threshold of a sliding DCT (Manjón et al. 2012, ODCT)."""
    return sliding_dct(noisy, sigma, 2.7, options.autocovariance, progress)


def sliding_dct(
    noisy: Tensor, sigma: float | Tensor, threshold: float, autocovariance: Tensor | None, progress: Report
) -> Tensor:
    """Hard threshold of a DCT at every voxel; at two resolutions if the noise is correlated."""
    at_every_voxel = partial(hard_threshold, patch=4, stride=1, threshold=threshold)
    if autocovariance is None:
        return at_every_voxel(noisy, sigma, progress=progress)
    reports = iter((part(progress, 0.0, 0.9), part(progress, 0.9, 1.0)))  # there are few voxels at the coarser level

    def filter_level(noisy: Tensor, sigma: float | Tensor, autocovariance: Tensor | None) -> Tensor:
        return at_every_voxel(noisy, sigma, autocovariance=autocovariance, progress=next(reports))

    return with_coarser_level(filter_level, noisy, sigma, autocovariance)


def dct_halo(patch_radius: Axes, search_radius: Axes) -> Axes:
    """Return the reach: 3 voxels from a voxel to the corner of a patch of 4, and 3 within another patch there."""
    return 6, 6, 6


DCT = Method(
    "hard threshold of a sliding discrete cosine transform (DCT)",
    whole_tile(dct),
    halo=dct_halo,
    bytes_per_voxel=patch_memory,
    shrinks=True,
    whitens=True,
    without={
        "h": "its threshold is a multiple of sigma; set the strength",
        "patch_radius": "its patches are 4 voxels wide",
        "search_radius": "it looks at single patches, not for similar ones",
    },
    coarser_reach=COARSER_REACH,
    grain=2,
)


def dct_pilot(noisy: Tensor, sigma: float | Tensor, options: Options, progress: Report) -> Tensor:
    """Hard threshold of a sliding DCT that keeps less than `dct`, as a first estimate for other methods."""
    return sliding_dct(noisy, sigma, 3.0, options.autocovariance, progress)


def wiener(noisy: Tensor, sigma: float | Tensor, options: Options, progress: Report) -> Tensor:
    """Wiener filter in the DCT domain, with non-local means as the pilot; for correlated noise with the DCT."""
    lags = options.autocovariance
    to_guide = part(progress, 0.0, 0.6)
    guide = (classic if lags is None else dct_pilot)(noisy, sigma, options, to_guide)
    to_guide(1.0)
    return wiener_filter(noisy, guide, sigma, patch=4, stride=1, autocovariance=lags, progress=part(progress, 0.6, 1.0))


def wiener_halo(patch_radius: Axes, search_radius: Axes) -> Axes:
    """Return the reach: that of the DCT, and from there that of the pilot."""
    d, h, w = (6 + p + s for p, s in zip(patch_radius, search_radius, strict=True))
    return d, h, w


WIENER = Method(
    "Wiener filter in the DCT domain, guided by non-local means",
    whole_tile(wiener),
    halo=wiener_halo,
    bytes_per_voxel=patch_memory,
    h=1.15,
    shrinks=True,
    whitens=True,
    coarser_reach=COARSER_REACH,
    grain=2,
)


def pri(noisy: Tensor, sigma: float | Tensor, options: Options, progress: Report) -> Tensor:
    """Prefiltered rotationally invariant non-local means (Manjón et al. 2012, PRI-NLM).

    Two voxels are compared by their values and by the means of their neighbourhoods, both in a pilot that `dct` makes.
    The squared differences are divided by 0.8 h² and 0.4 h².
    """
    pilot = dct(noisy, sigma, options, part(progress, 0.0, 0.1))
    count, averaging = len(noisy), part(progress, 0.1, 1.0)
    averaging(0.0)
    results = [
        nonlocal_means(
            channel[None],
            options.h * sigma,
            guide=torch.stack([first, neighbour_mean(first)]),
            guide_scale=(1.25, 2.5),
            patch_radius=0,
            search_radius=options.search_radius,
            channels=0,
            backend=options.backend,
            memory=options.memory,
            progress=part(averaging, number / count, (number + 1) / count),
        )[0]
        for number, (channel, first) in enumerate(zip(noisy, pilot, strict=True))
    ]
    return torch.stack(results)


def neighbour_mean(volume: Tensor) -> Tensor:
    """Average a (D, H, W) volume over 3 × 3 × 3 voxels (3 × 3 in an image), with reflected borders."""
    for axis, length in enumerate(volume.shape):
        if length > 1:
            first, last = volume.narrow(axis, 1, 1), volume.narrow(axis, length - 2, 1)
            padded = torch.cat([first, volume, last], axis)
            volume = sum((padded.narrow(axis, k, length) for k in (1, 2)), padded.narrow(axis, 0, length)) / 3
    return volume


def pri_halo(patch_radius: Axes, search_radius: Axes) -> Axes:
    """Return the reach: the search radius, one voxel to a neighbour, and the reach of the DCT."""
    d, h, w = (7 + s for s in search_radius)
    return d, h, w


PRI = Method(
    "prefiltered rotationally invariant non-local means (Manjón et al. 2012)",
    whole_tile(pri),
    halo=pri_halo,
    bytes_per_voxel=patch_memory,
    h=1.2,
    without={"patch_radius": "it compares voxels and their means over 3 × 3 × 3"},
    shrinks=True,
    whitens=True,
    coarser_reach=COARSER_REACH,
    grain=2,
)
