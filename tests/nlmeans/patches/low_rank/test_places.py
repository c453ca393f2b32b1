"""Components that a few places show: found where they are too weak for a patch, and not in noise."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nlmeans.patches.low_rank.components import components_of_patches, least_energy
from nlmeans.patches.low_rank.places import MOST_PLACES, averaged_around, components_of_places, places_apart, places_of
from tests.nlmeans.patches.tensors import normal

SHAPE, VOLUMES = (16, 17, 18), 60


def searched(series: torch.Tensor, autocovariance: torch.Tensor | None = None) -> torch.Tensor:
    """The components of a series of which none is known."""
    places = places_of(series, len(series), autocovariance, slice(0, series.shape[1]), 0)
    return components_of_places([places], tuple(series.shape[1:]), len(series))


def with_blocks(strength: float, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise with a course in blocks of 4³ voxels, and the course, (V,)."""
    course = torch.nn.functional.normalize(normal(VOLUMES, seed=7), dim=0)
    series = normal(VOLUMES, *SHAPE, seed=seed)
    for first in (2, 10)[:count]:
        place = slice(first, first + 4)
        series[:, place, place, place] += strength * course[:, None, None, None]
    return series, course


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_block_is_found_that_is_too_weak_for_the_patches_in_it(seed: int) -> None:
    series, course = with_blocks(1.3, 1, seed)
    assert not len(components_of_patches(series, VOLUMES, None, least_energy(SHAPE, VOLUMES)))
    found = searched(series)
    assert found.shape == (VOLUMES, 1)
    assert float((found[:, 0] @ course.double()).abs()) > 0.6


@pytest.mark.parametrize("seed", [2, 3, 5])
def test_two_blocks_are_found_together_of_which_neither_is_alone(seed: int) -> None:
    assert searched(with_blocks(1.05, 1, seed)[0]).shape[1] == 0
    series, course = with_blocks(1.05, 2, seed)
    found = searched(series)
    assert found.shape == (VOLUMES, 1)
    assert float((found[:, 0] @ course.double()).abs()) > 0.6


@pytest.mark.parametrize("level", [1.0, 1.3], ids=["sigma right", "sigma too low"])
def test_noise_has_none(level: float) -> None:
    assert [searched(level * normal(VOLUMES, *SHAPE, seed=seed)).shape[1] for seed in range(6)] == [0] * 6


def test_correlated_noise_has_none() -> None:
    white = normal(VOLUMES, *SHAPE, seed=3)
    lags = torch.zeros(3, 3, 3, dtype=torch.float64)
    lags[1, 1] = torch.tensor([0.5, 1.0, 0.5])
    assert searched((white + white.roll(1, -1)) / 2**0.5, lags).shape[1] == 0


def test_noise_that_is_stronger_in_a_part_has_none() -> None:
    uneven = normal(VOLUMES, *SHAPE, seed=4)
    uneven[..., :9] *= 1.5
    assert searched(uneven).shape[1] == 0


@pytest.mark.parametrize("shape", [(9, 8, 7), (1, 12, 12), (2, 3, 9)])
def test_an_average_has_the_noise_of_a_voxel_everywhere(shape: Any) -> None:
    inside = averaged_around(torch.ones(1, *shape, dtype=torch.float64), squared=True)
    found = averaged_around(normal(20_000, *shape)).square().mean(0) / inside[0]
    torch.testing.assert_close(found, torch.ones(shape).double(), atol=0.06, rtol=0)


def test_places_share_no_voxel() -> None:
    series = normal(12, 30, 31, 32)
    places = places_of(series, 12, None, slice(0, 30), 0)
    assert places.apart == 5
    assert len(places_apart([places], 12)) <= MOST_PLACES
    strongest = int(places.signals.square().sum(1).argmax())
    again = places._replace(positions=places.positions[strongest].expand_as(places.positions))
    assert len(places_apart([again], 12)) == 1  # the others lie where the strongest one is


def test_volumes_of_one_dimension_have_none() -> None:
    assert searched(normal(1, *SHAPE)).shape == (1, 0)
