"""What the method ``"auto"`` stands for."""

from __future__ import annotations

import math

from nlmeans.core.axes import Axes
from nlmeans.core.tiles import tile_shape
from nlmeans.methods.registry import METHODS

LARGE = 2**29
"""Voxels of which `bayes` takes more than ten minutes on two cores."""

MOST_OVERLAP = 4
"""Voxels computed for each one wanted, where tiles are small and their halo is wide."""


def pick(shape: Axes, channels: int, backend: str, memory: float) -> tuple[str, str]:
    """What ``"auto"`` stands for, and why.

    `bayes` is the best or within 0.1 dB of it at every level of noise, in 2D and 3D (benchmarks/results/quality.md),
    so that the time and the memory decide.
    """
    if backend == "windowed":
        return "classic", "of which attention within windows is a form"
    reason = "the best at every level of noise"
    for name in ("bayes", "wiener"):
        method = METHODS[name]
        patch_radius, search_radius = (
            radii_within(shape, method.patch_radius),
            radii_within(shape, method.search_radius),
        )
        halo = method.halo(patch_radius, search_radius)
        limit = memory / method.bytes_per_voxel(backend, channels, patch_radius, search_radius)
        if name == "bayes" and math.prod(shape) > LARGE:
            reason = f"the best in the time that {math.prod(shape):,} voxels leave"
        elif overlap(shape, halo, limit) > MOST_OVERLAP:
            reason = "the best whose tiles fit into the memory"
        else:
            return name, reason
    return "classic", reason


def radii_within(shape: Axes, radius: int) -> Axes:
    d, h, w = (min(radius, n - 1) for n in shape)
    return d, h, w


def overlap(shape: Axes, halo: Axes, limit: float) -> float:
    """Voxels to compute for each one wanted, in tiles of at most `limit` voxels with their halo."""
    try:
        tile = tile_shape(shape, halo, limit)
    except ValueError:
        return math.inf
    outer = math.prod(min(n, t + 2 * m) for n, t, m in zip(shape, tile, halo, strict=True))
    return outer / math.prod(tile)
