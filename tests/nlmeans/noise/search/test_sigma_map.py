"""The map of sigma, on noise of known strength that varies in space."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nlmeans import denoise, estimate_sigma, sigma_of_noise_volumes
from nlmeans.noise.rician import rician_moments
from nlmeans.noise.search.sigma_map import mean_of_box, sigma_map_of_volume, spline_basis, variance_of_magnitude
from tests.nlmeans.volumes import Floats, gain, gaussian, piecewise, rician, sample

ADD = {"gaussian": gaussian, "rician": rician}


def ramp(shape: tuple[int, ...], axis: int, low: float, high: float) -> Floats:
    along = np.linspace(low, high, shape[axis])
    return np.broadcast_to(along.reshape([-1 if a == axis else 1 for a in range(len(shape))]), shape)


def bump(shape: tuple[int, ...], sigma: float) -> Floats:
    """Sigma as in parallel imaging: twice as large in the middle."""
    places = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    return sigma * (1 + np.exp(-sum(p**2 for p in places) / (2 * 0.4**2)))


def error(estimated: Floats, sigma: Floats, where: Floats) -> float:
    """Mean absolute error, relative to the truth."""
    return float(np.abs(estimated / sigma - 1)[where].mean())


@pytest.fixture(scope="module")
def head() -> Floats:
    return sample("head_clean")


@pytest.mark.parametrize("noise", ADD)
@pytest.mark.parametrize("kind", ["constant", "ramp 2", "bump"])
def test_within_a_few_percent_over_the_head(kind: str, noise: str, head: Floats) -> None:
    if kind == "constant":
        sigma, allowed = np.full(head.shape, 50.0), 0.04
    elif kind == "bump":
        sigma, allowed = bump(head.shape, 30.0), 0.07
    else:
        sigma, allowed = ramp(head.shape, int(kind[-1]), 20, 80), 0.06
    estimated = estimate_sigma(ADD[noise](head, sigma), noise=noise, map=True)
    assert estimated.shape == head.shape
    assert estimated.dtype == np.float32
    assert estimated.min() > 0
    assert error(estimated, sigma, head > 40) < allowed


def test_within_a_few_percent_over_an_image() -> None:
    clean = sample("slice_clean")
    for sigma in (np.full(clean.shape, 50.0), ramp(clean.shape, 0, 20, 80), ramp(clean.shape, 1, 80, 20)):
        assert error(estimate_sigma(gaussian(clean, sigma), map=True), sigma, clean > 40) < 0.05


def test_denoising_with_it_is_as_good_as_with_the_truth(head: Floats) -> None:
    clean = head[16:72, 16:80, 12:60]
    sigma = ramp(clean.shape, 0, 20, 80)
    noisy = gaussian(clean, sigma)
    gains = [
        gain(clean, noisy, denoise(noisy, given, method="classic"))
        for given in (sigma, estimate_sigma(noisy, map=True), estimate_sigma(noisy))
    ]
    assert gains[1] > gains[0] - 0.3
    assert gains[1] > gains[2] + 1


def test_a_narrow_bump_bends_it_along_one_axis_alone() -> None:
    level = 5 * (1 + 2 * np.exp(-(np.linspace(-1, 1, 48) ** 2) / 0.18)) * np.ones((40, 44, 48))
    found = estimate_sigma(gaussian(piecewise(40, 44, 48), level), map=True)
    assert error(found, level, found > 0) < 0.08
    bends = [float(np.abs(np.diff(np.log(found), 2, axis=axis)).mean()) for axis in range(3)]
    assert max(bends[:2]) < 0.01 * bends[2]


def test_it_is_smooth(head: Floats) -> None:
    estimated = estimate_sigma(gaussian(head, bump(head.shape, 30.0)), map=True)
    for axis in range(3):
        assert np.abs(np.diff(np.log(estimated), axis=axis)).max() < 0.1


def test_a_removed_background_does_not_count(head: Floats) -> None:
    sigma = ramp(head.shape, 1, 30, 60)
    estimated = estimate_sigma(np.where(head > 0, gaussian(head, sigma), 0), map=True)
    assert error(estimated, sigma, head > 40) < 0.12
    assert estimated.min() > 0


def test_the_mask_says_where_to_look() -> None:
    noisy = gaussian(np.full((32, 32, 32), 100.0), np.repeat([3.0, 12.0], 16)[:, None, None])
    mask = np.zeros(noisy.shape)
    mask[:16] = 1
    for where, sigma in ((mask, 3), (1 - mask, 12)):
        estimated = estimate_sigma(noisy, mask=where, map=True)
        assert error(estimated, np.full(noisy.shape, sigma), where > 0) < 0.1


def test_every_volume_and_channel_has_its_own() -> None:
    factors = np.array([[1.0, 2.0], [4.0, 8.0], [0.5, 3.0]])
    array = gaussian(np.full((3, 2, 16, 18, 20), 100.0), factors[:, :, None, None, None])
    maps = estimate_sigma(array, series=0, channels=1, map=True)
    assert maps.shape == array.shape
    np.testing.assert_allclose(maps.mean((2, 3, 4)), factors, rtol=0.15)
    moved = np.moveaxis(array, (0, 1), (4, 2))
    np.testing.assert_array_equal(
        estimate_sigma(moved, series=4, channels=2, map=True), np.moveaxis(maps, (0, 1), (4, 2))
    )
    np.testing.assert_array_equal(estimate_sigma(array[2, 1], map=True), maps[2, 1])
    np.testing.assert_array_equal(estimate_sigma(torch.from_numpy(array[2, 1]), map=True), maps[2, 1])


@pytest.mark.parametrize("noise", ADD)
@pytest.mark.parametrize("shape", [(6, 7), (1, 1), (2, 2, 2), (3, 3), (1, 40, 40), (4, 5, 6)])
def test_a_constant_has_no_noise_anywhere(shape: tuple[int, ...], noise: str) -> None:
    estimated = estimate_sigma(np.full(shape, 7.0), noise=noise, map=True)
    np.testing.assert_array_equal(estimated, np.zeros(shape))


@pytest.mark.parametrize("noise", ADD)
@pytest.mark.parametrize("shape", [(48, 48), (1, 48, 48), (48, 1, 48), (1, 1, 2000), (24, 24, 3), (12, 13, 14)])
def test_pure_noise_of_any_shape(shape: tuple[int, ...], noise: str) -> None:
    noisy = gaussian(np.full(shape, 100.0), 5.0)
    estimated = estimate_sigma(noisy, noise=noise, map=True)
    assert error(estimated, np.full(shape, 5.0), np.ones(shape, dtype=bool)) < 0.2


@pytest.mark.parametrize("shape", [(3, 3), (3, 3, 3), (4, 3, 5)])
def test_hardly_any_voxels_are_no_reason_to_fail(shape: tuple[int, ...]) -> None:
    estimated = estimate_sigma(gaussian(np.full(shape, 100.0), 5.0), map=True)
    assert np.isfinite(estimated).all()
    assert (estimated > 0).all()


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_it_scales_with_the_intensities(scale: float) -> None:
    noisy = gaussian(piecewise(20, 20, 20), 5.0)
    np.testing.assert_allclose(
        estimate_sigma(scale * noisy, map=True), scale * estimate_sigma(noisy, map=True).astype(float), rtol=1e-4
    )


def test_slabs_and_some_voxels_of_a_large_volume_suffice(monkeypatch: pytest.MonkeyPatch, head: Floats) -> None:
    sigma = ramp(head.shape, 1, 20, 80)
    noisy = torch.from_numpy(gaussian(head, sigma))
    whole = sigma_map_of_volume(noisy)
    monkeypatch.setattr("nlmeans.noise.search.sigma_map.MAP_SLAB_VOXELS", noisy.numel() // 5)
    torch.testing.assert_close(sigma_map_of_volume(noisy), whole, rtol=1e-4, atol=0)
    monkeypatch.setattr("nlmeans.noise.search.sigma_map.MAP_VOXELS", noisy.numel() // 4)
    assert error(sigma_map_of_volume(noisy).numpy(), sigma, head > 40) < 0.06


def test_splines_add_up_to_one() -> None:
    for length in (1, 2, 3, 10, 100):
        torch.testing.assert_close(
            spline_basis(length, torch.arange(length)).sum(1), torch.ones(length, dtype=torch.float64)
        )


def test_the_variance_of_a_magnitude_by_its_mean() -> None:
    mean, variance = rician_moments(torch.tensor([0.0, 0.3, 1.0, 2.0, 5.0, 25.0], dtype=torch.float64))
    torch.testing.assert_close(variance_of_magnitude(mean), variance, rtol=1e-4, atol=0)
    torch.testing.assert_close(variance_of_magnitude(torch.tensor([0.5, 1e6], dtype=torch.float64))[0], variance[0])


def test_refused_with_the_argument_named() -> None:
    with pytest.raises(ValueError, match=r"mask has shape \(4, 4\), but"):
        estimate_sigma(np.zeros((4, 5, 6)), mask=np.ones((4, 4)), map=True)
    with pytest.raises(ValueError, match="volume is NaN everywhere"):
        estimate_sigma(np.full((4, 5, 6), np.nan), map=True)
    for unit in (1e300, 1e-300):
        with pytest.raises(
            ValueError, match=r"volume has values from .* too extreme for a map of sigma in float32; scale it"
        ):
            estimate_sigma(unit * np.arange(120.0).reshape(4, 5, 6), map=True)


# ---------------------------------------------------------------- from volumes of noise alone

RECORDED = (12, 20, 24)
UNEVEN_SIGMA = np.linspace(4, 12, 24) * np.ones(RECORDED)


def complex_noise(volumes: int = 4) -> Any:
    rng = np.random.default_rng(0)
    shape = (*RECORDED, volumes)
    return UNEVEN_SIGMA[..., None] * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape))


@pytest.mark.parametrize("kind", ["complex", "magnitude", "real"])
def test_sigma_is_that_of_each_part_and_follows_the_place(kind: str) -> None:
    noise = {"complex": np.asarray, "magnitude": np.abs, "real": np.real}[kind](complex_noise())
    found = sigma_of_noise_volumes(noise)
    assert (found.shape, found.dtype) == (RECORDED, np.float32)
    np.testing.assert_allclose(found[..., 4:-4], UNEVEN_SIGMA[..., 4:-4], rtol=0.2)
    assert found.mean() == pytest.approx(UNEVEN_SIGMA.mean(), rel=0.02)


def test_any_axis_can_hold_the_volumes_and_tensors_do_too() -> None:
    noise = np.abs(complex_noise())
    expected = sigma_of_noise_volumes(noise)
    np.testing.assert_array_equal(sigma_of_noise_volumes(np.moveaxis(noise, -1, 0), 0), expected)
    np.testing.assert_array_equal(sigma_of_noise_volumes(torch.from_numpy(noise)), expected)
    assert sigma_of_noise_volumes(noise[0], 2).shape == RECORDED[1:]


def test_a_box_at_the_border_has_fewer_voxels() -> None:
    values = torch.rand(3, 9, 12, dtype=torch.float64)
    expected = [
        values[max(z - 2, 0) : z + 3, max(y - 3, 0) : y + 4, max(x - 3, 0) : x + 4].mean()
        for z, y, x in np.ndindex(3, 9, 12)
    ]
    torch.testing.assert_close(mean_of_box(values).flatten(), torch.stack(expected))


@pytest.mark.parametrize("bad", [np.full((4, 5, 6, 2), np.nan), np.zeros((4, 5)), np.full((4, 5, 6, 2), "x")])
def test_what_is_no_series_of_numbers_is_refused(bad: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="noise"):
        sigma_of_noise_volumes(bad)
