"""Impulses and dead voxels are replaced; all other voxels stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nlmeans import denoise, despeckle, estimate_sigma, preview
from nlmeans.core.metrics import psnr
from tests.nlmeans.volumes import piecewise

SIGMA = 5.0


def speckled(*shape: int, share: float = 0.03) -> tuple[Any, Any, Any]:
    """Return a clean volume, the same with noise, and with noise and impulses."""
    clean = piecewise(*shape).astype(np.float32)
    random = np.random.default_rng(0)
    noisy = (clean + SIGMA * random.standard_normal(clean.shape)).astype(np.float32)
    impulses = np.where(random.random(clean.shape) < 0.5, clean.min() - 100, clean.max() + 100)
    return clean, noisy, np.where(random.random(clean.shape) < share, impulses, noisy).astype(np.float32)


@pytest.mark.parametrize("shape", [(20, 22, 24), (60, 64)])
def test_impulses_are_replaced(shape: tuple[int, ...]) -> None:
    clean, noisy, image = speckled(*shape)
    assert psnr(clean, image) < psnr(clean, noisy) - 8
    assert psnr(clean, despeckle(image)) > psnr(clean, noisy) - 4


def test_noise_alone_is_left_as_it_is() -> None:
    noisy = np.random.default_rng(0).standard_normal((24, 25, 26)).astype(np.float32)
    assert (despeckle(noisy) != noisy).mean() < 0.002


def test_a_thin_vessel_stays() -> None:
    volume = 100 + np.random.default_rng(0).standard_normal((24, 24, 24))
    diagonal = np.arange(24)
    volume[diagonal, diagonal, 12] = 400
    assert (despeckle(volume)[diagonal, diagonal, 12] > 300).all()


def test_dead_voxels_in_integers_are_replaced_and_the_input_is_not_written_to() -> None:
    volume = np.random.default_rng(0).poisson(900, (12, 13, 14)).astype(np.uint16)
    volume[4, 5, 6] = 0
    before = volume.copy()
    result = despeckle(volume)
    assert result.dtype == np.uint16
    assert abs(int(result[4, 5, 6]) - 900) < 60
    assert np.array_equal(volume, before)


def test_a_tensor_comes_back_as_a_tensor() -> None:
    clean = torch.full((6, 7, 8), 20.0)
    volume = clean.clone()
    volume[3, 3, 3] = 50
    assert torch.equal(despeckle(volume), clean)


def test_channels_and_series_are_looked_at_one_by_one() -> None:
    _, _, image = speckled(12, 13, 14)
    several = np.stack([image, 3 * image], axis=-1)
    assert np.array_equal(despeckle(several, series=-1)[..., 1], despeckle(3 * image))
    assert np.array_equal(despeckle(several, channels=-1)[..., 0], despeckle(image))


def test_tiny_volumes_come_back() -> None:
    for shape in ((1, 1, 1), (2, 1, 1), (1, 5), (2, 3, 2)):
        assert np.isfinite(despeckle(np.arange(np.prod(shape), dtype=float).reshape(shape))).all()


def test_a_negative_sigma_is_refused() -> None:
    with pytest.raises(ValueError, match=r"sigma=-1 must not be negative"):
        despeckle(np.zeros((4, 4)), -1)


@pytest.mark.parametrize("sigma", [SIGMA, None, "map"])
def test_denoise_removes_them_first(sigma: Any) -> None:
    clean, noisy, image = speckled(20, 22, 24)
    denoised = denoise(image, sigma, method="classic", despeckle=True)
    assert psnr(clean, denoised) > psnr(clean, noisy)
    assert psnr(clean, denoised) > psnr(clean, denoise(image, SIGMA, method="classic")) + 8


def test_sigma_is_estimated_without_them() -> None:
    _, _, image = speckled(30, 32, 34)
    assert estimate_sigma(despeckle(image)) == pytest.approx(SIGMA, rel=0.15)
    assert estimate_sigma(image) == pytest.approx(SIGMA, rel=0.15)  # equal extremes are no measurements
    image[image == image.max()] += np.arange((image == image.max()).sum())
    assert estimate_sigma(image) > 1.5 * SIGMA


def test_preview_is_a_slice_of_the_whole() -> None:
    _, _, image = speckled(20, 22, 24)
    whole = denoise(image, SIGMA, method="classic", despeckle=True)
    assert preview(image, 9, sigma=SIGMA, method="classic", despeckle=True) == pytest.approx(whole[9], abs=1e-4)


def test_tiles_give_the_untiled_result() -> None:
    _, _, image = speckled(40, 42, 44)
    whole = denoise(image, SIGMA, method="classic", despeckle=True)
    tiled = denoise(image, SIGMA, method="classic", despeckle=True, memory="17MB")
    assert tiled == pytest.approx(whole, abs=1e-4)
