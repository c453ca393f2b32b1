"""Components of a series: those of all voxels, those of patches, and that noise has none."""

from __future__ import annotations

import pytest
import torch

from nlmeans.patches.low_rank.components import (
    LOCAL_PATCH,
    MOST_OF_NOISE,
    common_components,
    components_of_patches,
    distinct_components,
    ends_of_patches,
    fitted_to_patches,
    leading_components,
    least_energy,
)
from tests.nlmeans.patches.tensors import normal

SHAPE = (14, 15, 16)


def unit_courses(count: int, volumes: int) -> torch.Tensor:
    """Orthonormal courses, (count, V)."""
    return torch.linalg.qr(normal(volumes, count, seed=7))[0].mT


def searched(series: torch.Tensor) -> torch.Tensor:
    """The distinct components of a series of which none is known."""
    shape, volumes = (series.shape[1], series.shape[2], series.shape[3]), len(series)
    found = components_of_patches(series, volumes, None, least_energy(shape, volumes))
    return distinct_components(found, shape, volumes)


def test_components_of_all_voxels_stand_out_of_their_noise() -> None:
    courses = unit_courses(3, 20)
    signals = courses.mT @ (torch.tensor([9.0, 3.0, 1.0])[:, None] * normal(3, 4000)) + normal(20, 4000, seed=1)
    found, variance = common_components(signals @ signals.mT, 4000)
    assert found.shape == (20, 3)
    assert variance == pytest.approx(1, rel=0.02)
    torch.testing.assert_close((courses @ found).square().sum(1), torch.ones(3).double(), atol=0.05, rtol=0)


def test_too_few_voxels_have_all_components_and_noise_has_one() -> None:
    few, many = normal(20, 30), normal(20, 4000)
    assert common_components(few @ few.mT, 30).left == 0
    assert common_components(many @ many.mT, 4000).left == 19


def test_of_one_dimension_that_is_left_sigma_says_whether_it_is_noise() -> None:
    signals = torch.tensor([20.0, 9.0, 4.0, 1.5]).double()[:, None] * normal(4, 1000)
    products = signals @ signals.mT
    assert common_components(products, 1000).left == 1
    assert common_components(products, 1000, MOST_OF_NOISE).left == 0
    assert common_components(products / 1.5**2, 1000, MOST_OF_NOISE).left == 1


def test_two_courses_in_a_few_voxels_each_are_two_components() -> None:
    courses = unit_courses(2, 40)
    series = normal(40, *SHAPE, seed=2)
    series[:, 2:6, 2:6, 2:6] += 5 * courses[0][:, None, None, None]
    series[:, 8:12, 9:13, 10:14] += 4 * courses[1][:, None, None, None]
    found = searched(series)
    assert found.shape == (40, 2)
    torch.testing.assert_close(found.norm(dim=0), torch.ones(2).double())
    assert float((courses @ found).square().sum(1).min()) > 0.9


@pytest.mark.parametrize("volumes", [8, 24, 96])
def test_noise_has_none(volumes: int) -> None:
    assert searched(normal(volumes, *SHAPE, seed=3)).shape == (volumes, 0)


def test_correlated_noise_has_none() -> None:
    white = normal(30, 15, 15, 16, seed=4)
    series = (white[:, 1:] + white[:, :-1]) / 2**0.5
    lags = torch.tensor([0.5, 1.0, 0.5], dtype=torch.float64)[:, None, None]
    least = least_energy((14, 15, 16), 30)
    assert len(components_of_patches(series, 30, lags, least)) == 0
    assert len(components_of_patches(series, 30, None, least)) > 0


def test_an_image_and_a_small_volume_are_searched_too() -> None:
    course = unit_courses(1, 30)[0]
    for shape, place in (((1, 20, 21), (0, slice(6, 12), slice(6, 12))), ((4, 4, 4), (...,))):
        series = normal(30, *shape, seed=5)
        series[(slice(None), *place)] += 6 * course.view(-1, *[1] * series[(0, *place)].ndim)
        assert float((course @ searched(series)).square().sum()) > 0.9


def test_patches_reach_all_but_a_voxel_at_each_end() -> None:
    for length in range(1, 40):
        first, stop = ends_of_patches(length)
        assert first <= 1
        assert length - stop <= 1
        assert length < LOCAL_PATCH or (stop - first - LOCAL_PATCH) % 3 == 0
    assert fitted_to_patches(torch.zeros(2, 4, 10, 11)).shape == (2, 4, 8, 11)


def test_more_volumes_than_voxels_of_a_patch_give_the_same_components() -> None:
    patches = normal(3, 27, 40) + 5 * normal(3, 27, 1, seed=1) * unit_courses(1, 40)
    energies, components, total = leading_components(patches)
    _, sizes, vectors = torch.linalg.svd(patches, full_matrices=False)
    torch.testing.assert_close(energies[:, -1], sizes[:, 0].square())
    torch.testing.assert_close(total, sizes.square().sum(1))
    torch.testing.assert_close(components[:, -1].abs(), sizes[:, :1] * vectors[:, 0].abs(), rtol=0, atol=1e-3)
    _, across, same = leading_components(patches.mT)
    torch.testing.assert_close(same, total)
    torch.testing.assert_close(across[:, -1].norm(dim=1), sizes[:, 0])
