"""What the CPU kernels of the local blur share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from nlmeans.core.axes import Axes
from nlmeans.kernels import cache
from nlmeans.kernels.exponential import ROUNDER, exp2

Floats = npt.NDArray[np.float32]
Kernel = TypeVar("Kernel", bound=Callable[..., Any])
Block = tuple[int, int, int, int]
"""Planes from, to; rows from, to."""


def compiled(kernel: Kernel) -> Kernel:
    """Compiled when first called. Without reassociation, which would undo `exponential`."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "nsz", "nnan", "ninf"}}
    decorated: Kernel = cache.compiled(kernel, **options)
    return decorated


LOG2_E = np.float32(1 / math.log(2))

SMALLEST = np.float32(-20)
"""Exponent below which a weight is 0; compared with the voxel's own weight, e⁻²⁰ is less than float32 can tell.
Products of three such weights and a derivative stay out of the subnormal numbers, which would be slow."""

TERMS = (ROUNDER, SMALLEST * LOG2_E, *(np.float32(math.log(2) ** k / math.factorial(k)) for k in range(7)))
"""For kernels/exponential.py: a Taylor polynomial of degree 6, relative error 3e-7."""


@compiled
def exponential(t: Any) -> Any:
    """eᵗ for t ≤ 0 in float32, as code that LLVM can make vectors of."""
    return exp2(t * LOG2_E, TERMS) if t > SMALLEST else np.float32(0)


@compiled
def set_mean(padded: Floats, radius: Axes, scaled: Floats, result: Floats, z: int, y: int, mean: Floats) -> None:
    """Σ over channels of derivative × what the blur changed, of a row."""
    rz, ry, rx = radius
    mean[:] = 0
    for c in range(scaled.shape[0]):
        by_value, value, own = scaled[c, z, y], result[c, z, y], padded[c, z + rz, y + ry, rx : rx + mean.size]
        for x in range(mean.size):
            mean[x] += by_value[x] * (value[x] - own[x])
