"""The kinds of noise, and the images that each of them describes."""

from __future__ import annotations

import numpy as np
import pytest

from nlmeans import Settings, denoise
from nlmeans.noise.kinds import NOISES
from tests.nlmeans.volumes import gaussian, rician


def test_these_are_all_kinds_and_settings_take_no_others() -> None:
    assert NOISES == ("gaussian", "rician", "poisson")
    for noise in NOISES:
        assert Settings(noise=noise).noise == noise
    with pytest.raises(ValueError, match="noise='laplace' is not known; choose one of 'gaussian', 'rician', 'poisson'"):
        Settings(noise="laplace")


@pytest.mark.parametrize("noise", NOISES)
def test_the_right_kind_restores_the_mean_of_a_uniform_image(noise: str) -> None:
    clean = np.full((16, 16, 16), 8.0)
    noisy = {
        "gaussian": gaussian(clean, 5.0),
        "rician": rician(clean, 5.0),
        "poisson": np.random.default_rng(0).poisson(clean).astype(float),
    }[noise]
    denoised = denoise(noisy, None if noise == "poisson" else 5.0, noise=noise, method="classic")
    assert denoised.mean() == pytest.approx(8, abs=0.3)
