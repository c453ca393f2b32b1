"""Properties of noise models: what they say is what they do, and they follow the volume in scale and in axes."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nlmeans import NoiseModel, denoise, estimate_noise
from nlmeans.noise.drawn.noisy import with_noise
from tests.nlmeans.volumes import piecewise
from tests.properties.strategies import Floats, seeds

NEIGHBOURS = st.tuples(*[st.floats(-0.3, 0.6)] * 3)
"""Correlation with the next voxel along each axis."""


def correlation_of(neighbours: tuple[float, ...]) -> Floats:
    """The autocovariance of white noise that was blurred along each axis."""
    axes = [np.array([c / 2, 1.0, c / 2]) for c in neighbours]
    rows = [np.convolve(axis, axis) for axis in axes]
    full = np.einsum("i,j,k->ijk", *(row / row[2] for row in rows))
    return np.asarray(full)


@st.composite
def models(draw: Any) -> NoiseModel:
    """Draw any noise model for a volume from 0 to 200."""
    kind = draw(st.sampled_from(["gaussian", "rician", "chi", "poisson"]))
    how: dict[str, Any] = {"kind": kind, "sigma": draw(st.floats(2, 20))}
    if kind == "poisson":
        how |= {"gain": draw(st.floats(0.1, 5)), "offset": draw(st.floats(-5, 0))}
    if kind == "chi":
        how |= {"coils": draw(st.floats(1, 16))}
    if draw(st.booleans()):
        how |= {"correlation": correlation_of(draw(NEIGHBOURS))}
    return NoiseModel(**how, evidence=("stated",))


@given(model=models())
def test_a_model_comes_back_from_json_as_it_was(model: NoiseModel) -> None:
    again = NoiseModel.from_json(model.to_json())
    assert again == model
    assert again.to_json() == model.to_json()
    assert NoiseModel.from_dict(model.to_dict()) == model
    assert hash(again.to_json()) == hash(model.to_json())
    assert str(again) == str(model)


@given(model=models(), seed=seeds, method=st.sampled_from(["wiener", "bayes"]))
def test_equal_models_denoise_alike_and_other_levels_do_not(model: NoiseModel, seed: int, method: str) -> None:
    noisy = noisy_volume(model, seed)
    result = denoise(noisy, noise=model, method=method)
    np.testing.assert_array_equal(denoise(noisy, noise=NoiseModel.from_json(model.to_json()), method=method), result)
    assert np.isfinite(result).all()
    louder = dataclasses.replace(model, sigma=4 * (model.sigma or 0))
    assert (denoise(noisy, noise=louder, method=method) != result).any()


def noisy_volume(model: NoiseModel, seed: int, *shape: int) -> Floats:
    """A volume of blocks with noise drawn from a model."""
    clean = torch.from_numpy(piecewise(*(shape or (14, 15, 16))))
    return np.asarray(with_noise(clean, model, torch.Generator().manual_seed(seed)))


@given(
    kind=st.sampled_from(["gaussian", "rician", "poisson"]),
    sigma=st.floats(4, 20),
    exponent=st.floats(-6, 6),
    seed=seeds,
)
def test_what_is_found_scales_with_the_volume(kind: str, sigma: float, exponent: float, seed: int) -> None:
    scale = float(10.0**exponent)
    volume = noisy_volume(NoiseModel(kind=kind, sigma=0.2 * sigma if kind == "poisson" else sigma), seed, 24, 24, 24)
    one, scaled = estimate_noise(volume), estimate_noise(scale * volume)
    assert one.sigma is not None
    assert scaled.kind == one.kind
    assert scaled.sigma == pytest.approx(scale * one.sigma, rel=1e-4, abs=1e-9 * scale)
    assert scaled.coils == pytest.approx(one.coils, rel=1e-4)
    if one.kind == "poisson":
        assert (scaled.gain, scaled.offset) == pytest.approx((scale * one.gain, scale * one.offset), rel=1e-3)
    if one.correlation is None:
        assert scaled.correlation is None
    else:
        np.testing.assert_allclose(scaled.autocovariance, one.autocovariance, atol=1e-4)


@given(neighbours=NEIGHBOURS, order=st.permutations([0, 1, 2]), flip=st.integers(0, 7), seed=seeds)
def test_what_is_found_follows_the_axes(neighbours: tuple[float, ...], order: list[int], flip: int, seed: int) -> None:
    model = NoiseModel(sigma=10.0, correlation=correlation_of(neighbours))
    volume = noisy_volume(model, seed, 24, 24, 24)
    flipped = [axis for axis in range(3) if flip >> axis & 1]
    turned = np.flip(volume, flipped).transpose(order)
    one, other = estimate_noise(volume), estimate_noise(turned)
    assert other.kind == one.kind
    assert other.sigma == pytest.approx(one.sigma, rel=0.05)
    if one.autocovariance is not None and other.autocovariance is not None:
        np.testing.assert_allclose(
            other.autocovariance, np.flip(one.autocovariance, flipped).transpose(order), atol=0.05
        )
    else:
        assert one.correlation is None
        assert other.correlation is None


@given(model=models(), seed=seeds, strength=st.floats(0.3, 3))
def test_a_model_given_is_the_model_used(model: NoiseModel, seed: int, strength: float) -> None:
    """Constant surroundings and a mask aside, every voxel is denoised, and no value leaves the range by much."""
    noisy = noisy_volume(model, seed)
    mask = np.zeros(noisy.shape, bool)
    mask[:7] = True
    result = denoise(noisy, noise=model, method="wiener", strength=strength, mask=mask)
    np.testing.assert_array_equal(result[7:], noisy[7:])
    np.testing.assert_array_equal(result[:7], denoise(noisy, noise=model, method="wiener", strength=strength)[:7])
