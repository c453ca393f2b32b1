"""The request, and the parts of the formula that all backends share."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from nlmeans.operator.neighbours import Neighbour, half_window
from nlmeans.operator.request import LEAST_OWN_WEIGHT, own_weight, weight_from_distance, with_center
from tests.nlmeans.operator.requests import random_request

SHAPE, PATCH, SEARCH = (3, 4, 5), (1, 0, 2), (2, 3, 1)


def test_sizes_follow_from_the_padded_image_and_the_radii() -> None:
    of = random_request(SHAPE, PATCH, SEARCH)
    assert of.margin == (3, 3, 3)
    assert of.shape == SHAPE
    assert of.patch == (3, 1, 5)
    assert of.window == (5, 7, 3)


def test_inside_cuts_off_the_margin() -> None:
    of = random_request(SHAPE, PATCH, SEARCH)
    assert torch.equal(of.inside(of.image), of.image[:, 3:-3, 3:-3, 3:-3])
    assert torch.equal(of.inside(of.image, (0, 2, 1)), of.image[:, :, 2:-2, 1:-1])


def test_neighbours_are_half_the_window_unless_a_sample_is_given() -> None:
    of = random_request(SHAPE, PATCH, SEARCH)
    assert of.neighbours == tuple(Neighbour(offset, 1.0) for offset in half_window(SEARCH))
    sample = (Neighbour((0, 0, 1), 2.5),)
    assert dataclasses.replace(of, sample=sample).neighbours == sample


@pytest.mark.parametrize("name", ["image", "guide", "falloff", "offset"])
def test_a_request_is_tracked_if_any_tensor_is(name: str) -> None:
    of = random_request(SHAPE, PATCH, SEARCH, features=1)
    assert not of.requires_grad
    of = dataclasses.replace(of, **{name: getattr(of, name).clone().requires_grad_()})
    assert of.requires_grad
    with torch.no_grad():
        assert not of.requires_grad


@pytest.mark.parametrize("offset", [0.0, 0.3])
def test_weights_follow_the_formula_down_to_a_bound(offset: float) -> None:
    distance = np.linspace(0, 50, 101)
    expected = np.exp(np.maximum(-2.0 * np.maximum(distance - offset, 0), -64))
    number = torch.tensor(offset, dtype=torch.float64)
    found = weight_from_distance(torch.from_numpy(distance), torch.tensor(2.0, dtype=torch.float64), number)
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    assert found[0] == 1
    assert found[-1] == pytest.approx(math.exp(-64))


@pytest.mark.parametrize(
    ("center", "least", "expected"),
    [
        ("one", LEAST_OWN_WEIGHT, [1, 1, 1]),
        ("max", LEAST_OWN_WEIGHT, [math.exp(-32), 0.2, 0.9]),
        ("max", 0.5, [0.5, 0.5, 0.9]),
        ("zero", LEAST_OWN_WEIGHT, [1, 0, 0]),  # 1 for a voxel without neighbours
    ],
)
def test_the_center_rule_gives_the_weight_of_the_voxel_itself(center: str, least: float, expected: list[float]) -> None:
    of = dataclasses.replace(random_request((1, 1, 3), (0, 0, 0), (0, 0, 1)), center=center, least_own=least)
    largest = torch.tensor([[[0.0, 0.2, 0.9]]], dtype=torch.float64)
    own = own_weight(largest, of)
    assert own.flatten().tolist() == pytest.approx(expected)
    weighted, total = torch.tensor([[[[0.0, 3.0, 5.0]]]]), torch.tensor([[[0.0, 2.0, 4.0]]])
    values = of.image[0, 0, 0, 1:-1].double()
    result = (weighted[0, 0, 0] + own[0, 0] * values) / (total[0, 0] + own[0, 0])
    torch.testing.assert_close(with_center(weighted, total, largest, of)[0, 0, 0], result)
