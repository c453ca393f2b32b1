"""What the CPU kernels of the local blur share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from nlmeans.backends import cpu_cache
from nlmeans.backends.request import Axes

Floats = npt.NDArray[np.float32]
Kernel = TypeVar("Kernel", bound=Callable[..., Any])
Block = tuple[int, int, int, int]
"""Planes from, to; rows from, to."""


def compiled(kernel: Kernel) -> Kernel:
    """Compiled when first called. Without reassociation, which would undo `exponential`."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "nsz", "nnan", "ninf"}}
    decorated: Kernel = cpu_cache.compiled(kernel, **options)
    return decorated


ROUNDER = np.float32(1.5 * 2**23)
"""A number whose last mantissa bit is worth 1: adding it rounds to integers."""

LOG2_E = np.float32(1 / math.log(2))

SMALLEST = np.float32(-20)
"""Exponent below which a weight is 0; beside that of the voxel itself, e⁻²⁰ is less than float32 can tell. Products of
three such weights and a derivative stay out of the subnormal numbers, which would be slow."""

C1, C2, C3, C4, C5, C6 = (np.float32(math.log(2) ** k / math.factorial(k)) for k in range(1, 7))


@compiled
def exponential(t: Any) -> Any:
    """e**t for t <= 0 in float32, as code that LLVM can make vectors of; relative error 3e-7."""
    binary = max(t, SMALLEST) * LOG2_E
    rounded = binary + ROUNDER
    f = binary - (rounded - ROUNDER)
    value = np.float32(1) + f * (C1 + f * (C2 + f * (C3 + f * (C4 + f * (C5 + f * C6)))))
    bits = np.int32(np.float32(value).view(np.int32) + (np.float32(rounded).view(np.int32) << 23))
    return np.int32(bits).view(np.float32) if t > SMALLEST else np.float32(0)


@compiled
def set_mean(padded: Floats, radius: Axes, scaled: Floats, result: Floats, z: int, y: int, mean: Floats) -> None:
    """Σ over channels of derivative × what the blur changed, of a row."""
    rz, ry, rx = radius
    mean[:] = 0
    for c in range(scaled.shape[0]):
        by_value, value, own = scaled[c, z, y], result[c, z, y], padded[c, z + rz, y + ry, rx : rx + mean.size]
        for x in range(mean.size):
            mean[x] += by_value[x] * (value[x] - own[x])
