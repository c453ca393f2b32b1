"""Shrinkage of singular values against its formula, group by group in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nlmeans.core.lags import whitening
from nlmeans.patches import groups
from nlmeans.patches.dct import hard_threshold
from nlmeans.patches.low_rank import eigenvectors, low_rank, series_low_rank, shrink_singular_values
from tests.nlmeans.patches.tensors import LAGS, blobs, normal


def test_singular_values_follow_the_formula() -> None:
    noisy = normal(3, 12, 27) + 4 * normal(3, 12, 1, seed=1) * normal(3, 1, 27, seed=2)
    result = shrink_singular_values(noisy, torch.full((3,), 1.0, dtype=torch.float64)).patches
    for k in range(3):
        y = noisy[k].numpy()
        u, s, v = np.linalg.svd(y - y.mean(0), full_matrices=False)
        t, ratio = s / math.sqrt(27), 12 / 27
        shrunk = np.where(t > 1 + math.sqrt(ratio), np.sqrt(np.maximum((t**2 - ratio - 1) ** 2 - 4 * ratio, 0)) / t, 0)
        np.testing.assert_allclose(result[k].numpy(), y.mean(0) + (u * shrunk * math.sqrt(27)) @ v, atol=1e-9)


def test_groups_with_more_patches_than_voxels_follow_the_same_formula() -> None:
    noisy = normal(2, 30, 8) + 3 * normal(2, 30, 1, seed=1) * normal(2, 1, 8, seed=2)
    result = shrink_singular_values(noisy, torch.full((2,), 1.0, dtype=torch.float64)).patches
    for k in range(2):
        y = noisy[k].numpy()
        u, s, v = np.linalg.svd(y - y.mean(0), full_matrices=False)
        t, ratio = s / math.sqrt(30), 8 / 30
        shrunk = np.where(t > 1 + math.sqrt(ratio), np.sqrt(np.maximum((t**2 - ratio - 1) ** 2 - 4 * ratio, 0)) / t, 0)
        np.testing.assert_allclose(result[k].numpy(), y.mean(0) + (u * shrunk * math.sqrt(30)) @ v, atol=1e-9)


def test_correlated_noise_is_whitened_before_and_coloured_afterwards() -> None:
    noise = whitening(LAGS, (1, 3, 9))
    noisy = normal(2, 12, 27) @ noise.colour + 9 * normal(2, 12, 1, seed=1) * normal(2, 1, 27, seed=2)
    variance = torch.full((2,), 1.0, dtype=torch.float64)
    expected = shrink_singular_values(noisy @ noise.whiten, variance).patches @ noise.colour
    torch.testing.assert_close(shrink_singular_values(noisy, variance, noise).patches, expected)


def test_a_volume_and_a_series_of_correlated_noise_come_nearer_to_the_truth_than_if_it_is_taken_for_white() -> None:
    clean = blobs((10, 16, 17))[None]
    smooth = torch.nn.functional.conv3d(normal(9, 1, 12, 18, 19), torch.full((1, 1, 3, 3, 3), 27**-0.5).double())[:, 0]
    lags = torch.tensor([1.0, 2.0, 3.0, 2.0, 1.0], dtype=torch.float64) / 3
    lags = lags[:, None, None] * lags[:, None] * lags
    for noisy, run in (
        (clean + smooth[:1], lambda z, c: low_rank(z, clean, autocovariance=c)),
        (clean + smooth, lambda z, c: series_low_rank(z, autocovariance=c)),
    ):
        known, white = ((run(noisy, c) - clean).square().mean() for c in (lags, None))
        assert known < 0.9 * white


def test_pure_noise_leaves_only_the_mean_patch_and_rank_zero() -> None:
    noisy = normal(4, 40, 64)
    result = shrink_singular_values(noisy, torch.full((4,), 1.5, dtype=torch.float64))
    torch.testing.assert_close(result.patches, noisy.mean(1, keepdim=True).expand_as(noisy))
    torch.testing.assert_close(result.weight, torch.full((4,), 1 / 1.5, dtype=torch.float64))


def test_eigenvectors_are_those_of_numpy() -> None:
    rows = normal(5, 6, 6)
    values, vectors = eigenvectors(rows @ rows.mT)
    for k in range(5):
        np.testing.assert_allclose(values[k].numpy(), np.linalg.eigvalsh((rows[k] @ rows[k].T).numpy()), atol=1e-9)
        torch.testing.assert_close((vectors[k] * values[k]) @ vectors[k].T, rows[k] @ rows[k].T)


def test_the_pilot_loses_more_than_low_rank_groups_do() -> None:
    for shape, radius in (((14, 15, 16), (4, 4, 4)), ((1, 30, 31), (0, 10, 10)), ((3, 20, 21), (4, 4, 4))):
        clean = blobs(shape)[None].float()
        noisy = clean + normal(1, *shape).float()
        pilot = hard_threshold(noisy)
        error = (low_rank(noisy, pilot, search_radius=radius) - clean).square().mean()
        assert error < (pilot - clean).square().mean()


def test_a_constant_comes_back() -> None:
    constant = torch.full((1, 9, 9, 9), -7.0)
    torch.testing.assert_close(low_rank(constant, constant), constant, rtol=1e-5, atol=0)


def test_the_result_does_not_depend_on_threads_slabs_or_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    noisy, guide = normal(1, 12, 13, 14).float(), 0.3 * normal(1, 12, 13, 14, seed=1).float()
    threads = torch.get_num_threads()
    plain = low_rank(noisy, guide)
    try:
        torch.set_num_threads(3)
        torch.testing.assert_close(low_rank(noisy, guide), plain, rtol=0, atol=1e-5)
    finally:
        torch.set_num_threads(threads)
    monkeypatch.setattr(groups, "MATCH_SLAB_VOXELS", 1)
    monkeypatch.setattr(groups, "BATCH_GROUPS", 3)
    torch.testing.assert_close(low_rank(noisy, guide), plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 1, 2, 7), (2, 4, 4, 4), (1, 5, 1, 6)])
def test_volumes_with_fewer_patches_than_a_group(shape: tuple[int, ...]) -> None:
    noisy = normal(*shape).float()
    assert low_rank(noisy, noisy).shape == noisy.shape


def test_a_series_of_few_components_keeps_them_and_loses_its_noise() -> None:
    components = normal(2, 20) * torch.tensor([30.0, 10.0])[:, None]
    clean = torch.einsum("kc,kdhw->cdhw", components, normal(2, 10, 11, 12, seed=1)) + 100
    noisy = clean + normal(20, 10, 11, 12, seed=2)
    result = series_low_rank(noisy)
    before, after = ((z - clean).square().mean() for z in (noisy, result))
    assert after < 0.25 * before
    varying = series_low_rank(noisy, torch.ones(10, 11, 12, dtype=torch.float64))
    torch.testing.assert_close(varying, result)
