"""Noise whose level is a curve over intensity: stabilised, and restored without a bias."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nlmeans.noise.level_curve import (
    checked_curve,
    curve_as_text,
    gentle_curve,
    is_too_steep,
    mean_of_curve,
    restore_level,
    sigma_on_curve,
    stabilise_level,
    unstabilised,
)

CURVES = {
    "rising": ((0.0, 5.0), (1000.0, 105.0)),
    "falling": ((-100.0, 80.0), (1000.0, 20.0)),
    "constant": ((0.0, 5.0), (100.0, 5.0)),
    "bent": ((10.0, 5.0), (100.0, 5.0), (250.0, 15.0), (450.0, 5.0)),
    "wide": ((-1e5, 1.0), (1e5, 90.0)),
}

every_curve = pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
NOISE = torch.randn(400_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def along(curve: Any, margin: float = 0.3, count: int = 101) -> torch.Tensor:
    """Intensities over a curve and beyond both of its ends."""
    first, last = curve[0][0], curve[-1][0]
    reach = margin * (last - first)
    return torch.linspace(first - reach, last + reach, count, dtype=torch.float64)


@pytest.mark.parametrize(
    "given",
    [
        [(0, 3), (500, 8)],
        ((0.0, 3.0), (500.0, 8.0)),
        np.array([[0, 3], [500, 8]]),
        torch.tensor([[0, 3], [500, 8]]),
        "0:3,500:8",
        " 0 : 3 , 5e2:8.0 ",
    ],
)
def test_a_curve_may_be_pairs_an_array_or_text(given: Any) -> None:
    assert checked_curve(given) == ((0.0, 3.0), (500.0, 8.0))
    assert checked_curve(curve_as_text(checked_curve(given))) == ((0.0, 3.0), (500.0, 8.0))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("0:3;500:8", ValueError, r"curve='0:3;500:8' is not understood; give pairs .* '0:3,500:8'"),
        ("", ValueError, "is not understood"),
        ([(0, 3)], ValueError, r"curve has shape \(1, 2\); give 2 to 500 pairs"),
        ([(t, 3) for t in range(501)], ValueError, r"shape \(501, 2\)"),
        ([1, 2, 3], ValueError, r"shape \(3,\)"),
        ("1:2:3,4:5:6", ValueError, r"shape \(2, 3\)"),
        ([(0, 3), (5,)], TypeError, "must be pairs of intensity and sigma"),
        ({"0": 3}, TypeError, "must be pairs of intensity and sigma"),
        ([(0, 3), (float("nan"), 8)], ValueError, "not finite"),
        ([(0, 3), (0, 8)], ValueError, "the intensity 0 after 0; intensities must rise"),
        ([(0, 3), (9, 4), (5, 8)], ValueError, "the intensity 5 after 9"),
        ([(0, 3), (500, 0)], ValueError, "sigma=0 at intensity 500; noise must be stronger than 0"),
        ([(0, 30), (10, 1)], ValueError, "sigma=30 at intensity 0 to 1 at 10, which is so steep that"),
    ],
)
def test_what_is_no_curve_is_refused_with_a_remedy(given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        checked_curve(given)


@every_curve
def test_sigma_is_linear_between_the_points_and_constant_outside(curve: Any) -> None:
    intensity = along(curve)
    points, sigma = np.array(curve).T
    np.testing.assert_allclose(sigma_on_curve(intensity, curve), np.interp(intensity, points, sigma))


@every_curve
def test_stabilising_is_the_integral_of_one_over_sigma(curve: Any) -> None:
    first, last = curve[0][0], curve[-1][0]
    fine = np.linspace(first - 50, last + 50, 2_000_001)
    rates = 1 / sigma_on_curve(torch.from_numpy(fine), curve).numpy()
    areas = np.concatenate([[0], np.cumsum((rates[1:] + rates[:-1]) / 2 * np.diff(fine))])
    stabilised = stabilise_level(torch.from_numpy(fine), curve).numpy()
    np.testing.assert_allclose(stabilised - stabilised[0], areas, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(unstabilised(torch.from_numpy(stabilised), curve), fine, rtol=1e-9, atol=1e-6)


@every_curve
def test_stabilised_noise_has_deviation_one(curve: Any) -> None:
    for t in along(curve, 0.1, 9):
        noisy = stabilise_level(t + sigma_on_curve(t, curve) * NOISE, curve)
        assert float(noisy.std()) == pytest.approx(1, abs=0.07)


@every_curve
def test_the_inverse_is_that_of_the_mean_and_has_no_bias(curve: Any) -> None:
    for t in along(curve, 0.1, 9):
        sigma = float(sigma_on_curve(t, curve))
        mean = stabilise_level(t + sigma * NOISE, curve).mean()
        assert float(restore_level(mean[None], curve)) == pytest.approx(float(t), abs=0.006 * sigma)


@every_curve
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_inverse_agrees_with_the_mean_everywhere(curve: Any, dtype: torch.dtype) -> None:
    intensity = along(curve, count=1001)
    restored = restore_level(mean_of_curve(intensity, curve).to(dtype), curve)
    assert restored.dtype == dtype
    assert bool((restored.double() - intensity).abs().div(sigma_on_curve(intensity, curve)).max() < 5e-3)


def test_the_algebraic_inverse_would_be_biased() -> None:
    curve, intensity = CURVES["rising"], torch.tensor([500.0], dtype=torch.float64)
    mean = mean_of_curve(intensity, curve)
    assert abs(float(unstabilised(mean, curve) - intensity)) > 2
    assert abs(float(restore_level(mean, curve) - intensity)) < 0.1


@every_curve
def test_both_ways_rise_everywhere(curve: Any) -> None:
    intensity = along(curve, count=5001)
    assert bool((stabilise_level(intensity, curve).diff() > 0).all())
    assert bool((restore_level(stabilise_level(intensity, curve), curve).diff() >= 0).all())


def test_many_points_are_no_trouble() -> None:
    points = np.linspace(0, 1000, 500)
    curve = checked_curve(np.stack([points, 5 + 0.1 * points], 1))
    coarse = CURVES["rising"]
    intensity = along(coarse)
    np.testing.assert_allclose(stabilise_level(intensity, curve), stabilise_level(intensity, coarse), atol=1e-9)
    mean = mean_of_curve(intensity, coarse)
    np.testing.assert_allclose(restore_level(mean, curve), restore_level(mean, coarse), atol=0.05)


@every_curve
def test_a_curve_that_can_be_told_is_gentle_as_it_is(curve: Any) -> None:
    assert gentle_curve(curve) == curve


@pytest.mark.parametrize("seed", range(20))
def test_any_curve_is_made_gentle_by_less_noise(seed: int) -> None:
    random = np.random.default_rng(seed)
    intensity = np.linspace(0, 1, 12)
    sigma = 10 ** random.uniform(-4, 1) * np.exp(random.normal(0, 3, 12).cumsum())
    steep = tuple(zip(intensity.tolist(), sigma.tolist(), strict=True))
    gentle = gentle_curve(steep)
    assert checked_curve(gentle) == gentle
    assert (np.array(gentle)[:, 1] <= sigma).all()
    assert (gentle == steep) != is_too_steep(steep)
