"""The noise of a series that is not known yet: what the volumes do not have in common."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from nlmeans.core.constants import independent_directions
from nlmeans.patches.groups import Grid
from nlmeans.patches.low_rank.components import products_of
from nlmeans.patches.low_rank.series import (
    LEAST_MEASURED,
    PATCH,
    filter_patches_of_series,
    patches_in,
    sigma_of_patches,
    volumes_last,
    whitening_of,
)


class Measured(NamedTuple):
    """What patches of a series that lie side by side show."""

    sigma: Tensor
    """Standard deviation of what the volumes do not share, in the patch of each voxel, (voxels,)."""
    rank: Tensor
    """Number of components that they share there."""
    brightness: Tensor
    """Mean of the volumes at each voxel."""
    intensity: Tensor
    """Mean of each volume over each patch, of those inside the series, (patches, V)."""
    variance: Tensor
    """Variance of what is not shared, likewise."""


class Independent(NamedTuple):
    """A series in its own units, without what is constant, and the directions over its volumes that hold anything."""

    values: Tensor
    """(V, D, H, W), up to 1, without the mean of each volume: an offset would drown the noise in rounding."""
    middle: Tensor
    """The means, (V,)."""
    peak: Tensor
    """What the values were divided by."""
    directions: Tensor | None
    """(V, directions), orthonormal; None where all of them count."""

    @classmethod
    def of(cls, noisy: Tensor) -> Independent:
        """Take off the means of a series, (V, D, H, W). Volumes without noise of their own will not count."""
        values = noisy.clone(memory_format=torch.contiguous_format)  # the same bits on any axis
        middle = values.mean((1, 2, 3))
        values -= middle[:, None, None, None]
        peak = values.abs().max().clamp_min(torch.finfo(noisy.dtype).tiny)
        values /= peak
        directions = torch.from_numpy(independent_directions(products_of(values)[0].numpy())[1]).to(values)
        return cls(values, middle, peak, directions if 0 < directions.shape[1] < len(values) else None)


def measure_patches(noisy: Tensor, autocovariance: Tensor | None) -> Measured:
    """Measure the noise of a series, (V, D, H, W), in patches side by side.

    Args:
        noisy: floating point.
        autocovariance: of the noise within a volume, in units of sigma², with lag 0 in the middle; None for white.
    """
    series = Independent.of(noisy)
    shape = (noisy.shape[1], noisy.shape[2], noisy.shape[3])
    grid = Grid.of(shape, PATCH, PATCH, 1, (0, 0, 0))
    patches = patches_in(volumes_last(series.values, grid), grid, grid.references)
    inside = noisy.new_zeros(*grid.shape, 1)
    inside[: shape[0], : shape[1], : shape[2]] = 1
    real = patches_in(inside, grid, grid.references)[..., 0] > 0  # the others repeat voxels where the grid ends
    whole = real.all(1)
    bright = (patches.mean(2) * series.peak + series.middle.mean())[real]
    turned = patches if series.directions is None else patches @ series.directions
    signal, shrunk = filter_patches_of_series(turned, None, whitening_of(autocovariance, grid))
    if series.directions is not None:
        signal = signal @ series.directions.mT
    variance = shrunk.variance.clamp_min(LEAST_MEASURED)
    unshared = (patches[whole] - signal[whole]).square_()
    unshared *= variance[whole, None, None] / unshared.mean(2, keepdim=True).clamp_min(torch.finfo(noisy.dtype).tiny)
    return Measured(
        (variance.sqrt() * series.peak)[:, None].expand_as(real)[real],
        shrunk.rank[:, None].expand_as(real)[real],
        bright,
        signal[whole].mean(1) * series.peak + series.middle,
        unshared.mean(1) * series.peak.square(),
    )


def sigma_everywhere(noisy: Tensor, autocovariance: Tensor | None) -> Tensor:
    """Measure the noise around each voxel of a series, (V, D, H, W), in patches that overlap; return (D, H, W)."""
    series = Independent.of(noisy)
    values = series.values
    if series.directions is not None:
        values = torch.tensordot(series.directions.mT, values, 1)
    return sigma_of_patches(values, autocovariance) * series.peak
