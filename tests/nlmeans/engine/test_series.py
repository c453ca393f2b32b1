"""Whether the volumes of a series belong together, and the noise that they do not share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from nlmeans import NoiseModel, Settings, denoise
from nlmeans.core import arrays
from nlmeans.core.layout import Layout
from nlmeans.core.metrics import psnr
from nlmeans.engine.noise import model_of_one_scanner, noise_of
from nlmeans.engine.series import is_one_series, measured_patches, read_volumes, series_pieces
from tests.nlmeans.volumes import decaying_series, piecewise, rician, unrelated_images

SIGMA = 10.0


def belong(volumes: Any, **settings: Any) -> bool:
    layout = Layout.of(volumes, None, 3)
    return is_one_series(volumes, layout, Settings(series=3, **settings))


@pytest.mark.parametrize("volumes", [8, 24])
def test_a_series_of_decays_belongs_together(volumes: int) -> None:
    assert belong(decaying_series(volumes, SIGMA)[1])


@pytest.mark.parametrize("volumes", [8, 24])
def test_images_that_lie_in_one_array_by_chance_do_not(volumes: int) -> None:
    assert not belong(unrelated_images(volumes))


def test_few_volumes_and_windows_are_never_taken_together() -> None:
    assert not belong(decaying_series(7, SIGMA)[1])
    assert not belong(decaying_series(12, SIGMA)[1], backend="windowed")


def test_correlated_noise_does_not_part_a_series() -> None:
    clean = piecewise(24, 40, 44)[..., None] * np.exp(-np.linspace(0, 1, 16))
    white = np.random.default_rng(1).standard_normal(clean.shape)
    smooth = sum(np.roll(white, shift, axis) for axis in range(3) for shift in (-1, 0, 1))
    assert belong((clean + SIGMA * smooth / smooth.std()).astype(np.float32))


def test_a_volume_whose_noise_looks_white_does_not_part_a_series_of_correlated_noise() -> None:
    """Its tissue has few flat parts, so that the one volume alone shows a fraction of the noise."""
    clean = np.random.default_rng(2).uniform(50, 150, (24, 40, 44))[..., None] * np.exp(-np.linspace(0, 1, 16))
    noise = np.random.default_rng(1).standard_normal(clean.shape)
    for axis in (0, 1):
        noise = gaussian_filter1d(noise, 0.8, axis=axis, mode="wrap")
    noisy = (clean + SIGMA * noise / noise.std()).astype(np.float32)
    assert belong(noisy)
    found = noise_found(noisy)
    assert found.model.sigma == pytest.approx(SIGMA, rel=0.03)
    assert any("correlated between neighbours" in reason for reason in found.model.evidence)


def test_large_series_are_sampled_and_read_as_volumes() -> None:
    _, noisy = decaying_series(9, SIGMA)
    joined = Layout.of(noisy, None, 3).joined
    (whole,) = series_pieces(noisy, joined, Settings(), 2**15)
    torch.testing.assert_close(whole, torch.from_numpy(noisy).movedim(-1, 0))
    torch.testing.assert_close(read_volumes(noisy, joined, joined.everywhere), whole)
    pieces = series_pieces(noisy, joined, Settings(memory=16 * 2**20), 2**15)
    assert all(piece.shape[0] == 9 for piece in pieces)
    seen = measured_patches([whole], joined, None)
    assert float(seen.sigma.median()) == pytest.approx(SIGMA, rel=0.08)
    assert float(seen.rank.max()) <= seen.possible == 9
    assert float(seen.variance.mean()) == pytest.approx(SIGMA**2, rel=0.15)


def noise_found(volumes: Any, **settings: Any) -> Any:
    made = Settings(method="series", series=3, **settings)
    return noise_of(arrays.readable(volumes, "volume"), 0, Layout.of(volumes, None, 3).joined, made, None, None, True)


def test_sigma_is_one_number_for_all_volumes() -> None:
    _, noisy = decaying_series(30, SIGMA)
    found = noise_found(noisy)
    assert found.map is None
    assert found.sigma == (found.model.sigma,) * 30
    assert found.model.sigma == pytest.approx(SIGMA, rel=0.03)
    assert "do not share" in found.model.evidence[-1]


def test_noise_that_varies_in_space_becomes_a_map_by_itself_or_on_demand() -> None:
    clean, noisy = decaying_series(30, SIGMA)
    level = np.linspace(8, 24, 14) * np.ones((12, 13, 14))
    varying = (clean + level[..., None] * np.random.default_rng(0).standard_normal(clean.shape)).astype(np.float32)
    for found in (noise_found(varying), noise_found(noisy, sigma="map")):
        assert found.map.shape == (12, 13, 14)
        assert found.sigma[0] == pytest.approx(found.map.max())
    assert np.corrcoef(noise_found(varying).map.ravel(), level.ravel())[0, 1] > 0.95


def test_a_kind_that_shows_in_one_volume_is_that_of_the_scanner() -> None:
    plain, dark = NoiseModel(sigma=2), NoiseModel(kind="rician", sigma=3)
    assert model_of_one_scanner([plain, dark, plain]).kind == "rician"
    assert model_of_one_scanner([plain, dark, NoiseModel(kind="chi", coils=4)]).kind == "gaussian"
    assert model_of_one_scanner([plain, plain]).kind == "gaussian"


def test_magnitudes_of_a_series_are_told_by_their_air() -> None:
    clean = piecewise(20, 22, 24)[..., None] * np.exp(-np.linspace(0, 1, 12))
    assert noise_found(rician(clean, 8.0).astype(np.float32)).model.kind == "rician"


def weighted(volumes: int = 24) -> Any:
    """A series without air whose last volumes are far darker than the first, as with diffusion weighting."""
    rate = 0.5 + piecewise(20, 22, 24)[..., None] / 80
    return 300 * np.exp(-2 * np.linspace(0, 1, volumes) * rate)


def test_magnitudes_without_air_are_told_by_their_dark_volumes() -> None:
    clean = weighted()
    found = noise_found(rician(clean, SIGMA).astype(np.float32))
    assert found.model.kind == "rician"
    assert found.model.sigma == pytest.approx(SIGMA, rel=0.04)
    assert "weaker in the dark" in str(found.model.evidence)


@pytest.mark.parametrize("kind", ["gaussian", "poisson"])
def test_noise_that_is_not_weaker_in_the_dark_is_not_rician(kind: str) -> None:
    clean, rng = weighted() + 60, np.random.default_rng(0)
    noisy = clean + SIGMA * rng.standard_normal(clean.shape) if kind == "gaussian" else rng.poisson(clean)
    assert noise_found(noisy.astype(np.float32)).model.kind == "gaussian"


@pytest.mark.parametrize("sigma", [SIGMA, None])
def test_volumes_that_share_nothing_lose_nothing(sigma: float | None) -> None:
    """Four volumes of four objects: their weakest difference is far above the noise, and stays."""
    random = np.random.default_rng(1)
    objects = np.stack([np.roll(piecewise(10, 22, 24), 5 * n, 1 + n % 2) for n in range(4)], -1)
    clean = 100 + objects @ random.uniform(-1, 1, (4, 4))
    noisy = (clean + SIGMA * random.standard_normal(clean.shape)).astype(np.float32)
    result = denoise(noisy, sigma, method="series", series=3)
    assert psnr(clean, result) > psnr(clean, noisy) + 2


@pytest.mark.parametrize("volumes", [6, 12])
def test_volumes_that_are_constant_or_the_same_say_nothing_of_the_noise(volumes: int) -> None:
    noisy = decaying_series(volumes, SIGMA)[1]
    noisy = np.concatenate([noisy, noisy[..., :1], np.full_like(noisy[..., :1], 7)], -1)
    assert noise_found(noisy).model.sigma == pytest.approx(SIGMA, rel=0.08)


def test_offsets_of_volumes_are_no_signal() -> None:
    noisy = decaying_series(6, SIGMA)[1].astype(np.float64)
    expected = noise_found(noisy, noise="gaussian").model
    for offset in (1e7, 1e4 * np.arange(6)):
        found = noise_found(noisy + offset, noise="gaussian").model
        assert found.sigma == pytest.approx(expected.sigma, rel=1e-3)
        assert found.correlation is None
