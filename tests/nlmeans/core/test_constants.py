"""Constant surroundings: compared with every neighbourhood looked at one by one."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from nlmeans.core.constants import (
    REACH_OF_CONSTANTS,
    constant_voxels,
    independent_directions,
    surrounded_by_others,
    widened,
)

BLOCK = list(itertools.product((-1, 0, 1), repeat=3))
NEIGHBOURHOOD = {
    tuple(np.add(place, step)) for place in BLOCK for step in [(0, 0, 0), *np.eye(3, dtype=int), *-np.eye(3, dtype=int)]
}


def one_by_one(values: Any) -> Any:
    """The same by its definition."""
    found = np.zeros(values.shape, bool)
    inside = [set(range(n)) for n in values.shape]
    for middle in np.ndindex(*values.shape):
        around = [tuple(np.add(middle, place)) for place in NEIGHBOURHOOD]
        around = [place for place in around if all(p in side for p, side in zip(place, inside, strict=True))]
        if len({values[place] for place in around}) == 1:
            for place in around:
                found[place] = True
    return found


@pytest.mark.parametrize("shape", [(9, 10, 11), (1, 14, 12), (2, 8, 9), (1, 1, 20), (1, 1, 1)])
@pytest.mark.parametrize("seed", range(3))
def test_constant_voxels_are_those_of_constant_neighbourhoods(shape: tuple[int, int, int], seed: int) -> None:
    random = np.random.default_rng(seed)
    values = np.zeros(shape)
    for _ in range(3):
        values[tuple(random.integers(0, n) for n in shape)] = random.integers(0, 2)
    found = constant_voxels(torch.from_numpy(values)[None])[0].numpy()
    np.testing.assert_array_equal(found, one_by_one(values))


def test_noise_is_never_constant() -> None:
    noise = torch.randn(2, 12, 12, 12, generator=torch.Generator().manual_seed(0))
    assert not constant_voxels(noise).any()
    counts = (noise * 0.6).round()  # rounded so far that most neighbours are equal
    assert not constant_voxels(counts).any()


def test_each_channel_is_looked_at_by_itself() -> None:
    noise = torch.randn(1, 9, 9, 9, generator=torch.Generator().manual_seed(0))
    found = constant_voxels(torch.cat([noise, torch.full_like(noise, 7)]))
    assert not found[0].any()
    assert found[1].all()


def test_a_voxel_has_others_around_it_up_to_the_reach() -> None:
    values = torch.zeros(1, 1, 15, 15)
    values[0, 0, 7, 7] = 1
    found = surrounded_by_others(values, (3, 3, 4))[0, 0]
    assert found[7, 3:12].all()
    assert not found[7, :3].any()
    assert found[4:11, 7].all()
    assert not found[:4].any()
    assert not surrounded_by_others(values, (3, 0, 0)).any()


@pytest.mark.parametrize("reach", [0, 1, 2, 5, 20])
def test_widened_reaches_exactly_so_far(reach: int) -> None:
    chosen = torch.zeros(3, 17, dtype=torch.bool)
    chosen[1, 8] = True
    found = widened(chosen, 1, reach).nonzero()
    assert set(found[:, 0].tolist()) == {1}
    assert found[:, 1].tolist() == list(range(max(8 - reach, 0), min(8 + reach, 16) + 1))
    assert REACH_OF_CONSTANTS == 2


def test_a_constant_series_has_no_independent_directions() -> None:
    assert independent_directions(np.zeros((4, 4)))[1].shape == (4, 0)
    energies, directions = independent_directions(np.diag([3.0, 0.0, 1.0]))
    assert energies.tolist() == [1, 3]
    assert np.abs(directions).tolist() == [[0, 1], [0, 0], [1, 0]]
