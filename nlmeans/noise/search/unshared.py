"""The correlation of the noise of a series, seen in what its volumes do not share.

The signals of a series span few dimensions over the volumes. In the others there is noise alone: projected on these,
the series becomes images of nothing but noise, whose autocovariance needs no flat tissue.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nlmeans.core.axes import Axes
from nlmeans.core.constants import independent_directions
from nlmeans.core.modes import in_one_thread
from nlmeans.noise.search.correlation import Samples, block_and_lag, response_of_finest, symmetric
from nlmeans.noise.search.usable import object_threshold

MOST_IMAGES = 16
"""Images of noise that are looked at: those with the least energy."""

AS_QUIET = 3.0
"""Energy of an image of noise, in units of the least, below which it counts: magnitudes vary by 2.3."""

FEWEST_PAIRS = 500
"""Pairs of voxels, over all images, that a lag needs."""

NEARLY_WHITE_SERIES, WHITE_BY_CHANCE = 0.05, 7.0
"""How much less than 1 the response of the finest detail to the autocovariance is at most if noise counts as white; and
the same times the square root of the number of voxels, four deviations of the response to white noise."""

FADED, LITTLE = 0.5, 0.1
"""Largest correlation at the farthest lag that is seen, in units of that of the next voxel, unless it is little.
Structure correlates farther than noise."""


@in_one_thread
def unshared_correlation(pieces: Sequence[Tensor]) -> Tensor | None:
    """Find the autocovariance of the noise of a series.

    Args:
        pieces: parts of the series, (V, D, H, W), floating point, with at least two volumes. The brighter part of their
            mean is looked at: magnitudes have other noise in the dark.

    Returns:
        In units of sigma², with lag 0 in the middle, float64; None if the noise is white, too little of it is seen, or
        it correlates as far as structure does.

    Example:
        >>> white = torch.randn(16, 12, 12, 13, generator=torch.Generator().manual_seed(0))
        >>> unshared_correlation([white]) is None
        True
        >>> found = unshared_correlation([white + white.roll(1, -1)])
        >>> bool(abs(found[3, 3, 4] - 0.5) < 0.02)
        True
    """
    centred = [without_means(piece) for piece in pieces]
    energies, directions = independent_directions(np.sum([flat @ flat.T for flat in centred], 0))
    half = min(MOST_IMAGES, len(energies) // 2)
    if not half:
        return None
    quiet = directions[:, :half][:, energies[:half] < AS_QUIET * energies[0]]
    means = [piece.mean(0) for piece in pieces]
    threshold = object_threshold(torch.cat([mean.flatten() for mean in means]))
    reach = block_and_lag(tuple(max(sizes) for sizes in zip(*(mean.shape for mean in means), strict=True)))[1]
    sums, pairs = (np.zeros([2 * r + 1 for r in reach]) for _ in range(2))
    for flat, mean in zip(centred, means, strict=True):
        chosen = (mean > threshold).cpu().numpy()
        sums += products_at_lags((quiet.T @ flat).reshape(-1, *chosen.shape) * chosen, reach)
        pairs += products_at_lags(chosen[None].astype(float), reach).round()
    middle = tuple(reach)
    if pairs[middle] * quiet.shape[1] < FEWEST_PAIRS or sums[middle] <= 0:
        return None
    enough = pairs * quiet.shape[1] >= FEWEST_PAIRS
    found = np.where(enough, sums / np.maximum(pairs, 1), 0.0)
    lags = symmetric(torch.from_numpy(found / found[middle])).round(decimals=7)
    lengths = [max(sizes) for sizes in zip(*(mean.shape for mean in means), strict=True)]
    nearly = 1 - max(NEARLY_WHITE_SERIES, WHITE_BY_CHANCE / math.sqrt(pairs[middle] * quiet.shape[1]))
    if response_of_finest(lags) > nearly or not fades(lags.numpy(), enough, lengths):
        return None
    return lags


def without_means(piece: Tensor) -> Samples:
    """Return the volumes of a piece, (V, voxels), float64, each without its mean: an offset is no signal."""
    values = piece.double().flatten(1)
    flat: Samples = (values - values.mean(1, keepdim=True)).cpu().numpy()
    return flat


def fades(lags: Samples, seen: NDArray[np.bool_], lengths: Sequence[int]) -> bool:
    """Tell whether noise correlates less at the farthest lag than at the first, on average over the axes.

    Args:
        lags: the autocovariance.
        seen: which lags are known; along an axis, the farthest is the last before one that is not.
        lengths: of the axes. An axis of which all lags are seen has no more to show.

    >>> lags, seen = np.array([[[0.0, 0.8, 1.0, 0.8, 0.0]]]), np.array([[[False, True, True, True, False]]])
    >>> fades(lags, seen, (1, 1, 40)), fades(lags, np.ones_like(seen), (1, 1, 40))
    (False, True)
    """
    middle, next_voxel, farthest = [n // 2 for n in lags.shape], [], []
    for axis, length in enumerate(lengths):
        along = tuple(slice(m, None) if other == axis else m for other, m in enumerate(middle))
        line, last = np.abs(lags[along]), int(np.argmin(np.append(seen[along], False))) - 1
        if last < length - 1:
            next_voxel.append(line[min(last, 1)])
            farthest.append(line[last])
    return not farthest or bool(np.mean(farthest) <= max(FADED * np.mean(next_voxel), LITTLE))


def products_at_lags(images: Samples, reach: Axes) -> Samples:
    """Sum the products of all pairs of voxels at each lag up to `reach`, over all images, (images, D, H, W)."""
    padded = [n + r for n, r in zip(images.shape[1:], reach, strict=True)]
    power = sum(np.square(np.abs(np.fft.rfftn(image, padded, axes=(0, 1, 2)))) for image in images)
    around = np.roll(np.fft.irfftn(power, padded, axes=(0, 1, 2)), reach, (0, 1, 2))
    products: Samples = around[tuple(slice(0, 2 * r + 1) for r in reach)]
    return products
