"""Low-rank approximation of groups of similar patches."""

from __future__ import annotations

from torch import Tensor

from nlmeans.core.axes import Axes
from nlmeans.core.lags import Whitening, whitening
from nlmeans.core.progress import Report, silent
from nlmeans.patches.groups import LEAST_VARIANCE, Filtered, Grid, channels_alone, filter_volume
from nlmeans.patches.low_rank.spectrum import shrink_singular_values


def low_rank(
    noisy: Tensor,
    guide: Tensor,
    sigma: float | Tensor = 1.0,
    *,
    patch: int | Axes = 4,
    step: int | Axes = 3,
    count: int = 64,
    search_radius: Axes = (4, 4, 4),
    tolerance: float = 0.2,
    autocovariance: Tensor | None = None,
    progress: Report = silent,
) -> Tensor:
    """Shrink the singular values of groups of similar patches; see `shrink_group`.

    The arguments are those of `nl_bayes`. The guide serves only to find the groups.
    """

    def filter_groups(noisy: Tensor, guide: Tensor, variance: Tensor) -> Filtered:
        return shrink_group(noisy, variance, noise)

    shape = (noisy.shape[1], noisy.shape[2], noisy.shape[3])
    grid = Grid.of(shape, patch, step, count, search_radius)
    noise = None if autocovariance is None else whitening(autocovariance, grid.size)
    return filter_volume(noisy, guide, sigma, grid, tolerance, channels_alone(filter_groups), progress)


def shrink_group(noisy: Tensor, variance: Tensor, correlated: Whitening | None = None) -> Filtered:
    """Shrink the singular values of each group minus its mean patch; see `shrink_singular_values`.

    The weight of a group is 1 / ((1 + its rank) · σ²). Correlated noise is whitened before and coloured afterwards.

    Args:
        noisy: (groups, K, patch voxels).
        variance: variance of the noise, (groups,).
        correlated: the correlation of the noise over a patch; None for white noise.
    """
    mean = noisy.mean(1, keepdim=True)
    detail = noisy - mean
    if correlated is not None:
        detail = detail @ correlated.whiten.to(detail)
    shrunk = shrink_singular_values(detail, variance, leading=min(detail.shape[1:]))
    patches = shrunk.matrix if correlated is None else shrunk.matrix @ correlated.colour.to(detail)
    return Filtered(patches + mean, 1 / ((1 + shrunk.rank) * variance.clamp_min(LEAST_VARIANCE)))
