"""The whole engine on a CUDA device: what the CPU gives, the same bits every time, and tiles that give way."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch

from nlmeans import denoise, despeckle, estimate_sigma, preview
from tests.nlmeans.volumes import SINGLE, Floats, gaussian, piecewise, rician

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

SIGMA = 10.0


@pytest.fixture(scope="module")
def clean() -> Floats:
    return piecewise(40, 44, 36)


@pytest.fixture(scope="module")
def noisy(clean: Floats) -> torch.Tensor:
    return torch.from_numpy(gaussian(clean, SIGMA)).float()


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """Root mean square difference in units of sigma."""
    return float((one.cpu().double() - other.cpu().double()).square().mean().sqrt()) / SIGMA


@pytest.mark.parametrize("method", SINGLE)
def test_a_method_gives_what_it_gives_on_the_cpu_and_repeats_bit_for_bit(noisy: torch.Tensor, method: str) -> None:
    image = noisy.cuda()
    result = denoise(image, SIGMA, method=method)
    assert result.device == image.device
    assert apart(result, denoise(noisy, SIGMA, method=method)) < 2e-3
    assert all(torch.equal(denoise(image, SIGMA, method=method), result) for _ in range(3))


@pytest.mark.parametrize("method", ["classic", "dct", "wiener", "bayes", "subspace"])
def test_an_image_too(noisy: torch.Tensor, method: str) -> None:
    image = noisy[20]
    assert apart(denoise(image.cuda(), SIGMA, method=method), denoise(image, SIGMA, method=method)) < 2e-3


NOISES: dict[str, dict[str, Any]] = {
    "rician": {"noise": "rician"},
    "poisson": {"noise": "poisson", "sigma": 2.0},
    "curve": {"noise": "curve", "sigma": None, "curve": [(0, SIGMA / 2), (200, SIGMA)]},
    "map": {"sigma": "map"},
    "estimated": {"sigma": None},
    "impulses": {"despeckle": True},
}


@pytest.mark.parametrize("noise", NOISES)
def test_every_kind_of_noise(clean: Floats, noise: str) -> None:
    volume = torch.from_numpy(rician(clean, SIGMA)).float()
    options = {"sigma": SIGMA, "method": "bayes"} | NOISES[noise]
    assert apart(denoise(volume.cuda(), **options), denoise(volume, **options)) < 5e-3


def test_a_numpy_array_is_computed_there_on_request(noisy: torch.Tensor) -> None:
    volume = noisy.numpy()
    result = denoise(volume, SIGMA, device="cuda")
    assert isinstance(result, np.ndarray)
    assert torch.equal(torch.from_numpy(result), denoise(noisy.cuda(), SIGMA).cpu())


def test_tiles_give_what_the_whole_gives(noisy: torch.Tensor) -> None:
    image = noisy.cuda()
    whole = denoise(image, SIGMA, method="wiener")
    assert apart(denoise(image, SIGMA, method="wiener", memory="18MiB"), whole) < 1e-5


def test_a_slice_is_that_of_the_whole(noisy: torch.Tensor) -> None:
    image = noisy.cuda()
    assert apart(preview(image, 20, sigma=SIGMA), denoise(image, SIGMA)[20]) < 1e-4


def test_sigma_is_estimated_as_on_the_cpu(noisy: torch.Tensor) -> None:
    assert estimate_sigma(noisy.cuda()) == pytest.approx(estimate_sigma(noisy), rel=1e-5)


def test_outliers_are_found_as_on_the_cpu(noisy: torch.Tensor) -> None:
    spoilt = noisy.clone()
    spoilt.view(-1)[::97] = 4000.0
    torch.testing.assert_close(despeckle(spoilt.cuda()).cpu(), despeckle(spoilt))


def test_a_tile_that_is_too_large_for_the_card_is_halved(noisy: torch.Tensor, caplog: pytest.LogCaptureFixture) -> None:
    image = noisy.repeat(4, 4, 4).cuda()  # 16 MB, of which the filter holds about ten
    expected = denoise(image, SIGMA, method="wiener")
    torch.cuda.empty_cache()
    total, held = torch.cuda.mem_get_info()[1], torch.cuda.memory_reserved()
    try:
        torch.cuda.set_per_process_memory_fraction((held + 128 * 2**20) / total)
        with caplog.at_level(logging.WARNING, "nlmeans"):
            result = denoise(image, SIGMA, method="wiener", memory="2GiB")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "out of memory" in caplog.text
    assert apart(result, expected) < 1e-5
