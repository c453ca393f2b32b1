"""Noise models that say what speaks against them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from nlmeans import NoiseModel, denoise, estimate_noise
from nlmeans.core.metrics import psnr
from tests.nlmeans.noise.search.test_found import filtered
from tests.nlmeans.volumes import sample


def test_noise_of_two_levels_is_doubted_unless_sigma_is_a_map(caplog: pytest.LogCaptureFixture) -> None:
    clean = np.repeat([-500.0, -200.0], 20) * np.ones((40, 40, 1))
    levels = np.where(clean > -300, 20.0, 2.0)
    noisy = clean + levels * np.random.default_rng(0).standard_normal(clean.shape)
    assert "try sigma='map'" in estimate_noise(noisy).doubts[0]
    denoise(noisy, method="classic")
    assert "in parts the noise is much weaker" in caplog.text
    caplog.clear()
    denoise(noisy, sigma="map", method="classic")
    assert not caplog.messages
    assert not estimate_noise(clean + 10 * np.random.default_rng(0).standard_normal(clean.shape)).doubts


def test_noise_as_smooth_as_texture_is_doubted() -> None:
    texture = gaussian_filter(np.random.default_rng(0).standard_normal((40, 60, 60)), 2.5, mode="wrap")
    smooth, rough = (estimate_noise(values / values.std()) for values in (texture, filtered("apodised", (40, 60, 60))))
    assert "as smooth as texture" in smooth.doubts[0]
    assert rough.correlation is not None
    assert not rough.doubts
    assert NoiseModel.from_json(smooth.to_json()) == smooth


def test_a_few_flat_blocks_of_very_many_show_correlated_noise_with_a_doubt() -> None:
    clean = sample("thick_clean")[70:118, 60:108]
    noisy = clean + 40 * filtered("apodised", clean.shape, 1)
    model = estimate_noise(noisy)
    assert model.sigma == pytest.approx(40, rel=0.3)
    assert model.correlation is not None
    assert "only 13 flat blocks show the noise" in model.doubts[0]
    assert psnr(clean, denoise(noisy, method="bayes")) > psnr(clean, noisy) + 2
