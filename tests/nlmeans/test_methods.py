"""Every method: what it gains, and that tiles, images, channels, maps and masks are all the same to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nlmeans
from nlmeans import METHODS, denoise, preview
from nlmeans.metrics import psnr
from tests.nlmeans.volumes import piecewise

SIGMA = 10.0
NAMES = list(METHODS)
LEAST_GAIN = {"classic": 7, "dct": 6, "wiener": 8, "pri": 8, "bayes": 8.5, "best": 8.5, "subspace": 8}


def noisy(*shape: int, sigma: Any = SIGMA) -> tuple[Any, Any]:
    clean = piecewise(*shape).astype(np.float32)
    random = np.random.default_rng(0)
    return clean, (clean + sigma * random.standard_normal(clean.shape)).astype(np.float32)


def test_every_method_has_a_least_gain_here() -> None:
    assert set(LEAST_GAIN) == set(METHODS)


@pytest.mark.parametrize("method", NAMES)
def test_noise_is_removed_from_a_volume(method: str) -> None:
    clean, image = noisy(20, 22, 24)
    denoised = denoise(image, SIGMA, method=method)
    assert psnr(clean, denoised) - psnr(clean, image) > LEAST_GAIN[method]


@pytest.mark.parametrize("method", NAMES)
def test_noise_is_removed_from_an_image(method: str) -> None:
    clean, image = noisy(48, 50)
    denoised = denoise(image, SIGMA, method=method)
    assert psnr(clean, denoised) - psnr(clean, image) > 4


@pytest.mark.parametrize("method", NAMES)
def test_tiles_give_the_untiled_result(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, image = noisy(12, 180, 14)
    whole = denoise(image, SIGMA, method=method)
    sizes = []
    original = nlmeans.task.tile_shape

    def small_tiles(*arguments: Any) -> Any:
        sizes.append(original(*arguments))
        return 12, 23, 14

    monkeypatch.setattr(nlmeans.task, "tile_shape", small_tiles)
    assert denoise(image, SIGMA, method=method) == pytest.approx(whole, abs=1e-3)
    assert sizes == [(12, 180, 14)]


@pytest.mark.parametrize("method", NAMES)
def test_preview_is_a_slice_of_the_whole(method: str) -> None:
    _, image = noisy(12, 140, 14)
    whole = denoise(image, SIGMA, method=method)
    assert preview(image, 71, 1, SIGMA, method=method) == pytest.approx(whole[:, 71], abs=1e-3)


@pytest.mark.parametrize("method", NAMES)
def test_a_map_of_sigma_beats_one_number_where_noise_varies(method: str) -> None:
    sigma = np.linspace(2, 18, 24) * np.ones((20, 22, 24))
    clean, image = noisy(20, 22, 24, sigma=sigma)
    varying, uniform = denoise(image, sigma, method=method), denoise(image, 10.0, method=method)
    assert psnr(clean, varying) > psnr(clean, uniform) + 0.5


@pytest.mark.parametrize("method", NAMES)
def test_offset_and_scale_of_the_intensities_do_not_matter(method: str) -> None:
    _, image = noisy(14, 15, 16)
    plain = denoise(image, SIGMA, method=method)
    assert denoise(3 * image + 500, 3 * SIGMA, method=method) == pytest.approx(3 * plain + 500, abs=0.02)


@pytest.mark.parametrize("method", NAMES)
def test_a_constant_volume_and_tiny_ones_come_back(method: str) -> None:
    assert np.array_equal(denoise(np.full((9, 8, 7), 41.5), 3.0, method=method), np.full((9, 8, 7), 41.5))
    for shape in ((1, 1, 1), (2, 3, 2), (1, 5), (5, 1, 7)):
        result = denoise(np.arange(np.prod(shape), dtype=np.float32).reshape(shape), 0.1, method=method)
        assert result.shape == shape
        assert np.isfinite(result).all()


@pytest.mark.parametrize("method", NAMES)
def test_several_channels(method: str) -> None:
    clean, image = noisy(14, 16, 18)
    several = np.stack([image, 200 - image], axis=-1)
    denoised = denoise(several, SIGMA, method=method, channels=-1)
    assert denoised.shape == several.shape
    assert psnr(clean, denoised[..., 0]) > psnr(clean, image) + 3


@pytest.mark.parametrize("method", NAMES)
def test_runs_repeat_bit_for_bit(method: str) -> None:
    _, image = noisy(14, 16, 18)
    assert np.array_equal(denoise(image, SIGMA, method=method), denoise(image, SIGMA, method=method))
