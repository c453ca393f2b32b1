"""Random tensors and images with edges, for the tests of patches."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.manual_seed(seed))


def blobs(shape: tuple[int, int, int]) -> torch.Tensor:
    """A smooth image with edges and values up to about 20."""
    z, y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in shape), indexing="ij")
    return 10 * torch.sin(x / 3) * torch.cos(y / 4) + 10 * ((z + y) > (shape[0] + shape[1]) / 2)
