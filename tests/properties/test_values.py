"""Properties of noise levels and models, blur, the non-local block, settings, and amounts of memory."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nlmeans import METHODS, Settings, despeckle, estimate_sigma
from nlmeans.blur import (
    covariance_to_log_cholesky,
    gaussian_blur,
    gaussian_kernel,
    local_gaussian_blur,
    log_cholesky_to_covariance,
)
from nlmeans.core.memory import UNITS, parse_bytes, size_text
from nlmeans.engine.settings import MINIMUM_MEMORY, RESULT_DTYPES
from nlmeans.nn import MODES, NonLocalBlock
from nlmeans.noise import poisson, rician_transform
from nlmeans.noise.rician import rician_deviation, rician_moments, without_rician_bias
from nlmeans.operator.backends import BACKENDS
from tests.properties.strategies import Floats, images, seeds

# ---------------------------------------------------------------- the noise level


@given(
    volume=images(voxels=3000),
    exponent=st.floats(-28, 28),
    noise=st.sampled_from(["gaussian", "rician"]),
    map=st.booleans(),
)
def test_the_estimate_scales_with_the_image(volume: Floats, exponent: float, noise: str, map: bool) -> None:
    scale, volume = 10.0**exponent, np.abs(volume)
    one = np.asarray(estimate_sigma(volume, noise=noise, map=map))
    scaled = np.asarray(estimate_sigma(scale * volume, noise=noise, map=map))
    assert np.isfinite(one).all()
    assert (one >= 0).all()
    np.testing.assert_allclose(scaled, scale * one, rtol=1e-3 if map else 1e-5, atol=1e-7 * scale)


@given(volume=images(voxels=3000), order=st.permutations([0, 1, 2]), flip=st.booleans())
def test_the_estimate_does_not_depend_on_the_order_of_axes(volume: Floats, order: list[int], flip: bool) -> None:
    turned = volume.transpose([axis for axis in order if axis < volume.ndim])
    turned = np.flip(turned) if flip else turned
    expected = estimate_sigma(volume)
    assert estimate_sigma(turned) == pytest.approx(expected, rel=1e-4, abs=1e-9)


@given(
    volume=images(kinds=("impulses", "noise", "zeros", "constant"), voxels=2000),
    scale=st.floats(1e-20, 1e20),
    order=st.permutations([0, 1, 2]),
)
def test_despeckling_commutes_with_scale_and_order_and_spares_most(
    volume: Floats, scale: float, order: list[int]
) -> None:
    before, kept = volume.copy(), [axis for axis in order if axis < volume.ndim]
    clean = despeckle(volume, 0.05)
    np.testing.assert_array_equal(volume, before)
    assert volume.min() <= clean.min() <= clean.max() <= volume.max()
    scaled = despeckle(scale * volume.transpose(kept), scale * 0.05) / scale
    np.testing.assert_allclose(scaled, clean.transpose(kept), rtol=1e-9, atol=1e-12)


# ---------------------------------------------------------------- models of the noise

LEVELS = st.floats(1e-20, 1e20)


def rising(low: float, high: float, seed: int) -> torch.Tensor:
    """Return rising numbers, random between low and high, and many close to low."""
    random = np.random.default_rng(seed)
    ends = np.concatenate([low + (high - low) * 10.0 ** np.linspace(-9, -1, 40), random.uniform(low, high, 400)])
    return torch.from_numpy(np.sort(np.clip(ends, low, high)))


@given(sigma=LEVELS, highest=st.floats(0.1, 1e4), seed=seeds)
def test_the_bias_of_magnitudes_is_undone_and_brighter_stays_brighter(sigma: float, highest: float, seed: int) -> None:
    signal = rising(0.0, highest, seed)
    mean = rician_moments(signal)[0]
    found = without_rician_bias(mean * sigma, sigma) / sigma
    torch.testing.assert_close(found, signal, rtol=2e-3, atol=2e-3)
    assert (found.diff() >= -1e-7).all()  # the table is float32
    deviation = rician_deviation(mean.float())
    assert (deviation > 0.65).all()
    assert (deviation <= 1.001).all()


@given(sigma=LEVELS, highest=st.floats(0.1, 1e4), seed=seeds)
def test_magnitudes_are_stabilised_in_order_and_restored_in_order(sigma: float, highest: float, seed: int) -> None:
    magnitude = rising(0.0, highest, seed)
    stabilised = rician_transform.stabilise_magnitude(magnitude * sigma, sigma)
    assert torch.isfinite(stabilised).all()
    assert (stabilised.diff() >= -1e-6).all()
    restored = rician_transform.restore_magnitude(stabilised, sigma) / sigma
    assert (restored.diff() >= -1e-4 * restored[1:]).all()
    assert (restored >= 0).all()
    bright = magnitude > 10  # there the noise adds 1 / (2 · signal)
    torch.testing.assert_close(restored[bright], magnitude[bright] - 0.5 / magnitude[bright], rtol=2e-3, atol=2e-2)


@given(gain=st.floats(1e-6, 1e6), offset=st.floats(-1e3, 1e3), read=st.floats(0, 20), seed=seeds)
def test_counts_are_stabilised_in_order_and_restored_without_bias(
    gain: float, offset: float, read: float, seed: int
) -> None:
    photons = rising(0.0, 500.0, seed)
    stabilised = poisson.stabilise_counts(offset * gain + gain * photons, gain, offset * gain, read * gain)
    assert (stabilised.diff() >= 0).all()
    mean = poisson.mean_of_stabilised(photons, read)
    restored = (poisson.restore_counts(mean, gain, offset * gain, read * gain) - offset * gain) / gain
    torch.testing.assert_close(restored, photons, rtol=2e-3, atol=2e-2)
    assert (restored.diff() >= -1e-6).all()


# ---------------------------------------------------------------- blur and the non-local block


@given(
    image=images(voxels=800, longest=20),
    variance=st.floats(0.05, 4),
    scale=st.floats(1e-6, 1e6),
    offset=st.floats(-1e3, 1e3),
)
def test_blur_is_linear_and_keeps_constants(image: Floats, variance: float, scale: float, offset: float) -> None:
    blurred = gaussian_blur(image, variance)
    again = gaussian_blur(scale * image + offset, variance)
    np.testing.assert_allclose(again, scale * blurred + offset, rtol=1e-12, atol=1e-11 * (scale + abs(offset)))
    assert blurred.min() >= image.min() - 1e-9
    assert blurred.max() <= image.max() + 1e-9
    constant = np.full(image.shape, offset)
    np.testing.assert_allclose(gaussian_blur(constant, variance), constant, rtol=1e-13, atol=1e-300)


@given(
    image=images(voxels=500, longest=16),
    variance=st.floats(0.05, 4),
    size=st.sampled_from([1, 3, 5, 7]),
    spacing=st.sampled_from([None, 0.5, 2.0]),
    padding=st.sampled_from(["reflect", "zeros"]),
    kind=st.sampled_from(["spherical", "diagonal", "full"]),
)
def test_the_same_gaussian_for_every_voxel_is_the_gaussian_blur(
    image: Floats, variance: float, size: int, spacing: float | None, padding: str, kind: str
) -> None:
    dimensions = image.ndim
    keywords: dict[str, Any] = {"kernel_size": size, "padding": padding}
    if spacing is not None:
        keywords["spacing"] = [spacing] * dimensions
    one: Any = {
        "spherical": variance,
        "diagonal": np.full(dimensions, variance),
        "full": variance * np.eye(dimensions),
    }[kind]
    maps = np.broadcast_to(one, (*image.shape, *np.shape(one)))
    result = local_gaussian_blur(image, maps, **keywords)
    np.testing.assert_allclose(result, gaussian_blur(image, variance, **keywords), rtol=1e-9, atol=1e-12)
    single = local_gaussian_blur(image.astype(np.float32), maps.astype(np.float32), **keywords)
    np.testing.assert_allclose(single, result, rtol=1e-5, atol=1e-5)


@given(seed=seeds, dimensions=st.integers(1, 3), size=st.floats(0.1, 1))
def test_parameters_of_covariances_go_there_and_back(seed: int, dimensions: int, size: float) -> None:
    random = np.random.default_rng(seed)
    for kind, count in (("spherical", 1), ("diagonal", dimensions), ("full", dimensions * (dimensions + 1) // 2)):
        parameters = size * random.standard_normal((4, count))
        covariance = log_cholesky_to_covariance(parameters, kind)
        back = covariance_to_log_cholesky(covariance, kind)
        np.testing.assert_allclose(log_cholesky_to_covariance(back, kind), covariance, rtol=1e-6, atol=1e-12)
        kernels = gaussian_kernel(
            covariance[:, 0] if kind == "spherical" else covariance, dimensions, covariance_type=kind, kernel_size=3
        )
        np.testing.assert_allclose(kernels.reshape(4, -1).sum(1), 1, rtol=1e-9)


@given(
    seed=seeds,
    dimensions=st.integers(1, 3),
    mode=st.sampled_from(MODES),
    channels=st.integers(1, 5),
    sub_sample=st.booleans(),
)
def test_a_new_block_changes_nothing_and_a_trained_one_knows_no_order_of_voxels(
    seed: int, dimensions: int, mode: str, channels: int, sub_sample: bool
) -> None:
    torch.manual_seed(seed)
    block = NonLocalBlock(channels, spatial_dims=dimensions, mode=mode, sub_sample=sub_sample).double()
    lengths = np.random.default_rng(seed).integers(1, 7, dimensions).tolist()
    x = torch.randn(2, channels, *lengths, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(block(x), x)
        torch.nn.init.normal_(block.out.weight)
        y = block(x)
        assert torch.isfinite(y).all()
        torch.testing.assert_close(block(x[:1]), y[:1])
        if not sub_sample:
            flipped = list(range(2, 2 + dimensions))
            torch.testing.assert_close(block(x.flip(flipped)), y.flip(flipped), rtol=1e-9, atol=1e-9)


# ---------------------------------------------------------------- settings and amounts

POSITIVE = st.floats(1e-300, 1e300)
RADIUS = st.one_of(st.integers(0, 50), st.tuples(*[st.integers(0, 9)] * 3), st.tuples(*[st.integers(0, 9)] * 2))
VALID = st.fixed_dictionaries(
    {},
    optional={
        "sigma": st.one_of(st.none(), st.just("map"), st.floats(0, 1e300), st.lists(st.floats(0, 1e9), max_size=4)),
        "method": st.sampled_from(["auto", *METHODS]),
        "noise": st.sampled_from(["gaussian", "rician"]),
        "h": st.one_of(st.none(), POSITIVE, st.integers(1, 10**20)),
        "patch_radius": RADIUS,
        "search_radius": RADIUS,
        "spacing": st.one_of(st.none(), st.lists(POSITIVE, min_size=2, max_size=3)),
        "channels": st.one_of(st.none(), st.integers(-9, 9), st.integers(-9, 9).map(np.int64)),
        "series": st.one_of(st.none(), st.integers(-9, 9)),
        "despeckle": st.booleans(),
        "seed": st.integers(0, 2**53),
        "backend": st.sampled_from(["auto", *BACKENDS]),
        "device": st.sampled_from([None, "cpu"]),
        "memory": st.one_of(st.none(), st.integers(MINIMUM_MEMORY, 2**60), st.sampled_from(["2GB", "1.5 GiB"])),
        "dtype": st.sampled_from([None, *RESULT_DTYPES]),
    },
)


@given(values=VALID, gain=POSITIVE, offset=st.floats(-1e300, 1e300))
def test_settings_come_back_from_json_as_they_were(values: dict[str, Any], gain: float, offset: float) -> None:
    for settings in (Settings(**values), Settings(**{**values, "noise": "poisson"}, gain=gain, offset=offset)):
        text = settings.to_json()
        assert Settings.from_json(text) == settings
        assert Settings.from_json(text).to_json() == text
        assert json.loads(text) == json.loads(json.dumps(settings.to_dict()))


ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=2)),
    max_leaves=6,
)


@given(name=st.sampled_from(sorted(Settings().to_dict())), value=ANYTHING)
def test_settings_take_a_value_or_refuse_it_by_name(name: str, value: Any) -> None:
    try:
        settings = Settings.from_dict({name: value})
    except (ValueError, TypeError) as error:
        assert name in str(error)  # noqa: PT017
    else:
        assert Settings.from_json(settings.to_json()) == settings


@given(
    number=st.integers(0, 10**15),
    thousandths=st.integers(0, 999),
    unit=st.sampled_from(sorted(UNITS)),
    ending=st.sampled_from(["", "b", "B"]),
    space=st.sampled_from(["", " ", "  "]),
)
def test_amounts_of_memory_are_read_exactly(number: int, thousandths: int, unit: str, ending: str, space: str) -> None:
    exact = (number * 1000 + thousandths) * UNITS[unit] // 1000
    assert parse_bytes(f"{number}.{thousandths:03d}{space}{unit.upper()}{ending}") == exact
    assert parse_bytes(f"{number}{unit}{ending}") == number * UNITS[unit]
    assert size_text(exact)


@given(text=st.text(alphabet="0123456789.kmgtiB -+e", max_size=12))
def test_any_other_text_is_no_amount_of_memory(text: str) -> None:
    try:
        assert parse_bytes(text) >= 0
    except ValueError as error:
        assert "is not an amount of memory; write for instance '2GB'" in str(error)  # noqa: PT017
