"""Random fields: their level, their covariance at every lag, and the filters of scanners."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nlmeans import NoiseModel, estimate_noise
from nlmeans.noise.drawn.fields import CORRELATIONS, gaussian_field, scanner_correlation, smooth_factor

SHAPE = {2: (400, 420), 3: (60, 64, 68)}


def drawn(shape: tuple[int, ...], correlation: Any = None, seed: int = 0) -> Any:
    return gaussian_field(shape, torch.Generator().manual_seed(seed), correlation).numpy()


def measured(field: Any, lag: tuple[int, ...]) -> float:
    """Covariance of a field of mean 0 at a lag."""
    here = tuple(slice(max(-step, 0), n - max(step, 0)) for step, n in zip(lag, field.shape, strict=True))
    there = tuple(slice(max(step, 0), n - max(-step, 0)) for step, n in zip(lag, field.shape, strict=True))
    return float((field[here] * field[there]).mean())


def test_white_noise_has_a_deviation_of_one_and_no_covariance() -> None:
    field = drawn(SHAPE[3])
    assert field.std() == pytest.approx(1, abs=0.01)
    assert abs(field.mean()) < 0.01
    for lag in ((0, 0, 1), (0, 1, 0), (1, 0, 0), (1, 1, 1)):
        assert abs(measured(field, lag)) < 0.01


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", CORRELATIONS)
def test_a_field_has_the_covariance_of_the_filter_at_every_lag(name: str, dimensions: int) -> None:
    lags = np.array(scanner_correlation(name, dimensions))
    field = drawn(SHAPE[dimensions], lags)
    assert field.std() == pytest.approx(1, abs=0.03)
    field = field.reshape((-1, *SHAPE[dimensions][-2:]))
    middle = [n // 2 for n in lags.shape]
    steps = [(0, 0, 1), (0, 1, 0), (0, 1, 1), (0, 1, -1), (0, 0, 2), (0, 2, 1), (0, 0, 3)]
    for lag in [*steps, *([(1, 0, 0), (1, 1, 0)] if dimensions == 3 else [])]:
        assert measured(field, lag) == pytest.approx(lags[tuple(np.add(middle, lag))], abs=0.04)


@pytest.mark.parametrize("name", CORRELATIONS)
def test_the_filters_are_those_of_scanners(name: str) -> None:
    """The spectrum of a field ends, or has its hole, where that of the filter does."""
    field = np.mean([np.abs(np.fft.fft2(drawn((192, 192), scanner_correlation(name, 2), s))) ** 2 for s in range(8)], 0)
    along = field[:, :8].mean(1)[:96] / field.mean()  # of frequencies along the first axis, from 0 to the highest
    if name == "zero-filled":
        assert along[4:56].mean() > 1.5
        assert along[72:].mean() < 0.1
    elif name == "apodised":
        assert along[:8].mean() > 2 * along[20:30].mean() > 20 * along[72:].mean()
    else:
        assert along[:3].mean() < 0.6 * along[16:24].mean()
        assert along[72:].mean() < 0.1


def test_the_share_is_that_of_the_grid() -> None:
    near = [np.array(scanner_correlation("zero-filled", 2, share))[0, 9, 10] for share in (0.5, 0.75, 1.0)]
    assert near == pytest.approx([2 / np.pi, np.sin(0.75 * np.pi) / (0.75 * np.pi), 0], abs=0.02)
    with pytest.raises(ValueError, match=r"share=1.5 must be at most 1"):
        scanner_correlation("ct", 2, 1.5)
    with pytest.raises(ValueError, match="correlation='blur' is not known; choose one of 'zero-filled', 'apodised'"):
        scanner_correlation("blur")
    with pytest.raises(ValueError, match="spatial_dims=1 must be 2 or 3"):
        scanner_correlation("ct", 1)


def test_the_noise_model_of_a_field_is_found_again() -> None:
    model = NoiseModel(sigma=20.0, correlation=scanner_correlation("zero-filled", 3, 0.75))
    noisy = 300 + 20 * drawn((64, 64, 64), model.correlation)
    found = estimate_noise(noisy)
    assert found.sigma == pytest.approx(20, rel=0.08)
    assert found.correlation is not None
    ours, theirs = (np.array(one.correlation) for one in (model, found))
    near = [tuple(np.add([n // 2 for n in lags.shape], (0, 0, 1))) for lags in (ours, theirs)]
    assert theirs[near[1]] == pytest.approx(ours[near[0]], abs=0.05)


def test_a_seed_repeats_a_field_and_another_does_not() -> None:
    for correlation in (None, [[[0.4, 1.0, 0.4]]]):
        np.testing.assert_array_equal(drawn((20, 30), correlation), drawn((20, 30), correlation))
        assert not np.array_equal(drawn((20, 30), correlation), drawn((20, 30), correlation, 1))


def test_opposite_borders_are_independent() -> None:
    fields = np.stack([drawn((4, 40), [[[0.6, 1.0, 0.6]]], seed) for seed in range(300)])
    assert abs((fields[..., 0] * fields[..., -1]).mean()) < 0.1
    assert (fields[..., 0] * fields[..., 1]).mean() > 0.4


def test_an_image_has_no_correlation_along_its_depth() -> None:
    with pytest.raises(
        ValueError, match=r"correlation has \(3, 1, 1\) lags, but an image of shape \(8, 9\) has no depth"
    ):
        drawn((8, 9), [[[0.4]], [[1.0]], [[0.4]]])
    with pytest.raises(ValueError, match="must have two or three spatial axes"):
        drawn((8,))


@pytest.mark.parametrize("shape", SHAPE.values())
def test_a_smooth_factor_varies_as_much_as_it_may(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    found = torch.stack([smooth_factor(shape, 0.4, generator) for _ in range(20)])
    assert 0.6 <= found.min() < 0.65
    assert 1.35 < found.max() <= 1.4
    assert (found.diff(dim=-1).abs() < 0.05).all()
    assert torch.equal(smooth_factor(shape, 0.0, generator), torch.ones(shape))
    with pytest.raises(ValueError, match="variation=1 must be from 0 to less than 1"):
        smooth_factor(shape, 1, generator)
