"""Patchwise and linear non-local means against float64 references, voxel by voxel."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nlmeans import nonlocal_means
from nlmeans.methods.variants import RIDGE, average_patches, fit_planes
from tests.nlmeans.reference import add, box, own_weight, reflected, window

H, SIGMA = 0.5, 0.2
SEARCH, PATCH = (1, 2, 2), (1, 1, 1)
SHAPES = [(5, 6, 7), (1, 8, 9)]


def volume(*shape: int) -> Any:
    return np.random.default_rng(0).random((1, *shape))


def radii(shape: Any) -> tuple[Any, Any]:
    return (SEARCH, PATCH) if shape[0] > 1 else ((0, 2, 2), (0, 1, 1))


def average(values: Tensor, guide: Any, center: Any) -> Tensor:
    search, patch = radii(guide.shape[1:])
    return nonlocal_means(
        values, H, sigma=SIGMA, guide=torch.from_numpy(guide), patch_radius=patch, search_radius=search, center=center,
        channels=0, backend="loop",
    )  # fmt: skip


def neighbours(image: Any, voxel: Any, center: Any) -> list[tuple[Any, float]]:
    """List the voxels in the window of a voxel, as places in the image padded by the search radius, with weights."""
    search, patch = radii(image.shape[1:])
    features, middle = reflected(image, add(search, patch)), add(voxel, search)
    own, found = box(features, middle, patch), []
    for place in window(middle, search):
        if place != middle:
            distance = np.square(own - box(features, place, patch)).mean()
            found.append((place, float(np.exp(-max(distance - 2 * SIGMA**2, 0) / H**2))))
    largest = max(weight for _, weight in found)
    return [*found, (middle, own_weight(center, largest))]


@pytest.mark.parametrize("shape", SHAPES)
def test_patchwise_is_the_mean_of_all_patches_over_a_voxel(shape: tuple[int, int, int]) -> None:
    image = volume(*shape)
    search, patch = radii(shape)
    total, count = np.zeros(shape), np.zeros(shape)
    padded = reflected(image, add(search, patch))[0]
    for voxel in np.ndindex(*shape):
        found = neighbours(image, voxel, "max")
        for offset in itertools.product(*(range(-p, p + 1) for p in patch)):
            x = add(voxel, offset)
            if all(0 <= a < n for a, n in zip(x, shape, strict=True)):
                weights = sum(w for _, w in found)
                total[x] += sum(w * patch_value(image, padded, place, offset) for place, w in found) / weights
                count[x] += 1
    result = average_patches(torch.from_numpy(image), patch, lambda values: average(values, image, "max"))
    assert result[0].numpy() == pytest.approx(total / count, abs=1e-9)


def patch_value(image: Any, padded: Any, place: Any, offset: Any) -> float:
    """Return the voxel at an offset from a neighbour. Beyond the border, the patch is that of the reflected voxel."""
    search, patch = radii(image.shape[1:])
    source = [reflect_index(c - s, n) for c, s, n in zip(place, search, image.shape[1:], strict=True)]
    here = [c + o + s + p for c, o, s, p in zip(source, offset, search, patch, strict=True)]
    return float(padded[tuple(here)])


def reflect_index(index: int, length: int) -> int:
    period = max(2 * (length - 1), 1)
    return min(index % period, period - index % period)


@pytest.mark.parametrize("shape", SHAPES)
def test_linear_is_the_fit_of_a_plane_by_weighted_least_squares(shape: tuple[int, int, int]) -> None:
    image = volume(*shape)
    search = radii(shape)[0]
    axes = [axis for axis in range(3) if search[axis]]
    expected = np.zeros(shape)
    for voxel in np.ndindex(*shape):
        rows, values, weights = [], [], []
        for place, weight in neighbours(image, voxel, 0.1):
            source = tuple(reflect_index(c - s, n) for c, s, n in zip(place, search, shape, strict=True))
            rows.append([1.0, *(source[axis] - voxel[axis] for axis in axes)])
            values.append(image[(0, *source)])
            weights.append(weight)
        design, weighting = np.array(rows), np.diag(weights)
        ridge = np.diag([0.0] + [RIDGE * sum(weights)] * len(axes))
        expected[voxel] = np.linalg.solve(design.T @ weighting @ design + ridge, design.T @ weighting @ values)[0]
    result = fit_planes(torch.from_numpy(image), axes, lambda values: average(values, image, 0.1))
    assert result[0].numpy() == pytest.approx(expected, abs=1e-9)


def test_linear_without_an_axis_to_search_is_the_mean() -> None:
    image = torch.rand(1, 3, 4, 5)
    assert torch.equal(fit_planes(image, [], lambda values: values + 1), image + 1)
