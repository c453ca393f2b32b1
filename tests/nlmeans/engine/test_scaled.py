"""Volumes in units of their noise: pieces that are read, results that get image units again, and dark magnitudes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nlmeans import Settings
from nlmeans.core.layout import Layout
from nlmeans.core.tiles import piece
from nlmeans.engine.choices import Choices
from nlmeans.engine.plan import Plan
from nlmeans.engine.scaled import chosen
from tests.nlmeans.engine.test_plan import SIGMA, planned
from tests.nlmeans.volumes import noisy_piecewise


@pytest.mark.parametrize("noise", ["gaussian", "poisson", "curve"])
def test_what_is_not_changed_comes_back_in_image_units(noise: str) -> None:
    image = noisy_piecewise(10, 11, 12, sigma=SIGMA)[1].clip(1)
    image[2, 3, 4] = np.nan
    given: dict[str, Any] = {"curve": [(0, SIGMA / 2), (200, SIGMA)]} if noise == "curve" else {}
    plan = planned(image, noise=noise, sigma=SIGMA if noise == "gaussian" else None, **given)
    noisy = plan.read(plan.layout.everywhere, torch.device("cpu"))
    scaled = plan.scaled(noisy, [0], 1.0)
    assert scaled.dtype == torch.float32
    assert bool(scaled.isfinite().all())
    inside = plan.has_noise(noisy)
    assert not inside[0, 2, 3, 4]
    merged = plan.merged(noisy, scaled, [0], 1.0, inside)
    torch.testing.assert_close(merged, noisy, rtol=0, atol=0.05 * SIGMA, equal_nan=True)
    kept = plan.merged(noisy, torch.zeros_like(scaled), [0], 1.0, torch.zeros_like(inside))
    torch.testing.assert_close(kept, noisy, rtol=0, atol=0, equal_nan=True)


def test_signals_have_noise_of_one_and_none_where_sigma_is_zero() -> None:
    level = np.linspace(2, 6, 24)[:, None, None] * np.ones((24, 20, 20))
    level[:4] = 0
    series = 100 + level * np.random.default_rng(0).standard_normal((9, 24, 20, 20))
    settings = Settings(series=0, method="series", search_radius=2)
    choices = Choices.of(settings, Layout.of(series, None, 0))
    plan = Plan.of(series, 0, choices.layout, choices, sigma_map=level)
    signals = plan.signals(piece([slice(0, 24), slice(0, 20), slice(2, 18)]))
    assert signals.shape == (9, 24, 20, 16)
    assert bool((signals[:, :4] == 0).all())
    torch.testing.assert_close(signals[:, 4:].std((0, 2, 3)), torch.ones(20), rtol=0.2, atol=0)


def test_all_volumes_are_the_same_tensor() -> None:
    volumes = torch.arange(6.0).view(3, 1, 1, 2)
    assert chosen(volumes, [0, 1, 2]) is volumes
    assert chosen(volumes, [0, 2]).tolist() == volumes[[0, 2]].tolist()


def test_the_variance_of_magnitudes_is_below_that_of_the_noise_in_the_dark() -> None:
    dark = np.hypot(*np.random.default_rng(0).standard_normal((2, 12, 13, 14))).astype(np.float32)
    plan = planned(dark, sigma=1.0, noise="rician", method="bayes")
    options = plan.work(plan.layout.everywhere, (1, 1, 1)).options
    scaled = plan.scaled(torch.from_numpy(dark)[None], [0], 1.0)
    variance = plan.variance_of_magnitudes(scaled, [0], 1.0, options)
    assert variance.shape == (1, 12, 13, 14)
    assert float(variance.sqrt().mean()) == pytest.approx(0.655, abs=0.05)
    bright = plan.variance_of_magnitudes(scaled + 50, [0], 1.0, options)
    assert float(bright.mean()) == pytest.approx(1, abs=0.01)
