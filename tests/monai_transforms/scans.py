"""Test images in each form in which MONAI passes them to a transform."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

from tests.nlmeans.scans import OBLIQUE, SIGMA, noisy

SHAPE = (20, 18, 10)

KINDS = ("numpy", "tensor", "MetaTensor")


def volume(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Return (1, *shape): blocks of 50 to 200 with Gaussian noise of standard deviation `SIGMA`."""
    return torch.from_numpy(noisy(*shape, seed=seed))[None].to(dtype)


def image(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> MetaTensor:
    """Return the same image with an oblique affine and voxels of about 2 × 3 × 4 mm."""
    return MetaTensor(volume(*shape, dtype=dtype, seed=seed), affine=torch.from_numpy(OBLIQUE))


def of_kind(kind: str, values: Tensor) -> Any:
    if kind == "MetaTensor":
        return MetaTensor(values, affine=torch.from_numpy(OBLIQUE))
    return values.numpy() if kind == "numpy" else values


def array(values: Any) -> np.ndarray[Any, np.dtype[Any]]:
    return np.asarray(values.as_tensor() if isinstance(values, MetaTensor) else values)


__all__ = ["KINDS", "SHAPE", "SIGMA", "array", "image", "of_kind", "volume"]
