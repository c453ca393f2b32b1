"""Moments of Rician noise, and the removal of its bias."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import gammaln

from nlmeans.noise.rician import (
    RAYLEIGH_MEAN,
    coils_of_air,
    inverse_mean_table,
    look_up,
    mean_of_air,
    rician_deviation,
    rician_moments,
    sigma_of_air,
    variances_by_share,
    without_rician_bias,
)
from tests.nlmeans.volumes import Floats, rician

SIGNALS = torch.cat([torch.linspace(0, 40, 401, dtype=torch.float64), torch.tensor([100.0, 1e3]).double()])

COILS = (1, 2, 4, 8, 32, 2.5)


def magnitudes_of(signal: float, coils: float, count: int = 400_000) -> Floats:
    return np.sqrt(np.random.default_rng(0).noncentral_chisquare(2 * coils, signal**2, count))


def exact_moments(signal: float, coils: float) -> tuple[float, float]:
    """Sum over the Poisson mixture: the squared magnitude is chi-square of 2·(coils + k) degrees of freedom."""
    half = signal**2 / 2
    k = np.arange(half + 40 * np.sqrt(half) + 100)
    chances = stats.poisson.pmf(k, half)
    mean = float(chances @ np.exp(np.log(2) / 2 + gammaln(coils + k + 0.5) - gammaln(coils + k)))
    return mean, 2 * coils + signal**2 - mean**2


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


@pytest.mark.parametrize("coils", COILS)
@pytest.mark.parametrize("signal", [0.0, 1.0, 4.0, 20.0])
def test_moments_of_several_coils_agree_with_simulation(signal: float, coils: float) -> None:
    simulated = magnitudes_of(signal, coils)
    mean, variance = rician_moments(torch.tensor(signal), coils)
    assert float(mean) == pytest.approx(simulated.mean(), rel=0.01)
    assert float(variance) == pytest.approx(simulated.var(), rel=0.01)


def test_only_the_root_of_the_sum_of_the_squared_signals_matters() -> None:
    real, imaginary = np.random.default_rng(0).standard_normal((2, 200_000, 4))
    real += np.array([0.5, 0, 2, 1])
    imaginary += np.array([0, -1, 0, 0])
    simulated = np.sqrt((np.square(real) + np.square(imaginary)).sum(1))
    mean, variance = rician_moments(torch.tensor(6.25).sqrt(), 4)
    assert float(mean) == pytest.approx(simulated.mean(), rel=0.01)
    assert float(variance) == pytest.approx(simulated.var(), rel=0.01)


@pytest.mark.parametrize("coils", [*COILS, 1.01, 64])
def test_moments_of_several_coils_agree_with_the_series(coils: float) -> None:
    signal = [0.0, 0.03, 0.5, 1.1, 2.7, 6.3, 14.0, 28.0]
    mean, variance = rician_moments(torch.tensor(signal, dtype=torch.float64), coils)
    expected = np.array([exact_moments(s, coils) for s in signal])
    np.testing.assert_allclose(mean, expected[:, 0], rtol=1e-8)
    np.testing.assert_allclose(variance, expected[:, 1], atol=5e-8)


def test_one_coil_has_the_bessel_form_to_the_last_bit() -> None:
    signal = torch.linspace(0, 29, 1001)
    quarter = signal.square() / 4
    bessel = (1 + 2 * quarter) * torch.special.i0e(quarter) + 2 * quarter * torch.special.i1e(quarter)
    for mean, variance in (rician_moments(signal), rician_moments(signal, 1), rician_moments(signal, 1.0)):
        assert torch.equal(mean, RAYLEIGH_MEAN * bessel)
        assert torch.equal(variance, 2 + signal.square() - mean.square())


def test_the_bias_of_one_coil_is_undone_as_before_there_were_several() -> None:
    mean = torch.tensor([1.3, 1.6, 2.5, 8.0, 29.9, 30.1, 60.0])
    before = [0.387808889, 1.08926153, 2.26358986, 7.93674517, 29.8832588, 30.0833797, 59.9916687]
    assert without_rician_bias(mean, 1.0).tolist() == pytest.approx(before, rel=2e-7)
    assert without_rician_bias(mean, 1.0, 1.0).tolist() == pytest.approx(before, rel=2e-7)


def test_the_table_of_several_coils_meets_the_bessel_form_of_one() -> None:
    for several, one in zip(rician_moments(SIGNALS[:301], 1 + 1e-9), rician_moments(SIGNALS[:301]), strict=True):
        np.testing.assert_allclose(several, one, atol=1e-7)


@pytest.mark.parametrize("coils", [*COILS, 64])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.float64, 1e-5)])
def test_the_bias_of_several_coils_is_undone(coils: float, dtype: torch.dtype, tolerance: float) -> None:
    signal = torch.linspace(0.5, 60, 2001, dtype=dtype)
    found = without_rician_bias(rician_moments(signal, coils)[0] * 7, 7.0, coils) / 7
    assert found.dtype == dtype
    np.testing.assert_allclose(found, signal, atol=tolerance)


@pytest.mark.parametrize("coils", COILS)
def test_below_the_mean_of_air_there_is_no_signal(coils: float) -> None:
    mean = torch.tensor([-5.0, 0.0, 0.9, 0.9999]) * mean_of_air(coils)
    assert without_rician_bias(mean, 1.0, coils).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("coils", [*COILS, 64])
def test_tables_are_monotone(coils: float) -> None:
    assert bool((variances_by_share(coils).diff() < 0).all())
    assert bool((inverse_mean_table(coils)[0].diff() > 0).all())
    signal = torch.linspace(0, 60, 100_001, dtype=torch.float64)
    mean = rician_moments(signal, coils)[0]
    assert bool((mean.diff() > 0).all())
    assert bool((without_rician_bias(mean, 1.0, coils).diff() >= 0).all())


@pytest.mark.parametrize("coils", [2, 2.5, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_strong_signals_of_several_coils_keep_their_digits(coils: float, dtype: torch.dtype) -> None:
    signal = torch.tensor([300.0, 1e4, 1e9, 1e25, 1e38], dtype=dtype)
    mean, variance = rician_moments(signal, coils)
    exact = 1 - (coils - 0.5) / (signal.double().square() + 2 * coils - 3)
    np.testing.assert_allclose(variance.double(), exact, rtol=2e-7)
    np.testing.assert_allclose(without_rician_bias(mean, 1.0, coils), signal, rtol=4e-7)


@pytest.mark.parametrize("coils", COILS)
def test_the_deviation_of_several_coils_by_their_mean(coils: float) -> None:
    expected = [exact_moments(s, coils) for s in (0.0, 0.7, 3.0, 12.0)]
    found = rician_deviation(torch.tensor([m for m, _ in expected], dtype=torch.float64), coils)
    assert found.square().tolist() == pytest.approx([v for _, v in expected], abs=1e-5)


@pytest.mark.parametrize("coils", [*COILS, 60])
def test_air_tells_coils_and_sigma(coils: float) -> None:
    air = 5 * magnitudes_of(0.0, coils)
    found = coils_of_air(air.mean(), air.std())
    assert found == pytest.approx(coils, rel=0.05)
    assert sigma_of_air(air.mean(), coils) == pytest.approx(5, rel=0.01)
    assert sigma_of_air(air.mean(), found) == pytest.approx(5, rel=0.03)


@pytest.mark.parametrize(("mean", "deviation", "coils"), [(0, 0, 1), (1, 1, 1), (100, 1, 64), (1, 0, 64)])
def test_coils_are_1_to_64(mean: float, deviation: float, coils: float) -> None:
    assert coils_of_air(mean, deviation) == coils
