"""Whole arrays and regions of them, denoised volume by volume."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nlmeans import Settings, denoise
from nlmeans.core.layout import Layout
from nlmeans.core.progress import silent
from nlmeans.core.tiles import piece
from nlmeans.engine.run import denoise_array, readable_spatial, warn_of_lost_gradient
from tests.nlmeans.volumes import noisy_piecewise

QUICK = Settings(sigma=10.0, method="classic", search_radius=1)
IMAGE = noisy_piecewise(8, 9, 10, sigma=10.0)[1]


def test_a_region_is_the_same_as_in_the_whole() -> None:
    region = piece([slice(2, 5), slice(0, 9), slice(7, 8)])
    part = denoise_array(IMAGE, QUICK, progress=silent, region=region)
    assert part.shape == (3, 9, 1)
    np.testing.assert_allclose(part, denoise_array(IMAGE, QUICK, progress=silent)[region], atol=1e-4)


def test_it_is_what_denoise_calls() -> None:
    expected = denoise(IMAGE, 10.0, method="classic", search_radius=1)
    np.testing.assert_array_equal(denoise_array(IMAGE, QUICK, progress=silent), expected)


def test_a_region_has_all_volumes_of_a_series_and_all_channels() -> None:
    array = np.stack([IMAGE, IMAGE[::-1]])[..., None] + np.array([0.0, 50.0], np.float32)
    settings = Settings(sigma=10.0, method="classic", search_radius=1, series=0, channels=-1)
    region = piece([slice(2, 5), slice(0, 9), slice(7, 8)])
    part = denoise_array(array, settings, progress=silent, region=region)
    assert part.shape == (2, 3, 9, 1, 2)
    whole = denoise_array(array, settings, progress=silent)
    np.testing.assert_allclose(part, whole[:, 2:5, :, 7:8], atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_result_is_written_to_out(dtype: str) -> None:
    out = np.empty(IMAGE.shape, dtype)
    assert denoise_array(IMAGE, QUICK, out=out, progress=silent) is out
    np.testing.assert_allclose(out, denoise_array(IMAGE, QUICK, progress=silent), atol=1e-4)
    with pytest.raises(ValueError, match=r"out has shape \(8, 9\)"):
        denoise_array(IMAGE, QUICK, out=np.empty((8, 9)), progress=silent)


def test_progress_rises_over_the_volumes_of_a_series_and_ends_at_one() -> None:
    seen: list[float] = []
    settings = Settings(sigma=10.0, method="classic", search_radius=1, series=0)
    denoise_array(np.stack([IMAGE] * 3), settings, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert any(abs(fraction - 1 / 3) < 1e-9 for fraction in seen)


def test_a_map_replaces_the_sigma_of_the_settings() -> None:
    sigma_map = np.full(IMAGE.shape, 10.0)
    result = denoise_array(IMAGE, Settings(method="classic", search_radius=1), sigma_map=sigma_map, progress=silent)
    np.testing.assert_allclose(result, denoise_array(IMAGE, QUICK, progress=silent), atol=1e-3)


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (np.ones((8, 9)), ValueError, r"mask has shape \(8, 9\), but the image has the spatial shape \(8, 9, 10\)"),
        ([1, 0], TypeError, "mask is a list; give a numpy array"),
    ],
)
def test_a_mask_must_have_the_spatial_shape(array: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        readable_spatial(array, "mask", Layout.of(IMAGE, None, None))


def test_a_mask_that_fits_is_kept_and_none_stays_none() -> None:
    layout, mask = Layout.of(IMAGE, None, None), torch.ones(8, 9, 10)
    assert readable_spatial(mask, "mask", layout) is mask
    assert readable_spatial(None, "mask", layout) is None


def clear_structure() -> np.ndarray[Any, np.dtype[np.float32]]:
    waves = np.sin(np.indices((20, 22, 24)) / 1.5).sum(0)
    return (100 + 10 * waves + np.random.default_rng(0).standard_normal(waves.shape)).astype(np.float32)


def test_a_result_that_lost_structure_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    denoise(clear_structure(), 1.0, method="bayes")
    assert not caplog.messages
    denoise(clear_structure(), 15.0, method="bayes")
    assert "structure may have been removed: neighbours correlate by" in caplog.text


def test_a_result_from_which_hardly_anything_was_removed_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    rough = (100 * np.random.default_rng(0).random((20, 22, 24))).astype(np.float32)
    denoise(rough, 1.0, method="bayes")
    assert "hardly any noise was removed" in caplog.text


def test_a_volume_in_which_no_noise_is_found_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    blocks = np.kron(np.arange(27.0).reshape(3, 3, 3), np.ones((8, 8, 8)))
    denoise(np.stack([blocks, np.random.default_rng(0).standard_normal(blocks.shape), -blocks]), series=0)
    assert "in 2 of 3 volumes, no noise was found, so nothing was changed; if there is noise, give sigma" in caplog.text
    caplog.clear()
    denoise(blocks, 0.0)  # as stated
    denoise(np.full((8, 9, 10), 7.0))  # there cannot be any
    assert not caplog.messages


@pytest.mark.parametrize("settings", [{"strength": 2.0}, {"method": "classic"}])
def test_who_wants_it_smoother_is_not_warned(settings: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    denoise(clear_structure(), 5.0, **{"method": "bayes", **settings})
    assert not caplog.messages


def test_a_lost_gradient_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_lost_gradient.cache_clear()
    tracked = torch.rand(12, 12, requires_grad=True)
    for _ in range(2):
        assert not denoise(tracked, 0.1, method="classic").requires_grad
    assert caplog.text.count("the volume requires a gradient, but the result has none; nlmeans.nonlocal_means") == 1
    warn_of_lost_gradient.cache_clear()
    caplog.clear()
    with torch.no_grad():
        denoise(tracked, 0.1, method="classic")
    denoise(tracked.detach(), 0.1, method="classic")
    assert not caplog.text
