"""Covariances over a box from an autocovariance, and what whitens them."""

from __future__ import annotations

import itertools

import pytest
import torch

from nlmeans.core.lags import LEAST_EIGENVALUE, covariance_over, lags_between, mean_over_lags, whitening

SIZE = (2, 3, 4)


def random_autocovariance() -> torch.Tensor:
    """The autocovariance of white noise behind a random filter, normalised."""
    taps = torch.randn(2, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    lags = torch.zeros(3, 3, 3, dtype=torch.float64)
    for a, b in itertools.product(itertools.product((0, 1), repeat=3), repeat=2):
        lags[tuple(1 + p - q for p, q in zip(a, b, strict=True))] += taps[a] * taps[b]
    return lags / lags[1, 1, 1]


def test_the_covariance_of_two_voxels_is_the_autocovariance_at_their_lag() -> None:
    lags = random_autocovariance()
    covariance = covariance_over(lags, SIZE)
    places = list(itertools.product(*(range(n) for n in SIZE)))
    for (i, a), (j, b) in itertools.product(enumerate(places), repeat=2):
        lag = [p - q for p, q in zip(a, b, strict=True)]
        expected = lags[tuple(1 + o for o in lag)] if max(map(abs, lag)) <= 1 else 0.0
        assert covariance[i, j] == expected
    assert lags_between(SIZE).shape == (24, 24, 3)


def test_the_mean_over_lags_undoes_the_covariance() -> None:
    lags = random_autocovariance()
    torch.testing.assert_close(mean_over_lags(covariance_over(lags, SIZE), SIZE, (1, 1, 1)), lags)


def test_whitened_noise_is_white_and_comes_back() -> None:
    found = whitening(random_autocovariance(), SIZE)
    identity = torch.eye(24, dtype=torch.float64)
    torch.testing.assert_close(found.whiten @ found.covariance @ found.whiten, identity)
    torch.testing.assert_close(found.whiten @ found.colour, identity)
    assert float(found.covariance.diagonal().mean()) == pytest.approx(1)


@pytest.mark.parametrize(
    "lags",
    [
        torch.ones(5, 5, 5),  # all voxels of a patch have the same noise
        torch.tensor([[[-1.0, 1.0, -1.0]]]),  # no power spectrum has this
        torch.cos(torch.pi * torch.arange(-3, 4))[None, None],  # stripes
    ],
)
def test_any_autocovariance_gives_finite_matrices(lags: torch.Tensor) -> None:
    found = whitening(lags, SIZE)
    assert all(bool(matrix.isfinite().all()) for matrix in found)
    assert float(found.whiten.abs().max()) < 2 / LEAST_EIGENVALUE**0.5 * 24
