"""Poisson noise: stabilised, denoised, and restored without a bias."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nlmeans import denoise
from nlmeans.core.metrics import psnr
from nlmeans.noise.poisson import (
    deviation_of_stabilised,
    mean_of_stabilised,
    restore_counts,
    stabilise_counts,
)


def discs(peak: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    z, y, x = np.mgrid[-1:1:24j, -1:1:40j, -1:1:40j]
    return peak * (0.1 + 0.5 * (z**2 + y**2 + x**2 < 0.8) + 0.4 * ((y - 0.2) ** 2 + x**2 < 0.1))


def detected(clean: np.ndarray, gain: float, offset: float, read_noise: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    return gain * rng.poisson(clean) + offset + read_noise * rng.standard_normal(clean.shape)


@pytest.mark.parametrize("photons", [5.0, 20.0, 500.0])
@pytest.mark.parametrize(("gain", "offset", "read_noise"), [(1.0, 0.0, 0.0), (2.5, 100.0, 4.0)])
def test_stabilised_noise_has_deviation_one(photons: float, gain: float, offset: float, read_noise: float) -> None:
    image = torch.from_numpy(detected(np.full(200_000, photons), gain, offset, read_noise))
    assert float(stabilise_counts(image, gain, offset, read_noise).std()) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("read_noise", [0.0, 0.7, 3.0])
def test_mean_of_stabilised_counts_agrees_with_simulation(read_noise: float) -> None:
    photons = torch.tensor([0.3, 4.0, 40.0], dtype=torch.float64)
    rng = np.random.default_rng(1)
    for signal, mean in zip(photons.tolist(), mean_of_stabilised(photons, read_noise).tolist(), strict=True):
        image = torch.from_numpy(rng.poisson(signal, 400_000) + read_noise * rng.standard_normal(400_000))
        assert mean == pytest.approx(float(stabilise_counts(image, 1.0, 0.0, read_noise).mean()), abs=0.006)


@pytest.mark.parametrize(("gain", "offset", "read_noise"), [(1.0, 0.0, 0.0), (2.5, 100.0, 1.0)])
def test_few_photons_vary_less_once_they_are_stabilised(gain: float, offset: float, read_noise: float) -> None:
    for photons in (0.1, 0.7, 3.0, 70.0):
        image = torch.from_numpy(detected(np.full(200_000, photons), gain, offset, read_noise))
        found = deviation_of_stabilised(torch.tensor(photons * gain + offset), gain, offset, read_noise)
        expected = float(stabilise_counts(image, gain, offset, read_noise).std())
        assert float(found) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("read_noise", [0.0, 2.0])
def test_inverse_is_exact(read_noise: float) -> None:
    photons = torch.tensor([0.0, 0.2, 1.0, 7.0, 59.0, 61.0, 300.0], dtype=torch.float64)
    mean = mean_of_stabilised(photons, read_noise)
    assert restore_counts(mean, 1.0, 0.0, read_noise).tolist() == pytest.approx(photons.tolist(), abs=2e-3)
    assert restore_counts(mean, 3.0, 50.0, 3 * read_noise).tolist() == pytest.approx(
        (3 * photons + 50).tolist(), abs=6e-3
    )


@pytest.mark.parametrize(("gain", "offset", "read_noise"), [(1.0, 0.0, 0.0), (2.0, 100.0, 3.0)])
def test_denoised_counts_gain_and_keep_their_mean(gain: float, offset: float, read_noise: float) -> None:
    clean = discs(20.0)
    truth, noisy = gain * clean + offset, detected(clean, gain, offset, read_noise)
    denoised = denoise(noisy, read_noise, noise="poisson", gain=gain, offset=offset)
    assert psnr(truth, denoised, peak=20 * gain) > psnr(truth, noisy, peak=20 * gain) + 8
    dark = clean == clean.min()
    assert denoised[dark].mean() == pytest.approx(truth[dark].mean(), abs=0.1 * gain)


def test_the_inverse_has_no_hole_where_the_read_noise_is_far_above_the_gain() -> None:
    """The means of few photons are then the same in float32."""
    photons = torch.tensor([0.0, 1e-4, 0.5, 40.0], dtype=torch.float64)
    restored = restore_counts(mean_of_stabilised(photons, 100.0).float(), 1.0, 0.0, 100.0)
    np.testing.assert_allclose(restored, photons, atol=0.01)


def test_exact_inverse_beats_the_algebraic_one_at_ten_photons() -> None:
    clean = discs(10.0)
    noisy = detected(clean, 1.0, 0.0, 0.0)
    stabilised = stabilise_counts(torch.from_numpy(noisy), 1.0, 0.0, 0.0).numpy()
    algebraic = denoise(stabilised, 1.0) ** 2 / 4 - 3 / 8
    assert psnr(clean, denoise(noisy, noise="poisson")) > psnr(clean, algebraic) + 0.5


def test_integer_counts_come_back_as_integers() -> None:
    noisy = detected(discs(30.0), 1.0, 0.0, 0.0).astype(np.uint16)
    assert denoise(noisy, noise="poisson").dtype == np.uint16


def test_the_detector_belongs_to_poisson_noise() -> None:
    with pytest.raises(ValueError, match=r"gain=2.0 and offset=0.0 .* need noise='poisson'"):
        denoise(np.ones((8, 8)), 1.0, gain=2.0)
    with pytest.raises(ValueError, match="gain=0 must be greater than 0"):
        denoise(np.ones((8, 8)), noise="poisson", gain=0)
    with pytest.raises(ValueError, match="sigma is the read noise"):
        denoise(np.ones((8, 8)), np.ones((8, 8)), noise="poisson")
    with pytest.raises(ValueError, match=r"sigma=30001, the read noise .* more than 10000 times gain=3.*'gaussian'"):
        denoise(np.ones((8, 8)), 30001.0, noise="poisson", gain=3.0)
    with pytest.raises(ValueError, match="sigma has 2 numbers; give one, or one per volume"):
        denoise(np.ones((3, 8, 8)), (1.0, 2.0), noise="poisson", series=0)
    with pytest.raises(ValueError, match="give one number for all channels"):
        denoise(np.ones((2, 8, 8)), (1.0, 2.0), noise="poisson", channels=0)
