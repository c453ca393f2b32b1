"""Cases of the operator, and the error of a backend relative to the float64 reference."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nlmeans import nonlocal_means
from tests.nlmeans import reference

BACKENDS = ("cpu", "full", "loop", "windowed")
"""Backends that run on any computer."""

EXACT = ("cpu", "full", "loop")
"""Backends that compute the operator itself; `windowed` approximates it."""

DOUBLE = ("full", "loop", "windowed")
"""Backends that compute in float64 too."""

TOLERANCE: dict[Any, float] = {np.float32: 1e-5, np.float64: 1e-12}
"""Largest relative error by type."""


def finest(backend: str) -> Any:
    """The type with the most digits that a backend computes in."""
    return np.float64 if backend in DOUBLE else np.float32


PRECISIONS = [(backend, dtype) for backend in EXACT for dtype in TOLERANCE if dtype == np.float32 or backend in DOUBLE]


@dataclass(frozen=True)
class Case:
    """Arguments of the operator; maps and guides are drawn at random."""

    shape: tuple[int, int, int] = (3, 5, 6)
    channels: int = 1
    features: int = 0
    maps: tuple[str, ...] = ()
    arguments: dict[str, Any] = field(default_factory=dict)

    def draw(self, rng: np.random.Generator, dtype: Any) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        """The image (C, D, H, W) and the arguments, as float64 numbers that `dtype` holds exactly."""

        def numbers(*shape: int, low: float = 0.0) -> npt.NDArray[np.float64]:
            return (low + rng.random(shape)).astype(dtype).astype(np.float64)

        arguments: dict[str, Any] = {"h": 0.5, "patch_radius": (1, 1, 1), "search_radius": (1, 1, 2)} | self.arguments
        arguments |= {name: numbers(*self.shape, low=0.2) for name in self.maps}
        if self.features:
            arguments["guide"] = numbers(self.features, *self.shape)
        return numbers(self.channels, *self.shape), arguments


ANY_CENTER = {
    "plain": Case(),
    "pixelwise": Case(arguments={"patch_radius": (0, 0, 0)}),
    "strong": Case(arguments={"h": 100.0}),
    "far below the range": Case(arguments={"h": 0.02}),
    "2D": Case(shape=(1, 7, 8), arguments={"patch_radius": (0, 1, 1), "search_radius": (0, 2, 3)}),
    "radii per axis": Case(arguments={"patch_radius": (0, 2, 1), "search_radius": (2, 0, 1)}),
    "axis of length 1": Case(shape=(1, 5, 6)),
    "axes shorter than the window": Case(shape=(2, 3, 2), arguments={"search_radius": (3, 2, 4)}),
    "single voxel": Case(shape=(1, 1, 1)),
    "window of one voxel": Case(arguments={"search_radius": (0, 0, 0)}),
    "window of one column": Case(arguments={"search_radius": (1, 2, 0)}),
    "channels": Case(channels=3),
    "guide": Case(features=1),
    "scaled guide features": Case(channels=2, features=3, arguments={"guide_scale": (0.5, 2.0, 0.1)}),
    "map of h": Case(maps=("h",)),
}


SUBTRACTING = {
    "sigma": Case(arguments={"sigma": 0.2}),
    "sigma and scaled guide features": Case(features=2, arguments={"sigma": 0.2, "guide_scale": (0.5, 2.0)}),
    "map of sigma": Case(maps=("sigma",), arguments={"h": 0.1}),
    "maps of both": Case(maps=("h", "sigma"), features=2),
}


def largest_error(case: Case, dtype: Any, rng: np.random.Generator, backend: str, **more: Any) -> float:
    """The largest error of the backend, relative to the largest value of the reference."""
    image, arguments = case.draw(rng, dtype)
    if backend == "windowed":
        expected = reference.windowed(image, **arguments, **more)
    else:
        expected = reference.nonlocal_means(image, **arguments, **more)
    arrays = {k: v.astype(dtype) if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
    result = nonlocal_means(image.astype(dtype), **arrays, **more, channels=0, backend=backend)
    assert result.dtype == dtype
    return float(np.abs(result - expected).max() / np.abs(expected).max())
