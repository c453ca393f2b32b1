"""The exponential and other functions that the CPU kernels of the local blur share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from nlmeans.core.axes import Axes
from nlmeans.kernels import cache
from nlmeans.kernels.exponential import ROUNDER, exp2
from nlmeans.kernels.vector import Floats

KernelT = TypeVar("KernelT", bound=Callable[..., Any])
RowBlock = tuple[int, int, int, int]
"""First plane and end of the planes, first row and end of the rows."""


def blur_kernel(kernel: KernelT) -> KernelT:
    """Compile a kernel at its first call, without reassociation, which would break `exponential`."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "nsz", "nnan", "ninf"}}
    decorated: KernelT = cache.compiled(kernel, **options)
    return decorated


LOG2_E = np.float32(1 / math.log(2))

SMALLEST = np.float32(-20)
"""Exponent below which a weight is 0. Relative to the weight 1 of the voxel itself, e⁻²⁰ is below the resolution of
float32. Products of three such weights and a derivative are not subnormal numbers, which would be slow."""

TERMS = (ROUNDER, SMALLEST * LOG2_E, *(np.float32(math.log(2) ** k / math.factorial(k)) for k in range(7)))
"""Terms of `exp2`: a Taylor polynomial of degree 6 with a relative error of 3e-7."""


@blur_kernel
def exponential(t: Any) -> Any:
    """eᵗ for t ≤ 0 in float32, written such that LLVM can make vectors of it."""
    return exp2(t * LOG2_E, TERMS) if t > SMALLEST else np.float32(0)


@blur_kernel
def set_mean(padded: Floats, radius: Axes, scaled: Floats, result: Floats, z: int, y: int, mean: Floats) -> None:
    """Write to `mean`, for a row, the sum over channels of `scaled` × (result − image)."""
    rz, ry, rx = radius
    mean[:] = 0
    for c in range(scaled.shape[0]):
        by_value, value, own = scaled[c, z, y], result[c, z, y], padded[c, z + rz, y + ry, rx : rx + mean.size]
        for x in range(mean.size):
            mean[x] += by_value[x] * (value[x] - own[x])
