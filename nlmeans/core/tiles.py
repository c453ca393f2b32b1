"""Tiles: parts of a volume with a halo, a border that contains everything on which their voxels depend."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from nlmeans.core.axes import Axes

Piece = tuple[slice, slice, slice]
"""A box of voxels: slices of depth, height and width."""


class Tile(NamedTuple):
    """A box to compute (`inner`), the box to read for it (`outer`), and the place of the first within the second."""

    inner: Piece
    outer: Piece
    within: Piece

    @property
    def shape(self) -> Axes:
        """Voxels to compute along each axis."""
        return lengths(self.inner)

    @classmethod
    def around(cls, inner: Piece, shape: Axes, halo: Axes, grain: int = 1) -> Tile:
        """The tile that computes `inner`. Its halo begins at a multiple of `grain` and stays within the volume."""
        outer, within = [], []
        for box, size, margin in zip(inner, shape, halo, strict=True):
            first, last = max(box.start - margin, 0) // grain * grain, min(box.stop + margin, size)
            outer.append(slice(first, last))
            within.append(slice(box.start - first, box.stop - first))
        return cls(inner, piece(outer), piece(within))

    def halves(self, shape: Axes, halo: Axes, grain: int = 1) -> list[Tile]:
        """Cut the tile in two across its longest axis; an empty list if it is a single voxel."""
        longest = max(range(3), key=lambda axis: self.shape[axis])
        box = self.inner[longest]
        middle = (box.start + box.stop) // 2
        if middle == box.start:
            return []
        pieces = (
            piece([*self.inner[:longest], cut, *self.inner[longest + 1 :]])
            for cut in (slice(box.start, middle), slice(middle, box.stop))
        )
        return [Tile.around(inner, shape, halo, grain) for inner in pieces]


def tile_shape(
    shape: Axes,
    halo: Axes,
    limit: float,
    region: Piece | None = None,
    chunk: Axes = (1, 1, 1),
    grain: int = 1,
) -> Axes:
    """Choose the size of tiles that have at most `limit` voxels with their halo, and reread as few voxels as possible.

    The tiles cover `region`, by default the whole volume of this shape. If a chunk fits, they consist of whole chunks,
    counted from the first voxel of the region. Their halo begins at a multiple of `grain`.

    Raises ``ValueError`` if not even one voxel fits with its halo.

    >>> tile_shape((100, 100, 100), (4, 4, 4), 350_000)
    (50, 50, 100)
    """

    def outer(tile: Axes) -> int:
        margins = [2 * m + grain - 1 for m in halo]
        return math.prod(min(n, t + margin) for n, t, margin in zip(shape, tile, margins, strict=True))

    counts = [1, 1, 1]
    wanted = tile = shape if region is None else lengths(region)
    d, h, w = (min(n, size) for n, size in zip(chunk, wanted, strict=True))
    least = (d, h, w) if outer((d, h, w)) <= limit else (1, 1, 1)
    while outer(tile) > limit:
        longest = max(range(3), key=lambda axis: (tile[axis] > least[axis], tile[axis] / (2 * halo[axis] + 1), -axis))
        if tile[longest] == 1:
            surroundings = "×".join(str(2 * m + 1) for m in halo)
            raise ValueError(f"one voxel with its surroundings of {surroundings} voxels does not fit")
        counts[longest] += 1
        d, h, w = (
            min(n, math.ceil(n / count / step) * step) for n, count, step in zip(wanted, counts, least, strict=True)
        )
        tile = d, h, w
    return tile


def tiles(shape: Axes, tile: Axes, halo: Axes, region: Piece | None = None, grain: int = 1) -> Iterator[Tile]:
    """Cover a volume of this shape, or a region of it, with tiles."""
    starts = [slice(0, n) for n in shape] if region is None else region
    cuts = [
        [slice(start, min(start + step, box.stop)) for start in range(box.start, box.stop, step)]
        for box, step in zip(starts, tile, strict=True)
    ]
    for inner in itertools.product(*cuts):
        yield Tile.around(piece(inner), shape, halo, grain)


def blocks(shape: Axes, limit: float, region: Piece, chunk: Axes) -> Iterator[Piece]:
    """Cover a region with boxes of at most `limit` voxels. If a chunk fits, they consist of whole chunks."""
    for tile in tiles(shape, tile_shape(shape, (0, 0, 0), max(limit, 1), region, chunk), (0, 0, 0), region):
        yield tile.inner


def common(box: Piece, other: Piece) -> Piece:
    """The overlap of two boxes. If they do not overlap, a slice of it stops no later than it starts."""
    return piece([slice(max(b.start, o.start), min(b.stop, o.stop)) for b, o in zip(box, other, strict=True)])


def lengths(box: Piece) -> Axes:
    """Voxels along each axis of a box."""
    d, h, w = (side.stop - side.start for side in box)
    return d, h, w


def shifted(box: Piece, origin: Piece) -> Piece:
    """Shift `box` so that it counts from the first voxel of `origin`."""
    return piece([slice(b.start - o.start, b.stop - o.start) for b, o in zip(box, origin, strict=True)])


def piece(slices: Sequence[slice]) -> Piece:
    """Make a box of three slices."""
    d, h, w = slices
    return d, h, w
