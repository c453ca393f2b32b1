"""Cut a volume into tiles that overlap by a halo, so that a method sees within a tile all that it depends on."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

from nlmeans.backends.request import Axes

Piece = tuple[slice, slice, slice]
"""A box of voxels: slices of depth, height and width."""


class Tile(NamedTuple):
    """A box to compute, the box to read for it, and where the first lies within the second."""

    inner: Piece
    outer: Piece
    within: Piece


def tile_shape(shape: Axes, halo: Axes, limit: float) -> Axes:
    """The size of tiles that have at most `limit` voxels with their halo, and read as little twice as they can.

    Raises ``ValueError`` if not even one voxel with its halo fits.

    >>> tile_shape((100, 100, 100), (4, 4, 4), 350_000)
    (50, 50, 100)
    """

    def outer(tile: Axes) -> int:
        return math.prod(min(n, t + 2 * m) for n, t, m in zip(shape, tile, halo, strict=True))

    counts = [1, 1, 1]
    tile = shape
    while outer(tile) > limit:
        longest = max(range(3), key=lambda axis: (tile[axis] > 1, tile[axis] / (2 * halo[axis] + 1), -axis))
        if tile[longest] == 1:
            surroundings = "×".join(str(2 * m + 1) for m in halo)
            raise ValueError(f"one voxel with its surroundings of {surroundings} voxels does not fit")
        counts[longest] += 1
        d, h, w = (math.ceil(n / count) for n, count in zip(shape, counts, strict=True))
        tile = d, h, w
    return tile


def tiles(shape: Axes, tile: Axes, halo: Axes) -> Iterator[Tile]:
    """Cover `shape` with tiles; halos end at the border of the volume."""
    for corner in itertools.product(*(range(0, n, t) for n, t in zip(shape, tile, strict=True))):
        inner, outer, within = [], [], []
        for start, length, size, margin in zip(corner, tile, shape, halo, strict=True):
            stop = min(start + length, size)
            first, last = max(start - margin, 0), min(stop + margin, size)
            inner.append(slice(start, stop))
            outer.append(slice(first, last))
            within.append(slice(start - first, stop - first))
        yield Tile(box(inner), box(outer), box(within))


def box(slices: list[slice]) -> Piece:
    d, h, w = slices
    return d, h, w
