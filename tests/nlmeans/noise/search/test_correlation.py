"""Level and autocovariance of noise, measured in flat blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from nlmeans.noise.search.correlation import (
    FEWEST_BLOCKS,
    CorrelatedNoise,
    detrended_blocks,
    estimate_correlated_noise,
    fit_lower_end,
    lags_of_spectrum,
    measured_again,
    response_of_finest,
    spectrum,
    without_planes,
)
from tests.nlmeans.volumes import piecewise

SIGMA = 10.0


def smooth(*shape: int, seed: int = 0) -> Tensor:
    """Noise of standard deviation 1, with (1, 2, 1) taps along all axes: correlations 2/3 and 1/6 at lags 1 and 2."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    for axis in range(noise.ndim):
        if shape[axis] > 1:
            noise = noise + (np.roll(noise, 1, axis) + np.roll(noise, -1, axis)) / 2
            noise /= np.sqrt(1.5)
    return torch.from_numpy(noise)


@pytest.mark.parametrize("shape", [(40, 44, 48), (1, 160, 180), (5, 70, 80)])
@pytest.mark.parametrize("correlated", [False, True])
def test_sigma_and_neighbours_of_noise_on_structure(shape: tuple[int, int, int], correlated: bool) -> None:
    clean = torch.from_numpy(piecewise(*shape)).double()
    noise = smooth(*shape) if correlated else torch.from_numpy(np.random.default_rng(0).standard_normal(shape))
    found = estimate_correlated_noise(clean + SIGMA * noise)
    assert found is not None
    assert found.sigma == pytest.approx(SIGMA, rel=0.08)
    z, y, x = (n // 2 for n in found.autocovariance.shape)
    assert found.autocovariance[z, y, x] == 1
    assert float(found.autocovariance[z, y, x + 1]) == pytest.approx(2 / 3 if correlated else 0, abs=0.12)
    torch.testing.assert_close(found.autocovariance, found.autocovariance.flip(0, 1, 2))


def test_scale_and_offset() -> None:
    volume = torch.from_numpy(piecewise(24, 26, 28)) + SIGMA * smooth(24, 26, 28)
    one, other = estimate_correlated_noise(volume), estimate_correlated_noise(7 * volume + 1e5)
    assert one is not None
    assert other is not None
    assert other.sigma == pytest.approx(7 * one.sigma, rel=0.01)


def test_structure_in_most_blocks_does_not_change_sigma() -> None:
    noise = SIGMA * smooth(40, 40, 40)
    flat = torch.zeros(40, 40, 40, dtype=torch.bool)
    flat[:, :, :14] = True
    blobs = 300 * torch.rand(40, 40, 40, generator=torch.Generator().manual_seed(0)).round()
    one, other = (
        estimate_correlated_noise(noise, flat),
        estimate_correlated_noise(torch.where(flat, noise, noise + blobs)),
    )
    assert one is not None
    assert other is not None
    assert other.sigma == pytest.approx(one.sigma, rel=0.02)


def test_only_blocks_inside_count() -> None:
    volume = torch.cat([SIGMA * smooth(30, 30, 30), 3 * SIGMA * smooth(30, 30, 30, seed=1)])
    inside = torch.zeros(60, 30, 30, dtype=torch.bool)
    inside[30:] = True
    found = estimate_correlated_noise(volume, inside)
    assert found is not None
    assert found.sigma == pytest.approx(3 * SIGMA, rel=0.08)


def test_too_few_blocks_and_exact_zeros_give_nothing() -> None:
    assert estimate_correlated_noise(smooth(6, 7, 8)) is None
    assert estimate_correlated_noise(torch.zeros(20, 20, 20)) is None


def test_the_correlation_that_flat_blocks_hide_is_given_back() -> None:
    noisy = torch.from_numpy(piecewise(40, 44, 48)).double() + SIGMA * smooth(40, 44, 48)
    first = found_in(noisy)
    again = measured_again(first, noisy)
    assert again.sigma == first.sigma
    assert again.autocovariance[3, 3, 3] == 1
    torch.testing.assert_close(again.autocovariance, again.autocovariance.flip(0, 1, 2))
    true = torch.tensor([2 / 3, 1 / 6, 0.0], dtype=torch.float64)
    before, after = (float((found.autocovariance[3, 3, 4:] - true).abs().max()) for found in (first, again))
    assert before > 0.08
    assert after < 0.05


def test_frequencies_without_noise_stay_so() -> None:
    """Zero-filled k-space."""
    kspace = np.fft.rfftn(np.random.default_rng(0).standard_normal((40, 40, 40)))
    kspace[:, :, 14:] = 0
    noise = torch.from_numpy(np.fft.irfftn(kspace))
    power = spectrum(measured_again(found_in(noise), noise).autocovariance)
    assert power[:, :, 0].mean() > 1
    assert power[:, :, 4].max() < 0.05


def test_images_and_volumes_without_flat_parts_stay_as_found() -> None:
    image, small = smooth(1, 80, 80), SIGMA * smooth(12, 12, 12)
    found = found_in(image)
    assert measured_again(found, image) is found
    found = found_in(small)
    torch.testing.assert_close(measured_again(found, small).autocovariance, found.autocovariance)


def found_in(volume: Tensor) -> CorrelatedNoise:
    found = estimate_correlated_noise(volume)
    assert found is not None
    return found


def test_a_spectrum_gives_its_autocovariance_back() -> None:
    lags = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 5, 7)))
    lags = (lags + lags.flip(0, 1, 2)) / 2
    torch.testing.assert_close(lags_of_spectrum(spectrum(lags)), lags)


