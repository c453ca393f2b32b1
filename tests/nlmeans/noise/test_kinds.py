"""The kinds of noise, and the images that each of them describes."""

from __future__ import annotations

import numpy as np
import pytest

from nlmeans import Settings, denoise
from nlmeans.noise.kinds import KINDS_OF_MODALITY, LIKELY_KINDS, MAGNITUDES, NOISES
from tests.nlmeans.volumes import gaussian, rician


def test_these_are_all_kinds_and_settings_take_no_others() -> None:
    assert NOISES == ("gaussian", "rician", "chi", "poisson")
    assert set(MAGNITUDES) < set(NOISES)
    assert {kind for kinds in KINDS_OF_MODALITY.values() for kind in kinds} == set(NOISES) - {"gaussian"}
    assert set(LIKELY_KINDS) < set(KINDS_OF_MODALITY)
    for noise in NOISES:
        assert Settings(noise=noise).noise == noise
    with pytest.raises(ValueError, match="noise='laplace' is not known; choose one of 'auto', 'gaussian', 'rician'"):
        Settings(noise="laplace")


@pytest.mark.parametrize("noise", NOISES)
def test_the_right_kind_restores_the_mean_of_a_uniform_image(noise: str) -> None:
    clean = np.full((16, 16, 16), 8.0)
    noisy = {
        "gaussian": gaussian(clean, 5.0),
        "rician": rician(clean, 5.0),
        "chi": np.sqrt(sum(rician(clean / 2, 5.0, seed) ** 2 for seed in range(4))),
        "poisson": np.random.default_rng(0).poisson(clean).astype(float),
    }[noise]
    denoised = denoise(
        noisy, None if noise == "poisson" else 5.0, noise=noise, coils=4 if noise == "chi" else None, method="classic"
    )
    assert denoised.mean() == pytest.approx(8, abs=0.4)
