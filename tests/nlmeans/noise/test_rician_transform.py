"""Rician noise: stabilised, averaged, and restored without a bias."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from nlmeans import denoise
from nlmeans.noise.rician_transform import STRONG_MAGNITUDE, restore_magnitude, stabilise_magnitude
from tests.nlmeans.volumes import gain, piecewise, rician

SIGNALS = np.array(
    [0.0, 0.3, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, STRONG_MAGNITUDE - 0.1, STRONG_MAGNITUDE + 0.1, 40.0, 150.0]
)


def moments_of_stabilised(signal: float) -> tuple[float, float]:
    """Mean and deviation of the stabilised magnitude for sigma 1, summed in float64 over scipy's density."""
    magnitudes = np.linspace(max(0.0, signal - 9), signal + 9, 20_001)
    chance = stats.rice.pdf(magnitudes, signal)
    values = stabilise_magnitude(torch.from_numpy(magnitudes), 1.0).numpy()
    mean = np.average(values, weights=chance)
    return float(mean), float(np.sqrt(np.average((values - mean) ** 2, weights=chance)))


@pytest.mark.parametrize("signal", SIGNALS)
def test_stabilised_noise_has_deviation_one(signal: float) -> None:
    assert moments_of_stabilised(signal)[1] == pytest.approx(1, abs=0.03)


def test_noise_of_a_strong_signal_is_left_as_it_is() -> None:
    magnitude = torch.linspace(STRONG_MAGNITUDE / 2, 3 * STRONG_MAGNITUDE, 100, dtype=torch.float64)
    stabilised = stabilise_magnitude(magnitude, 1.0)
    assert stabilised.diff().numpy() == pytest.approx(magnitude.diff().numpy(), rel=0.01)


@pytest.mark.parametrize("sigma", [1.0, 60.0, 1e-3])
def test_the_inverse_is_exact(sigma: float) -> None:
    mean = torch.tensor([moments_of_stabilised(signal)[0] for signal in SIGNALS], dtype=torch.float64)
    np.testing.assert_allclose(restore_magnitude(mean, sigma) / sigma, SIGNALS, atol=5e-4)


def test_sigma_may_vary_in_space() -> None:
    sigma, image = torch.tensor([1.0, 2.0, 4.0]), torch.full((3,), 8.0)
    one_by_one = [float(stabilise_magnitude(torch.tensor(8.0), float(s))) for s in sigma]
    assert stabilise_magnitude(image, sigma).tolist() == pytest.approx(one_by_one)
    back = [float(restore_magnitude(torch.tensor(8.0), float(s))) for s in sigma]
    assert restore_magnitude(image, sigma).tolist() == pytest.approx(back)


def test_below_the_mean_of_nothing_there_is_no_signal() -> None:
    darkest = moments_of_stabilised(0.0)[0]
    assert restore_magnitude(torch.tensor([-5.0, 0.0, darkest - 0.01]), 3.0).tolist() == [0, 0, 0]


def test_brighter_stays_brighter() -> None:
    values = torch.linspace(0, 3 * STRONG_MAGNITUDE, 60_001, dtype=torch.float64)
    assert bool((stabilise_magnitude(values, 1.0).diff() > 0).all())
    assert bool((restore_magnitude(values, 1.0).diff() >= 0).all())


def test_negative_magnitudes_count_as_zero() -> None:
    assert stabilise_magnitude(torch.tensor([-3.0, 0.0]), 1.0).tolist() == [0, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_precision_is_kept(dtype: torch.dtype) -> None:
    image = torch.ones(2, dtype=dtype)
    assert stabilise_magnitude(image, 1.0).dtype == restore_magnitude(image, 1.0).dtype == dtype


def test_a_filter_for_gaussian_noise_fits_between_the_two() -> None:
    clean = piecewise(24, 40, 40)
    noisy = rician(clean, 25.0)
    denoised = denoise(stabilise_magnitude(torch.from_numpy(noisy), 25.0), 1.0)
    restored = restore_magnitude(denoised, 25.0).numpy()
    assert gain(clean, noisy, restored) > 7
    assert restored[clean == 0].mean() < 0.2 * noisy[clean == 0].mean()
