"""Counting noise: the transform that makes it Gaussian, and the exact way back.

A detector reads ``gain`` × Poisson(photons) + normal(``offset``, ``read_noise``). All three are in image units;
with gain 1, offset 0 and no read noise the image is the counts themselves.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

MANY = 60.0
"""Photons above which a quarter of the squared mean is them and a constant, to a thousandth of a photon."""


def stabilise_counts(image: Tensor, gain: float, offset: float, read_noise: float) -> Tensor:
    """Generalised Anscombe transform: noise of standard deviation 1, nearly whatever the brightness.

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


def mean_of_stabilised(photons: Tensor, read_noise: float) -> Tensor:
    """Expectation of the stabilised image for each number of photons (float64, at most a few hundred of them).

    The sum over all counts that can occur, and over read noise up to six of its deviations.
    """
    highest = int(photons.max()) + 12 * math.ceil(math.sqrt(float(photons.max()) + 1)) + 12
    counts = torch.arange(highest, dtype=torch.float64)
    log_chance = torch.xlogy(counts, photons[:, None]) - photons[:, None] - torch.lgamma(counts + 1)
    nodes = torch.linspace(-6, 6, 401, dtype=torch.float64) if read_noise else torch.zeros(1, dtype=torch.float64)
    weights = torch.exp(-nodes.square() / 2)
    stabilised = stabilise_counts(counts[:, None] + read_noise * nodes, 1.0, 0.0, read_noise)
    return log_chance.exp() @ (stabilised @ (weights / weights.sum()))


@functools.lru_cache(maxsize=64)
def inverse_table(read_noise: float) -> tuple[Tensor, Tensor]:
    """Means of the stabilised image, rising, and the photons that they stand for, from none to `MANY`."""
    photons = torch.linspace(0, math.sqrt(MANY), 600, dtype=torch.float64).square()
    return mean_of_stabilised(photons, read_noise), photons


def restore_counts(mean: Tensor, gain: float, offset: float, read_noise: float) -> Tensor:
    """The image without noise, from the mean of its stabilised version: the exact unbiased inverse.

    The algebraic inverse of `stabilise_counts` would be too dark by a quarter of a photon, because the mean of roots is
    not the root of the mean. A mean below that of darkness becomes darkness.

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
    share = ((mean - means[after - 1]) / (means[after] - means[after - 1])).clamp(0, 1)
    few = torch.lerp(photons[after - 1], photons[after], share)
    many = mean.square() / 4 - 1 / 8 - (read_noise / gain) ** 2
    return torch.where(mean > means[-1], many, few) * gain + offset
