"""Poisson noise: the transform that makes it Gaussian, and its exact unbiased inverse.

A detector reads ``gain`` × Poisson(photons) + normal(``offset``, ``read_noise``). All three are in image units.
With gain 1, offset 0 and no read noise, the image is the counts themselves.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from nlmeans.core.modes import outside_autocast
from nlmeans.noise.rician import look_up

MANY_PHOTONS = 60.0
"""Photons above which the inverse has a simple form, exact to a thousandth of a photon: mean²/4 minus a constant."""


def stabilise_counts(image: Tensor, gain: float, offset: float, read_noise: float) -> Tensor:
    """Apply the generalised Anscombe transform, after which the noise has standard deviation 1 nearly everywhere.

    Args:
        image: floating point, any shape, in image units.
        gain: image units per photon.
        offset: image value where no photon arrives.
        read_noise: standard deviation of the detector's own noise, in image units.

    References:
        J.-L. Starck, F. Murtagh, A. Bijaoui, "Image Processing and Data Analysis", Cambridge University Press 1998,
        doi:10.1017/CBO9780511564352.

    Example:
        >>> counts = torch.poisson(torch.full((100_000,), 30.0), torch.Generator().manual_seed(0))
        >>> round(float(stabilise_counts(counts, 1.0, 0.0, 0.0).std()), 2)
        1.0
    """
    variance = (read_noise / gain) ** 2
    return 2 * ((image - offset) / gain + 3 / 8 + variance).clamp_min(0).sqrt()


def deviation_of_counts(image: Tensor, gain: float, offset: float, read_noise: float) -> Tensor:
    """Return the standard deviation of the noise where the image without noise has these values; arguments as above."""
    light = (image - offset).clamp_min(0).sqrt_().mul_(math.sqrt(gain))  # a product of both could overflow
    return light.hypot_(light.new_tensor(read_noise))


def mean_of_stabilised(photons: Tensor, read_noise: float, squares_from: float | None = None) -> Tensor:
    """Compute the mean of the stabilised image for each expected number of photons, with gain 1 and offset 0.

    Or the mean of its squared difference from `squares_from`. The mean is a sum over all counts that can occur and over
    the read noise up to six of its deviations. So `photons`, in float64, should be at most a few hundred.
    """
    highest = int(photons.max()) + 12 * math.ceil(math.sqrt(float(photons.max()) + 1)) + 12
    counts = torch.arange(highest, dtype=torch.float64)
    log_chance = torch.xlogy(counts, photons[:, None]) - photons[:, None] - torch.lgamma(counts + 1)
    nodes = torch.linspace(-6, 6, 401, dtype=torch.float64) if read_noise else torch.zeros(1, dtype=torch.float64)
    weights = torch.exp(-nodes.square() / 2)
    stabilised = stabilise_counts(counts[:, None] + read_noise * nodes, 1.0, 0.0, read_noise)
    values = stabilised if squares_from is None else (stabilised - squares_from).square()
    return log_chance.exp() @ (values @ (weights / weights.sum()))


@functools.lru_cache(maxsize=64)
@outside_autocast
def inverse_table(read_noise: float) -> tuple[Tensor, Tensor]:
    """Tabulate the means of the stabilised image, rising, and their numbers of photons, from 0 to `MANY_PHOTONS`."""
    photons = torch.linspace(0, math.sqrt(MANY_PHOTONS), 600, dtype=torch.float64).square()
    return mean_of_stabilised(photons, read_noise), photons


@functools.lru_cache(maxsize=64)
@outside_autocast
def deviation_table(read_noise: float) -> Tensor:
    """Tabulate the standard deviation of the stabilised image, for the numbers of photons of `inverse_table`."""
    means, photons = inverse_table(read_noise)
    least = float(means[0])  # squares around it do not cancel where the read noise is strong
    return (mean_of_stabilised(photons, read_noise, least) - (means - least).square()).clamp_min(0).sqrt()


def deviation_of_stabilised(image: Tensor, gain: float, offset: float, read_noise: float) -> Tensor:
    """Return the standard deviation of the stabilised image where the image without noise has these values.

    It is 1, but less where only a few photons arrive, and 0 without any photon or read noise.

    Args:
        image: floating point, any shape, in image units.
        gain: as for `stabilise_counts`.
        offset: as for `stabilise_counts`.
        read_noise: as for `stabilise_counts`.

    Example:
        >>> [round(v, 2) for v in deviation_of_stabilised(torch.tensor([0.0, 0.1, 1.0, 30.0]), 1.0, 0.0, 0.0).tolist()]
        [0.0, 0.34, 0.85, 1.0]
    """
    table = deviation_table(read_noise / gain)
    return look_up(table, ((image - offset) / (gain * MANY_PHOTONS)).clamp(0, 1).sqrt() * (len(table) - 1))


def restore_counts(mean: Tensor, gain: float, offset: float, read_noise: float) -> Tensor:
    """Return the noise-free image from the mean of its stabilised version: the exact unbiased inverse.

    The algebraic inverse of `stabilise_counts` would be too dark by a quarter of a photon, because the mean of square
    roots is not the square root of the mean. A mean below that of no photons becomes `offset`.

    Args:
        mean: floating point, any shape: the stabilised image after denoising.
        gain: as for `stabilise_counts`.
        offset: as for `stabilise_counts`.
        read_noise: as for `stabilise_counts`.

    References:
        M. Mäkitalo, A. Foi, "Optimal inversion of the generalized Anscombe transformation for Poisson-Gaussian noise",
        IEEE Trans. Image Process. 2013, doi:10.1109/TIP.2012.2202675.

    Example:
        >>> mean = mean_of_stabilised(torch.tensor([0.0, 0.5, 20.0, 500.0], dtype=torch.float64), 0.0)
        >>> [round(v, 3) for v in restore_counts(mean, 1.0, 0.0, 0.0).tolist()]
        [0.0, 0.5, 20.0, 500.0]
    """
    means, photons = (t.to(mean) for t in inverse_table(read_noise / gain))
    after = torch.searchsorted(means, mean.contiguous()).clamp(1, len(means) - 1)
    step = (means[after] - means[after - 1]).clamp_min(torch.finfo(mean.dtype).tiny)  # 0 if the read noise is strong
    share = ((mean - means[after - 1]) / step).clamp(0, 1)
    few = torch.lerp(photons[after - 1], photons[after], share)
    many = mean.square() / 4 - 1 / 8 - (read_noise / gain) ** 2
    return torch.where(mean > means[-1], many, few) * gain + offset
