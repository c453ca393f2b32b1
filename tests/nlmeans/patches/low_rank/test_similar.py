"""Groups of similar patches with shrunk singular values."""

from __future__ import annotations

import pytest
import torch

from nlmeans.core.lags import whitening
from nlmeans.patches import groups
from nlmeans.patches.dct.sliding import hard_threshold
from nlmeans.patches.low_rank.similar import low_rank, shrink_group
from tests.nlmeans.patches.tensors import LAGS, blobs, normal


def test_the_mean_patch_stays_and_the_rest_is_shrunk() -> None:
    noisy = normal(4, 40, 64)
    result = shrink_group(noisy, torch.full((4,), 1.5, dtype=torch.float64))
    torch.testing.assert_close(result.patches, noisy.mean(1, keepdim=True).expand_as(noisy))
    torch.testing.assert_close(result.weight, torch.full((4,), 1 / 1.5, dtype=torch.float64))


def test_correlated_noise_is_whitened_before_and_coloured_afterwards() -> None:
    noise = whitening(LAGS, (1, 3, 9))
    noisy = normal(2, 12, 27) @ noise.colour + 9 * normal(2, 12, 1, seed=1) * normal(2, 1, 27, seed=2)
    variance = torch.full((2,), 1.0, dtype=torch.float64)
    expected = shrink_group(noisy @ noise.whiten, variance).patches @ noise.colour
    torch.testing.assert_close(shrink_group(noisy, variance, noise).patches, expected)


def test_correlated_noise_is_removed_better_than_if_it_is_taken_for_white() -> None:
    clean = blobs((10, 16, 17))[None]
    box = torch.full((1, 1, 3, 3, 3), 27**-0.5, dtype=torch.float64)
    smooth = torch.nn.functional.conv3d(normal(1, 1, 12, 18, 19), box)[:, 0]
    lags = torch.tensor([1.0, 2.0, 3.0, 2.0, 1.0], dtype=torch.float64) / 3
    lags = lags[:, None, None] * lags[:, None] * lags
    known, white = ((low_rank(clean + smooth, clean, autocovariance=c) - clean).square().mean() for c in (lags, None))
    assert known < 0.9 * white


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
