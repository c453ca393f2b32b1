"""The operator compared with its float64 reference, and what must hold with every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nlmeans import Cancelled, nonlocal_means
from tests.nlmeans import reference
from tests.nlmeans.operator.cases import (
    ANY_CENTER,
    BACKENDS,
    DOUBLE,
    EXACT,
    PRECISIONS,
    SUBTRACTING,
    TOLERANCE,
    Case,
    finest,
    largest_error,
)
from tests.nlmeans.volumes import gain, gaussian, piecewise

CENTERS = ("one", "max", "zero", 0.0, 0.1, 1.0)


@pytest.mark.parametrize("case", [*ANY_CENTER, *SUBTRACTING])
@pytest.mark.parametrize(("backend", "dtype"), PRECISIONS)
def test_agrees_with_the_reference(backend: str, case: str, dtype: Any, rng: np.random.Generator) -> None:
    error = largest_error((ANY_CENTER | SUBTRACTING)[case], dtype, rng, backend)
    assert error < TOLERANCE[dtype]


@pytest.mark.parametrize("center", CENTERS)
@pytest.mark.parametrize("h", [0.02, 0.3])
@pytest.mark.parametrize("backend", EXACT)
def test_center_rules_agree_with_the_reference(
    backend: str, h: float, center: str | float, rng: np.random.Generator
) -> None:
    case = Case(shape=(2, 5, 4), arguments={"h": h, "sigma": 0.01})
    dtype = finest(backend)
    assert largest_error(case, dtype, rng, backend, center=center) < TOLERANCE[dtype]


@pytest.mark.parametrize("center", CENTERS)
@pytest.mark.parametrize("backend", EXACT)
def test_a_window_of_one_voxel_changes_nothing(backend: str, center: str | float, rng: np.random.Generator) -> None:
    image = rng.random((3, 4, 5), dtype=np.float32)
    result = nonlocal_means(image, 0.5, search_radius=0, center=center, backend=backend)
    np.testing.assert_allclose(result, image, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_float_images_and_maps_of_other_types_are_taken(backend: str, rng: np.random.Generator) -> None:
    image, h = rng.random((6, 7), dtype=np.float32), rng.integers(1, 3, (6, 7))
    assert np.array_equal(
        nonlocal_means(image, h, backend=backend),
        nonlocal_means(image, torch.from_numpy(h), backend=backend),
    )


# ---------------------------------------------------------------- what must always hold


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_offset_of_the_intensities_changes_nothing(backend: str, rng: np.random.Generator) -> None:
    image = rng.integers(0, 100, (5, 9, 9)).astype(np.float32)
    plain = nonlocal_means(image, 40.0, backend=backend)
    shifted = nonlocal_means(image + 10_000, 40.0, backend=backend)
    np.testing.assert_allclose(shifted - 10_000, plain, atol=2e-3)  # float32 resolves 1e-3 at 1e4


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("scale", "offset"), [(3.0, -7.0), (-0.5, 2.0)])
def test_offset_and_scale_carry_over(backend: str, scale: float, offset: float, rng: np.random.Generator) -> None:
    image, sigma = rng.random((4, 6, 7)).astype(finest(backend)), 0.0 if backend == "windowed" else 0.1
    plain = nonlocal_means(image, 0.3, sigma=sigma, backend=backend)
    mapped = nonlocal_means(scale * image + offset, 0.3 * abs(scale), sigma=sigma * abs(scale), backend=backend)
    np.testing.assert_allclose(mapped, scale * plain + offset, rtol=TOLERANCE[finest(backend)])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("value", [0.0, 0.1, -1234.567, 1e30])
def test_a_constant_image_comes_back_exactly(backend: str, value: float) -> None:
    image = np.full((3, 5, 6), value, dtype=np.float32)
    np.testing.assert_array_equal(nonlocal_means(image, 0.5, backend=backend), image)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_extreme_intensities_behave_like_ordinary_ones(backend: str, unit: float, rng: np.random.Generator) -> None:
    image = rng.random((4, 6, 7)).astype(np.float32)
    extreme = nonlocal_means((image * unit).astype(np.float32), 0.3 * unit, backend=backend)
    np.testing.assert_allclose(extreme / unit, nonlocal_means(image, 0.3, backend=backend), rtol=1e-5)


@pytest.mark.parametrize(("backend", "dtype"), PRECISIONS)
def test_a_vanishing_h_averages_equal_voxels_only(backend: str, dtype: Any) -> None:
    image = np.repeat([0.0, 1.0], 4).astype(dtype) * np.ones((6, 1), dtype=dtype)
    np.testing.assert_allclose(nonlocal_means(image, 1e-35, backend=backend, patch_radius=0), image, atol=1e-6)


@pytest.mark.parametrize("center", ["one", "max", 0.1])
@pytest.mark.parametrize("backend", EXACT)
def test_a_voxel_unlike_all_others_keeps_its_value(backend: str, center: str | float) -> None:
    image = np.zeros((7, 7), dtype=finest(backend))
    image[3, 3] = 1000.0
    result = nonlocal_means(image, 1.0, patch_radius=0, center=center, backend=backend)
    assert result[3, 3] == pytest.approx(1000, rel=1e-7)


@pytest.mark.parametrize("backend", EXACT)
def test_without_its_own_weight_a_voxel_unlike_all_others_becomes_their_mean(backend: str) -> None:
    image = np.zeros((7, 7), dtype=finest(backend))
    image[3, 3] = 1000.0
    result = nonlocal_means(image, 1.0, patch_radius=0, center="zero", backend=backend)
    assert result[3, 3] == pytest.approx(0, abs=1e-3)  # the resolution of float32 at 1000


@pytest.mark.parametrize(("center", "least"), [("one", 5.0), ("max", 7.5)])
def test_noise_is_removed(center: str, least: float) -> None:
    clean = piecewise(16, 16, 16)
    noisy = gaussian(clean, 10.0)
    denoised = nonlocal_means(noisy, 9.0, sigma=10.0, search_radius=3, center=center)
    assert gain(clean, noisy, denoised) > least


# ---------------------------------------------------------------- types


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int16, torch.uint8]
)
@pytest.mark.parametrize("backend", DOUBLE)
def test_tensors_keep_their_type(backend: str, dtype: torch.dtype) -> None:
    image = torch.arange(30).reshape(5, 6).to(dtype)
    result = nonlocal_means(image, 10.0, backend=backend)
    assert result.dtype == dtype
    assert result.shape == image.shape
    exact = nonlocal_means(image.double(), 10.0, backend="windowed" if backend == "windowed" else "loop")
    resolution = torch.finfo(dtype).eps if dtype.is_floating_point else 0
    torch.testing.assert_close(result.double(), exact, rtol=max(resolution, 1e-6), atol=0.5 if not resolution else 1e-5)


@pytest.mark.parametrize("dtype", ["<f8", ">f8", ">f4", ">i2", "u2", "?"])
def test_numpy_arrays_keep_their_type(dtype: str, rng: np.random.Generator) -> None:
    image = rng.integers(0, 2, (5, 6)).astype(dtype)
    before = image.copy()
    result = nonlocal_means(image, 0.7)
    assert isinstance(result, np.ndarray)
    assert result.dtype == image.dtype
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("order", ["<", ">"])
def test_float64_is_computed_in_float64(order: str, rng: np.random.Generator) -> None:
    image = rng.random((5, 6))
    expected = reference.nonlocal_means(image[None, None], 0.3, patch_radius=(0, 1, 1), search_radius=(0, 1, 1))[0, 0]
    result = nonlocal_means(image.astype(f"{order}f8"), 0.3, search_radius=1)
    np.testing.assert_allclose(result, expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["int32", ">i4", "int64"])
def test_small_differences_of_large_integers_survive(dtype: str, rng: np.random.Generator) -> None:
    image = rng.integers(0, 100, (6, 7))
    offset = 2**30 + 1
    near = nonlocal_means(image, 30.0)
    np.testing.assert_array_equal(nonlocal_means((image + offset).astype(dtype), 30.0), near + offset)


@pytest.mark.parametrize("channels", [0, 1, 2, -1])
def test_channels_may_be_any_axis(channels: int, rng: np.random.Generator) -> None:
    image = rng.random((3, 5, 6))
    result = nonlocal_means(np.moveaxis(image, 0, channels), 0.3, channels=channels)
    np.testing.assert_allclose(np.moveaxis(result, channels, 0), nonlocal_means(image, 0.3, channels=0), rtol=1e-12)


def test_channels_share_their_weights(rng: np.random.Generator) -> None:
    image = rng.random((2, 6, 7))
    together = nonlocal_means(image, 0.3, channels=0)
    guided = [nonlocal_means(channel, 0.3, guide=image) for channel in image]
    np.testing.assert_allclose(together, guided, rtol=1e-12)


def test_a_plane_is_a_volume_of_depth_one(rng: np.random.Generator) -> None:
    image = rng.random((8, 9))
    volume = nonlocal_means(image[None], 0.3, patch_radius=(0, 1, 1), search_radius=(0, 2, 2))
    np.testing.assert_array_equal(nonlocal_means(image, 0.3, patch_radius=1, search_radius=2), volume[0])


@pytest.mark.parametrize("number", [np.float32(0.5), np.array(0.5), torch.tensor(0.5)])
def test_numbers_of_any_kind_are_taken_for_h_and_sigma(number: Any, rng: np.random.Generator) -> None:
    image = rng.random((5, 6))
    np.testing.assert_array_equal(nonlocal_means(image, number, sigma=number), nonlocal_means(image, 0.5, sigma=0.5))


# ---------------------------------------------------------------- progress and refusals


@pytest.mark.parametrize("backend", ["windowed", "loop"])
def test_progress_rises_to_one(backend: str) -> None:
    seen: list[float] = []
    nonlocal_means(np.zeros((20, 20)), 1.0, backend=backend, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[0] >= 0
    assert seen[-1] == 1


@pytest.mark.parametrize("backend", ["windowed", "loop"])
def test_returning_false_cancels(backend: str) -> None:
    with pytest.raises(Cancelled, match="cancelled by the progress callback"):
        nonlocal_means(np.zeros((20, 20)), 1.0, backend=backend, progress=lambda fraction: False)


IMAGE = np.zeros((4, 5))

INVALID: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"image": [[1.0]]}, TypeError, "image is a list; give a numpy array or a torch tensor"),
    ({"image": np.zeros(4)}, ValueError, r"image has 1 spatial axes .*give \(H, W\) or \(D, H, W\)"),
    ({"image": np.zeros((2, 3, 4, 5))}, ValueError, "image has 4 spatial axes .*channels="),
    ({"image": np.zeros((0, 5))}, ValueError, r"image has shape \(0, 5\) and so no voxels"),
    ({"image": np.full((4, 5), np.nan)}, ValueError, "image contains NaN or infinite values; replace them"),
    ({"image": IMAGE.astype(complex)}, TypeError, "image has dtype complex128; give real numbers"),
    ({"image": IMAGE.astype(object)}, TypeError, "image has dtype object"),
    ({"image": torch.zeros(4, 5).to_sparse()}, TypeError, "image has layout torch.sparse_coo; .*to_dense"),
    ({"h": 0}, ValueError, "h=0 must be greater than 0"),
    ({"h": -1.0}, ValueError, "h=-1.0 must be greater than 0"),
    ({"h": np.nan}, ValueError, "h=nan must be finite"),
    ({"h": "2"}, TypeError, "h='2' must be a number"),
    ({"h": True}, TypeError, "h=True must be a number"),
    ({"h": np.ones((4, 4))}, ValueError, r"h has shape \(4, 4\), but .* spatial shape \(4, 5\)"),
    ({"h": np.zeros((4, 5))}, ValueError, "h=0.0 must be greater than 0"),
    ({"h": np.full((4, 5), np.inf)}, ValueError, "h contains NaN or infinite"),
    ({"sigma": -0.1}, ValueError, "sigma=-0.1 must not be negative"),
    ({"sigma": np.full((4, 5), -1.0)}, ValueError, "sigma=-1.0 must not be negative"),
    ({"patch_radius": -1}, ValueError, "patch_radius=-1 must not be negative"),
    ({"patch_radius": 1.5}, ValueError, "patch_radius=1.5 must be whole: .*never 4"),
    ({"search_radius": (1, 1, 1)}, ValueError, r"search_radius=\(1, 1, 1\) must have one number per spatial axis: 2"),
    ({"search_radius": None}, TypeError, "search_radius=None must be a whole number"),
    ({"guide": np.zeros((4, 6))}, ValueError, r"guide has shape \(4, 6\); give \(4, 5\), or \(F, 4, 5\)"),
    ({"guide": np.full((4, 5), np.inf)}, ValueError, "guide contains NaN"),
    ({"guide_scale": (1.0, 2.0)}, ValueError, r"guide_scale=\(1.0, 2.0\) must have one number per feature: 1"),
    ({"guide_scale": (0.0,)}, ValueError, "guide_scale=0.0 must be greater than 0"),
    ({"center": "two"}, ValueError, "center='two' is not known; choose one of 'one', 'max', 'zero'"),
    ({"center": 1.5}, ValueError, "center=1.5 must be at most 1"),
    ({"center": -0.5}, ValueError, "center=-0.5 must not be negative"),
    ({"channels": 2}, ValueError, "channels=2 is not an axis of an array with 2 axes"),
    ({"channels": 0}, ValueError, "image has 1 spatial axes"),
    ({"channels": 0.0}, TypeError, "channels=0.0 must be the number of an axis"),
    ({"backend": "cuda"}, ValueError, "backend='cuda' is not known; choose one of 'auto', '"),
    ({"blend": "soft"}, ValueError, "blend='soft' is not known; choose one of 'smooth', 'plain'"),
    ({"memory": -1}, ValueError, "memory=-1 must be greater than 0"),
    ({"memory": "2GB"}, TypeError, "memory='2GB' must be a number"),
    ({"progress": 3}, TypeError, "progress=3 must be .*a function of the fraction done"),
    ({"backend": "windowed", "sigma": 1.0}, ValueError, "windowed.*sigma must be 0; backend='loop' can"),
    ({"backend": "windowed", "sigma": np.ones((4, 5))}, ValueError, "sigma must be 0; backend='loop' can"),
    ({"backend": "windowed", "center": "max"}, ValueError, "windowed.*center='max' .*; backend='loop' can"),
    ({"backend": "full", "memory": 1000}, ValueError, "full.* GiB of the .* GiB allowed.*; backend='loop' can"),
]


@pytest.mark.parametrize(
    ("arguments", "error", "message"), INVALID, ids=[f"{i}-{'-'.join(row[0])}" for i, row in enumerate(INVALID)]
)
def test_refused_with_the_argument_named(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        nonlocal_means(**({"image": IMAGE, "h": 1.0} | arguments))


# ---------------------------------------------------------------- region


@pytest.mark.parametrize("backend", ["auto", "cpu", "loop", "full", "windowed"])
@pytest.mark.parametrize("region", [(slice(3, 4), slice(None), slice(2, -2)), (slice(0, 2), slice(5, 9), slice(8, 9))])
def test_region_is_that_part_of_the_whole(region: tuple[slice, ...], backend: str) -> None:
    image = gaussian(piecewise(8, 9, 10), 5.0).astype(np.float32)
    h = np.linspace(3, 8, image.size, dtype=np.float32).reshape(image.shape)
    options: dict[str, Any] = {"sigma": h / 2, "search_radius": 2, "center": "max", "backend": backend}
    if backend == "windowed":
        options |= {"sigma": 0.0, "center": "one"}
    whole = nonlocal_means(image, h, **options)
    assert nonlocal_means(image, h, region=region, **options) == pytest.approx(whole[region], abs=1e-4)


@pytest.mark.parametrize("region", [(slice(1),), (slice(0, 4, 2),) * 2, (slice(5, 5), slice(None))])
def test_region_must_be_a_box_within_the_image(region: tuple[slice, ...]) -> None:
    with pytest.raises(ValueError, match="region="):
        nonlocal_means(np.ones((8, 8)), 1.0, region=region)
