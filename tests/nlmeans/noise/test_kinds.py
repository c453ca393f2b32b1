"""The kinds of noise, and the images that each of them describes."""

from __future__ import annotations

import numpy as np
import pytest

from nlmeans import Settings, denoise
from nlmeans.noise.kinds import (
    FOLLOWING,
    KINDS_OF_MODALITY,
    LIKELY_KINDS,
    MAGNITUDES,
    NOISES,
    check_counts,
    possible_kind,
)
from tests.nlmeans.volumes import gaussian, rician


def test_these_are_all_kinds_and_settings_take_no_others() -> None:
    assert NOISES == ("gaussian", "rician", "chi", "poisson", "curve")
    assert set(MAGNITUDES) | set(FOLLOWING) < set(NOISES)
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
        "curve": gaussian(clean, 3.0),
    }[noise]
    more = {"chi": {"coils": 4}, "curve": {"curve": [(0, 1), (16, 5)]}}.get(noise, {})
    denoised = denoise(noisy, None if noise in FOLLOWING else 5.0, noise=noise, method="classic", **more)
    assert denoised.mean() == pytest.approx(8, abs=0.4)


@pytest.mark.parametrize("kind", NOISES)
def test_only_magnitudes_become_gaussian_below_zero(kind: str) -> None:
    assert possible_kind(kind, 0.0) == kind
    assert possible_kind(kind, -1e-6) == ("gaussian" if kind in MAGNITUDES else kind)


def test_counts_may_lie_below_zero_as_far_as_the_read_noise_reaches() -> None:
    check_counts(-9.0, 0.0, 1.0)
    check_counts(0.0, 100.0, 0.0)
    check_counts(-50.0, -50.0, 0.0)
    with pytest.raises(ValueError, match=r"values down to -11, and offset=0, .* none below -10; denoise before"):
        check_counts(-11.0, 0.0, 1.0)
