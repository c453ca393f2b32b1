"""The compiled search for similar patches, reference patch by reference patch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from nlmeans.patches.grid import candidates
from nlmeans.patches.groups_cpu import search_in
from nlmeans.patches.groups_cpu_kernel import SHIFTS, copy_patches, match_lines
from tests.nlmeans.patches.tensors import normal

SIZE = (2, 2, 2)


def matched(guide: torch.Tensor, radius: tuple[int, int, int], count: int, floor: float, step: int = 1) -> np.ndarray:
    """Flat corners of the groups of all reference patches, (references, count); `step` is along the width."""
    depth, height, width = guide.shape[1:]
    references = depth - 1, height - 1, (width - 2) // step + 1
    floors = torch.full((references[0] * references[1] * references[2],), floor)
    search = search_in(guide, references, SIZE, (1, 1, step), radius, floors)
    found = np.empty((len(floors), count), np.int64)
    match_lines(search, np.arange(references[0] * references[1]), found)
    return found


@pytest.mark.parametrize(("width", "step"), [(12, 1), (12, 2), (12, 5), (40, 1)])
@pytest.mark.parametrize("reach", [1, SHIFTS, SHIFTS + 2])
def test_a_window_of_any_width_holds_the_nearest_patches(reach: int, width: int, step: int) -> None:
    guide, radius = normal(1, 3, 4, width).float(), (1, 1, reach)
    found = matched(guide, radius, 6, 0.0, step)
    values = guide[0].double().numpy()
    for row, corner in enumerate(itertools.product(range(2), range(3), range(0, width - 1, step))):
        distances = {}
        for shift in itertools.product(*(range(-r, r + 1) for r in radius)):
            z, y, x = (c + s for c, s in zip(corner, shift, strict=True))
            if 0 <= z <= 1 and 0 <= y <= 2 and 0 <= x <= width - 2:
                here = values[tuple(slice(c, c + 2) for c in corner)]
                distances[(z * 4 + y) * width + x] = np.square(values[z : z + 2, y : y + 2, x : x + 2] - here).sum()
        assert set(found[row].tolist()) == set(sorted(distances, key=lambda place: distances[place])[:6])


def test_of_equal_patches_those_first_in_the_order_are_taken() -> None:
    guide = torch.zeros(1, 6, 6, 6)
    found = matched(guide, (1, 1, 1), 5, 1.0)
    middle = (2 * 5 + 2) * 5 + 2
    corner = (2 * 6 + 2) * 6 + 2
    order = candidates((1, 1, 1), 6, 6)[0]
    expected = {corner, *[corner + shift for shift in order if shift][:4]}
    assert set(found[middle].tolist()) == expected


def test_infinite_differences_leave_corners_inside_the_volume() -> None:
    guide = torch.full((1, 4, 4, 4), 1e30)
    guide[0, ::2] = -1e30
    found = matched(guide, (1, 1, 1), 8, 0.0)
    assert (found >= 0).all()
    assert (found < 64).all()


def test_patches_are_copied_to_the_rows_asked_for() -> None:
    volume = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    patches = np.full((3, 8), -1, np.float32)
    copy_patches(volume, np.array([0, 26, 6]), SIZE, 1, 3, patches)
    assert (patches[0] == -1).all()
    np.testing.assert_array_equal(patches[1], volume[1:3, 1:3, 1:3].ravel())
    np.testing.assert_array_equal(patches[2], volume[0:2, 1:3, 1:3].ravel())
