"""Regular grids of patches against loops over patches."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from nlmeans.core.axes import Axes
from nlmeans.patches.grid import candidates, covered, golden_stride, grid_view, offsets, patch_size, patch_sums
from tests.nlmeans.patches.tensors import normal


def test_a_patch_is_no_longer_than_its_axis() -> None:
    assert patch_size(4, (1, 3, 9)) == (1, 3, 4)
    assert patch_size((2, 4, 3), (1, 3, 9)) == (1, 3, 3)


@pytest.mark.parametrize(("size", "step"), [((2, 3, 4), (2, 2, 3)), ((1, 4, 4), (1, 4, 4)), ((2, 2, 2), (1, 1, 1))])
def test_a_covered_volume_is_reflected_until_the_grid_fits(size: Axes, step: Axes) -> None:
    volume, margin = normal(5, 7, 9), tuple(p - 1 for p in size)
    extended = covered(volume, size, step, margin)
    for n, p, s in zip(extended.shape, size, step, strict=True):
        assert (n - p) % s == 0
    after = [n - m - k for n, m, k in zip(extended.shape, margin, volume.shape, strict=True)]
    for m, a, s in zip(margin, after, step, strict=True):
        assert m <= a < m + s
    padded = np.pad(volume.numpy(), list(zip(margin, after, strict=True)), mode="reflect")
    np.testing.assert_array_equal(extended.numpy(), padded)


def test_a_view_has_one_voxel_of_every_patch() -> None:
    volume, step, grid = normal(7, 8, 9), (2, 3, 2), (3, 2, 4)
    for offset in offsets((2, 2, 2)):
        view = grid_view(volume, offset, step, grid)
        assert view.shape == grid
        for place in itertools.product(*map(range, grid)):
            there = tuple(k * s + o for k, s, o in zip(place, step, offset, strict=True))
            assert view[place] == volume[there]
    grid_view(volume, (0, 0, 0), step, grid).zero_()
    assert volume[0, 0, 0] == volume[4, 3, 6] == 0


@pytest.mark.parametrize("step", [(1, 1, 1), (2, 1, 3)])
def test_sums_over_patches_are_those_of_a_loop(step: Axes) -> None:
    volume, size = normal(6, 7, 8), (2, 3, 1)
    sums = patch_sums(volume, size, step)
    for place in itertools.product(*map(range, sums.shape)):
        box = tuple(slice(k * s, k * s + p) for k, s, p in zip(place, step, size, strict=True))
        assert float(sums[place]) == pytest.approx(float(volume[box].sum()))
    torch.testing.assert_close(patch_sums(volume, size, step, (1, 2, 2)), sums[:1, :2, :2])


@pytest.mark.parametrize("radius", [(4, 4, 4), (0, 10, 10), (1, 2, 3), (0, 0, 0)])
def test_the_order_of_candidates_visits_each_once_and_is_spread_out(radius: Axes) -> None:
    count = math.prod(2 * r + 1 for r in radius)
    assert math.gcd(golden_stride(radius), count) == 1
    order, slots = candidates(radius, 50, 60)
    shifts = [(z * 50 + y) * 60 + x for z, y, x in itertools.product(*(range(-r, r + 1) for r in radius))]
    assert sorted(order.tolist()) == sorted(shifts)
    assert order[slots].tolist() == shifts
    if count > 20:  # the first tenth reaches into both halves of the window about evenly
        first = order[: count // 10]
        assert 0.4 < (first > 0).mean() < 0.6
