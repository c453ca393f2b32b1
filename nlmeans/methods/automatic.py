"""The choice that ``method="auto"`` makes."""

from __future__ import annotations

import math

from nlmeans.core.axes import Axes
from nlmeans.core.tiles import tile_shape
from nlmeans.methods.registry import METHODS

SMALL_VOLUME = 2**20
"""Voxels up to which `best` takes no more than two seconds on two cores, about as long as `bayes` for a whole head."""

LARGE_VOLUME = 2**29
"""Number of voxels above which `bayes` takes more than ten minutes on two cores."""

MOST_OVERLAP = 4
"""Largest acceptable number of voxels computed per voxel of the result. Small tiles with a wide halo exceed it."""


def pick_method(shape: Axes, channels: int, backend: str, memory: float) -> tuple[str, str]:
    """Choose a method by time and memory. Return its name and the reason, which the log reports.

    On average over volumes, `best` is the best, and `bayes` no more than 0.3 dB behind it, in a third of the time
    (benchmarks/results/quality.md). On real images of microscopes both are as good (benchmarks/results/microscopy.md).

    Args:
        shape: shape of the volume, (D, H, W).
        channels: number of channels.
        backend: the backend in the settings.
        memory: bytes to work in.
    """
    if backend == "windowed":
        return "classic", "the method that backend='windowed' approximates"
    reason = "the volume is so small that the best method takes seconds"
    for name in ("best", "bayes", "wiener"):
        method = METHODS[name]
        patch_radius = radii_within(shape, method.patch_radius)
        search_radius = radii_within(shape, method.usual_search_radius(flat=min(shape) == 1))
        halo = method.halo(patch_radius, search_radius)
        limit = memory / method.bytes_per_voxel(backend, channels, patch_radius, search_radius)
        if name == "best" and (min(shape) == 1 or math.prod(shape) > SMALL_VOLUME):
            reason = "the best for its time at every level of noise"
        elif name == "bayes" and math.prod(shape) > LARGE_VOLUME:
            reason = f"bayes takes more than ten minutes on two cores for {math.prod(shape):,} voxels"
        elif overlap(shape, halo, limit) > MOST_OVERLAP:
            reason = f"the tiles of {name} do not fit into the memory"
        else:
            return name, reason
    return "classic", reason


def radii_within(shape: Axes, radius: int) -> Axes:
    """Limit a radius to the axes of a volume."""
    d, h, w = (min(radius, n - 1) for n in shape)
    return d, h, w


def overlap(shape: Axes, halo: Axes, limit: float) -> float:
    """Return the number of voxels computed per voxel of the result, in tiles of at most `limit` voxels with halo."""
    try:
        tile = tile_shape(shape, halo, limit)
    except ValueError:
        return math.inf
    outer = math.prod(min(n, t + 2 * m) for n, t, m in zip(shape, tile, halo, strict=True))
    return outer / math.prod(tile)
