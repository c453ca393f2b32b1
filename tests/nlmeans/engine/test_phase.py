"""Complex volumes: what their phase costs, what they keep, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nlmeans import denoise, denoise_with_maps
from nlmeans.core.layout import Layout
from nlmeans.core.metrics import psnr
from nlmeans.engine.phase import direction, plane_axes, slow_phase
from tests.nlmeans.volumes import Floats, piecewise

SIGMA = 12.0

Complexes = np.ndarray[Any, np.dtype[np.complex128]]


def phases(shape: tuple[int, ...], seed: int = 0) -> Floats:
    """Phases that are smooth within slices (the first axis) and jump between slices and volumes."""
    rng = np.random.default_rng(seed)
    depth, height, width, volumes = shape
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    waves = np.stack([x, y, x * y, x**2, y**2, np.full_like(x, np.pi)], -1)
    found: Floats = np.einsum("hwk,dvk->dhwv", waves, 0.4 * rng.standard_normal((depth, volumes, 6)))
    return found


def complex_series(volumes: int = 12) -> tuple[Floats, Complexes, Floats]:
    """A decaying series that is air on one side: its magnitude, the same with phase and noise, and the phase."""
    share = piecewise(10, 22, 28)[..., None] / 200
    time = np.arange(1, volumes + 1) / (volumes + 1)
    clean = 300 * (share * np.exp(-3 * time) + (1 - share) * np.exp(-time))
    clean[:, :, :12] = 0
    phase, rng = phases(clean.shape), np.random.default_rng(1)
    noise = rng.standard_normal(clean.shape) + 1j * rng.standard_normal(clean.shape)
    return clean, clean * np.exp(1j * phase) + SIGMA * noise, phase


def test_a_series_is_denoised_as_if_its_phase_were_known() -> None:
    clean, noisy, phase = complex_series()
    told = denoise((noisy * np.exp(-1j * phase)).real, series=3, method="series")
    found = denoise_with_maps(noisy, series=3)
    assert found.rank_map is not None
    assert psnr(clean, np.abs(found.volume)) > psnr(clean, told) - 0.5
    assert psnr(clean, np.abs(found.volume)) > psnr(clean, denoise(np.abs(noisy), series=3, method="series")) + 1
    np.testing.assert_allclose(found.noise_map, SIGMA, rtol=0.1)


def test_the_strength_acts_on_the_signal_and_not_on_its_phase() -> None:
    _, noisy, _ = complex_series()
    found = {strength: denoise_with_maps(noisy, SIGMA, series=3, strength=strength) for strength in (0.5, 1.0, 2.0)}
    removed = [float(np.abs(one.residual).std()) for one in found.values()]
    assert removed == sorted(removed)
    assert removed[0] < 0.7 * removed[1]
    for one in found.values():
        assert one.phase is not None
        np.testing.assert_allclose(one.phase, found[1.0].phase, atol=1e-5)


def test_the_real_part_of_air_has_no_bias() -> None:
    clean, noisy, _ = complex_series()
    found = denoise_with_maps(noisy, series=3)
    assert found.phase is not None
    np.testing.assert_allclose(np.abs(found.phase), 1, rtol=1e-6)
    real = (found.volume * np.conj(found.phase)).real
    assert abs(real[:, :, :7].mean()) < 0.05 * SIGMA
    assert psnr(clean, real) > psnr(clean, np.abs(found.volume)) - 0.1


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128, np.clongdouble])
def test_type_shape_and_input_are_kept(dtype: Any) -> None:
    noisy = complex_series()[1].astype(dtype)
    before = noisy.copy()
    result = denoise(noisy, SIGMA, series=3)
    assert (result.dtype, result.shape) == (noisy.dtype, noisy.shape)
    np.testing.assert_array_equal(noisy, before)


def test_tensors_give_the_numbers_of_arrays() -> None:
    noisy = complex_series()[1].astype(np.complex64)
    result = denoise(torch.from_numpy(noisy), SIGMA, series=3)
    assert isinstance(result, torch.Tensor)
    np.testing.assert_array_equal(result.numpy(), denoise(noisy, SIGMA, series=3))


@pytest.mark.parametrize("axes", [{}, {"series": 3}, {"channels": 3}])
def test_volumes_one_by_one_and_channels_are_compared_in_both_parts(axes: dict[str, int]) -> None:
    clean, noisy, _ = complex_series(2)
    if not axes:
        clean, noisy = clean[..., 0], noisy[..., 0]
    found = denoise_with_maps(noisy, method="bayes", **axes)
    assert found.noise_map.shape == noisy.shape
    assert found.rank_map is None
    assert psnr(clean, np.abs(found.volume)) > psnr(clean, np.abs(noisy)) + 4
    np.testing.assert_allclose(np.median(found.noise_map), SIGMA, rtol=0.2)


def test_an_image_has_a_phase_too() -> None:
    clean = piecewise(40, 44)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((2, 40, 44))
    noisy = clean * np.exp(1j * np.linspace(0, 3, 44)) + 10 * (noise[0] + 1j * noise[1])
    assert psnr(clean, np.abs(denoise(noisy, 10.0))) > psnr(clean, np.abs(noisy)) + 4


def test_a_mask_says_where_and_a_map_how_much() -> None:
    _, noisy, _ = complex_series()
    inside = np.zeros(noisy.shape[:3], bool)
    inside[3:9] = True
    result = denoise(noisy, SIGMA, series=3, mask=inside)
    np.testing.assert_array_equal(result[~inside], noisy[~inside])
    np.testing.assert_array_equal(result[inside], denoise(noisy, SIGMA, series=3)[inside])
    uneven = np.where(inside, SIGMA, 0.0)
    np.testing.assert_allclose(denoise(noisy, uneven, series=3)[~inside], noisy[~inside], rtol=1e-6)


@pytest.mark.parametrize("series", [None, 3])
def test_without_noise_nothing_changes(series: int | None) -> None:
    noisy = complex_series()[1][..., : 1 if series is None else None].squeeze()
    np.testing.assert_allclose(denoise(noisy, 0.0, series=series), noisy, rtol=1e-12)
    nothing = np.zeros_like(noisy)
    np.testing.assert_array_equal(denoise(nothing, series=series), nothing)


def test_the_phase_is_smooth_in_slices_along_any_axis() -> None:
    values = torch.from_numpy(np.exp(1j * phases((10, 20, 24, 3))))
    for axis in range(3):
        moved = values.movedim(0, axis)
        layout = Layout(tuple(moved.shape), None, 3)
        assert axis not in plane_axes(moved, layout)
        slow = slow_phase(moved, layout, 0.0)
        inner = (slow / moved).movedim(axis, 0)[:, 4:-4, 4:-4]
        assert float(inner.angle().abs().mean()) < 0.1


def test_weak_signal_points_along_the_real_axis() -> None:
    found = direction(torch.tensor([0j, 0.5j, 100j]), 1.0)
    torch.testing.assert_close(found, torch.tensor([1 + 0j, 1 + 0j, 1j]), atol=0.02, rtol=0)
    assert direction(torch.zeros(1, dtype=torch.complex64), 0.0) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"noise": "rician"}, "'rician' does not fit a complex volume, whose two parts have Gaussian noise"),
        ({"noise": "poisson"}, "'poisson' does not fit a complex volume"),
        ({"dtype": "float32"}, "'float32' does not fit a complex volume; leave it out and convert the result"),
        ({"out": np.zeros((4, 5, 6))}, "out= does not work with a complex volume"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        denoise(np.ones((4, 5, 6), complex), **arguments)


@pytest.mark.parametrize("bad", [np.inf, 1j * np.inf])
def test_what_is_not_finite_is_refused(bad: complex) -> None:
    noisy = np.ones((4, 5, 6), complex)
    noisy[1, 2, 3] = bad
    with pytest.raises(ValueError, match="volume contains infinite values"):
        denoise(noisy)
