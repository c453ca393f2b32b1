"""The level of noise that varies in space: checked, and read at the voxels of a piece."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from nlmeans.core.tiles import piece
from nlmeans.noise.variation import checked_variation, variation_at

LEVELS = 1 + np.random.default_rng(0).random((3, 4, 5))


def test_between_the_points_the_level_is_linear() -> None:
    shape = (7, 9, 11)
    places = [np.linspace(0, n - 1, m) for n, m in zip(LEVELS.shape, shape, strict=True)]
    expected = map_coordinates(LEVELS, np.meshgrid(*places, indexing="ij"), order=1)
    found = variation_at(checked_variation(LEVELS), shape, piece([slice(0, n) for n in shape]))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_piece_has_the_levels_of_its_place_in_the_whole() -> None:
    shape, levels = (7, 9, 11), checked_variation(LEVELS)
    whole = variation_at(levels, shape, piece([slice(0, n) for n in shape]))
    some = piece([slice(2, 6), slice(0, 3), slice(10, 11)])
    torch.testing.assert_close(variation_at(levels, shape, some), whole[some])


def test_one_point_is_the_same_level_along_its_axis() -> None:
    level = variation_at((((2.0,),),), (3, 4, 1), piece([slice(0, 3), slice(1, 4), slice(0, 1)]))
    torch.testing.assert_close(level, torch.full((3, 3, 1), 2.0))


@pytest.mark.parametrize(
    ("variation", "error", "message"),
    [
        ([1.0, 2.0], ValueError, r"variation has shape \(2,\); give points along depth, height and width"),
        ([[[1.0, 0.0]]], ValueError, "variation has numbers down to 0; noise must be stronger than 0 everywhere"),
        ([[[1.0, np.nan]]], ValueError, "variation has values that are not finite"),
        ("strong", TypeError, "variation='strong' must be an array with three axes"),
    ],
)
def test_what_is_no_variation_is_refused(variation: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        checked_variation(variation)
