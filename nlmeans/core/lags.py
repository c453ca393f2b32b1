"""Stationary covariances: from the autocovariance at each lag to the covariance over a box, and back.

And the cosines over a box, in which a covariance has a spectrum.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nlmeans.core.axes import Axes

Indices = npt.NDArray[np.intp]

LEAST_EIGENVALUE = 0.01
"""Least variance along any direction of a normalised covariance. Directions without noise count as if they had a
little, so that whitening stays finite."""


class Whitening(NamedTuple):
    """A covariance over a box with a mean variance of 1, and its square roots; (voxels, voxels), float64."""

    covariance: Tensor
    whiten: Tensor
    """The inverse square root: row vectors times this have white noise."""
    colour: Tensor
    """The square root, which undoes `whiten`."""

    def spectrum(self, basis: Tensor) -> Tensor:
        """Return the variance along each row of an orthonormal basis, (voxels,)."""
        rows = basis.double().cpu().numpy()
        return torch.from_numpy(((rows @ self.covariance.numpy()) * rows).sum(1)).to(basis)


@functools.lru_cache(maxsize=16)
def lags_between(size: Axes) -> Tensor:
    """Return the lag from each voxel of a box to each other one, (voxels, voxels, 3).

    >>> lags_between((1, 1, 3))[0].tolist()
    [[0, 0, 0], [0, 0, -1], [0, 0, -2]]
    """
    places = torch.tensor(list(itertools.product(*(range(n) for n in size))))
    return places[:, None] - places


def covariance_over(autocovariance: Tensor, size: Axes) -> Tensor:
    """Return the covariance between the voxels of a box, (voxels, voxels).

    `autocovariance` has an odd number of lags along each axis, with lag 0 in the middle. Lags beyond those that it has
    are not correlated.

    >>> covariance_over(torch.tensor([[[0.5, 1.0, 0.5]]]), (1, 1, 3))
    tensor([[1.0000, 0.5000, 0.0000],
            [0.5000, 1.0000, 0.5000],
            [0.0000, 0.5000, 1.0000]])
    """
    d, h, w = autocovariance.shape
    pairs, places, _ = pairs_at_lags(size, (d // 2, h // 2, w // 2))
    voxels = math.prod(size)
    covariance = autocovariance.new_zeros(voxels * voxels)
    covariance[torch.from_numpy(pairs)] = autocovariance.flatten()[torch.from_numpy(places)]
    return covariance.view(voxels, voxels)


def mean_over_lags(covariance: Tensor, size: Axes, lag: Axes) -> Tensor:
    """Return the mean of a covariance over a box at each lag up to `lag`: the inverse of `covariance_over`."""
    pairs, places, counts = pairs_at_lags(size, lag)
    values = covariance.numpy().reshape(-1)[pairs]
    return torch.from_numpy(np.bincount(places, values, len(counts)) / counts).view([2 * n + 1 for n in lag])


@functools.lru_cache(maxsize=16)
def pairs_at_lags(size: Axes, lag: Axes) -> tuple[Indices, Indices, Indices]:
    """Return the pairs of voxels of a box up to `lag` apart, as flat indices of a covariance; the flat index of the lag
    of each; and the number of pairs at each lag."""
    lags, reach = lags_between(size), torch.tensor(lag)
    near = (lags.abs() <= reach).all(-1)
    shape = tuple(2 * n + 1 for n in lag)
    places = np.ravel_multi_index(tuple((lags[near] + reach).T.numpy()), shape)
    return np.flatnonzero(near.numpy()), places, np.bincount(places, minlength=math.prod(shape))


def whitening(autocovariance: Tensor, size: Axes) -> Whitening:
    """Return what whitens noise of this autocovariance over a box.

    Any autocovariance gives finite results: eigenvalues are at least `LEAST_EIGENVALUE`, relative to the mean variance.
    """
    covariance = covariance_over(autocovariance.double().cpu(), size).numpy()  # torch hangs in forked processes
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    values = np.maximum(values, LEAST_EIGENVALUE)
    values *= len(values) / values.sum()
    return Whitening(*(torch.from_numpy((vectors * values**power) @ vectors.T) for power in (1.0, -0.5, 0.5)))


@functools.lru_cache
def dct_basis(size: Axes) -> Tensor:
    """Return the orthonormal DCT-II of a whole patch as one matrix: (coefficients, patch voxels), float64, DC first."""
    basis = torch.ones(1, 1, dtype=torch.float64)
    for length in size:
        basis = torch.kron(basis, dct_matrix(length))
    return basis


def dct_matrix(length: int) -> Tensor:
    """Return the orthonormal DCT-II along one axis, (frequency, position), float64."""
    position = torch.arange(length, dtype=torch.float64)
    matrix = torch.cos(math.pi / length * position[:, None] * (position + 0.5)) * math.sqrt(2 / length)
    matrix[0] /= math.sqrt(2)
    matrix[matrix.abs() < ROUNDED] = 0  # a cosine of 90°; products of such would be too small for float32
    return matrix


ROUNDED = 1e-15
"""What rounding leaves in place of 0."""
