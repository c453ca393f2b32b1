"""The correlation of the noise of a series, seen in what its volumes do not share.

The signals of a series span few dimensions over the volumes. In the others there is noise alone: projected on these,
the series becomes images of nothing but noise, whose autocovariance needs no flat tissue.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nlmeans.core.axes import Axes
from nlmeans.core.modes import in_one_thread
from nlmeans.noise.search.correlation import Samples, block_and_lag, response_of_finest, symmetric
from nlmeans.noise.search.usable import object_threshold

MOST_IMAGES = 16
"""Images of noise that are looked at: those with the least energy."""

FEWEST_PAIRS = 500
"""Pairs of voxels, over all images, that a lag needs."""

NEARLY_WHITE_SERIES = 0.95
"""Response of the finest detail to the autocovariance from which noise counts as white. There are so many voxels that
white noise gives 0.99 to 1.01."""


@in_one_thread
def unshared_correlation(pieces: Sequence[Tensor]) -> Tensor | None:
    """Find the autocovariance of the noise of a series.

    Args:
        pieces: parts of the series, (V, D, H, W), floating point, with at least two volumes. The brighter part of their
            mean is looked at: magnitudes have other noise in the dark.

    Returns:
        In units of sigma², with lag 0 in the middle, float64; None if the noise is white, or too little of it is seen.

    Example:
        >>> white = torch.randn(16, 12, 12, 13, generator=torch.Generator().manual_seed(0))
        >>> unshared_correlation([white]) is None
        True
        >>> found = unshared_correlation([white + white.roll(1, -1)])
        >>> bool(abs(found[3, 3, 4] - 0.5) < 0.02)
        True
    """
    products = sum(flat @ flat.T for flat in (piece.double().flatten(1).cpu().numpy() for piece in pieces))
    count = len(products)
    quiet = np.linalg.eigh(products)[1][:, : min(MOST_IMAGES, count // 2)]
    means = [piece.mean(0) for piece in pieces]
    threshold = object_threshold(torch.cat([mean.flatten() for mean in means]))
    reach = block_and_lag(tuple(max(sizes) for sizes in zip(*(mean.shape for mean in means), strict=True)))[1]
    sums, pairs = (np.zeros([2 * r + 1 for r in reach]) for _ in range(2))
    for piece, mean in zip(pieces, means, strict=True):
        chosen = (mean > threshold).cpu().numpy()
        flat = piece.double().flatten(1).cpu().numpy()
        sums += products_at_lags((quiet.T @ flat).reshape(-1, *chosen.shape) * chosen, reach)
        pairs += products_at_lags(chosen[None].astype(float), reach).round()
    middle = tuple(reach)
    if pairs[middle] * quiet.shape[1] < FEWEST_PAIRS or sums[middle] <= 0:
        return None
    enough = pairs * quiet.shape[1] >= FEWEST_PAIRS
    found = np.where(enough, sums / np.maximum(pairs, 1), 0.0)
    lags = symmetric(torch.from_numpy(found / found[middle])).round(decimals=7)
    return None if response_of_finest(lags) > NEARLY_WHITE_SERIES else lags


def products_at_lags(images: Samples, reach: Axes) -> Samples:
    """Sum the products of all pairs of voxels at each lag up to `reach`, over all images, (images, D, H, W)."""
    padded = [n + r for n, r in zip(images.shape[1:], reach, strict=True)]
    power = sum(np.square(np.abs(np.fft.rfftn(image, padded, axes=(0, 1, 2)))) for image in images)
    around = np.roll(np.fft.irfftn(power, padded, axes=(0, 1, 2)), reach, (0, 1, 2))
    products: Samples = around[tuple(slice(0, 2 * r + 1) for r in reach)]
    return products
