"""Measures of quality compared with scikit-image."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from nlmeans.core.metrics import Removed, psnr, ssim
from tests.nlmeans.volumes import Floats, gaussian, piecewise

SHAPES = [(40, 33), (20, 17, 15)]
BORDER = 5
"""Half the width of the window of SSIM. Scikit-image leaves out the border of this width."""


def pair(shape: tuple[int, ...], dtype: Any = np.float64) -> tuple[Floats, Floats]:
    clean = piecewise(*shape)
    return clean.astype(dtype), gaussian(clean, 12.0).clip(0, 255).astype(dtype)


@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8"])
@pytest.mark.parametrize("shape", SHAPES)
def test_psnr_is_that_of_scikit_image(shape: tuple[int, ...], dtype: str) -> None:
    truth, image = pair(shape, dtype)
    assert psnr(truth, image) == pytest.approx(peak_signal_noise_ratio(truth, image, data_range=float(truth.max())))
    assert psnr(truth, image, peak=255) == pytest.approx(peak_signal_noise_ratio(truth, image, data_range=255))


@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8"])
@pytest.mark.parametrize("shape", SHAPES)
def test_ssim_is_that_of_scikit_image(shape: tuple[int, ...], dtype: str) -> None:
    truth, image = pair(shape, dtype)
    inner = np.zeros(shape, bool)
    inner[(slice(BORDER, -BORDER),) * len(shape)] = True
    for peak in (float(truth.max()), 255.0):
        expected = structural_similarity(
            truth.astype(np.float64),
            image.astype(np.float64),
            data_range=peak,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert ssim(truth, image, peak=peak, mask=inner) == pytest.approx(expected, abs=1e-9)
    assert ssim(truth, image, mask=inner) == ssim(truth, image, mask=inner, peak=float(truth.max()))


@pytest.mark.parametrize("shape", SHAPES)
def test_an_image_equals_itself(shape: tuple[int, ...]) -> None:
    truth, _ = pair(shape)
    assert psnr(truth, truth) == math.inf
    assert ssim(truth, truth) == pytest.approx(1)


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_more_noise_is_worse(measure: Any) -> None:
    truth = piecewise(20, 20, 20)
    found = [measure(truth, gaussian(truth, sigma)) for sigma in (2, 5, 10, 20)]
    assert found == sorted(found, reverse=True)


def test_psnr_sees_the_mask_alone() -> None:
    truth, image = pair((20, 20))
    mask = np.zeros((20, 20), np.uint8)
    mask[5:15] = 3
    elsewhere = np.where(mask, image, image + 1000)
    assert psnr(truth, elsewhere, mask=mask) == psnr(truth, image, mask=mask)
    assert psnr(truth, elsewhere) < psnr(truth, image)


def test_ssim_takes_images_smaller_than_its_window() -> None:
    truth, image = pair((4, 3, 5))
    assert 0 < ssim(truth, image) < 1


def test_what_was_removed_from_parts_adds_up_to_the_whole() -> None:
    noise = torch.randn(2, 12, 10, 9, generator=torch.Generator().manual_seed(0))
    noise = (noise + noise.roll(1, 3)) / math.sqrt(2)  # neighbours along the last axis have a half in common
    inside = torch.ones(12, 10, 9, dtype=torch.bool)
    inside[:2] = False
    whole, parts = Removed(), Removed()
    whole.add(noise, inside)
    for start in (0, 6):
        parts.add(noise[:, :, start : start + 6], inside[:, start : start + 6])
    assert whole.voxels == parts.voxels == 2 * 10 * 10 * 9
    assert parts.deviation == pytest.approx(whole.deviation) == pytest.approx(1.0, abs=0.05)
    assert whole.in_common == pytest.approx([0, 0, 0.5], abs=0.1)
    assert Removed().deviation == 0
    assert Removed().in_common == [0, 0, 0]
