"""Local patches × volumes: what is kept, what is measured, and that tiles, threads and batches do not matter."""

from __future__ import annotations

import pytest
import torch

from nlmeans.patches.groups import Grid
from nlmeans.patches.low_rank import series
from nlmeans.patches.low_rank.series import series_low_rank, sigma_of_patches
from nlmeans.patches.low_rank.spectrum import shrink_singular_values
from tests.nlmeans.patches.tensors import normal


def mixture(volumes: int = 20, *shape: int) -> torch.Tensor:
    """A series of two components."""
    components = normal(2, volumes) * torch.tensor([30.0, 10.0])[:, None]
    return torch.einsum("kc,kdhw->cdhw", components, normal(2, *(shape or (10, 11, 12)), seed=1)) + 100


def test_a_series_of_few_components_keeps_them_and_loses_its_noise() -> None:
    clean = mixture()
    noisy = clean + normal(20, 10, 11, 12, seed=2)
    result = series_low_rank(noisy)
    before, after = ((z - clean).square().mean() for z in (noisy, result.series))
    assert after < 0.2 * before
    assert bool((result.sigma == 1).all())
    assert float(result.rank.mean()) == pytest.approx(2, abs=0.2)


def test_one_patch_is_its_mean_and_its_shrunk_rest() -> None:
    noisy = mixture(7, 5, 5, 5) + normal(7, 5, 5, 5, seed=2)
    matrix = noisy.flatten(1).T[None]
    mean = matrix.mean(1, keepdim=True)
    expected = mean + shrink_singular_values(matrix - mean, torch.ones(1, dtype=torch.float64)).matrix
    torch.testing.assert_close(series_low_rank(noisy).series.flatten(1).T, expected[0])


def test_a_map_of_sigma_counts_where_it_is() -> None:
    clean, level = mixture(20, 10, 11, 30), torch.ones(10, 11, 30, dtype=torch.float64)
    level[..., 15:] = 4
    noisy = clean + level * normal(20, 10, 11, 30, seed=2)
    errors = [(series_low_rank(noisy, s).series - clean).square()[..., 20:].mean() for s in (1.0, level)]
    assert errors[1] < 0.5 * errors[0]
    torch.testing.assert_close(series_low_rank(noisy, torch.ones_like(level)).series, series_low_rank(noisy).series)


def test_noise_that_varies_in_space_is_measured_where_it_is() -> None:
    level = torch.linspace(1, 3, 30, dtype=torch.float64).expand(10, 11, 30)
    noisy = mixture(40, 10, 11, 30) + level * normal(40, 10, 11, 30, seed=2)
    found = series_low_rank(noisy, None)
    torch.testing.assert_close(found.sigma[..., 3:-3], level[..., 3:-3], rtol=0.12, atol=0)
    error = (found.series - series_low_rank(noisy, level).series).square().mean()
    assert error < 0.05


def test_the_noise_is_measured_alone_as_with_the_series() -> None:
    noisy = mixture() / 200 + 0.01 * normal(20, 10, 11, 12, seed=2)
    assert torch.equal(sigma_of_patches(noisy, None), series_low_rank(noisy, None).sigma)


def test_correlated_noise_is_removed_better_than_if_it_is_taken_for_white() -> None:
    clean = mixture(20, 10, 14, 15)
    box = torch.full((1, 1, 3, 3, 3), 27**-0.5, dtype=torch.float64)
    noisy = clean + torch.nn.functional.conv3d(normal(20, 1, 12, 16, 17, seed=3), box)[:, 0]
    lags = torch.tensor([1.0, 2.0, 3.0, 2.0, 1.0], dtype=torch.float64) / 3
    lags = lags[:, None, None] * lags[:, None] * lags
    known, white = ((series_low_rank(noisy, autocovariance=c).series - clean).square().mean() for c in (lags, None))
    assert known < 0.8 * white
    assert float(series_low_rank(noisy, None, autocovariance=lags).sigma.mean()) == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("shape", [(8, 1, 9, 12), (5, 3, 4, 2), (40, 6, 7, 8), (4, 1, 1, 1)])
def test_images_and_small_volumes_have_patches_of_their_own_size(shape: tuple[int, ...]) -> None:
    noisy = normal(*shape).float()
    result = series_low_rank(noisy)
    assert result.series.shape == noisy.shape
    assert result.sigma.shape == result.rank.shape == shape[1:]
    assert bool(result.series.isfinite().all())


def test_a_constant_comes_back_and_has_no_noise() -> None:
    constant = torch.full((9, 8, 8, 8), -7.0)
    found = series_low_rank(constant, None)
    torch.testing.assert_close(found.series, constant)
    assert float(found.sigma.max()) < 1e-4


def test_batches_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = mixture() + normal(20, 10, 11, 12, seed=2)
    whole = series_low_rank(noisy)
    for name in ("BATCH", "BATCH_VALUES"):
        with monkeypatch.context() as patched:
            patched.setattr(series, name, 1)
            for one, other in zip(whole, series_low_rank(noisy), strict=True):
                torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("patch", "step"), [(3, 2), (5, 2), (5, 1), (4, 4)])
def test_batches_of_one_turn_do_not_overlap(patch: int, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = Grid.of((11, 13, 14), patch, step, 1, (0, 0, 0))
    for most in (1, 20, 1000):
        monkeypatch.setattr(series, "BATCH", most)
        turns = series.batches_of_patches(grid, 7, torch.device("cpu"))
        patches = torch.zeros(grid.references[:2])
        for turn in turns:
            covered = torch.zeros(grid.shape[:2])
            for batch in turn:
                covered[batch.box] += 1
                patches[batch.at] += 1
            assert covered.max() == 1
        assert bool((patches == 1).all())


def test_threads_change_no_bit() -> None:
    noisy, threads = (mixture() + normal(20, 10, 11, 12, seed=2)).float(), torch.get_num_threads()
    found = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(series_low_rank(noisy))
    finally:
        torch.set_num_threads(threads)
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
