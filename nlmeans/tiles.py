"""Cut a volume into tiles that overlap by a halo, so that a method sees within a tile all that it depends on."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from nlmeans.backends.request import Axes

Piece = tuple[slice, slice, slice]
"""A box of voxels: slices of depth, height and width."""


class Tile(NamedTuple):
    """A box to compute, the box to read for it, and where the first lies within the second."""

    inner: Piece
    outer: Piece
    within: Piece

    @property
    def shape(self) -> Axes:
        """Voxels to compute along each axis."""
        return lengths(self.inner)

    @classmethod
    def around(cls, inner: Piece, shape: Axes, halo: Axes, grain: int = 1) -> Tile:
        """The tile that computes `inner`; its halo begins at a multiple of `grain` and ends at the volume's border."""
        outer, within = [], []
        for box, size, margin in zip(inner, shape, halo, strict=True):
            first, last = max(box.start - margin, 0) // grain * grain, min(box.stop + margin, size)
            outer.append(slice(first, last))
            within.append(slice(box.start - first, box.stop - first))
        return cls(inner, piece(outer), piece(within))

    def halves(self, shape: Axes, halo: Axes, grain: int = 1) -> list[Tile]:
        """Two tiles that compute the same together, cut across the longest axis; none if it is a single voxel."""
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


def tile_shape(shape: Axes, halo: Axes, limit: float, region: Piece | None = None) -> Axes:
    """The size of tiles that have at most `limit` voxels with their halo, and read as little twice as they can.

    They tile the `region` of a volume of this shape, by default all of it.

    Raises ``ValueError`` if not even one voxel with its halo fits.

    >>> tile_shape((100, 100, 100), (4, 4, 4), 350_000)
    (50, 50, 100)
    """

    def outer(tile: Axes) -> int:
        return math.prod(min(n, t + 2 * m) for n, t, m in zip(shape, tile, halo, strict=True))

    counts = [1, 1, 1]
    wanted = tile = shape if region is None else lengths(region)
    while outer(tile) > limit:
        longest = max(range(3), key=lambda axis: (tile[axis] > 1, tile[axis] / (2 * halo[axis] + 1), -axis))
        if tile[longest] == 1:
            surroundings = "×".join(str(2 * m + 1) for m in halo)
            raise ValueError(f"one voxel with its surroundings of {surroundings} voxels does not fit")
        counts[longest] += 1
        d, h, w = (math.ceil(n / count) for n, count in zip(wanted, counts, strict=True))
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


def lengths(box: Piece) -> Axes:
    d, h, w = (side.stop - side.start for side in box)
    return d, h, w


def shifted(box: Piece, origin: Piece) -> Piece:
    """`box` as counted from the first voxel of `origin`."""
    return piece([slice(b.start - o.start, b.stop - o.start) for b, o in zip(box, origin, strict=True)])


def piece(slices: Sequence[slice]) -> Piece:
    d, h, w = slices
    return d, h, w
