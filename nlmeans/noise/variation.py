"""Noise that is stronger in some places than in others: its level at the points of an even grid, relative to sigma."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from nlmeans.core.axes import Axes
from nlmeans.core.tiles import Piece

Levels = tuple[tuple[tuple[float, ...], ...], ...]
"""One number per point along depth, height and width."""


def checked_variation(variation: Any) -> Levels:
    """The variation as nested tuples of floats.

    >>> checked_variation([[[0.5, -1.0]]])
    Traceback (most recent call last):
    ValueError: variation has numbers down to -1; noise must be stronger than 0 everywhere
    """
    try:
        grid = np.asarray(variation, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"variation={variation!r} must be an array with three axes") from error
    if grid.ndim != 3 or not grid.size:
        raise ValueError(
            f"variation has shape {grid.shape}; give points along depth, height and width: 1 for an axis along which "
            "the noise does not vary"
        )
    if not np.isfinite(grid).all():
        raise ValueError("variation has values that are not finite; correct them")
    if grid.min() <= 0:
        raise ValueError(f"variation has numbers down to {grid.min():.4g}; noise must be stronger than 0 everywhere")
    return tuple(tuple(tuple(row) for row in plane) for plane in grid.tolist())


def variation_at(variation: Levels, shape: Axes, place: Piece, device: torch.device | None = None) -> Tensor:
    """Return the level at the voxels of a piece of a volume, relative to sigma: float32, (D, H, W).

    The first point of an axis lies at its first voxel, the last at its last; between points, the level is linear.

    >>> from nlmeans.core.tiles import piece
    >>> whole = piece([slice(0, 1), slice(0, 1), slice(0, 5)])
    >>> variation_at((((1.0, 3.0),),), (1, 1, 5), whole)
    tensor([[[1.0000, 1.5000, 2.0000, 2.5000, 3.0000]]])
    """
    level = torch.tensor(variation, dtype=torch.float32, device=device)
    for axis, (side, length) in enumerate(zip(place, shape, strict=True)):
        points = level.shape[axis]
        where = torch.arange(side.start, side.stop, device=device) * ((points - 1) / max(length - 1, 1))
        before = where.long().clamp(0, max(points - 2, 0))
        after = (before + 1).clamp_max(points - 1)
        share = (where - before).view([-1 if n == axis else 1 for n in range(3)])
        level = torch.lerp(level.index_select(axis, before), level.index_select(axis, after), share)
    return level
