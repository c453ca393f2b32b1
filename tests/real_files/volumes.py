"""The volumes that the files of the wall hold: blocks of 50 to 200 with noise of 10."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.nlmeans.scans import noisy
from tests.real_files.cases import Values

SHAPE = (13, 12, 11)


def volume(dtype: str = "int16", *volumes: int, shape: tuple[int, ...] = SHAPE) -> Values:
    """Noisy values as a type stores them; with a number of volumes, a series along the last axis."""
    values = noisy(*shape, *volumes)
    kind: Any = np.dtype(dtype)
    if kind.kind == "c":
        return np.asarray(values * np.exp(0.3j)).astype(kind)
    if kind.kind == "b":
        return values > 100
    return (np.rint(values.clip(0, 250)) if kind.kind in "iu" else values).astype(kind)


def labels() -> Values:
    """Labels from 0 to 4, which have no noise."""
    return np.rint(np.maximum(np.indices(SHAPE).sum(0), 0) // 8).astype("uint8")


def with_values(where: str, value: float) -> Values:
    """Floats of which some, one, or all voxels have a value such as NaN."""
    values = volume("float32")
    place: Any = {"outside": (slice(0, 2),), "one": (6, 6, 5), "everywhere": ()}[where]
    values[place] = value
    return values
