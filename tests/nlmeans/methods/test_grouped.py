"""Methods on groups of similar patches: bayes, best and subspace."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nlmeans import METHODS, denoise, load_image, samples
from nlmeans.core.axes import Axes
from nlmeans.core.metrics import psnr
from nlmeans.methods.grouped import (
    GRAIN,
    across_slices,
    alike,
    bayes_halo,
    best_halo,
    cut,
    later_strength,
    subspace_halo,
)
from nlmeans.methods.method import Options
from tests.nlmeans.volumes import noisy_piecewise

SIGMA = 10.0
LINE = (((0.5, 1.0, 0.5),),)
"""Autocovariance of noise that is correlated along the width."""


def test_a_thick_axis_may_be_any_axis() -> None:
    _, image = noisy_piecewise(8, 24, 26, sigma=SIGMA)
    thick_first = denoise(image, SIGMA, method="bayes", spacing=(7, 1, 1))
    thick_last = denoise(np.moveaxis(image, 0, 2), SIGMA, method="bayes", spacing=(1, 1, 7))
    assert np.moveaxis(thick_last, 2, 0) == pytest.approx(thick_first, abs=SIGMA)
    assert np.abs(np.moveaxis(thick_last, 2, 0) - thick_first).mean() < 0.02 * SIGMA


def test_patches_are_larger_in_a_plane() -> None:
    def edges(*shape: int) -> object:
        return cut(torch.zeros(2, *shape), (0, 0, 0), patch=4, step=3)["patch"]

    assert edges(8, 9, 10) == (4, 4, 4)
    assert edges(1, 9, 10) == edges(8, 9, 1) == (6, 6, 6)


def test_few_slices_are_not_thick_ones_unless_the_voxel_size_says_so() -> None:
    """A volume of 3 slices has a window of 5 × 9 × 9, which would tell thick slices in a larger one."""

    def across(slices: int, *size: float, radius: Axes = (2, 4, 4)) -> Axes:
        options = Options(1.0, (1, 1, 1), radius, "auto", 2**30, spacing=(size[0], size[1], size[2]))
        return across_slices(torch.zeros(1, slices, 24, 24), options)

    assert across(3, 1, 1, 1) == (0, 0, 0)
    assert across(20, 1, 1, 1) == across(3, 4, 1, 1) == (1, 0, 0)
    assert across(2, 4, 1, 1, radius=(1, 4, 4)) == (0, 0, 0)


def test_few_slices_of_cubic_voxels_are_denoised_in_patches_as_thick_as_they_are() -> None:
    clean, image = noisy_piecewise(3, 48, 50, sigma=SIGMA)
    cubes, flat = (
        psnr(clean, denoise(image, SIGMA, method="bayes", spacing=spacing), peak=200) for spacing in (None, (4, 1, 1))
    )
    assert cubes > flat + 0.1


def test_groups_of_two_slices_have_no_more_patches_than_these_have_voxels() -> None:
    """With 48 to 64 patches, and these as flat as in thick slices, it was 31.1 dB."""
    clean = np.asarray(load_image(samples.path("head_clean")).dataobj, np.float32)
    z, y, x = (n // 2 for n in clean.shape)
    clean = clean[z - 24 : z + 24, y - 24 : y + 24, x : x + 2]
    peak = float(clean.max())
    image = clean + 0.05 * peak * np.random.default_rng(0).standard_normal(clean.shape).astype(np.float32)
    assert psnr(clean, denoise(image, 0.05 * peak, method="best"), peak=peak) > 31.35


@pytest.mark.parametrize("name", ["bayes", "best", "subspace"])
def test_the_voxel_size_helps_where_slices_are_thick(name: str) -> None:
    clean = np.asarray(load_image(samples.path("thick_clean")).dataobj, np.float32)[40:88, 50:98]
    image = clean + 30 * np.random.default_rng(0).standard_normal(clean.shape).astype(np.float32)
    unaware, aware = (
        psnr(clean, denoise(image, 30, method=name, spacing=spacing), peak=1000) for spacing in (None, (1, 1, 5))
    )
    assert aware > unaware + 0.1


@pytest.mark.parametrize("name", ["bayes", "best", "subspace"])
def test_tiles_of_thick_slices_agree_with_the_whole(name: str) -> None:
    image = noisy_piecewise(12, 60, 112, sigma=SIGMA)[1]
    settings: dict[str, Any] = {"method": name, "spacing": (4, 1, 1), "search_radius": 1}
    whole = denoise(image, SIGMA, **settings)
    tiled = denoise(image, SIGMA, **settings, memory=2**24)
    assert np.abs(whole - tiled).max() < 0.01 * SIGMA


@pytest.mark.parametrize("name", ["bayes", "best", "subspace"])
def test_groups_come_from_the_search_window(name: str) -> None:
    """Copies of a pattern that lie farther away than the search radius are no help."""
    pattern = 6 * SIGMA * np.random.default_rng(1).standard_normal((6, 6))
    clean = np.tile(pattern, (12, 12)).astype(np.float32)
    image = clean + SIGMA * np.random.default_rng(0).standard_normal(clean.shape).astype(np.float32)
    errors = [np.abs(denoise(image, SIGMA, method=name, search_radius=r) - clean).mean() for r in (3, 13)]
    assert errors[1] < 0.8 * errors[0]


@pytest.mark.parametrize(("shape", "least"), [((24, 26, 28), 0.5), ((60, 60), 0.02)])
def test_best_is_better_than_bayes(shape: tuple[int, ...], least: float) -> None:
    clean, image = noisy_piecewise(*shape, sigma=SIGMA)
    bayes, best = (psnr(clean, denoise(image, SIGMA, method=name), peak=200) for name in ("bayes", "best"))
    assert best > bayes + least


def test_an_image_gains_from_patches_of_several_sizes_and_from_a_wide_window() -> None:
    """With patches of 6² and a window of 21² it was 32.05 dB, and 32.28 dB with `best`."""
    clean = np.asarray(load_image(samples.path("head_clean")).dataobj, np.float32)[:, :, 24]
    peak = float(clean.max())
    image = clean + 0.05 * peak * np.random.default_rng(0).standard_normal(clean.shape).astype(np.float32)
    bayes, best = (psnr(clean, denoise(image, 0.05 * peak, method=name), peak=peak) for name in ("bayes", "best"))
    assert bayes > 32.25
    assert best > 32.35


def test_an_image_with_correlated_noise_gains_as_well() -> None:
    """With patches of 6² it was 37.9 dB."""
    clean = noisy_piecewise(96, 96, sigma=SIGMA)[0]
    spectrum = np.fft.fft2(np.random.default_rng(0).standard_normal(clean.shape))
    coarse = [np.abs(np.fft.fftfreq(96)) < 1 / 3] * 2  # k-space was filled with zeros to 1.5 times the size
    noise = np.fft.ifft2(spectrum * coarse[0][:, None] * coarse[1]).real * 1.5 * SIGMA
    lags = np.fft.ifft2(np.outer(*coarse).astype(float)).real
    near = np.arange(-3, 4)
    correlation = (lags / lags[0, 0])[np.ix_(near, near)][None]
    for name in ("bayes", "best"):
        denoised = denoise((clean + noise).astype(np.float32), SIGMA, method=name, correlation=correlation)
        assert psnr(clean, denoised, peak=200) > 38.2


def test_best_is_better_than_bayes_with_correlated_noise() -> None:
    clean = noisy_piecewise(24, 26, 28, sigma=SIGMA)[0]
    white = SIGMA * np.random.default_rng(0).standard_normal((24, 26, 29)).astype(np.float32)
    image = clean + (white[..., 1:] + white[..., :-1]) / np.sqrt(2, dtype=np.float32)
    settings: dict[str, Any] = {"correlation": LINE}
    bayes, best = (psnr(clean, denoise(image, SIGMA, method=name, **settings), peak=200) for name in ("bayes", "best"))
    assert best > bayes + 0.1


@pytest.mark.parametrize(("halo", "stages"), [(bayes_halo, 2), (best_halo, 3), (subspace_halo, 1)])
def test_a_halo_is_that_of_the_pilot_and_of_every_stage(halo: object, stages: int) -> None:
    assert callable(halo)
    assert halo((1, 1, 1), (4, 4, 4)) == (6 + stages * (2 * 4 + 2 * 3),) * 3
    assert halo((4, 4, 4), (5, 5, 5))[0] == 6 + stages * (2 * 5 + 2 * 3)


@pytest.mark.parametrize(("halo", "stages"), [(bayes_halo, 2), (best_halo, 3), (subspace_halo, 1)])
def test_a_halo_is_that_of_the_patches_of_thick_slices(halo: object, stages: int) -> None:
    assert callable(halo)
    assert halo((1, 1, 1), (3, 5, 5)) == (6 + stages * (2 * 3 + 2 * 1), *(6 + stages * (2 * 5 + 2 * 4),) * 2)


@pytest.mark.parametrize("name", ["bayes", "best", "subspace"])
def test_no_voxel_farther_away_than_the_halo_matters(name: str) -> None:
    """A change at one end of a long image leaves everything beyond the halo unchanged, up to rounding."""
    method = METHODS[name]
    halo: Axes = method.halo((0, 1, 1), (0, 1, 1))
    _, image = noisy_piecewise(40, 2 * halo[1] + 24, sigma=SIGMA)
    settings = {"method": name, "search_radius": (1, 1)}
    changed = image.copy()
    changed[:, :12] += 5 * SIGMA * np.random.default_rng(1).standard_normal((40, 12)).astype(np.float32)
    one, other = (denoise(z, SIGMA, h=8.0, **settings) for z in (image, changed))
    far = np.abs(one - other)[:, 12 + halo[1] :]
    assert np.abs(one - other)[:, :12].max() > SIGMA
    assert far.max() < 1e-3


@pytest.mark.parametrize("name", ["dct", "wiener", "pri", "bayes", "best", "subspace"])
def test_correlated_noise_reaches_as_much_farther_as_the_method_says(name: str) -> None:
    method = METHODS[name]
    reach = method.halo((0, 1, 1), (0, 1, 1))[1] + method.coarser_reach
    _, image = noisy_piecewise(40, 2 * reach + 24, sigma=SIGMA)
    settings: dict[str, Any] = {"method": name, "search_radius": (1, 1), "correlation": LINE}
    changed = image.copy()
    changed[:, :12] += 5 * SIGMA * np.random.default_rng(1).standard_normal((40, 12)).astype(np.float32)
    one, other = (denoise(z, SIGMA, h=8.0, **settings) for z in (image, changed))
    assert np.abs(one - other)[:, 12 + reach :].max() < 1e-3


@pytest.mark.parametrize("name", ["dct", "bayes", "subspace"])
def test_tiles_of_correlated_noise_are_those_of_the_whole(name: str) -> None:
    _, image = noisy_piecewise(8, 150, 30, sigma=SIGMA)
    whole, tiled = (
        denoise(image, SIGMA, method=name, correlation=LINE, search_radius=1, patch_radius=0, memory=memory)
        for memory in ("2GB", "16MiB")
    )
    assert np.abs(whole - tiled).max() < 2e-3 * SIGMA


def test_correlated_noise_is_counted_twice_after_the_first_stage_and_in_proportion_to_its_extent() -> None:
    lags = torch.tensor(LINE, dtype=torch.float64)
    assert (later_strength(None), later_strength(lags)) == (1.0, 2.0)
    assert (later_strength(None, stages=1), later_strength(lags, stages=1)) == (1.0, 2.5)
    assert alike(lags) == pytest.approx(0.1 * (1 + 2 * 0.25))
    assert alike(None) == 0


def test_grids_of_all_steps_meet_at_the_grain() -> None:
    assert all(GRAIN % step == 0 for step in (2, 3, 4, 6))
    assert {METHODS[name].grain for name in ("bayes", "best", "subspace")} == {GRAIN}
