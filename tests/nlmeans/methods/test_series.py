"""The method series: its gain, what auto makes of a series, and that tiles, previews and scales do not matter."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch

from nlmeans import METHODS, denoise, preview
from nlmeans.core.metrics import psnr
from nlmeans.engine import plan as engine_plan
from nlmeans.methods.series import LEFT, SERIES, series_halo, without_weak
from tests.nlmeans.volumes import decaying_series, rician, unrelated_images

SIGMA = 10.0


def test_volumes_are_denoised_by_what_they_have_in_common() -> None:
    clean, noisy = decaying_series(24, SIGMA)
    one_by_one = denoise(noisy, SIGMA, method="bayes", series=-1)
    together = denoise(noisy, SIGMA, method="series", series=-1)
    assert psnr(clean, together) > psnr(clean, one_by_one) + 3
    assert psnr(clean, together) > psnr(clean, noisy) + 12
    np.testing.assert_array_equal(denoise(noisy, SIGMA, method="series", channels=-1), together)


def test_the_axis_of_the_volumes_may_be_any() -> None:
    _, noisy = decaying_series(12, SIGMA)
    last = denoise(noisy, SIGMA, method="series", series=-1)
    first = denoise(np.moveaxis(noisy, -1, 0), SIGMA, method="series", series=0)
    np.testing.assert_allclose(np.moveaxis(first, 0, -1), last, atol=1e-3)


def test_auto_takes_a_series_together_finds_its_noise_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    clean, noisy = decaying_series(24, SIGMA)
    with caplog.at_level(logging.INFO, "nlmeans"):
        denoised = denoise(noisy, series=-1)
    assert "method auto picked series: 24 volumes have much in common" in caplog.text
    assert "what 24 volumes do not share has a standard deviation of" in caplog.text
    told = denoise(noisy, SIGMA, method="series", series=-1)
    assert psnr(clean, denoised) > psnr(clean, told) - 0.3


def test_auto_takes_few_volumes_and_unrelated_ones_one_by_one(caplog: pytest.LogCaptureFixture) -> None:
    _, few = decaying_series(7, SIGMA)
    unrelated = unrelated_images(12)
    for volumes in (few, unrelated):
        with caplog.at_level(logging.INFO, "nlmeans"):
            denoise(volumes, series=-1)
        assert "picked best" in caplog.text
        assert "picked series" not in caplog.text


def test_magnitudes_of_a_series_lose_their_bias() -> None:
    clean, _ = decaying_series(24, SIGMA)
    noisy = rician(clean.astype(np.float64), 30.0).astype(np.float32)
    told = denoise(noisy, 30.0, method="series", noise="rician", series=-1)
    as_gaussian = denoise(noisy, 30.0, method="series", series=-1)
    assert psnr(clean, told) > psnr(clean, as_gaussian) + 0.5


@pytest.mark.parametrize("noise", ["gaussian", "rician"])
def test_tiles_and_previews_are_those_of_the_whole(noise: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, noisy = decaying_series(10, SIGMA)
    settings: dict[str, Any] = {"method": "series", "series": -1, "noise": noise}
    whole = denoise(noisy, SIGMA, **settings)
    np.testing.assert_allclose(preview(noisy, 5, 1, SIGMA, **settings), whole[:, 5], atol=1e-2)
    monkeypatch.setattr(engine_plan, "tile_shape", lambda *_: (12, 4, 7))
    np.testing.assert_allclose(denoise(noisy, SIGMA, **settings), whole, atol=1e-2)


def test_a_preview_far_from_the_rest_of_the_series_is_that_of_the_whole() -> None:
    _, short = decaying_series(12, SIGMA)
    noisy = np.concatenate([short, short[::-1] + 300])
    whole = denoise(noisy, SIGMA, method="series", series=-1)
    for h in (None, SIGMA):
        np.testing.assert_allclose(preview(noisy, 2, 0, SIGMA, method="series", series=-1, h=h), whole[2], atol=1e-2)


def test_a_map_beats_one_number_where_noise_varies_and_is_found() -> None:
    clean, _ = decaying_series(32, SIGMA)
    level = np.linspace(8, 24, 14) * np.ones((12, 13, 14))
    noisy = (clean + level[..., None] * np.random.default_rng(0).standard_normal(clean.shape)).astype(np.float32)
    settings: dict[str, Any] = {"method": "series", "series": -1}
    given, found, one = (denoise(noisy, s, **settings) for s in (level, None, 16.0))
    assert psnr(clean, given) > psnr(clean, one) + 0.5
    assert psnr(clean, found) > psnr(clean, given) - 1


def test_offset_and_scale_of_the_intensities_do_not_matter() -> None:
    _, noisy = decaying_series(12, SIGMA)
    plain = denoise(noisy, method="series", series=-1, noise="gaussian")
    again = denoise(3 * noisy + 500, method="series", series=-1, noise="gaussian")
    np.testing.assert_allclose(again, 3 * plain + 500, atol=0.2)


def test_a_constant_series_comes_back() -> None:
    constant = np.full((9, 8, 7, 12), 41.5)
    np.testing.assert_array_equal(denoise(constant, method="series", series=-1), constant)


@pytest.mark.parametrize(
    ("shape", "axes", "message"),
    [
        ((9, 8, 7), {}, "method='series' is for a series of 4 volumes or more; name their axis by series="),
        ((9, 8, 7, 3), {"series": -1}, "method='series' is for a series of 4 volumes or more"),
        ((9, 8, 7, 9, 2), {"series": 3, "channels": 4}, "one axis of volumes, but channels= and series= name two"),
    ],
)
def test_what_is_no_series_is_refused(shape: tuple[int, ...], axes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        denoise(np.ones(shape), 1.0, method="series", **axes)


def test_its_facts_fit_its_patches() -> None:
    assert METHODS["series"] is SERIES
    assert SERIES.joint
    assert series_halo((1, 1, 1), (3, 3, 3)) == (30, 30, 30)


@pytest.mark.parametrize("shape", [(9, 10, 11), (1, 10, 11), (2, 3, 4)])
def test_components_go_where_they_show_less_than_noise_and_stay_where_they_show_much(shape: tuple[int, ...]) -> None:
    weak, strong = torch.full((1, *shape), 0.9 * LEFT**0.5), torch.full((1, *shape), 10.0)
    assert not without_weak(weak.clone(), 1.0).any()
    torch.testing.assert_close(without_weak(strong.clone(), 1.0), strong, rtol=LEFT / 99, atol=0)
    assert not without_weak(torch.zeros(1, *shape), 0.0).any()
    uneven = torch.ones(shape)
    uneven[..., :2] = 20.0
    found = without_weak(strong / 10, uneven)
    assert not found[..., 0].any()
    assert float(found[..., -1].min()) > 0.9


def test_patches_are_shorter_across_thick_slices() -> None:
    clean, _ = decaying_series(24, SIGMA)
    thick = clean.reshape(12, 13, 7, 2, 24).mean(3)
    noisy = (thick + SIGMA * np.random.default_rng(2).standard_normal(thick.shape)).astype(np.float32)
    plain = denoise(noisy, SIGMA, method="series", series=-1)
    known = denoise(noisy, SIGMA, method="series", series=-1, spacing=(1, 1, 2))
    assert psnr(thick, known) > psnr(thick, plain) + 0.1
    np.testing.assert_array_equal(denoise(noisy, SIGMA, method="series", series=-1, spacing=(2, 2, 2)), plain)
    flat = denoise(noisy[:, :, 0], SIGMA, method="series", series=-1, spacing=(1, 2))
    assert psnr(thick[:, :, 0], flat) > psnr(thick[:, :, 0], noisy[:, :, 0]) + 3
