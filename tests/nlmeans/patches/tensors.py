"""Random tensors and images with edges, for the tests of patches."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import dctn

Array = NDArray[np.float64]

LAGS = torch.tensor([[[0.1, 0.2, 0.1], [0.4, 1.0, 0.4], [0.1, 0.2, 0.1]]], dtype=torch.float64)
"""An autocovariance of noise."""


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.manual_seed(seed))


def blobs(shape: tuple[int, int, int]) -> torch.Tensor:
    """A smooth image with edges and values up to about 20."""
    z, y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in shape), indexing="ij")
    return 10 * torch.sin(x / 3) * torch.cos(y / 4) + 10 * ((z + y) > (shape[0] + shape[1]) / 2)


def variance_of_coefficients(covariance: Array, size: tuple[int, ...]) -> Array:
    """Variance of noise in each coefficient of a patch: the diagonal of its covariance after the DCT."""
    once = dctn(covariance.reshape(*size, *size), axes=(0, 1, 2), norm="ortho")
    twice = dctn(once, axes=(3, 4, 5), norm="ortho").reshape(math.prod(size), math.prod(size))
    return twice.diagonal().reshape(size)
