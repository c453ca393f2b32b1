"""Properties of `denoise` for any image, type, storage, method and settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import nlmeans
from nlmeans import denoise, preview
from nlmeans.methods.registry import single_methods
from tests.properties.strategies import (
    NUMPY_TYPES,
    STORES,
    TENSOR_STORES,
    TORCH_TYPES,
    Floats,
    images,
    scaled_for,
    seeds,
    shapes,
    stored,
    stored_tensor,
)

SIGMA = 0.05
"""Standard deviation of the noise in the images, whose values go from about 0 to 1."""

QUICK: dict[str, Any] = {"method": "classic", "search_radius": 1}
"""The fastest settings that denoise visibly."""

METHOD = st.sampled_from(sorted(single_methods()))
SMALL: dict[str, Any] = {"voxels": 1500, "longest": 24}


@contextmanager
def tiles_of(size: tuple[int, ...]) -> Iterator[None]:
    with mock.patch("nlmeans.engine.plan.tile_shape", return_value=size):
        yield


# ---------------------------------------------------------------- offset and scale


@given(volume=images(**SMALL), method=METHOD, power=st.integers(-60, 60), sign=st.sampled_from([1, -1]))
def test_powers_of_two_come_through_every_method_bit_for_bit(
    volume: Floats, method: str, power: int, sign: int
) -> None:
    """Powers of two change no digits, so that the method sees the same numbers."""
    scale = sign * 2.0**power
    expected = scale * denoise(volume, SIGMA, method=method)
    result = denoise(scale * volume, abs(scale) * SIGMA, method=method)
    if sign > 0:
        np.testing.assert_array_equal(result, expected)
    else:
        np.testing.assert_allclose(result, expected, atol=1e-4 * abs(scale) * SIGMA)


@given(
    value=st.one_of(st.floats(-1e30, 1e30), st.integers(-(2**15), 2**15).map(float)),
    shape=shapes(**SMALL),
    dtype=st.sampled_from(["f4", "f8", ">f8", "i2", ">i4", "i8"]),
    sigma=st.one_of(st.none(), st.just("map"), st.floats(0, 1e20)),
    method=METHOD,
)
def test_constants_come_back_bit_for_bit(value: float, shape: Any, dtype: str, sigma: Any, method: str) -> None:
    if sigma == "map" and abs(value) < 1e-30:  # too small for a map, which is in float32
        value = 0.0
    largest = 2**53 if dtype == "i8" else np.iinfo(dtype).max if np.dtype(dtype).kind == "i" else 1e38
    volume = np.full(shape, np.clip(value, -largest, largest)).astype(dtype)
    np.testing.assert_array_equal(denoise(volume, sigma, method=method), volume)


@given(volume=images(**SMALL), exponent=st.integers(-30, 30), offset=st.integers(-1000, 1000), seed=seeds)
def test_offset_and_scale_carry_over(volume: Floats, exponent: int, offset: int, seed: int) -> None:
    scale = float(10.0**exponent * np.random.default_rng(seed).uniform(1, 10))
    plain = denoise(volume, SIGMA, **QUICK)
    result = (denoise(scale * volume + offset * scale, scale * SIGMA, **QUICK) - offset * scale) / scale
    np.testing.assert_allclose(result, plain, atol=1e-4 * SIGMA + 1e-15 * abs(offset))


@given(
    volume=images(kinds=("noise", "steps", "zeros"), **SMALL),
    dtype=st.sampled_from(["i2", "u2", "i4", "u4", "f4", "f8"]),
    place=st.sampled_from(["low end", "high end", "CT"]),
)
def test_the_ends_of_a_type_are_as_good_as_its_middle(volume: Floats, dtype: str, place: str) -> None:
    """The result is that of the same volume around zero, for instance for uint16 near 65535 and for CT from −1024."""
    whole = np.round(400 * np.clip(volume, 0, 1))
    kind = np.dtype(dtype)
    limits = np.iinfo(kind) if kind.kind in "iu" else np.finfo("f4")
    shift = {"low end": float(limits.min), "high end": float(limits.max) - 400, "CT": -1024.0}[place]
    if kind.kind == "f" or (place == "CT" and kind.kind == "u"):
        shift = -1024.0 if kind.kind == "f" else 0.0
    result = denoise((whole + shift).astype(kind), 20.0, **QUICK)
    expected = denoise(whole, 20.0, **QUICK)
    # integers are rounded; float32 has fewer digits far from zero, where sigma is 20
    tolerance = 2e-3 + (0.5 if kind.kind in "iu" else 0.0)
    np.testing.assert_allclose(result.astype(np.float64) - shift, expected, atol=tolerance)
    assert result.dtype == kind


# ---------------------------------------------------------------- sigma


@given(volume=images(**SMALL), method=METHOD, noise=st.sampled_from(["gaussian", "rician"]))
def test_without_noise_nothing_changes(volume: Floats, method: str, noise: str) -> None:
    volume = np.abs(volume)
    np.testing.assert_array_equal(denoise(volume, 0, method=method, noise=noise), volume)
    np.testing.assert_array_equal(denoise(volume, np.zeros(volume.shape), method=method, noise=noise), volume)


@given(
    volume=images(**SMALL),
    method=METHOD,
    sigma=st.sampled_from([1e-300, 1e-30, 1e-9, 1e-3, 1.0, 1e3, 1e9, 1e30, 1e300]),
    noise=st.sampled_from(["gaussian", "rician", "poisson"]),
)
def test_any_sigma_gives_finite_values_within_what_there_was(
    volume: Floats, method: str, sigma: float, noise: str
) -> None:
    volume = np.abs(volume)
    if noise == "poisson" and sigma > 1e4:
        with pytest.raises(ValueError, match="use noise='gaussian'"):
            denoise(volume, sigma, method=method, noise=noise)
        return
    result = denoise(volume, sigma, method=method, noise=noise)
    assert np.isfinite(result).all()
    spread = np.ptp(volume) + (0.5 if noise == "poisson" else 0)
    least = volume.min() if noise == "gaussian" else min(0.0, volume.min())
    assert result.min() >= least - 0.5 * spread - 1e-6
    assert result.max() <= volume.max() + 0.5 * spread + 1e-6


@given(volume=images(**SMALL), method=METHOD, seed=seeds, noise=st.sampled_from(["gaussian", "rician"]))
def test_where_the_map_is_zero_nothing_changes(volume: Floats, method: str, seed: int, noise: str) -> None:
    random = np.random.default_rng(seed)
    sigma = 2 * SIGMA * random.random(volume.shape) * (random.random(volume.shape) < 0.7)
    result = denoise(np.abs(volume), sigma, method=method, noise=noise)
    np.testing.assert_array_equal(result[sigma == 0], np.abs(volume)[sigma == 0])
    assert np.isfinite(result).all()


# ---------------------------------------------------------------- parts of the volume


@given(volume=images(**SMALL), method=METHOD, seed=seeds, kind=st.sampled_from(["?", "u1", "f4", "tensor"]))
def test_the_mask_says_where_and_changes_nothing_there(volume: Floats, method: str, seed: int, kind: str) -> None:
    inside = np.random.default_rng(seed).random(volume.shape) < 0.5
    mask: Any = torch.from_numpy(inside) if kind == "tensor" else inside.astype(kind)
    result = denoise(volume, SIGMA, method=method, mask=mask)
    np.testing.assert_array_equal(result[~inside], volume[~inside])
    np.testing.assert_array_equal(result[inside], denoise(volume, SIGMA, method=method)[inside])


ROUNDING = {"linear": 2e-2}
"""Rounding error of tiles in units of sigma, if it is more than 1e-3. `linear` subtracts squares of coordinates."""


@given(
    volume=images(kinds=("noise", "steps", "ramp", "zeros"), voxels=3000, longest=60),
    method=METHOD,
    tile=st.tuples(*[st.integers(3, 24)] * 3),
)
def test_tiles_change_nothing(volume: Floats, method: str, tile: tuple[int, ...]) -> None:
    whole = denoise(volume, SIGMA, method=method)
    with tiles_of(tile):
        tiled = denoise(volume, SIGMA, method=method)
    np.testing.assert_allclose(tiled, whole, atol=ROUNDING.get(method, 1e-3) * SIGMA)


@given(
    volume=images(kinds=("noise", "steps", "ramp", "zeros"), voxels=3000, longest=60, dimensions=3),
    method=METHOD,
    axis=st.integers(-3, 2),
    data=st.data(),
)
def test_a_preview_is_that_slice_of_the_whole(volume: Floats, method: str, axis: int, data: Any) -> None:
    index = data.draw(st.integers(-volume.shape[axis], volume.shape[axis] - 1))
    whole = denoise(volume, SIGMA, method=method)
    one = preview(volume, index, axis, SIGMA, method=method)
    np.testing.assert_allclose(one, whole.take(index, axis), atol=ROUNDING.get(method, 1e-3) * SIGMA)


@given(volume=images(voxels=800, longest=24), count=st.integers(1, 3), axis=st.integers(-4, 2), method=METHOD)
def test_each_volume_of_a_series_as_if_alone(volume: Floats, count: int, axis: int, method: str) -> None:
    axis = max(axis, -volume.ndim - 1)
    axis = min(axis, volume.ndim)
    volumes = [(n + 1) * volume for n in range(count)]
    sigma = tuple(SIGMA * (n + 1) for n in range(count))
    result = denoise(np.stack(volumes, axis), sigma, series=axis, method=method)
    for n in range(count):
        np.testing.assert_array_equal(result.take(n, axis), denoise(volumes[n], sigma[n], method=method))


# ---------------------------------------------------------------- types and stores


@given(
    volume=images(voxels=300, longest=12),
    dtype=st.sampled_from(NUMPY_TYPES),
    store=st.sampled_from(STORES),
    method=st.sampled_from(["classic", "dct"]),
)
def test_arrays_of_any_type_and_store(volume: Floats, dtype: str, store: str, method: str) -> None:
    array = stored(scaled_for(volume, dtype), store)
    before, flags = array.tobytes(), (array.strides, array.flags.writeable)
    result = denoise(array, 10.0, method=method, search_radius=1)
    assert type(result) is np.ndarray
    assert (result.dtype, result.shape) == (array.dtype, array.shape)
    assert result.flags.writeable
    assert not np.may_share_memory(result, array)
    assert (array.tobytes(), (array.strides, array.flags.writeable)) == (before, flags)
    expected = denoise(array.astype(np.float64), 10.0, method=method, search_radius=1)
    assert_near(result.astype(np.float64), expected, dtype)


@given(
    volume=images(voxels=300, longest=12),
    dtype=st.sampled_from(TORCH_TYPES),
    store=st.sampled_from(TENSOR_STORES),
    method=st.sampled_from(["classic", "dct"]),
)
def test_tensors_of_any_type_and_store(volume: Floats, dtype: torch.dtype, store: str, method: str) -> None:
    values = torch.from_numpy(scaled_for(volume, "?" if dtype == torch.bool else "f8")).to(dtype)
    tensor = stored_tensor(values, store)
    before = tensor.detach().clone()
    result = denoise(tensor, 10.0, method=method, search_radius=1)
    assert type(result) is torch.Tensor
    assert (result.dtype, result.shape, result.device) == (tensor.dtype, tensor.shape, tensor.device)
    assert not result.requires_grad
    assert torch.equal(tensor.detach(), before)
    expected = denoise(before.double().numpy(), 10.0, method=method, search_radius=1)
    assert_near(result.double().numpy(), expected, str(dtype).removeprefix("torch."))


def assert_near(result: Floats, expected: Floats, dtype: str) -> None:
    """Compare a result of some type with that in float64: it is rounded and clipped, and was computed in float32."""
    if dtype == "bfloat16":
        relative, absolute = torch.finfo(torch.bfloat16).eps, 1e-3
    elif np.dtype(dtype).kind in "biu":
        relative, absolute = 0.0, 0.5 + 1e-3
        limits = (0, 1) if np.dtype(dtype).kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        expected = expected.clip(*limits)
    else:
        relative, absolute = float(np.finfo(dtype).eps), 1e-3
    np.testing.assert_allclose(result, expected, rtol=relative, atol=absolute)


@given(volume=images(voxels=300, longest=12), method=METHOD)
def test_numpy_and_torch_give_the_same_bits(volume: Floats, method: str) -> None:
    for values in (volume, volume.astype(np.float32)):
        tensor = denoise(torch.from_numpy(values), SIGMA, method=method)
        np.testing.assert_array_equal(tensor.numpy(), denoise(values, SIGMA, method=method))


# ---------------------------------------------------------------- what is refused


@given(
    volume=images(voxels=300, longest=12),
    bad=st.sampled_from([np.inf, -np.inf]),
    dtype=st.sampled_from(["f2", "f4", ">f4", "f8", "g", torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    where=st.sampled_from(["volume", "sigma"]),
    seed=seeds,
)
def test_what_is_infinite_is_refused_wherever_it_is(
    volume: Floats, bad: float, dtype: Any, where: str, seed: int
) -> None:
    place = tuple(np.random.default_rng(seed).integers(0, volume.shape))
    damaged: Any = volume.copy()
    damaged[place] = bad
    damaged = torch.from_numpy(damaged).to(dtype) if isinstance(dtype, torch.dtype) else damaged.astype(dtype)
    if where == "volume":
        calls = {
            "volume": [denoise, nlmeans.estimate_sigma, nlmeans.despeckle],
            "image": [lambda image: nlmeans.nonlocal_means(image, SIGMA)],
        }
    else:
        calls = {
            "sigma": [
                lambda sigma: denoise(volume, sigma),
                lambda sigma: nlmeans.nonlocal_means(volume, 1, sigma=sigma),
            ],
            "h": [lambda h: nlmeans.nonlocal_means(volume, h)],
            "mask": [lambda mask: denoise(volume, SIGMA, mask=mask)],
        }
    for name, functions in calls.items():
        for function in functions:
            with pytest.raises(ValueError, match=f"{name} contains (NaN or )?infinite"):
                function(damaged)


# ---------------------------------------------------------------- what is exactly constant


def with_constant_background(value: float, shape: tuple[int, ...], seed: int) -> tuple[Floats, Any]:
    """A noisy object in an exactly constant background, and the voxels of the object. It has all of a few slices."""
    places = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    inside = sum(place**2 for place, n in zip(places, shape, strict=True) if n > 3) < 0.25
    noise = SIGMA * np.random.default_rng(seed).standard_normal(shape)
    return np.where(inside, 3 * SIGMA + abs(value) + noise + (places[-1] > 0), value), inside


@given(
    value=st.one_of(st.just(0.0), st.floats(0, 100)),
    shape=st.sampled_from([(18, 20), (16, 17, 18), (3, 20, 22)]),
    seed=seeds,
    method=METHOD,
    noise=st.sampled_from(["auto", "gaussian", "rician", "chi"]),
    sigma=st.sampled_from([0.0, SIGMA, None]),
    correlation=st.sampled_from([None, ((((0.0, 0.5, 0.0), (0.5, 1.0, 0.5), (0.0, 0.5, 0.0)),))]),
)
def test_an_exactly_constant_background_stays_exactly_so(
    value: float, shape: Any, seed: int, method: str, noise: str, sigma: Any, correlation: Any
) -> None:
    volume, inside = with_constant_background(value, shape, seed)
    settings: dict[str, Any] = {"method": method, "noise": noise}
    if noise == "chi":
        settings["coils"] = 4
    if sigma:
        settings["correlation"] = correlation
    result = denoise(volume, sigma, **settings)
    assert (result[~inside] == value).all()


@given(seed=seeds, method=METHOD, noise=st.sampled_from(["gaussian", "rician"]))
def test_a_constant_background_is_the_same_in_tiles(seed: int, method: str, noise: str) -> None:
    volume, inside = with_constant_background(0.0, (16, 17, 18), seed)
    settings: dict[str, Any] = {"method": method, "noise": noise, "search_radius": 1}
    whole = denoise(volume, SIGMA, **settings)
    with tiles_of((8, 6, 18)):
        tiled = denoise(volume, SIGMA, **settings)
    np.testing.assert_allclose(tiled, whole, atol=1e-4 * SIGMA)
    np.testing.assert_array_equal(tiled == 0, whole == 0)
    assert (whole[~inside] == 0).all()
