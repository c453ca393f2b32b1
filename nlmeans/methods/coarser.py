"""A coarser level: noise that is correlated over a long distance is so over half as many voxels of twice the size.

References:
    N. Pierazzo, J.-M. Morel, G. Facciolo, "Multi-scale DCT denoising", Image Processing On Line 7, 2017,
    doi:10.5201/ipol.2017.201.
    M. Lebrun, M. Colom, J.-M. Morel, "Multiscale image blind denoising", IEEE Transactions on Image Processing 24(10),
    2015, doi:10.1109/TIP.2015.2439041.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Filter = Callable[[Tensor, float | Tensor, Tensor], Tensor]
"""A function of a (C, D, H, W) volume, its sigma, and the autocovariance of its noise in units of sigma²."""

COARSER_REACH = 9
"""Voxels that a filter reaches farther with a coarser level than without, if it reaches over 6 voxels at each level:
15 = 2·(6 + 1) + 1."""

SHORTEST = 8
"""Axes with fewer voxels stay as fine as they are."""


def with_coarser_level(filter_level: Filter, noisy: Tensor, sigma: float | Tensor, autocovariance: Tensor) -> Tensor:
    """Filter a volume at two resolutions: coarse structure comes from voxels of twice the size.

    Patches tell noise from structure only if it changes within a patch. At the coarser level it changes over half as
    many voxels. Tiles must start at even voxels.

    Args:
        filter_level: filters one level.
        noisy: (C, D, H, W).
        sigma: standard deviation of the noise, a number or a (D, H, W) map.
        autocovariance: of the noise, in units of sigma², with lag 0 in the middle.

    Returns:
        Same shape, dtype and device.
    """
    fine = filter_level(noisy, sigma, autocovariance)
    axes = [axis for axis in range(3) if noisy.shape[1 + axis] >= SHORTEST]
    if not axes:
        return fine
    coarse_noise = autocovariance_of_means(autocovariance, axes)
    d, h, w = (n // 2 for n in coarse_noise.shape)
    variance = float(coarse_noise[d, h, w])
    if variance <= 0:  # the noise cancels in any two voxels
        return fine
    level = sigma if isinstance(sigma, float) else pair_means(sigma.square()[None], axes)[0].sqrt()
    coarse = filter_level(pair_means(noisy, axes), level * variance**0.5, coarse_noise / variance)
    return fine + between_pairs(coarse - pair_means(fine, axes), axes, fine)


def pair_means(volume: Tensor, axes: list[int]) -> Tensor:
    """Average pairs of voxels along the given axes of (C, D, H, W). An odd voxel at the end stays alone.

    >>> pair_means(torch.tensor([[[[1.0, 3.0, 5.0]]]]), [2]).flatten().tolist()
    [2.0, 5.0]
    """
    for axis in axes:
        first = volume[every_second(axis, 0)]
        second = volume[every_second(axis, 1)]
        if volume.shape[axis + 1] % 2:
            second = torch.cat([second, volume.narrow(axis + 1, volume.shape[axis + 1] - 1, 1)], axis + 1)
        volume = (first + second) / 2
    return volume


def between_pairs(coarse: Tensor, axes: list[int], fine: Tensor) -> Tensor:
    """Interpolate the means of pairs linearly at the voxels of `fine`: the value at a quarter between two of them.

    >>> between_pairs(torch.tensor([[[[0.0, 4.0]]]]), [2], torch.empty(1, 1, 1, 4)).flatten().tolist()
    [0.0, 1.0, 3.0, 4.0]
    """
    for axis in axes:
        last = coarse.shape[axis + 1] - 1
        before = torch.cat([coarse.narrow(axis + 1, 0, 1), coarse.narrow(axis + 1, 0, last)], axis + 1)
        after = torch.cat([coarse.narrow(axis + 1, 1, last), coarse.narrow(axis + 1, last, 1)], axis + 1)
        shape = list(coarse.shape)
        shape[axis + 1] = fine.shape[axis + 1]
        coarse, here = coarse.new_empty(shape), coarse
        coarse[every_second(axis, 0)] = 0.75 * here + 0.25 * before
        second = 0.75 * here + 0.25 * after
        coarse[every_second(axis, 1)] = second.narrow(axis + 1, 0, shape[axis + 1] // 2)
    return coarse


def autocovariance_of_means(autocovariance: Tensor, axes: list[int]) -> Tensor:
    """Return the autocovariance of the means of pairs along the given axes, at lags in pairs.

    The means of white noise are white, with half the variance for each axis.

    >>> autocovariance_of_means(torch.tensor([[[0.0, 1.0, 0.0]]]), [2]).tolist()
    [[[0.0, 0.5, 0.0]]]
    """
    for axis in axes:
        reach = autocovariance.shape[axis] // 2
        farthest = 2 * ((reach + 1) // 2)
        zeros = torch.zeros_like(autocovariance.narrow(axis, 0, 1)).repeat_interleave(2, axis)
        wide = torch.cat([zeros, autocovariance, zeros], axis)
        lags = torch.arange(-farthest, farthest + 1, 2, device=wide.device) + reach + 2
        before, here, after = (wide.index_select(axis, lags + shift) for shift in (-1, 0, 1))
        autocovariance = before / 4 + here / 2 + after / 4
    return autocovariance


def every_second(axis: int, first: int) -> tuple[slice, ...]:
    """Return the index of every second voxel along an axis of (C, D, H, W)."""
    return (slice(None),) * (axis + 1) + (slice(first, None, 2),)
