"""The coarser level: means of pairs, the noise in them, and interpolation between them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nlmeans.core.lags import covariance_over
from nlmeans.methods.coarser import (
    COARSER_REACH,
    autocovariance_of_means,
    between_pairs,
    every_second,
    pair_means,
    with_coarser_level,
)

LINE = torch.tensor([[[0.1, 0.5, 1.0, 0.5, 0.1]]], dtype=torch.float64)
"""Correlated noise along the width."""


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.manual_seed(seed))


def test_pairs_are_averaged_along_the_axes_given_and_an_odd_voxel_stays() -> None:
    volume = normal(2, 4, 3, 5)
    expected = np.stack([volume[:, 2 * k : 2 * k + 2].numpy().mean(1) for k in range(2)], axis=1)
    expected = np.stack([expected[..., 2 * k : 2 * k + 2].mean(-1) for k in range(3)], axis=-1)
    np.testing.assert_allclose(pair_means(volume, [0, 2]), expected)
    assert volume[every_second(2, 1)].shape == (2, 4, 3, 2)


@pytest.mark.parametrize("reach", [0, 1, 2, 3])
def test_the_autocovariance_of_means_is_that_of_a_box_averaged_in_pairs(reach: int) -> None:
    lags = torch.ones(1, 1, 2 * reach + 1, dtype=torch.float64)
    lags[0, 0] = torch.tensor([1.0, 0.6, -0.3, 0.1], dtype=torch.float64)[torch.arange(-reach, reach + 1).abs()]
    averages = torch.kron(torch.eye(5, dtype=torch.float64), torch.full((1, 2), 0.5, dtype=torch.float64))
    expected = averages @ covariance_over(lags, (1, 1, 10)) @ averages.T
    found = autocovariance_of_means(lags, [2])
    torch.testing.assert_close(covariance_over(found, (1, 1, 5)), expected)


@pytest.mark.parametrize("length", [10, 11])
def test_a_ramp_comes_back_between_the_pairs_except_at_its_ends(length: int) -> None:
    ramp = torch.arange(float(length)).expand(1, 8, 9, length).contiguous()
    back = between_pairs(pair_means(ramp, [0, 1, 2]), [0, 1, 2], ramp)
    torch.testing.assert_close(back[..., 1 : length - 3], ramp[..., 1 : length - 3])
    assert back.shape == ramp.shape


def test_each_level_is_filtered_with_its_own_noise() -> None:
    seen = []

    def filter_level(noisy: torch.Tensor, sigma: float | torch.Tensor, lags: torch.Tensor) -> torch.Tensor:
        seen.append((tuple(noisy.shape), sigma, lags))
        return noisy

    noisy = normal(1, 4, 12, 16)
    torch.testing.assert_close(with_coarser_level(filter_level, noisy, 2.0, LINE), noisy)
    (fine, sigma, lags), (coarse, coarse_sigma, coarse_lags) = seen
    assert (fine, sigma) == ((1, 4, 12, 16), 2.0)
    assert lags is LINE
    assert coarse == (1, 4, 6, 8)  # four slices are too few for a coarser level
    assert coarse_sigma == pytest.approx(2 * (0.75 / 2) ** 0.5)  # (1 + .5) / 2 along the width, 1 / 2 along the height
    assert coarse_lags[0, 0].tolist() == pytest.approx([0.35 / 1.5, 1.0, 0.35 / 1.5])
    assert float(coarse_lags[0].max()) == 1


def test_a_map_of_sigma_becomes_the_root_mean_square_of_each_pair() -> None:
    levels = []

    def filter_level(noisy: torch.Tensor, sigma: float | torch.Tensor, lags: torch.Tensor) -> torch.Tensor:
        levels.append(sigma)
        return noisy

    uneven = torch.ones(1, 1, 8, dtype=torch.float64)
    uneven[..., ::2] = 7.0
    with_coarser_level(filter_level, normal(1, 1, 1, 8), uneven, LINE)
    torch.testing.assert_close(levels[1], torch.full((1, 1, 4), 5.0 * 0.75**0.5, dtype=torch.float64))


def test_small_volumes_and_noise_that_cancels_in_pairs_have_no_coarser_level() -> None:
    def times_ten(noisy: torch.Tensor, sigma: float | torch.Tensor, lags: torch.Tensor) -> torch.Tensor:
        return 10 * noisy

    small, stripes = normal(1, 7, 7, 7), torch.tensor([[[-0.5, 1.0, -0.5]]], dtype=torch.float64)
    torch.testing.assert_close(with_coarser_level(times_ten, small, 1.0, LINE), 10 * small)
    wide = normal(1, 1, 1, 16)
    torch.testing.assert_close(with_coarser_level(times_ten, wide, 1.0, 1.0 * stripes), 10 * wide)


def test_a_filter_that_reaches_over_six_voxels_reaches_over_fifteen_with_a_coarser_level() -> None:
    def mean_over_13(noisy: torch.Tensor, sigma: float | torch.Tensor, lags: torch.Tensor) -> torch.Tensor:
        padded = torch.nn.functional.pad(noisy[0], (6, 6), mode="replicate")
        return torch.nn.functional.avg_pool1d(padded[0], 13, 1)[None, None]

    one, other = normal(1, 1, 1, 101), normal(1, 1, 1, 101)
    for place in (50, 51):
        other[..., place] += 100
        changed = (with_coarser_level(mean_over_13, v, 1.0, LINE) for v in (one, other))
        reached = (next(changed) - next(changed)).abs().flatten().gt(1e-9).nonzero().flatten() - place
        assert reached.abs().max() <= 6 + COARSER_REACH
        other = one.clone()
