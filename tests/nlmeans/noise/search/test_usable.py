"""Which voxels count as measured, and which as the object."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.filters import threshold_otsu

import nlmeans
from nlmeans.noise.search.usable import limits_of_most, measured_voxels, object_threshold, otsu_threshold
from tests.nlmeans.volumes import Floats, gaussian, piecewise, sample


@pytest.mark.parametrize(
    "volume", [piecewise(20, 20, 20), gaussian(piecewise(40, 40), 20.0), np.array([0.0, 0.0, 1.0])]
)
def test_otsu_agrees_with_scikit_image(volume: Floats) -> None:
    ours, theirs = otsu_threshold(torch.from_numpy(volume)), threshold_otsu(volume)
    assert abs(ours - theirs) < np.ptp(volume) / 256  # one bin of the histogram


@pytest.mark.parametrize(("offset", "step"), [(0.0, 1.0), (1e16, 4.0), (-3e38, 1e24), (0.0, 5e-324), (0.0, 1e-45)])
def test_otsu_separates_values_that_are_close_relative_to_their_size(offset: float, step: float) -> None:
    dark, bright = offset, offset + 3 * step
    threshold = otsu_threshold(torch.tensor([dark] * 20 + [bright] * 10, dtype=torch.float64))
    assert dark <= threshold < bright


def noisy(seed: int = 0) -> Floats:
    return gaussian(piecewise(24, 30, 28), 10.0, seed)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("share", [1e-4, 1e-2])
def test_a_few_voxels_far_from_all_others_are_no_measurements(share: float, sign: int) -> None:
    volume = torch.from_numpy(noisy())
    hot = torch.from_numpy(np.random.default_rng(1).random(volume.shape) < share)
    volume[hot] = sign * 5e4
    assert bool((measured_voxels(volume) == ~hot).all())


def test_single_zeros_are_measurements_and_a_removed_background_is_none() -> None:
    counts = torch.from_numpy(np.random.default_rng(0).poisson(2.0, (20, 24, 28)))
    assert bool((counts == 0).any())
    assert float((measured_voxels(counts) | (counts > 0)).double().mean()) > 0.99
    counts[:8] = 0
    measured = measured_voxels(counts)
    assert not bool(measured[:8].any())
    assert float(measured[9:].double().mean()) > 0.98


def test_what_many_voxels_have_or_is_not_far_is_a_measurement() -> None:
    volume = torch.from_numpy(noisy())
    assert limits_of_most(volume.flatten()) == (-np.inf, np.inf)
    volume[:4] *= 100  # a sixth of all
    assert limits_of_most(volume.flatten()) == (-np.inf, np.inf)


@pytest.mark.parametrize("factor", [2.0, 10.0, 1000.0])
def test_a_small_bright_organ_does_not_decide_sigma(factor: float) -> None:
    clean = sample("head_clean")[20:60, 20:70, 20:60]
    organ = np.square(np.indices(clean.shape) - np.array([20, 12, 20])[:, None, None, None]).sum(0) < 4**2
    sigma = 0.03 * clean.max()
    volume = gaussian(np.where(organ, factor * clean.max(), clean), sigma)
    assert nlmeans.estimate_noise(volume).sigma == pytest.approx(sigma, rel=0.12)
    result = nlmeans.denoise(volume, method="bayes")
    error = np.square(result - np.where(organ, factor * clean.max(), clean))[~organ].mean()
    assert error < (0.8 * sigma) ** 2


def test_the_object_is_never_a_handful_of_voxels() -> None:
    values = torch.cat([torch.zeros(5000), torch.full((4900,), 10.0), torch.full((100,), 250.0)])
    assert 0 < object_threshold(values) < 10
    assert object_threshold(values[:-100]) == otsu_threshold(values[:-100])
