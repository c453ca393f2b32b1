"""Images with noise of a model: mean, deviation and covariance of every kind, and what is missing to another level."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from nlmeans import NoiseModel, estimate_noise
from nlmeans.noise.drawn.noisy import missing_noise, with_noise
from nlmeans.noise.rician import rician_moments

SHAPE = (60, 64, 66)
LAGS = [[[0.2, 0.6, 1.0, 0.6, 0.2]]]


def noisy(signal: float, model: NoiseModel, sigma: Any = None, seed: int = 0) -> Any:
    return with_noise(torch.full(SHAPE, signal), model, torch.Generator().manual_seed(seed), sigma)


@pytest.mark.parametrize("correlation", [None, LAGS], ids=["white", "correlated"])
@pytest.mark.parametrize("signal", [0.0, 10.0, 100.0])
@pytest.mark.parametrize(("kind", "coils"), [("gaussian", 1.0), ("rician", 1.0), ("chi", 4.0), ("chi", 2.3)])
def test_mean_and_deviation_are_those_of_the_kind(kind: str, coils: float, signal: float, correlation: Any) -> None:
    model = NoiseModel(kind=kind, sigma=5.0, coils=coils, correlation=correlation)
    found = noisy(signal, model).double()
    mean, variance = torch.tensor(signal / 5), torch.tensor(1.0)
    if kind != "gaussian":
        mean, variance = rician_moments(torch.tensor(signal / 5, dtype=torch.float64), coils)
    assert float(found.mean()) == pytest.approx(5 * float(mean), abs=0.1)
    assert float(found.std()) == pytest.approx(5 * math.sqrt(variance), rel=0.06 if coils == 2.3 else 0.02)
    if signal == 100:
        near = ((found[..., 1:] - found.mean()) * (found[..., :-1] - found.mean())).mean() / found.var()
        assert float(near) == pytest.approx(0.6 if correlation else 0, abs=0.02)


@pytest.mark.parametrize("correlation", [None, LAGS], ids=["white", "correlated"])
def test_photons_have_the_variance_of_the_detector(correlation: Any) -> None:
    model = NoiseModel(kind="poisson", gain=2.0, offset=10.0, sigma=3.0, correlation=correlation)
    for signal in (10.0, 50.0, 400.0):
        found = noisy(signal, model).double()
        assert float(found.mean()) == pytest.approx(signal, abs=0.3)
        assert float(found.var()) == pytest.approx(2 * (signal - 10) + 9, rel=0.03)
    counts = noisy(30.0, NoiseModel(kind="poisson", gain=0.5))
    assert torch.equal((counts / 0.5).round(), counts / 0.5)


def test_a_map_of_sigma_is_followed() -> None:
    sigma = torch.linspace(2, 20, SHAPE[-1]).expand(SHAPE)
    found = noisy(500.0, NoiseModel(kind="rician"), sigma)
    np.testing.assert_allclose(found.std((0, 1)), sigma[0, 0], rtol=0.1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_the_dtype_stays_and_the_image_is_not_written_to(dtype: torch.dtype) -> None:
    image = torch.full((8, 9), 3.0, dtype=dtype)
    result = with_noise(image, NoiseModel(kind="rician", sigma=1.0), torch.Generator().manual_seed(0))
    assert result.dtype == dtype
    assert (image == 3).all()
    assert not torch.equal(result, image)


def test_noise_that_an_image_cannot_have_is_refused() -> None:
    with pytest.raises(ValueError, match="noise='rician' is for magnitudes, but the image has values down to -4"):
        noisy(-4.0, NoiseModel(kind="rician", sigma=1.0))
    with pytest.raises(ValueError, match="noise='poisson' is for counts, but there are values down to -4"):
        noisy(-4.0, NoiseModel(kind="poisson"))
    with pytest.raises(ValueError, match="sigma is missing: the noise model has none"):
        noisy(4.0, NoiseModel())


def test_noise_like_that_of_a_scan_is_found_again() -> None:
    places = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    clean = torch.where(sum(p.square() for p in places) < 0.7, 400 + 200 * (places[0] > 0) + 100 * (places[1] > 0), 0.0)
    scan = with_noise(clean, NoiseModel(kind="rician", sigma=20.0), torch.Generator().manual_seed(0))
    model = estimate_noise(scan, modality="MR")
    again = estimate_noise(with_noise(clean, model, torch.Generator().manual_seed(1)), modality="MR")
    assert (again.kind, model.kind) == ("rician", "rician")
    assert again.sigma == pytest.approx(model.sigma, rel=0.05)


@pytest.mark.parametrize(("own", "kind"), [("gaussian", "gaussian"), ("rician", "rician"), ("chi", "chi")])
def test_what_is_missing_brings_an_image_to_the_target(own: str, kind: str) -> None:
    coils = 3.0 if own == "chi" else 1.0
    mine = NoiseModel(kind=own, sigma=3.0, coils=coils)
    target = NoiseModel(kind=own, sigma=5.0, coils=coils)
    missing = missing_noise(mine, target)
    assert missing is not None
    assert (missing.kind, missing.sigma) == (kind, 4.0)
    for signal in (0.0, 8.0, 60.0):
        first = noisy(signal, mine)
        both = with_noise(first, missing, torch.Generator().manual_seed(1)).double()
        wanted = noisy(signal, target, seed=2).double()
        assert float(both.mean()) == pytest.approx(float(wanted.mean()), abs=0.1)
        assert float(both.std()) == pytest.approx(float(wanted.std()), rel=0.02)


def test_the_covariance_becomes_that_of_the_target() -> None:
    mine, target = NoiseModel(sigma=3.0), NoiseModel(sigma=6.0, correlation=LAGS)
    missing = missing_noise(mine, target)
    assert missing is not None
    both = with_noise(noisy(0.0, mine), missing, torch.Generator().manual_seed(1)).double()
    assert float(both.std()) == pytest.approx(6, rel=0.02)
    near = (both[..., 1:] * both[..., :-1]).mean() / both.var()
    assert float(near) == pytest.approx(0.6, abs=0.05)


def test_nothing_is_missing_where_there_is_more_noise() -> None:
    assert missing_noise(NoiseModel(sigma=5.0), NoiseModel(sigma=5.0)) is None
    assert missing_noise(NoiseModel(sigma=6.0), NoiseModel(sigma=5.0)) is None
    with pytest.raises(
        ValueError, match=r"the target noise is poisson noise.* give Gaussian noise or that of magnitudes"
    ):
        missing_noise(NoiseModel(sigma=5.0), NoiseModel(kind="poisson"))
    with pytest.raises(ValueError, match="the own noise is gaussian noise"):
        missing_noise(NoiseModel(), NoiseModel(sigma=5.0))


CURVE = NoiseModel(kind="curve", curve=[(100, 5), (500, 25)])


@pytest.mark.parametrize("correlation", [None, LAGS], ids=["white", "correlated"])
def test_noise_of_a_curve_is_as_strong_as_at_the_intensity(correlation: Any) -> None:
    model = NoiseModel(kind="curve", curve=CURVE.curve, correlation=correlation)
    for signal, sigma in ((50.0, 5.0), (300.0, 15.0), (900.0, 25.0)):
        found = noisy(signal, model).double()
        assert float(found.mean()) == pytest.approx(signal, abs=0.02 * sigma)
        assert float(found.std()) == pytest.approx(sigma, rel=0.02)


def test_what_is_missing_to_a_curve_is_a_curve() -> None:
    missing = missing_noise(NoiseModel(sigma=3.0), CURVE)
    assert missing is not None
    for signal in (100.0, 240.0, 480.0):
        own = noisy(signal, NoiseModel(sigma=3.0))
        both = with_noise(own, missing, torch.Generator().manual_seed(1)).double()
        assert float(both.std()) == pytest.approx(float(CURVE.sigma_at(torch.tensor(signal))), rel=0.03)
    from_a_curve = missing_noise(CURVE, NoiseModel(sigma=10.0))
    assert from_a_curve is not None
    levels = from_a_curve.sigma_at(torch.tensor([100.0, 400.0]))
    np.testing.assert_allclose(levels, [math.sqrt(75), 0.1], rtol=0.01)
    assert missing_noise(CURVE, NoiseModel(sigma=5.0)) is None
    assert missing_noise(CURVE, CURVE) is None


@pytest.mark.parametrize(
    "other", [NoiseModel(kind="rician", sigma=5.0), NoiseModel(sigma=5.0, correlation=LAGS)], ids=str
)
def test_a_curve_is_matched_with_white_gaussian_noise_alone(other: NoiseModel) -> None:
    for own, target, name in ((other, CURVE, "own"), (CURVE, other, "target")):
        with pytest.raises(ValueError, match=f"the {name} noise is .* does not fit one that is a curve"):
            missing_noise(own, target)
