"""Moments of Rician noise, and the removal of its bias."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from nlmeans.noise.rician import RAYLEIGH_MEAN, look_up, rician_deviation, rician_moments, without_rician_bias
from tests.nlmeans.volumes import rician

SIGNALS = torch.cat([torch.linspace(0, 40, 401, dtype=torch.float64), torch.tensor([100.0, 1e3]).double()])


def test_moments_agree_with_scipy() -> None:
    mean, variance = rician_moments(SIGNALS[:301])
    expected = stats.rice.stats(SIGNALS[:301].numpy(), moments="mv")
    np.testing.assert_allclose(mean, expected[0], rtol=1e-10)
    np.testing.assert_allclose(variance, expected[1], rtol=1e-8)


@pytest.mark.parametrize("signal", [0.0, 1.0, 3.0])
def test_moments_agree_with_simulation(signal: float) -> None:
    magnitudes = rician(np.full(400_000, signal), 1.0)
    mean, variance = rician_moments(torch.tensor(signal))
    assert float(mean) == pytest.approx(magnitudes.mean(), abs=0.01)
    assert float(variance) == pytest.approx(magnitudes.var(), abs=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_variance_keeps_its_digits_far_from_zero(dtype: torch.dtype) -> None:
    signal = torch.tensor([29.9, 30.1, 1e3, 1e6, 1e9], dtype=dtype)
    exact = 1 - 0.5 / signal.double().square() - 0.5 / signal.double() ** 4
    np.testing.assert_allclose(rician_moments(signal)[1].double(), exact, atol=1e-3 if dtype == torch.float32 else 3e-6)


@pytest.mark.parametrize("sigma", [1.0, 60.0, 1e-20])
def test_the_bias_is_undone(sigma: float) -> None:
    mean = rician_moments(SIGNALS)[0]
    found = without_rician_bias(mean * sigma, sigma) / sigma
    np.testing.assert_allclose(found, SIGNALS, atol=1e-4)


def test_sigma_may_vary_in_space() -> None:
    sigma = torch.tensor([1.0, 2.0, 4.0])
    found = without_rician_bias(torch.full((3,), 8.0), sigma)
    one_by_one = [float(without_rician_bias(torch.tensor(8.0), float(s))) for s in sigma]
    assert found.tolist() == pytest.approx(one_by_one)


def test_below_the_mean_of_nothing_there_is_no_signal() -> None:
    assert without_rician_bias(torch.tensor([-5.0, 0.0, 1.0, RAYLEIGH_MEAN]), 1.0).tolist() == [0, 0, 0, 0]


def test_brighter_stays_brighter() -> None:
    mean = torch.linspace(1.2, 60, 20_001, dtype=torch.float64)
    assert bool((without_rician_bias(mean, 1.0).diff() >= 0).all())


@pytest.mark.parametrize("mean", [1e10, 1e25, 1e38])
def test_a_strong_signal_has_no_bias(mean: float) -> None:
    assert float(without_rician_bias(torch.tensor(mean), 1.0)) == pytest.approx(mean)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_precision_is_kept(dtype: torch.dtype) -> None:
    assert without_rician_bias(torch.ones(2, dtype=dtype), 1.0).dtype == dtype


def test_the_deviation_by_the_mean_is_that_of_scipy() -> None:
    signal = SIGNALS[:301:10]
    mean, variance = stats.rice.stats(signal.numpy(), moments="mv")
    np.testing.assert_allclose(rician_deviation(torch.from_numpy(mean)), np.sqrt(variance), atol=1e-4)
    assert float(rician_deviation(torch.tensor(0.5))) == pytest.approx(0.655, abs=1e-3)


def test_a_table_is_interpolated_and_constant_beyond_its_ends() -> None:
    table = torch.tensor([1.0, 3.0, 2.0])
    assert look_up(table, torch.tensor([-1.0, 0.0, 0.5, 1.75, 2.0, 9.0])).tolist() == [1, 1, 2, 2.25, 2, 2]
