"""Methods that are weighted means: classic, patchwise, linear and stochastic."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nlmeans import denoise
from nlmeans.core.metrics import psnr
from nlmeans.core.progress import silent
from nlmeans.methods import means
from nlmeans.methods.means import both_radii, classic, linear, patchwise_halo
from nlmeans.methods.method import Options
from nlmeans.operator.nonlocal_means import nonlocal_means
from tests.nlmeans.volumes import decaying_series, noisy_piecewise

SIGMA = 10.0
OPTIONS = Options(0.8, (1, 1, 1), (2, 2, 2), "loop", 2**30)


def random_tile(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.manual_seed(0))


def test_classic_is_the_operator_with_the_noise_subtracted_and_a_least_weight_of_a_tenth() -> None:
    noisy = random_tile(2, 6, 7, 8)
    expected = nonlocal_means(
        noisy, 0.8, sigma=1.0, patch_radius=1, search_radius=2, center=0.1, channels=0, backend="loop"
    )
    torch.testing.assert_close(classic(noisy, 1.0, OPTIONS, silent), expected)


def test_a_map_of_sigma_scales_the_strength() -> None:
    noisy = random_tile(1, 6, 7, 8)
    sigma = torch.full((6, 7, 8), 2.0)
    torch.testing.assert_close(
        classic(2 * noisy, sigma, OPTIONS, silent), 2 * classic(noisy, 1.0, OPTIONS, silent), rtol=1e-4, atol=1e-5
    )


def test_reaches_add_up() -> None:
    assert both_radii((1, 0, 2), (3, 4, 0)) == (4, 4, 2)
    assert patchwise_halo((1, 0, 2), (3, 4, 0)) == (5, 4, 4)


def test_blocks_of_planes_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = random_tile(1, 5, 20, 21)
    whole = linear(noisy, 1.0, OPTIONS, silent)
    monkeypatch.setattr(means, "LINEAR_BLOCK", 8)
    torch.testing.assert_close(linear(noisy, 1.0, OPTIONS, silent), whole, rtol=0, atol=1e-4)


def test_linear_fits_a_smooth_ramp_better_than_classic() -> None:
    z, y, x = np.meshgrid(*[np.linspace(0, 1, 24)] * 3, indexing="ij")
    ramp = 400 * (z + 0.5 * y + 0.3 * x * x)
    noisy_ramp = (ramp + 20 * np.random.default_rng(0).standard_normal(ramp.shape)).astype(np.float32)
    flat, tilted = denoise(noisy_ramp, 20, method="classic"), denoise(noisy_ramp, 20, method="linear")
    assert psnr(ramp, tilted) > psnr(ramp, flat) + 1.5


@pytest.mark.parametrize(("method", "gain"), [("classic", 1.0), ("patchwise", 1.0), ("bayes", 0.1)])
def test_weights_shared_by_the_volumes_of_a_series_are_better_than_their_own(method: str, gain: float) -> None:
    clean, image = decaying_series(6, 20)
    own, shared = (denoise(image, 20, method=method, **axis) for axis in ({"series": -1}, {"channels": -1}))
    assert psnr(clean, shared) > psnr(clean, own) + gain


def test_shared_weights_know_the_sigma_of_each_volume() -> None:
    clean, image = decaying_series(6, SIGMA)
    image[..., 0] += 3 * SIGMA * np.random.default_rng(1).standard_normal(image.shape[:-1])
    levels = [SIGMA * np.sqrt(10), *[SIGMA] * 5]
    known, unknown = (denoise(image, sigma, method="classic", channels=-1) for sigma in (levels, SIGMA))
    assert psnr(clean, known) > psnr(clean, unknown) + 1


def test_stochastic_repeats_with_the_same_seed_and_differs_with_another() -> None:
    _, image = noisy_piecewise(14, 15, 16, sigma=SIGMA)
    first, again, other = (denoise(image, SIGMA, method="stochastic", seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
