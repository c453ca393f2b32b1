"""Tiles cover a volume once, have a halo, and are not larger than the limit."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nlmeans.core.axes import Axes
from nlmeans.core.tiles import Piece, Tile, blocks, common, shifted, tile_shape, tiles


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


REGION = (slice(3, 17), slice(0, 5), slice(10, 40))


@pytest.mark.parametrize("chunk", [(1, 1, 1), (4, 2, 8), (64, 64, 64)])
def test_a_region_is_covered_once_and_nothing_else(chunk: Axes) -> None:
    shape: Axes = (20, 30, 40)
    covered = np.zeros(shape, dtype=int)
    for tile in tiles(shape, tile_shape(shape, (1, 2, 1), 1000, REGION, chunk), (1, 2, 1), REGION):
        covered[tile.inner] += 1
        assert size(tile.outer) <= 1000
    assert (covered[REGION] == 1).all()
    assert covered.sum() == size(REGION)


def test_tiles_are_made_of_whole_chunks_if_one_fits() -> None:
    shape, none, chunk = (64, 64, 64), (0, 0, 0), (8, 16, 4)
    tile = tile_shape(shape, none, 9000, chunk=chunk)
    assert all(n % c == 0 for n, c in zip(tile, chunk, strict=True))
    smaller = tile_shape(shape, none, math.prod(chunk) - 1, chunk=chunk)
    assert math.prod(smaller) < math.prod(chunk)


@pytest.mark.parametrize("grain", [1, 2, 4])
def test_a_halo_begins_at_a_multiple_of_the_grain(grain: int) -> None:
    shape: Axes = (20, 30, 40)
    for tile in tiles(shape, tile_shape(shape, (3, 3, 3), 4000, grain=grain), (3, 3, 3), grain=grain):
        assert size(tile.outer) <= 4000
        for inner, outer in zip(tile.inner, tile.outer, strict=True):
            assert outer.start % grain == 0
            assert max(inner.start - 3, 0) - grain < outer.start <= max(inner.start - 3, 0)


def test_halves_compute_the_same_voxels_until_one_is_left() -> None:
    shape: Axes = (9, 9, 9)
    tile = Tile.around((slice(2, 5), slice(0, 1), slice(3, 8)), shape, (1, 1, 1))
    first, second = tile.halves(shape, (1, 1, 1))
    assert first.shape == (3, 1, 2)
    assert second.shape == (3, 1, 3)
    covered = np.zeros(shape, dtype=int)
    for half in (first, second):
        covered[half.inner] += 1
    assert (covered[tile.inner] == 1).all()
    assert covered.sum() == size(tile.inner)
    assert Tile.around((slice(4, 5),) * 3, shape, (1, 1, 1)).halves(shape, (1, 1, 1)) == []


def test_blocks_cover_a_region_within_their_limit() -> None:
    covered = np.zeros((20, 30, 40), dtype=int)
    for box in blocks((20, 30, 40), 500, REGION, (2, 2, 2)):
        covered[box] += 1
        assert size(box) <= 500
    assert (covered[REGION] == 1).all()
    assert covered.sum() == size(REGION)


def test_boxes_overlap_and_move_like_the_voxels_in_them() -> None:
    volume = np.zeros((9, 9, 9), dtype=int)
    one, other = (slice(1, 6), slice(2, 4), slice(0, 9)), (slice(4, 9), slice(0, 3), slice(5, 7))
    volume[one] += 1
    volume[other] += 1
    assert size(common(one, other)) == (volume == 2).sum()
    assert (volume[common(one, other)] == 2).all()
    assert volume[one][shifted(common(one, other), one)].min() == 2
    apart = common((slice(0, 2),) * 3, (slice(5, 7), slice(0, 2), slice(0, 2)))
    assert volume[apart].size == 0
