"""Numbers per axis."""

from __future__ import annotations

import itertools

import pytest

from nlmeans.core.axes import Axes, window_voxels


@pytest.mark.parametrize("radius", [(0, 0, 0), (1, 1, 1), (0, 2, 3), (4, 0, 1)])
def test_a_window_has_the_voxels_within_its_radius_on_either_side(radius: Axes) -> None:
    offsets = itertools.product(*(range(-r, r + 1) for r in radius))
    assert window_voxels(radius) == len(list(offsets))
