"""The bounds of the variance of the noise, and photon counts among structure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nlmeans.core.lags import dct_basis
from nlmeans.noise.level_curve import checked_curve
from nlmeans.noise.search.bounds import (
    follows_a_curve,
    level_over_intensity,
    mean_frequency,
    second_opinion,
    variance_bounds,
)
from nlmeans.noise.search.curve import Fit, VarianceCurve, variance_curve
from nlmeans.noise.search.finest import finest_detail
from nlmeans.noise.search.found import model_of_volume
from tests.nlmeans.volumes import gaussian

FLOOR, TOP = 20.0, 300.0
STEPS = np.repeat(np.linspace(FLOOR, TOP, 8), 6)[None, None] * np.ones((24, 40, 1))
KINDS = ("rician", "chi", "poisson")


def textured(scale: float) -> Any:
    """Bright halves of the steps have a smooth texture, the others are flat."""
    waves = np.sin(np.indices(STEPS.shape).sum(0) * 0.6)
    return STEPS * (1 + scale * waves * (np.arange(40) % 20 < 14)[:, None])


def bounds(volume: Any) -> VarianceCurve:
    values = torch.from_numpy(np.asarray(volume))
    return variance_bounds(values, torch.ones_like(values, dtype=torch.bool))


def test_a_basis_is_orthonormal_and_begins_with_the_mean() -> None:
    basis = dct_basis((4, 4, 4)).numpy()
    np.testing.assert_allclose(basis @ basis.T, np.eye(64), atol=1e-12)
    np.testing.assert_allclose(basis[0], 1 / 8)
    assert mean_frequency((4, 4, 4))[[0, -1]].tolist() == [0, 1]
    assert mean_frequency((1, 4, 4)).max() == 1


def test_the_bounds_of_noise_among_structure_hold_its_variance() -> None:
    found = bounds(gaussian(textured(0.1), 5.0))
    assert found.least is not None
    assert len(found.variance) >= 5
    assert (found.least < 25 * 1.25).all()
    assert (found.variance > 25 / 1.25).all()


def test_photons_among_structure_are_told_from_gaussian_noise() -> None:
    photons = np.random.default_rng(0).poisson(textured(0.1) / 2) * 2.0
    assert model_of_volume(torch.from_numpy(photons)).kind == "poisson"
    assert model_of_volume(torch.from_numpy(gaussian(textured(0.1), 3.0))).kind == "gaussian"


def test_structure_that_grows_with_brightness_is_not_photons() -> None:
    intensity, structure = np.linspace(10, 100, 10), np.linspace(0, 9, 10)
    seen = VarianceCurve(intensity, 1 + structure, np.full(10, 0.05))
    within, thought = seen._replace(least=np.maximum(1 - structure, 0)), Fit("poisson", 0.0, (0.1, 0.0))
    assert second_opinion(thought, seen, within, KINDS).kind == "gaussian"
    assert second_opinion(thought, seen, seen._replace(least=0.9 * seen.variance), KINDS) is thought


def test_a_background_of_few_photons_is_not_the_air_of_several_coils() -> None:
    counts = torch.from_numpy(np.random.default_rng(0).poisson(np.where(STEPS < 60, 8.0, STEPS)).astype(float))
    assert model_of_volume(counts).kind == "poisson"
    curve = bounds(counts)
    assert second_opinion(Fit("chi", 0.0, (3.0, 2.0)), curve, curve, KINDS).kind == "poisson"


def test_what_is_not_possible_is_not_found() -> None:
    counts = bounds(np.random.default_rng(0).poisson(STEPS))
    assert second_opinion(Fit("gaussian", 9.0, (1.0,)), counts, counts, ("rician",)).kind == "gaussian"


def test_too_small_a_volume_says_nothing() -> None:
    for shape in ((1, 3, 3), (3, 3, 3), (1, 1, 5), (2, 2, 2)):
        found = bounds(np.random.default_rng(0).standard_normal(shape))
        assert len(found.variance) == 0
        first = Fit("gaussian", 0.0, (1.0,))
        assert second_opinion(first, found, found, KINDS) is first


def fitted(volume: Any) -> tuple[Any, Any]:
    """What is measured of the noise of a volume at each intensity, and the curve through it, in image units."""
    values = torch.from_numpy(np.asarray(volume))
    around = finest_detail(values, None, torch.ones_like(values, dtype=torch.bool))
    curve = variance_curve(around, around.usable)
    return curve, level_over_intensity(curve, bounds(values))


def noisy_by(sigma: Any, clean: Any = STEPS) -> Any:
    return clean + sigma * np.random.default_rng(0).standard_normal(STEPS.shape)


LEVELS = {
    "rising": lambda t: 1 + 0.06 * t,
    "falling": lambda t: 20 - 0.05 * t,
    "constant": lambda t: 8 + 0 * t,
    "humped": lambda t: 5 + 15 * np.exp(-(((t - 150) / 80) ** 2)),
    "power": lambda t: 150 * t**-0.6,
}


@pytest.mark.parametrize("name", LEVELS)
def test_a_curve_is_fitted_to_noise_that_follows_the_intensity_in_any_way(name: str) -> None:
    _, (intensity, sigma) = fitted(noisy_by(LEVELS[name](STEPS)))
    inner = np.linspace(40, 280, 20)
    np.testing.assert_allclose(np.interp(inner, intensity, sigma), LEVELS[name](inner), rtol=0.25)
    assert len(intensity) <= 12
    assert (np.diff(intensity) > 0).all()


def test_structure_at_an_intensity_makes_no_hump() -> None:
    clean = textured(0.0)
    clean[:, :, 18:24] += 12 * np.sin(np.indices(STEPS.shape).sum(0) * 2.2)[:, :, 18:24]
    curve, (_, sigma) = fitted(noisy_by(5.0, clean))
    assert np.sqrt(curve.variance).max() > 8
    np.testing.assert_allclose(sigma, 5, rtol=0.25)


def test_a_curve_that_is_fitted_can_always_be_told() -> None:
    for scale in (0.1, 1.0, 3.0):
        steep = np.where(STEPS < 150, 2.0, 60.0) * scale
        _, found = fitted(noisy_by(steep))
        assert len(checked_curve(np.stack(found, 1))) >= 2


@pytest.mark.parametrize("name", LEVELS)
def test_a_curve_is_believed_where_it_is_far_from_all_other_kinds(name: str) -> None:
    noisy = noisy_by(LEVELS[name](STEPS))
    assert follows_a_curve(fitted(noisy)[0], bounds(noisy)) == (name in ("rising", "falling", "power"))


@pytest.mark.parametrize("spoiled", [{"least": 0.5}, {"variance": 4.0}])
def test_a_curve_is_not_believed_where_bounds_say_little_or_contradict_it(spoiled: dict[str, float]) -> None:
    noisy = noisy_by(LEVELS["rising"](STEPS))
    found = bounds(noisy)
    assert follows_a_curve(fitted(noisy)[0], found)
    for name, factor in spoiled.items():
        odd = np.where(np.arange(len(found.variance)) % 2, 1.0, factor) if name == "variance" else factor
        found = found._replace(**{name: odd * getattr(found, name)})
    assert not follows_a_curve(fitted(noisy)[0], found)
