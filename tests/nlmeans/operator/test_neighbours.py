"""Neighbours in a search window, random samples of them, and the results of every backend with a sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nlmeans import nonlocal_means
from nlmeans.core.axes import Axes, window_voxels
from nlmeans.operator.neighbours import draw, half_window
from tests.nlmeans import reference

WINDOW = (2, 3, 3)


def image(*shape: int) -> Any:
    return np.random.default_rng(0).random(shape)


def sampled_reference(volume: Any, h: float, center: str | float, samples: int, seed: int) -> Any:
    drawn = draw(WINDOW, samples, seed)
    assert drawn is not None
    factors = {tuple(sign * o for o in offset): factor for offset, factor in drawn for sign in (1, -1)}
    return reference.nonlocal_means(
        volume[None], h, sigma=0.1, search_radius=WINDOW, patch_radius=(1, 1, 1), center=center, factors=factors
    )[0]


@pytest.mark.parametrize("backend", ["cpu", "loop", "full"])
@pytest.mark.parametrize("center", ["one", "max", 0.1])
def test_backends_agree_with_the_reference(backend: str, center: str | float) -> None:
    volume = image(6, 7, 8)
    result = nonlocal_means(
        volume.astype(np.float32),
        0.3,
        sigma=0.1,
        search_radius=WINDOW,
        center=center,
        samples=20,
        seed=5,
        backend=backend,
    )
    assert result == pytest.approx(sampled_reference(volume, 0.3, center, 20, 5), abs=1e-5)


@pytest.mark.parametrize("backend", ["windowed", "gpu"])
def test_backends_that_see_the_whole_window_refuse(backend: str) -> None:
    with pytest.raises(ValueError, match=r"cannot do this: .*backend='(cpu|loop)' can"):
        nonlocal_means(image(6, 7, 8), 0.3, samples=20, backend=backend)


def test_gradients_are_those_of_finite_differences() -> None:
    volume = torch.from_numpy(image(4, 4, 5)).requires_grad_()

    def run(values: torch.Tensor) -> torch.Tensor:
        return nonlocal_means(values, 0.5, search_radius=2, center="max", samples=16, backend="loop")

    assert torch.autograd.gradcheck(run, (volume,))


def test_a_sample_of_all_is_the_whole_window() -> None:
    assert draw(WINDOW, 10_000, 0) is None
    volume = image(6, 7, 8)
    whole = nonlocal_means(volume, 0.3, search_radius=2)
    assert np.array_equal(nonlocal_means(volume, 0.3, search_radius=2, samples=200), whole)


def test_the_size_is_as_asked_and_factors_count_the_window_on_average() -> None:
    offsets = list(half_window((4, 4, 4)))
    totals = []
    for seed in range(40):
        drawn = draw((4, 4, 4), 100, seed)
        assert drawn is not None
        assert abs(len(drawn) - 50) <= 1
        assert len({n.offset for n in drawn}) == len(drawn)
        totals.append(sum(n.factor for n in drawn))
    assert np.mean(totals) == pytest.approx(len(offsets), rel=0.03)


def test_near_neighbours_are_drawn_more_often() -> None:
    drawn = [draw((6, 6, 6), 100, seed) or () for seed in range(20)]
    distances = [np.linalg.norm(n.offset) for sample in drawn for n in sample]
    everywhere = [np.linalg.norm(offset) for offset in half_window((6, 6, 6))]
    assert np.mean(distances) < 0.85 * np.mean(everywhere)


def test_seeds_repeat() -> None:
    assert draw(WINDOW, 20, 1) == draw(WINDOW, 20, 1)
    assert draw(WINDOW, 20, 1) != draw(WINDOW, 20, 2)


@pytest.mark.parametrize(("samples", "seed"), [(1, 0), (2.5, 0), (20, -1)])
def test_wrong_numbers_are_refused(samples: Any, seed: int) -> None:
    with pytest.raises(ValueError, match=r"(samples|seed)=.* must be a whole number of at least"):
        nonlocal_means(image(4, 5, 6), 0.3, samples=samples, seed=seed)


@pytest.mark.parametrize("search_radius", [(0, 0, 0), (1, 1, 1), (0, 2, 1), (3, 0, 2)])
def test_half_a_window_and_its_mirror_image_make_the_window(search_radius: Axes) -> None:
    half = set(half_window(search_radius))
    mirrored = {(-z, -y, -x) for z, y, x in half}
    assert not half & mirrored
    assert len(half | mirrored) == window_voxels(search_radius) - 1
