"""Tiles cover a volume once, carry their halo, and keep to the limit."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nlmeans.core.axes import Axes
from nlmeans.core.tiles import Piece, tile_shape, tiles


def size(piece: Piece) -> int:
    return math.prod(part.stop - part.start for part in piece)


CASES: list[tuple[Axes, Axes, float]] = [
    ((20, 30, 40), (2, 2, 2), 3000),
    ((20, 30, 40), (0, 4, 4), 2000),
    ((1, 64, 65), (0, 3, 3), 500),
    ((7, 5, 3), (4, 4, 4), 105),
    ((7, 5, 3), (1, 1, 1), 27),
    ((100, 2, 2), (3, 3, 3), 40),
    ((9, 9, 9), (0, 0, 0), 1),
]


@pytest.mark.parametrize(("shape", "halo", "limit"), CASES)
def test_every_voxel_is_computed_exactly_once(shape: Axes, halo: Axes, limit: float) -> None:
    covered = np.zeros(shape, dtype=int)
    for tile in tiles(shape, tile_shape(shape, halo, limit), halo):
        covered[tile.inner] += 1
    assert (covered == 1).all()


@pytest.mark.parametrize(("shape", "halo", "limit"), CASES)
def test_no_tile_reads_more_than_the_limit(shape: Axes, halo: Axes, limit: float) -> None:
    assert all(size(tile.outer) <= limit for tile in tiles(shape, tile_shape(shape, halo, limit), halo))


@pytest.mark.parametrize(("shape", "halo", "limit"), CASES)
def test_each_tile_reads_its_halo_as_far_as_the_volume_goes(shape: Axes, halo: Axes, limit: float) -> None:
    places = np.arange(math.prod(shape)).reshape(shape)
    for tile in tiles(shape, tile_shape(shape, halo, limit), halo):
        np.testing.assert_array_equal(places[tile.outer][tile.within], places[tile.inner])
        for inner, outer, margin, length in zip(tile.inner, tile.outer, halo, shape, strict=True):
            assert outer.start == max(inner.start - margin, 0)
            assert outer.stop == min(inner.stop + margin, length)


def test_what_fits_is_not_cut() -> None:
    assert tile_shape((20, 30, 40), (2, 2, 2), 20 * 30 * 40) == (20, 30, 40)


def test_flat_halos_are_cut_where_they_cost_least() -> None:
    assert tile_shape((40, 40, 40), (0, 5, 5), 32_000) == (20, 40, 40)


@pytest.mark.parametrize("limit", [124, 0, 0.5])
def test_a_voxel_that_does_not_fit_is_refused(limit: float) -> None:
    with pytest.raises(ValueError, match="one voxel with its surroundings of 5×5×5 voxels does not fit"):
        tile_shape((20, 20, 20), (2, 2, 2), limit)
