"""The variance of noise against intensity, and the kind of noise that follows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nlmeans.noise.rician import rician_deviation, rician_moments
from nlmeans.noise.search.air import NO_AIR, Air, air_of
from nlmeans.noise.search.curve import (
    BINS,
    Fit,
    VarianceCurve,
    cost_of,
    fit_constant,
    fit_line,
    fit_magnitudes,
    fit_several_coils,
    flattest_parts,
    kind_of_noise,
    refined_line,
    variance_curve,
)
from nlmeans.noise.search.finest import finest_detail
from tests.nlmeans.volumes import gaussian, rician

STAIRS = 20.0 * np.repeat(np.arange(12), 6)[None, None] * np.ones((40, 40, 1))
"""Steps from 0 to 220."""
HEAD = np.where(np.indices((32, 34, 36)).max(0) < 22, 300.0, 0.0)
KINDS = ("rician", "chi", "poisson")


def seen(volume: Any) -> tuple[VarianceCurve, Air]:
    values = torch.from_numpy(np.asarray(volume, np.float64))
    around = finest_detail(values, None)
    return variance_curve(around, around.usable), air_of(values, around, around.usable)


def kind(volume: Any, kinds: tuple[str, ...] = KINDS) -> Fit:
    curve, air = seen(volume)
    return kind_of_noise(curve, air, kinds)


def chi(clean: Any, sigma: float, coils: int) -> Any:
    return np.sqrt(sum(rician(clean / np.sqrt(coils), sigma, seed) ** 2 for seed in range(coils)))


def test_gaussian_noise_has_the_same_variance_everywhere() -> None:
    curve, _ = seen(gaussian(STAIRS, 5.0))
    assert len(curve.variance) > 8
    assert (np.diff(curve.intensity) > 0).all()
    np.testing.assert_allclose(curve.variance, 25, rtol=0.3)
    assert fit_constant(curve).parameters[0] == pytest.approx(5, rel=0.05)


def test_the_variance_of_counts_is_a_line() -> None:
    image = 3.0 * np.random.default_rng(0).poisson(STAIRS / 3) + 50
    found = kind(image)
    assert found.kind == "poisson"
    gain, at_zero = found.parameters
    assert gain == pytest.approx(3, rel=0.15)
    assert -at_zero / gain == pytest.approx(50, abs=12)


def test_a_flat_background_tells_its_variance_exactly() -> None:
    """The first fit leaves most of it out."""
    clean = np.full((24, 64, 64), 8.0)
    clean[4:20, 8:40, 8:40] += 30 * (1 + np.sin(np.indices((16, 32, 32)) / 3).prod(0))
    errors = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        noisy = torch.from_numpy(4.0 * rng.poisson(clean / 4) + 100 + 6 * rng.standard_normal(clean.shape))
        around = finest_detail(noisy, None)
        first = fit_line(variance_curve(around, around.usable))
        lines = [line.parameters for line in (first, refined_line(first, around, around.usable))]
        errors.append([abs((slope * 108 + at_zero) / (4 * 8 + 36) - 1) for slope, at_zero in lines])
    before, after = np.mean(errors, 0)
    assert after < min(0.02, before / 2)


def test_magnitudes_are_told_by_their_dark_end() -> None:
    found = kind(rician(STAIRS + 20, 25.0))
    assert found.kind == "rician"
    assert found.parameters[0] == pytest.approx(25, rel=0.1)


@pytest.mark.parametrize("coils", [1, 4, 8])
def test_air_tells_the_number_of_coils(coils: int) -> None:
    noisy = chi(HEAD, 20.0, coils)
    _, air = seen(noisy)
    assert air.coils == pytest.approx(coils, rel=0.05)
    assert kind(noisy).kind == ("rician" if coils == 1 else "chi")


def test_correlated_magnitudes_are_told_by_their_air_too() -> None:
    def smooth(seed: int) -> Any:
        noise = np.random.default_rng(seed).standard_normal(HEAD.shape)
        for axis in range(3):
            noise = (noise + np.roll(noise, 1, axis)) / 2**0.5
        return noise

    assert kind(np.hypot(HEAD + 20 * smooth(0), 20 * smooth(1))).kind == "rician"


@pytest.mark.parametrize("offset", [0.0, 100.0, 1000.0])
def test_gaussian_noise_is_never_taken_for_another_kind(offset: float) -> None:
    for clean in (STAIRS, HEAD):
        assert kind(gaussian(clean + offset, 20.0)).kind == "gaussian"


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shape", [(20, 22, 24), (1, 90, 100)])
def test_a_flat_image_shows_no_kind_but_gaussian(shape: tuple[int, int, int], seed: int) -> None:
    assert kind(gaussian(np.full(shape, 100.0), 5.0, seed)).kind == "gaussian"


def test_kinds_that_are_not_possible_are_not_found() -> None:
    assert kind(rician(HEAD, 20.0), ("poisson",)).kind != "rician"
    assert kind(np.random.default_rng(0).poisson(STAIRS + 5), ()).kind == "gaussian"


def test_structure_adds_variance_and_does_not_hide_the_level() -> None:
    variance = np.full(BINS, 4.0)
    variance[3:9] *= 10
    curve = VarianceCurve(np.linspace(1, 100, BINS), variance, np.full(BINS, 0.1))
    assert fit_constant(curve).parameters[0] == pytest.approx(2, rel=0.05)
    assert kind_of_noise(curve, NO_AIR, KINDS).kind == "gaussian"


def test_a_model_above_what_was_measured_costs_more_than_one_below() -> None:
    curve = VarianceCurve(np.arange(1.0, 6.0), np.ones(5), np.full(5, 0.1))
    above, exact, below = (float(cost_of(curve, np.full(5, level))) for level in (2.0, 1.0, 0.5))
    assert exact == 0
    assert above > 3 * below > 0


def test_fits_are_exact_on_exact_curves() -> None:
    intensity = np.linspace(30, 900, 12)
    tolerance = np.full(12, 0.05)
    line = fit_line(VarianceCurve(intensity, 2.5 * intensity + 40, tolerance))
    assert line.parameters == pytest.approx((2.5, 40), rel=0.1)
    deviation = 50 * rician_deviation(torch.from_numpy(np.maximum(intensity, 63) / 50), 4).numpy()
    found = fit_magnitudes(VarianceCurve(np.maximum(intensity, 63), deviation**2, tolerance), 4)
    assert (found.kind, found.parameters[1]) == ("chi", 4)
    assert found.parameters[0] == pytest.approx(50, rel=0.02)


@pytest.mark.parametrize("coils", [2, 4, 8])
def test_several_coils_show_in_the_curve_where_the_air_is_too_uneven_to_tell(coils: int) -> None:
    signal = torch.linspace(0, 25, 12, dtype=torch.float64)
    mean, variance = rician_moments(signal, coils)
    curve = VarianceCurve(mean.numpy(), variance.numpy(), np.full(12, 0.05))
    found = kind_of_noise(curve, NO_AIR, KINDS)
    assert found.kind == "chi"
    assert found.parameters == pytest.approx((1, coils), rel=0.15)
    assert fit_several_coils(curve).cost < 1 < fit_line(curve).cost
    assert fit_several_coils(curve._replace(intensity=curve.intensity + 30)).cost > 100  # the dark end is no air
    assert kind_of_noise(curve, NO_AIR, ("rician",)).kind != "chi"


def test_the_flattest_voxels_of_each_intensity_are_chosen() -> None:
    brightness = torch.arange(16_000, dtype=torch.float64)
    detail = brightness.flip(0) % 1000
    parts = flattest_parts(brightness, detail)
    assert len(parts) == BINS
    for number, part in enumerate(parts):
        assert len(part) == pytest.approx(150, abs=1)
        assert (brightness[part] // 1000 - number).abs().max() <= 1
        assert detail[part].max() < 200
    assert flattest_parts(brightness[:100], detail[:100]) == []
