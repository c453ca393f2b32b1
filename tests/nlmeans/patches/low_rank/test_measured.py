"""The noise of a series by what its volumes do not share: in patches side by side, and around every voxel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nlmeans.patches.low_rank.measured import Measured, measure_patches, sigma_everywhere
from nlmeans.patches.low_rank.series import series_low_rank
from tests.nlmeans.volumes import decaying_series

SIGMA = 10.0


def series(volumes: int = 30) -> torch.Tensor:
    return torch.from_numpy(decaying_series(volumes, SIGMA)[1]).movedim(-1, 0)


def test_the_noise_is_measured_in_patches_side_by_side() -> None:
    noisy = series()
    found = measure_patches(noisy, None)
    assert len(found.sigma) == len(found.rank) == len(found.brightness) == noisy[0].numel()
    assert float(found.sigma.median()) == pytest.approx(SIGMA, rel=0.05)
    torch.testing.assert_close(found.brightness.mean(), noisy.mean())
    inside = [n // 5 for n in noisy.shape[1:]]
    assert found.intensity.shape == found.variance.shape == (np.prod(inside), len(noisy))
    assert float(found.variance.mean()) == pytest.approx(SIGMA**2, rel=0.15)
    d, h, w = (5 * n for n in inside)
    torch.testing.assert_close(found.intensity.mean(), noisy[:, :d, :h, :w].mean())


def test_a_patch_shows_what_the_low_rank_filter_finds_there() -> None:
    noisy = series()[:, :5, :5, :5]
    filtered = series_low_rank(noisy / noisy.abs().max(), None)
    found = measure_patches(noisy, None)
    torch.testing.assert_close(found.sigma, filtered.sigma.flatten() * noisy.abs().max(), rtol=1e-3, atol=0)
    torch.testing.assert_close(found.rank, filtered.rank.flatten())


@pytest.mark.parametrize("shape", [(8, 1, 9, 12), (9, 3, 4, 2), (5, 1, 1, 7)])
def test_images_and_small_volumes_have_patches_of_their_own_size(shape: tuple[int, ...]) -> None:
    noisy = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = measure_patches(noisy, None)
    assert len(found.sigma) == noisy[0].numel()
    assert all(bool(values.isfinite().all()) for values in found)
    assert sigma_everywhere(noisy, None).shape == shape[1:]


def with_copies(noisy: torch.Tensor) -> torch.Tensor:
    return torch.cat([noisy, noisy[:1], torch.full_like(noisy[:1], 7)])


def test_volumes_that_are_constant_or_the_same_say_nothing_of_the_noise() -> None:
    noisy = series()
    found, more = measure_patches(noisy, None), measure_patches(with_copies(noisy), None)
    torch.testing.assert_close(more.sigma.median(), found.sigma.median(), rtol=0.02, atol=0)
    torch.testing.assert_close(more.intensity[:, :-2], found.intensity, rtol=0.02, atol=1)
    assert bool((more.intensity[:, -1] - 7).abs().max() < 1e-3)
    everywhere = sigma_everywhere(noisy, None), sigma_everywhere(with_copies(noisy), None)
    torch.testing.assert_close(everywhere[1].median(), everywhere[0].median(), rtol=0.02, atol=0)


def test_offsets_and_units_change_nothing() -> None:
    noisy = series().double()
    found: list[Measured] = [measure_patches(values, None) for values in (noisy, 1e-3 * noisy + 1e6)]
    torch.testing.assert_close(1e-3 * found[0].sigma, found[1].sigma, rtol=1e-4, atol=0)
    torch.testing.assert_close(1e-6 * found[0].variance, found[1].variance, rtol=1e-3, atol=0)


def test_a_constant_series_has_no_noise() -> None:
    found = measure_patches(torch.full((9, 8, 8, 8), -7.0), None)
    assert float(found.sigma.max()) < 1e-4


def test_correlated_noise_is_measured_by_its_autocovariance() -> None:
    noise = torch.randn(20, 15, 15, 16, generator=torch.Generator().manual_seed(0))
    noise = (noise[..., 1:] + noise[..., :-1]) / 2**0.5
    lags = torch.tensor([[[0.5, 1.0, 0.5]]], dtype=torch.float64)
    known, white = (float(measure_patches(noise, c).sigma.median()) for c in (lags, None))
    assert abs(known - 1) < 0.05
    assert abs(known - 1) < abs(white - 1)
