"""`denoise` returns the kind of array that it was given, denoised, and changes nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from nlmeans import Cancelled, denoise, denoise_with_maps, estimate_sigma, preview, usual_h
from nlmeans.noise.rician import without_rician_bias
from tests.nlmeans.volumes import SINGLE, Floats, gain, gaussian, piecewise, rician, sample

SHAPE = (10, 11, 12)
SIGMA = 10.0
QUICK: dict[str, Any] = {"sigma": SIGMA, "search_radius": 1, "method": "classic"}
"""The fastest settings that denoise visibly."""


@pytest.fixture
def noisy() -> Floats:
    return gaussian(piecewise(*SHAPE), SIGMA)


def digits(dtype: Any) -> float:
    """Distance of neighbouring values near 200; 0.5 for integers, which are rounded."""
    return 200 * float(np.finfo(dtype).eps) if np.dtype(dtype).kind == "f" else 0.5


# ---------------------------------------------------------------- types


NUMPY_TYPES = ("u1", "i1", "u2", "i2", ">i2", "u4", "i4", ">i4", "u8", "i8", "f2", ">f4", "f4", "f8", ">f8", "g")


@pytest.mark.parametrize("dtype", NUMPY_TYPES)
def test_numpy_arrays_keep_type_and_shape(dtype: str, noisy: Floats) -> None:
    volume = np.clip(noisy / 2, 0, 120).astype(dtype)  # fits in all of them
    before = volume.copy()
    result = denoise(volume, **QUICK)
    assert type(result) is np.ndarray
    assert result.dtype == volume.dtype
    assert result.shape == volume.shape
    np.testing.assert_array_equal(volume, before)
    expected = denoise(volume.astype(np.float64), **QUICK)
    np.testing.assert_allclose(result.astype(np.float64), expected, atol=digits(dtype) + 1e-4)
    assert not np.array_equal(result, volume)


TORCH_TYPES = (
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
)


@pytest.mark.parametrize("dtype", TORCH_TYPES)
def test_torch_tensors_keep_type_shape_and_device(dtype: torch.dtype, noisy: Floats) -> None:
    volume = torch.from_numpy(np.clip(noisy / 2, 0, 120)).to(dtype)
    before = volume.clone()
    result = denoise(volume, **QUICK)
    assert type(result) is torch.Tensor
    assert result.dtype == dtype
    assert result.shape == volume.shape
    assert result.device == volume.device
    assert torch.equal(volume, before)
    expected = denoise(volume.double(), **QUICK)
    resolution = 200 * torch.finfo(dtype).eps if dtype.is_floating_point else 0.5
    torch.testing.assert_close(result.double(), expected, atol=resolution + 1e-4, rtol=0)
    assert not torch.equal(result, volume)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_specks_are_removed_from_boolean_volumes(library: str) -> None:
    volume: Any = np.zeros((9, 9, 9), dtype=bool)
    volume[:, :, 5:] = True
    volume[4, 4, 2] = True
    volume = torch.from_numpy(volume) if library == "torch" else volume
    result = denoise(volume, sigma=0.5)
    assert result.dtype == volume.dtype
    assert not result[4, 4, 2]
    assert result[:, :, 6:].all()


def test_numpy_and_torch_give_the_same_numbers(noisy: Floats) -> None:
    np.testing.assert_array_equal(denoise(torch.from_numpy(noisy), **QUICK).numpy(), denoise(noisy, **QUICK))


def view_of(volume: Floats, kind: str, folder: Path) -> npt.NDArray[Any]:
    """The same values, stored in another way."""
    if kind == "reversed":
        return volume[::-1, :, ::-1].copy()[::-1, :, ::-1]
    if kind == "transposed":
        return volume.T.copy().T
    if kind == "every other voxel":
        wide = np.zeros((*volume.shape[:2], 2 * volume.shape[2]))
        wide[..., ::2] = volume
        return wide[..., ::2]
    if kind == "memory-mapped":
        np.save(folder / "volume.npy", volume)
        return np.asarray(np.load(folder / "volume.npy", mmap_mode="r"))
    volume = volume.copy()
    volume.flags.writeable = False
    return volume


@pytest.mark.parametrize("kind", ["reversed", "transposed", "every other voxel", "memory-mapped", "read-only"])
def test_how_an_array_is_stored_does_not_matter(kind: str, noisy: Floats, tmp_path: Path) -> None:
    view = view_of(noisy, kind, tmp_path)
    assert not (view.flags.c_contiguous and view.flags.writeable)
    result = denoise(view, **QUICK)
    np.testing.assert_array_equal(result, denoise(noisy, **QUICK))
    assert result.flags.writeable
    assert not np.shares_memory(result, view)


def test_tensors_with_a_graph_or_strides_are_taken(noisy: Floats) -> None:
    tensor = torch.from_numpy(noisy).transpose(0, 2).requires_grad_()
    result = denoise(tensor, **QUICK)
    assert not result.requires_grad
    np.testing.assert_allclose(result.numpy(), denoise(noisy.transpose(2, 1, 0), **QUICK), rtol=1e-12)


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_result_of_another_type_is_not_rounded_to_integers(dtype: str, library: str, noisy: Floats) -> None:
    volume: Any = noisy.astype(np.int16)
    expected = denoise(volume.astype(np.float64), **QUICK)
    volume = torch.from_numpy(volume) if library == "torch" else volume
    result = denoise(volume, **QUICK, dtype=dtype)
    assert str(result.dtype).removeprefix("torch.") == dtype
    np.testing.assert_allclose(np.asarray(result, dtype=np.float64), expected, atol=digits(dtype) + 1e-4)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32"])
def test_integers_are_rounded_and_clipped_at_their_limits(dtype: str) -> None:
    limits = np.iinfo(dtype)
    volume = np.full((6, 8), limits.min, dtype=dtype)
    volume[:, 4:] = limits.max
    result = denoise(volume, sigma=float(limits.max) / 1000)
    np.testing.assert_allclose(result.astype(float), volume.astype(float), atol=1e-6 * float(limits.max))


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize(("dtype", "sign"), [("int64", 1), ("int64", -1), ("uint64", 1)])
def test_integers_that_float64_does_not_hold_are_refused(dtype: str, sign: int, library: str) -> None:
    """They would change even where there is no noise."""
    volume: Any = np.full((5, 6), sign * (2**53 + 2)).astype(dtype)
    volume[2, 3] -= sign * 9
    last: Any = np.full((5, 6), sign * 2**53).astype(dtype)
    if library == "torch":
        volume, last = torch.from_numpy(volume), torch.from_numpy(last)
    assert denoise(last, sigma=0)[2, 3] == sign * 2**53
    with pytest.raises(
        ValueError, match=r"volume has integers from .* beyond 2\*\*53 would be rounded; subtract an offset"
    ):
        denoise(volume, sigma=0)


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize(
    ("dtype", "unit"), [("float16", 1e6), ("float16", 1e-9), ("float32", 1e40), ("float32", 1e-40)]
)
def test_a_type_that_does_not_hold_the_values_is_refused(dtype: str, unit: float, library: str) -> None:
    volume: Any = unit * gaussian(piecewise(6, 7, 8), 10) / 200
    volume = torch.from_numpy(volume) if library == "torch" else volume
    with pytest.raises(
        ValueError, match=rf"dtype='{dtype}' holds numbers from .* but volume goes from .* take a wider"
    ):
        denoise(volume, 0.05 * unit, dtype=dtype)


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_what_overshoots_the_end_of_a_floating_point_type_is_clipped(library: str) -> None:
    largest = float(np.finfo(np.float16).max)
    values = (largest * (gaussian(piecewise(12, 12, 12), 10) > 60)).astype(np.float16)
    volume: Any = torch.from_numpy(values) if library == "torch" else values
    assert denoise(values.astype(np.float64), 9000, method="dct").max() > largest + 16
    assert float(denoise(volume, 9000, method="dct").max()) == largest


def test_integers_are_rounded_to_the_nearest() -> None:
    volume = np.array([[0, 0, 1, 0]] * 4, dtype=np.int16)
    exact = denoise(volume.astype(np.float64), sigma=1.0)
    assert 0 < exact.max() < 0.5
    np.testing.assert_array_equal(denoise(volume, sigma=1.0), 0)


# ---------------------------------------------------------------- what it does to noise


@pytest.mark.parametrize(
    ("shape", "sigma", "least"),
    [((32, 32, 32), 6.0, 9.0), ((32, 32, 32), 18.0, 7.5), ((96, 96), 6.0, 5.5), ((96, 96), 18.0, 4.5)],
)
@pytest.mark.parametrize("method", ["auto", *SINGLE])
def test_noise_is_removed(method: str, shape: tuple[int, ...], sigma: float, least: float) -> None:
    clean = piecewise(*shape)
    noisy = gaussian(clean, sigma)
    assert gain(clean, noisy, denoise(noisy, method=method)) > least


@pytest.mark.parametrize("name", ["slice", "thick"])
def test_the_samples_come_nearer_to_their_truth(name: str) -> None:
    clean, noisy = (volume[20:100, 20:100] for volume in (sample(f"{name}_clean"), sample(name)))
    spacing = (1.0, 1.0, 5.0)[: noisy.ndim]
    assert gain(clean, noisy, denoise(noisy, noise="rician", spacing=spacing)) > 4


def test_more_h_is_smoother(noisy: Floats) -> None:
    roughness = [np.abs(np.diff(denoise(noisy, **QUICK, h=h), axis=2)).mean() for h in (1.0, 9.0, 50.0)]
    assert roughness == sorted(roughness, reverse=True)


def test_h_is_in_image_units(noisy: Floats) -> None:
    own = usual_h(noisy, **QUICK)
    assert 0.6 * SIGMA <= own <= SIGMA
    np.testing.assert_allclose(denoise(noisy, **QUICK, h=own), denoise(noisy, **QUICK), rtol=1e-6)


def test_sigma_is_estimated_where_it_is_not_given(noisy: Floats) -> None:
    np.testing.assert_array_equal(denoise(noisy), denoise(noisy, estimate_sigma(noisy)))


@pytest.mark.parametrize(("sigma", "scale"), [(None, 4.0), (SIGMA, 4.0), (SIGMA, -0.01)])
def test_offset_and_scale_carry_over(sigma: float | None, scale: float, noisy: Floats) -> None:
    mapped = denoise(scale * noisy - 1024, None if sigma is None else sigma * abs(scale))
    np.testing.assert_allclose(mapped, scale * denoise(noisy, sigma) - 1024, atol=2e-4 * abs(scale))


@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_extreme_intensities_behave_like_ordinary_ones(unit: float, noisy: Floats) -> None:
    result = denoise((noisy * unit).astype(np.float32), SIGMA * unit, search_radius=1, method="classic")
    np.testing.assert_allclose(result / unit, denoise(noisy, **QUICK), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sigma", [None, 3.0])
@pytest.mark.parametrize("value", [0.0, 0.1, -1234.567, 3e8])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_a_constant_volume_comes_back_exactly(dtype: Any, value: float, sigma: float | None) -> None:
    volume = np.full((4, 5, 6), value).astype(dtype)
    np.testing.assert_array_equal(denoise(volume, sigma), volume)


@pytest.mark.parametrize("sigma", [0, 0.0, 1e-30, 5e-324])
@pytest.mark.parametrize("noise", ["gaussian", "rician"])
def test_without_noise_nothing_changes(noise: str, sigma: float, noisy: Floats) -> None:
    np.testing.assert_array_equal(denoise(noisy, sigma, noise=noise), noisy)


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 1)])
@pytest.mark.parametrize("sigma", [None, 2.0])
def test_a_single_voxel_comes_back(shape: tuple[int, ...], sigma: float | None) -> None:
    volume = np.full(shape, 7.5)
    np.testing.assert_array_equal(denoise(volume, sigma), volume)


@pytest.mark.parametrize("shape", [(1, 20, 20), (2, 3, 40), (1, 1, 50), (3, 3)])
def test_thin_volumes_are_denoised(shape: tuple[int, ...]) -> None:
    volume = gaussian(np.zeros(shape), 1.0)
    assert denoise(volume, 1.0).std() < 0.8 * volume.std()


def test_rician_noise_leaves_no_bias() -> None:
    clean = np.zeros((20, 20, 20))
    clean[10:] = 40.0
    noisy = rician(clean, SIGMA)
    result = denoise(noisy, SIGMA, noise="rician")
    inner = slice(14, None)
    assert noisy[:6].mean() == pytest.approx(12.5, abs=0.5)
    assert result[:6].mean() < 2.5
    assert noisy[inner].mean() == pytest.approx(41.25, abs=0.3)
    assert result[inner].mean() == pytest.approx(40, abs=0.3)
    assert denoise(noisy, SIGMA)[inner].mean() == pytest.approx(41.25, abs=0.3)


def test_rician_noise_that_varies_in_space_leaves_no_bias() -> None:
    sigma = np.broadcast_to(np.repeat([5.0, 20.0], 12)[:, None, None], (24, 20, 20))
    result = denoise(rician(np.full(sigma.shape, 50.0), sigma), sigma, noise="rician")
    assert result[:12].mean() == pytest.approx(50, abs=0.2)
    assert result[12:].mean() == pytest.approx(50, abs=0.8)


# ---------------------------------------------------------------- mask


@pytest.mark.parametrize("kind", ["bool", "uint8", "float32", "torch"])
@pytest.mark.parametrize("noise", ["gaussian", "rician"])
def test_outside_the_mask_nothing_changes(noise: str, kind: str, noisy: Floats) -> None:
    inside = np.zeros(SHAPE, dtype=bool)
    inside[2:8, 3:9, 1:7] = True
    mask: Any = torch.from_numpy(inside) if kind == "torch" else inside.astype(kind)
    result = denoise(noisy, **QUICK, noise=noise, mask=mask)
    np.testing.assert_array_equal(result[~inside], noisy[~inside])
    np.testing.assert_array_equal(result[inside], denoise(noisy, **QUICK, noise=noise)[inside])


def test_a_mask_that_is_not_finite_is_refused(noisy: Floats) -> None:
    """NaN is not zero, but masks often use it outside an organ."""
    mask = np.ones(SHAPE)
    mask[0, 0, 0] = np.nan
    for call in (lambda: denoise(noisy, **QUICK, mask=mask), lambda: estimate_sigma(noisy, mask=mask)):
        with pytest.raises(ValueError, match="mask contains NaN or infinite values"):
            call()


def test_an_empty_mask_changes_nothing(noisy: Floats) -> None:
    np.testing.assert_array_equal(denoise(noisy, mask=np.zeros(SHAPE, dtype=bool)), noisy)


def test_sigma_is_estimated_inside_the_mask() -> None:
    noisy = gaussian(np.full((24, 24, 24), 100.0), np.repeat([2.0, 10.0], 12)[:, None, None])
    mask = np.zeros(noisy.shape, dtype=bool)
    mask[:12] = True
    quiet = estimate_sigma(noisy, mask=mask)
    assert quiet == pytest.approx(2, rel=0.1)
    expected = denoise(noisy, quiet, mask=mask, search_radius=1)
    np.testing.assert_array_equal(denoise(noisy, mask=mask, search_radius=1), expected)


# ---------------------------------------------------------------- spacing


@pytest.mark.parametrize(
    ("spacing", "radius", "per_axis"),
    [
        ((1.0, 1.0, 1.0), 2, (2, 2, 2)),
        ((1.0, 1.0, 5.0), 3, (3, 3, 1)),
        ((5.0, 0.8, 0.8), 3, (0, 3, 3)),
        ([2.0, 1.0, 1.0], 2, (1, 2, 2)),
        (np.array([1.0, 1.0, 5.0]), (1, 2, 1), (1, 2, 1)),
    ],
)
def test_radii_span_the_same_distance_along_all_axes(
    spacing: Any, radius: Any, per_axis: tuple[int, ...], noisy: Floats
) -> None:
    settings: dict[str, Any] = {"method": "classic", "patch_radius": (1, 1, 1)}
    result = denoise(noisy, SIGMA, spacing=spacing, search_radius=radius, **settings)
    np.testing.assert_array_equal(result, denoise(noisy, SIGMA, search_radius=per_axis, **settings))


@pytest.mark.parametrize(("method", "search_radius"), [("classic", (1, 3, 3)), ("bayes", (3, 5, 5))])
def test_spacing_flattens_the_radii_of_the_method_too(
    method: str, search_radius: tuple[int, ...], noisy: Floats
) -> None:
    result = denoise(noisy, SIGMA, spacing=(5, 1, 1), method=method)
    radii: dict[str, Any] = {"search_radius": search_radius, "patch_radius": (0, 1, 1)}
    np.testing.assert_array_equal(result, denoise(noisy, SIGMA, method=method, **radii))


# ---------------------------------------------------------------- series and channels


@pytest.mark.parametrize("axis", [0, 1, 3, -1])
@pytest.mark.parametrize("sigma", [None, 5.0, (5.0, 20.0), np.array([5.0, 20.0]), torch.tensor([5.0, 20.0])])
def test_each_volume_of_a_series_as_if_alone(sigma: Any, axis: int, noisy: Floats) -> None:
    volumes = [noisy, 3 * noisy + 100]
    result = denoise(np.stack(volumes, axis), sigma, series=axis, search_radius=1)
    each = [sigma, sigma] if sigma is None or isinstance(sigma, float) else list(map(float, sigma))
    for volume, own, denoised in zip(volumes, each, np.moveaxis(result, axis, 0), strict=True):
        np.testing.assert_array_equal(denoised, denoise(volume, own, search_radius=1))


def test_a_series_of_images(noisy: Floats) -> None:
    result = denoise(noisy, **QUICK, series=0)
    np.testing.assert_array_equal(result, np.stack([denoise(image, **QUICK) for image in noisy]))


@pytest.mark.parametrize("axis", [0, 2, -1])
def test_channels_may_be_any_axis(axis: int) -> None:
    image = gaussian(np.stack([piecewise(12, 13)] * 3), SIGMA)
    result = denoise(np.moveaxis(image, 0, axis), SIGMA, channels=axis)
    np.testing.assert_array_equal(np.moveaxis(result, axis, 0), denoise(image, SIGMA, channels=0))


def test_channels_are_compared_together() -> None:
    """A clear channel guides a noisy one, each in units of its own noise."""
    clean = piecewise(20, 20, 20)
    noisy = np.stack([gaussian(clean, 5.0), gaussian(clean, 30.0, seed=1)])
    together = denoise(noisy, (5.0, 30.0), channels=0, method="classic")
    alone = denoise(noisy[1], 30.0, method="classic")
    assert gain(clean, noisy[1], together[1]) > gain(clean, noisy[1], alone) + 0.3


def test_a_channel_without_noise_is_left_alone() -> None:
    image = np.stack([gaussian(piecewise(16, 16), SIGMA), np.full((16, 16), 3.0)])
    result = denoise(image, (SIGMA, 0.0), channels=0, h=8.0)
    np.testing.assert_array_equal(result[1], image[1])
    np.testing.assert_allclose(result[0], denoise(image[0], SIGMA, h=8.0), rtol=1e-6)


def test_channels_and_series_together(noisy: Floats) -> None:
    array = np.stack([noisy, noisy[::-1], noisy[:, ::-1]])[..., None] + np.array([0.0, 50.0])
    result = denoise(array, (5.0, 10.0, 20.0), channels=0 - 1, series=0, search_radius=1)
    for volume, sigma, denoised in zip(array, (5.0, 10.0, 20.0), result, strict=True):
        np.testing.assert_array_equal(denoised, denoise(volume, sigma, channels=-1, search_radius=1))


# ---------------------------------------------------------------- noise that varies in space


@pytest.mark.parametrize("noise", ["gaussian", "rician"])
def test_a_constant_map_of_sigma_is_as_good_as_its_value(noise: str, noisy: Floats) -> None:
    result = denoise(noisy, np.full(SHAPE, SIGMA), noise=noise)
    np.testing.assert_allclose(result, denoise(noisy, SIGMA, noise=noise), atol=1e-3)


def test_a_map_serves_uneven_noise_better_than_any_number() -> None:
    clean = piecewise(20, 20, 20)
    ramp = np.broadcast_to(np.linspace(2, 30, 20)[:, None, None], clean.shape)
    noisy = gaussian(clean, ramp)
    with_map = gain(clean, noisy, denoise(noisy, ramp))
    best_number = max(gain(clean, noisy, denoise(noisy, sigma)) for sigma in (8.0, 16.0, 24.0))
    assert with_map > best_number + 0.5


@pytest.mark.parametrize(("method", "more"), [("bayes", 1.0), ("wiener", 0.3)])
def test_dim_tissue_in_rician_noise_keeps_its_detail(method: str, more: float) -> None:
    """Dim magnitudes vary less than sigma. A filter that knows only sigma would take anatomy for noise."""
    z, y, _ = np.meshgrid(*[np.arange(24)] * 3, indexing="ij")
    clean, sigma = 60 + 40 * np.sin(z / 1.5) * np.sin(y / 1.7), 40.0
    random = np.random.default_rng(0)
    real, imaginary = (sigma * random.standard_normal(clean.shape) for _ in range(2))
    magnitude = np.hypot(clean + real, imaginary)
    plain = without_rician_bias(torch.from_numpy(denoise(magnitude, sigma, method=method)), sigma).numpy()
    result = denoise(magnitude, sigma, method=method, noise="rician")
    assert gain(clean, magnitude, result) > gain(clean, magnitude, plain) + more


@pytest.mark.parametrize("noise", ["gaussian", "rician"])
def test_a_map_can_be_estimated_on_the_way(noise: str, noisy: Floats) -> None:
    estimated = estimate_sigma(noisy, noise=noise, map=True)
    result = denoise(noisy, "map", noise=noise, method="classic")
    np.testing.assert_allclose(result, denoise(noisy, estimated, noise=noise, method="classic"), atol=1e-4)


def test_maps_are_estimated_for_each_volume_of_a_series_and_each_channel(noisy: Floats) -> None:
    several = np.stack([noisy, 3 * noisy], axis=-1)
    result = denoise(several, "map", method="classic", series=-1)
    np.testing.assert_allclose(result[..., 1], denoise(3 * noisy, "map", method="classic"), atol=1e-3)
    together = denoise(several, "map", method="classic", channels=-1)
    np.testing.assert_allclose(together[..., 1], 3 * together[..., 0], atol=1e-2)


def test_a_map_is_not_for_counts(noisy: Floats) -> None:
    with pytest.raises(ValueError, match=r"sigma='map' does not work with noise='poisson'.* give the read noise"):
        denoise(noisy, "map", noise="poisson")


def test_where_the_map_is_zero_nothing_changes(noisy: Floats) -> None:
    sigma = np.full(SHAPE, SIGMA)
    sigma[:4] = 0
    result = denoise(noisy, torch.from_numpy(sigma))
    np.testing.assert_array_equal(result[:4], noisy[:4])
    assert (result[4:] != noisy[4:]).mean() > 0.9
    np.testing.assert_array_equal(denoise(noisy, np.zeros(SHAPE)), noisy)


# ---------------------------------------------------------------- tiles, threads, repetition


def tile_count(log: str) -> int:
    return int(re.findall(r" in (\d+) tiles", log)[0])


@pytest.mark.parametrize(
    ("backend", "memory", "arguments"),
    [
        ("auto", 200_000, {}),
        ("loop", 200_000, {}),
        ("full", 3_000_000, {}),
        ("loop", 200_000, {"noise": "rician"}),
        ("loop", 300_000, {"map": True}),
    ],
)
def test_tiles_change_nothing(
    backend: str,
    memory: int,
    arguments: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    volume = gaussian(piecewise(19, 20, 21), SIGMA)
    sigma: Any = SIGMA
    if arguments.get("map"):
        arguments, sigma = {}, np.full(volume.shape, SIGMA) * np.linspace(0.5, 1, 21)
    arguments = {"method": "classic", "search_radius": 1, "backend": backend, **arguments}
    whole = denoise(volume, sigma, **arguments)
    monkeypatch.setattr("nlmeans.engine.settings.MINIMUM_MEMORY", 0)
    with caplog.at_level("INFO", "nlmeans"):
        tiled = denoise(volume, sigma, memory=memory, **arguments)
    assert tile_count(caplog.text) >= 4
    np.testing.assert_allclose(tiled, whole, atol=1e-6 * np.ptp(volume))


def test_tiles_change_nothing_of_a_masked_series_with_channels(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, rng: np.random.Generator
) -> None:
    array = gaussian(np.stack([piecewise(18, 18, 18)] * 4).reshape(2, 2, 18, 18, 18), SIGMA)
    mask = rng.random((18, 18, 18)) < 0.5
    arguments: dict[str, Any] = {**QUICK, "series": 0, "channels": 1, "mask": mask}
    whole = denoise(array, **arguments)
    monkeypatch.setattr("nlmeans.engine.settings.MINIMUM_MEMORY", 0)
    with caplog.at_level("INFO", "nlmeans"):
        tiled = denoise(array, **arguments, memory=200_000)
    assert tile_count(caplog.text) >= 4
    np.testing.assert_allclose(tiled, whole, atol=1e-6 * np.ptp(array))


def test_too_little_memory_for_one_voxel_is_refused(noisy: Floats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nlmeans.engine.settings.MINIMUM_MEMORY", 0)
    with pytest.raises(ValueError, match=r"memory=0.98 KiB is too little: one voxel .*; allow more or use a smaller"):
        denoise(noisy, **QUICK, memory=1000)


def test_a_run_repeats_bit_for_bit(noisy: Floats) -> None:
    np.testing.assert_array_equal(denoise(noisy), denoise(noisy))


def test_the_number_of_threads_does_not_matter(noisy: Floats) -> None:
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(denoise(noisy, SIGMA))
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_allclose(*results, atol=1e-4)


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_the_device_may_be_named(device: Any, noisy: Floats) -> None:
    np.testing.assert_array_equal(denoise(noisy, **QUICK, device=device), denoise(noisy, **QUICK))


# ---------------------------------------------------------------- progress


def test_progress_rises_to_one_over_tiles_and_series(noisy: Floats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nlmeans.engine.settings.MINIMUM_MEMORY", 0)
    seen: list[float] = []
    denoise(np.stack([noisy] * 3), **QUICK, series=0, memory=80_000, progress=seen.append)
    assert seen == sorted(seen)
    assert 0 <= seen[0] < 0.1
    assert seen[-1] == 1
    assert len(set(seen)) > 10


@pytest.mark.parametrize("after", [0.0, 0.5])
def test_returning_false_cancels(after: float, noisy: Floats) -> None:
    seen: list[float] = []

    def stop(fraction: float) -> bool:
        seen.append(fraction)
        return fraction < after

    with pytest.raises(Cancelled):
        denoise(np.stack([noisy] * 4), **QUICK, series=0, progress=stop)
    assert [f for f in seen if f >= after] == seen[-1:]  # nothing was computed after the first refusal


def test_an_error_in_the_callback_ends_the_run(noisy: Floats) -> None:
    def fail(fraction: float) -> None:
        raise KeyError("window closed")

    with pytest.raises(KeyError, match="window closed"):
        denoise(noisy, **QUICK, progress=fail)


def test_a_bar_is_shown_on_request(noisy: Floats, capsys: pytest.CaptureFixture[str]) -> None:
    denoise(noisy, **QUICK, progress=True)
    shown = capsys.readouterr()
    assert "denoising 100%" in shown.err
    assert shown.out == ""
    denoise(noisy, **QUICK)
    assert capsys.readouterr() == ("", "")


# ---------------------------------------------------------------- refusals


VOLUME = np.zeros((4, 5, 6))

INVALID: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"volume": [[1.0]]}, TypeError, "volume is a list; give a numpy array or a torch tensor"),
    ({"volume": VOLUME.astype(complex), "noise": "rician"}, ValueError, "'rician' does not fit a complex volume"),
    ({"volume": torch.zeros(2, 2).to_sparse()}, TypeError, "volume has layout .*to_dense"),
    ({"volume": np.zeros((4, 0, 6))}, ValueError, r"volume has shape \(4, 0, 6\) and so no voxels"),
    ({"volume": np.zeros(4)}, ValueError, r"volume has 1 spatial axes .*give \(H, W\) or \(D, H, W\)"),
    ({"volume": np.zeros((2, 2, 2, 2))}, ValueError, "volume has 4 spatial axes .*channels= or series="),
    ({"volume": np.full((4, 5), np.nan)}, ValueError, "volume is NaN everywhere"),
    ({"volume": torch.full((4, 5), -torch.inf)}, ValueError, "volume contains infinite values"),
    ({"sigma": -1}, ValueError, "sigma=-1 must not be negative"),
    ({"sigma": float("nan")}, ValueError, "sigma=nan must be finite"),
    ({"sigma": "3"}, TypeError, "sigma='3' must be a number"),
    ({"sigma": (1.0, 2.0)}, ValueError, "sigma has 2 numbers; give one, or one per volume"),
    ({"sigma": (1.0, 2.0), "series": 0}, ValueError, r"sigma has 2 numbers; .*here 4"),
    ({"sigma": np.ones((4, 5))}, ValueError, r"sigma has shape \(4, 5\), but .* spatial shape \(4, 5, 6\)"),
    ({"sigma": np.full((4, 5, 6), -1.0)}, ValueError, "sigma=-1.0 must not be negative"),
    ({"sigma": np.full((4, 5, 6), np.nan)}, ValueError, "sigma contains NaN"),
    ({"method": "bm4d"}, ValueError, "method='bm4d' is not known; choose one of 'auto', 'classic'"),
    ({"noise": "poison"}, ValueError, "noise='poison' is not known; choose one of 'auto', 'gaussian', 'rician'"),
    ({"h": 0}, ValueError, "h=0 must be greater than 0"),
    ({"patch_radius": 1.5}, ValueError, "patch_radius=1.5 must be whole: .*never 4"),
    ({"search_radius": -2}, ValueError, "search_radius=-2 must not be negative"),
    ({"search_radius": (1, 1)}, ValueError, r"search_radius=\(1, 1\) must have one number per spatial axis: 3"),
    ({"mask": np.ones((4, 5))}, ValueError, r"mask has shape \(4, 5\), but .* spatial shape \(4, 5, 6\)"),
    ({"mask": [1]}, TypeError, "mask is a list"),
    ({"spacing": (1, 1)}, ValueError, r"spacing=\(1.0, 1.0\) must have one number per spatial axis: 3"),
    ({"spacing": (1, 0, 1)}, ValueError, "spacing=0 must be greater than 0"),
    ({"spacing": 1.0}, ValueError, r"spacing=\(1.0,\) must have one number per spatial axis"),
    ({"channels": 3}, ValueError, "channels=3 is not an axis of an array with 3 axes"),
    ({"series": -4}, ValueError, "series=-4 is not an axis"),
    ({"series": 0, "channels": -3}, ValueError, "channels=0 and series=0 name the same axis"),
    ({"series": 0, "channels": 1}, ValueError, "volume has 1 spatial axes"),
    ({"backend": "cuda"}, ValueError, "backend='cuda' is not known; choose one of 'auto', '"),
    ({"device": "gpu"}, ValueError, "device='gpu' is not available or not known to torch; use one of cpu"),
    ({"device": "cuda:99"}, ValueError, "device='cuda:99' is not available or not known to torch; use one of cpu"),
    ({"memory": 1000}, ValueError, "memory=1000 bytes is too little .*16 MiB"),
    ({"memory": "lots"}, ValueError, "memory='lots' is not an amount of memory; write for instance '2GB'"),
    ({"memory": "1MB"}, ValueError, "memory=1000000 bytes is too little"),
    ({"dtype": "int16"}, ValueError, "dtype='int16' is not known; choose one of 'float16', 'float32', 'float64'"),
    ({"progress": 3}, TypeError, "progress=3 must be None, True for a bar, or a function"),
]


@pytest.mark.parametrize(
    ("arguments", "error", "message"), INVALID, ids=[f"{i}-{'-'.join(row[0])}" for i, row in enumerate(INVALID)]
)
def test_refused_with_the_argument_named(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        denoise(**{"volume": VOLUME, **arguments})


# ---------------------------------------------------------------- NaN


def with_background(value: float, *shape: int) -> Floats:
    """A volume, or a series with the same background in all volumes."""
    volume = 100 + SIGMA * np.random.default_rng(0).standard_normal(shape)
    volume[:, :4] = value
    volume[2, 9, 3] = value
    return volume.astype(np.float32)


@pytest.mark.parametrize("method", ["classic", "bayes", "dct", "wiener"])
@pytest.mark.parametrize("sigma", [None, SIGMA, "map"])
def test_nan_stays_and_the_rest_is_as_beside_a_removed_background(method: str, sigma: Any) -> None:
    holes, zeros = (with_background(value, 14, 15, 16) for value in (np.nan, 0))
    kept = holes.copy()
    found = denoise(holes, sigma, method=method, h=None if sigma is None else 8.0)
    outside = zeros == 0
    np.testing.assert_array_equal(np.isnan(found), outside)
    np.testing.assert_array_equal(holes, kept)
    expected = denoise(zeros, sigma, method=method, h=None if sigma is None else 8.0, mask=~outside)
    inside = ~outside
    assert found[inside].std() < 0.7 * holes[inside].std()
    if sigma == SIGMA:
        np.testing.assert_allclose(found[inside], expected[inside], atol=0.5)


def test_nan_stays_in_every_kind_of_array_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    import dask.array as da

    holes = with_background(np.nan, 14, 15, 16)
    expected = denoise(holes, **QUICK)
    assert [message for message in caplog.messages if "NaN" in message] == [
        f"{np.isnan(holes).sum()} voxels are NaN: they count as outside, and stay as they are"
    ]
    tensor = denoise(torch.from_numpy(holes), **QUICK)
    np.testing.assert_array_equal(tensor.numpy(), expected)
    lazy = denoise(da.from_array(holes, chunks=7), **QUICK).compute()
    np.testing.assert_allclose(lazy, expected, rtol=1e-5)
    out = np.zeros_like(holes)
    assert denoise(holes, **QUICK, out=out) is out
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_allclose(preview(holes, 7, **QUICK), expected[7], rtol=1e-5)


@pytest.mark.parametrize("count", [3, 12])
def test_nan_stays_in_a_series(count: int) -> None:
    series = with_background(np.nan, 12, 13, 14)[..., None] * np.linspace(1, 0.5, count)
    noise = SIGMA * np.random.default_rng(1).standard_normal(series.shape)
    found = denoise(series + noise, SIGMA, series=3)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(series))
    assert np.nanstd(found - series) < np.nanstd(noise)


def test_nan_stays_in_complex_volumes() -> None:
    holes = with_background(np.nan, 12, 13, 14) * np.exp(0.3j)
    found = denoise(holes.astype(np.complex64), SIGMA)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(holes))


def test_the_noise_is_measured_beside_nan() -> None:
    holes = with_background(np.nan, 40, 40, 40)
    assert estimate_sigma(holes) == pytest.approx(SIGMA, rel=0.1)
    assert estimate_sigma(holes, mask=np.ones(holes.shape)) == pytest.approx(SIGMA, rel=0.1)
    maps = denoise_with_maps(holes, method="classic")
    np.testing.assert_array_equal(np.isnan(maps.residual), np.isnan(holes))
