"""The estimate of sigma, on noise of known strength."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nlmeans import estimate_sigma
from nlmeans.noise.search.estimate import sigma_of_magnitudes, slope_of_structure
from tests.nlmeans.volumes import Floats, gaussian, piecewise, rician, sample

ADD = {"gaussian": gaussian, "rician": rician}

PEAK = 1000.0
"""Largest value of the clean samples."""


@pytest.fixture(scope="module")
def clean() -> dict[str, Floats]:
    return {name: sample(f"{name}_clean") for name in ("head", "thick", "slice")}


@pytest.mark.parametrize("fraction", [0.03, 0.09])
@pytest.mark.parametrize("noise", ADD)
@pytest.mark.parametrize("name", ["head", "thick", "slice"])
def test_within_five_percent_on_the_samples(name: str, noise: str, fraction: float, clean: dict[str, Floats]) -> None:
    sigma = fraction * PEAK
    noisy = ADD[noise](clean[name], sigma, seed=7)
    assert estimate_sigma(noisy, noise=noise) == pytest.approx(sigma, rel=0.05)


@pytest.mark.parametrize(("name", "sigma"), [("head", 60), ("thick", 40), ("slice", 90)])
def test_within_five_percent_on_the_noisy_samples_as_they_are(name: str, sigma: float) -> None:
    assert estimate_sigma(sample(name), noise="rician") == pytest.approx(sigma, rel=0.05)


@pytest.mark.parametrize("shape", [(48, 48), (24, 24, 24), (1, 48, 48), (48, 1, 48), (1, 1, 2000)])
def test_pure_noise_of_any_shape(shape: tuple[int, ...]) -> None:
    noisy = gaussian(np.full(shape, 100.0), 5.0)
    assert estimate_sigma(noisy) == pytest.approx(5, rel=0.15)


def test_a_removed_background_does_not_count() -> None:
    clean = piecewise(40, 40, 40)
    noisy = np.where(clean > 0, gaussian(clean, 5.0), 0)
    assert estimate_sigma(noisy) == pytest.approx(5, rel=0.05)
    assert estimate_sigma(noisy, mask=np.ones(clean.shape)) == pytest.approx(5, rel=0.05)
    mostly_nothing = np.zeros((80, 80, 80))
    mostly_nothing[:40, :40, :40] = noisy
    assert estimate_sigma(mostly_nothing) == pytest.approx(5, rel=0.05)


@pytest.mark.parametrize("signal", [1.0, 2.0, 10.0])
def test_rician_noise_is_not_underestimated_where_it_is_dark(signal: float) -> None:
    noisy = rician(np.full((32, 32, 32), 5 * signal), 5.0)
    assert estimate_sigma(noisy, noise="rician", mask=np.ones(noisy.shape)) == pytest.approx(5, rel=0.1)


def test_the_mask_says_where_to_look() -> None:
    noisy = gaussian(np.full((32, 32, 32), 100.0), np.repeat([3.0, 12.0], 16)[:, None, None])
    mask = np.zeros(noisy.shape)
    mask[:16] = 1
    assert estimate_sigma(noisy, mask=mask) == pytest.approx(3, rel=0.05)
    assert estimate_sigma(noisy, mask=1 - mask) == pytest.approx(12, rel=0.05)
    assert estimate_sigma(torch.from_numpy(noisy), mask=torch.from_numpy(mask)) == estimate_sigma(noisy, mask=mask)


def test_each_volume_and_channel_has_its_own() -> None:
    sigmas = np.array([[2.0, 4.0], [8.0, 16.0], [1.0, 3.0]])
    array = gaussian(np.full((3, 2, 24, 24, 24), 100.0), sigmas[:, :, None, None, None])
    both = estimate_sigma(array, series=0, channels=1)
    np.testing.assert_allclose(both, sigmas, rtol=0.1)
    moved = np.moveaxis(array, (0, 1), (4, 2))
    np.testing.assert_array_equal(estimate_sigma(moved, series=4, channels=2), both)
    np.testing.assert_array_equal(estimate_sigma(array[:, 0], series=0), np.asarray(both)[:, 0])
    np.testing.assert_array_equal(estimate_sigma(array[0], channels=0), np.asarray(both)[0])
    assert estimate_sigma(array[2, 1]) == np.asarray(both)[2, 1]


@pytest.mark.parametrize("noise", ADD)
@pytest.mark.parametrize("value", [0.0, -3.0, 0.1, 1e30])
@pytest.mark.parametrize("shape", [(6, 7), (4, 5, 6), (1, 1), (1, 1, 1), (2, 2)])
def test_a_constant_has_no_noise(shape: tuple[int, ...], value: float, noise: str) -> None:
    assert estimate_sigma(np.full(shape, value), noise=noise) == 0


@pytest.mark.parametrize("noise", ADD)
def test_rounding_is_no_reason_to_fail(noise: str) -> None:
    """No histogram fits between two neighbouring float32 numbers."""
    volume = np.full((8, 8, 8), 0.3, dtype=np.float32)
    volume[4:] = np.nextafter(np.float32(0.3), np.float32(1))
    assert estimate_sigma(volume, noise=noise) < 1e-7


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e30])
@pytest.mark.parametrize("noise", ADD)
def test_the_estimate_scales_with_the_intensities(noise: str, scale: float) -> None:
    noisy = ADD[noise](piecewise(20, 20, 20), 5.0)
    assert estimate_sigma(scale * noisy, noise=noise) == pytest.approx(
        scale * estimate_sigma(noisy, noise=noise), rel=1e-6
    )


@pytest.mark.parametrize("dtype", ["int16", ">i2", "uint16", "float32", "float16"])
def test_types_make_no_difference(dtype: str) -> None:
    noisy = np.rint(gaussian(piecewise(24, 24, 24) + 200, 20.0))
    assert estimate_sigma(noisy.astype(dtype)) == pytest.approx(estimate_sigma(noisy), rel=1e-3)


@pytest.mark.parametrize("shape", [(200, 20, 20), (400, 60), (1, 400, 60)])
def test_evenly_spaced_slabs_of_a_large_volume_suffice(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = gaussian(piecewise(*shape), 5.0)
    whole = estimate_sigma(noisy)
    monkeypatch.setattr("nlmeans.noise.search.estimate.SAMPLE_VOXELS", noisy.size // 3)
    sampled = estimate_sigma(noisy)
    assert sampled != whole
    assert sampled == pytest.approx(whole, rel=0.05)
    mask = np.ones(shape, dtype=bool)
    mask[: shape[0] // 2] = False
    assert estimate_sigma(noisy, mask=mask) == pytest.approx(5, rel=0.1)


@pytest.mark.parametrize("signal", [0.0, 0.5, 1.0, 2.0, 5.0, 40.0])
def test_sigma_is_found_from_the_moments_of_simulated_magnitudes(signal: float) -> None:
    magnitudes = rician(np.full(400_000, 3.0 * signal), 3.0)
    assert sigma_of_magnitudes(float(magnitudes.mean()), float(magnitudes.std())) == pytest.approx(3, rel=0.02)


@pytest.mark.parametrize("signal", [1e4, 1e7, 1e12])
def test_the_deviation_of_strong_magnitudes_is_sigma(signal: float) -> None:
    assert sigma_of_magnitudes(signal, 1.0) == pytest.approx(1, rel=1e-6)


INVALID: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"volume": [1.0]}, TypeError, "volume is a list"),
    ({"volume": np.zeros((0, 4))}, ValueError, "volume has shape .* no voxels"),
    ({"volume": np.full((4, 4), np.inf)}, ValueError, "volume contains infinite"),
    ({"volume": np.zeros(4)}, ValueError, "volume has 1 spatial axes"),
    ({"noise": "poisson"}, ValueError, "noise='poisson' is not known; choose one of 'auto', 'gaussian', 'rician'"),
    ({"mask": np.ones((4, 4))}, ValueError, r"mask has shape \(4, 4\), but"),
    ({"mask": True}, TypeError, "mask is a bool; give a numpy array"),
    ({"series": 3}, ValueError, "series=3 is not an axis"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), INVALID)
def test_refused_with_the_argument_named(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        estimate_sigma(**{"volume": np.zeros((4, 5, 6)), **arguments})


def test_noise_that_is_stronger_in_some_places_is_not_taken_for_structure() -> None:
    random = torch.Generator().manual_seed(0)
    level = torch.cat([torch.full((2000,), 1.0), torch.full((4000,), 5.0)])
    texture = 9.0  # which the detail around holds and the finest does not
    finest = level * torch.randn(6000, generator=random)
    assert slope_of_structure(level**2 + texture, finest) == 0.0
    rising = torch.linspace(1, 5, 6000)  # of structure, a tenth of which is in the finest detail
    assert 0.03 < slope_of_structure(rising, (1 + 0.1 * (rising - 1)).sqrt() * finest / level) < 0.08