def test_blocks_have_no_plane_left() -> None:
    place = torch.stack(torch.meshgrid(*[torch.arange(20.0)] * 3, indexing="ij"))
    ramp = 5 + 3 * place[0] - 2 * place[1] + 0.5 * place[2]
    assert np.abs(detrended_blocks(ramp, None, (6, 6, 6))).max() < 1e-9
    assert round(float(without_planes(np.eye(216), (6, 6, 6)).trace())) == 216 - 4


def test_the_lower_end_of_a_gamma_distribution_gives_its_scale() -> None:
    generator = np.random.default_rng(0)
    noise, structure = generator.gamma(25, 4.0, 3000), 400 + generator.gamma(25, 40.0, 7000)
    ordered = np.sort(np.concatenate([noise, structure]))
    scale, threshold = fit_lower_end(ordered, 25.0, 100.0)
    assert scale == pytest.approx(4, rel=0.03)
    assert np.mean(noise < threshold) == pytest.approx(0.3, abs=0.02)
    assert FEWEST_BLOCKS < 900


def test_a_last_digit_of_the_samples_changes_only_a_last_digit_of_the_fit() -> None:
    """Sums differ in their last digits with the number of threads."""
    random = np.random.default_rng(0)
    for shape in (20.0, 105.0):
        values = np.sort(random.gamma(shape, size=5000))
        scale, threshold = fit_lower_end(values, shape, float(values[500]))
        for _ in range(5):
            nearly = np.sort(values * (1 + 1e-15 * random.standard_normal(5000)))
            again = fit_lower_end(nearly, shape, float(nearly[500]))
            assert again == pytest.approx((scale, threshold), rel=1e-12)


def test_the_response_of_second_differences() -> None:
    lags = torch.zeros(3, 3, 3, dtype=torch.float64)
    lags[1, 1] = torch.tensor([0.5, 1.0, 0.5])
    # variance of (a − 2b + c)/√6 with correlation 1/2 between neighbours: (6 − 4 · 2 · 1/2) / 6
    assert response_of_finest(lags[1:2, 1:2]) == pytest.approx((2 / 6) ** 0.5)
