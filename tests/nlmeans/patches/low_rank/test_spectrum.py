"""Shrinkage of singular values against its formula, matrix by matrix in float64, and the noise measured by the rest."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nlmeans.patches.low_rank.spectrum import (
    LEADING,
    eigenvectors,
    leading_eigenpairs,
    orthonormal,
    shrink_singular_values,
    surely_signal,
    surely_signal_of_any,
    variance_of_rest,
)
from tests.nlmeans.patches.tensors import normal


def signal(matrices: int, rows: int, columns: int, rank: int, size: float) -> torch.Tensor:
    return size * normal(matrices, rows, rank, seed=1) @ normal(matrices, rank, columns, seed=2)


def by_formula(y: np.ndarray, sigma: float = 1.0) -> np.ndarray:
    short, long = sorted(y.shape)
    u, s, v = np.linalg.svd(y, full_matrices=False)
    t, ratio = s / math.sqrt(long) / sigma, short / long
    shrunk = np.where(t > 1 + math.sqrt(ratio), np.sqrt(np.maximum((t**2 - ratio - 1) ** 2 - 4 * ratio, 0)) / t, 0)
    return (u * shrunk * math.sqrt(long) * sigma) @ v


@pytest.mark.parametrize("shape", [(12, 27), (30, 8), (125, 67), (60, 130)])
def test_singular_values_follow_the_formula(shape: tuple[int, int]) -> None:
    noisy = normal(3, *shape) + signal(3, *shape, rank=2, size=4)
    result = shrink_singular_values(noisy, torch.full((3,), 1.0, dtype=torch.float64))
    for k in range(3):
        np.testing.assert_allclose(result.matrix[k].numpy(), by_formula(noisy[k].numpy()), atol=2e-2)
    assert result.rank.tolist() == [2, 2, 2]


def test_float32_and_subspace_iteration_stay_within_a_hundredth_of_sigma() -> None:
    noisy = normal(8, 125, 67) + signal(8, 125, 67, rank=5, size=3)
    exact = shrink_singular_values(noisy, torch.ones(8, dtype=torch.float64), leading=67).matrix
    found = shrink_singular_values(noisy.float(), torch.ones(8)).matrix
    assert float((found - exact).square().mean().sqrt()) < 0.01


def test_matrices_with_more_components_than_are_iterated_are_computed_in_full() -> None:
    noisy = normal(3, 125, 67)
    noisy[1] += signal(1, 125, 67, rank=40, size=5)[0]
    result = shrink_singular_values(noisy, torch.ones(3, dtype=torch.float64))
    assert float(result.rank[1]) == 40
    assert float(result.rank.min()) <= 1
    np.testing.assert_allclose(result.matrix[1].numpy(), by_formula(noisy[1].numpy()), atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "rank"), [((124, 67), 0), ((124, 67), 6), ((124, 67), 35), ((60, 130), 4), ((124, 10), 3)]
)
def test_noise_is_measured_by_what_the_signal_leaves(shape: tuple[int, int], rank: int) -> None:
    noisy = 3.0 * (normal(16, *shape) + signal(16, *shape, rank=rank, size=3))
    measured = shrink_singular_values(noisy, None).variance.sqrt()
    assert float(measured.mean()) == pytest.approx(3, rel=0.02)
    assert float(measured.std()) < 0.12


def test_nothing_but_zeros_has_neither_noise_nor_components() -> None:
    result = shrink_singular_values(torch.zeros(2, 125, 67), None)
    assert result.variance.tolist() == result.rank.tolist() == [0, 0]
    assert not result.matrix.any()


@pytest.mark.parametrize(("rows", "columns"), [(125, 24), (125, 96), (27, 8)])
def test_noise_exceeds_what_is_surely_signal_as_seldom_as_it_says(rows: int, columns: int) -> None:
    noise = normal(4000, rows, columns)
    energies = torch.linalg.eigvalsh(noise.mT @ noise)[:, -1]
    exceeded = float((energies > surely_signal(rows, columns, 0.01)).double().mean())
    assert 0.004 < exceeded < 0.016


def test_the_rest_of_a_known_spectrum() -> None:
    energies = torch.tensor([[1.0, 1.0, 500.0]])
    found = variance_of_rest(energies, torch.tensor([502.0]), rows=20, columns=3)
    assert float(found) == pytest.approx(2 / (2 * 19))


def test_eigenpairs_are_those_of_numpy() -> None:
    rows = normal(5, 6, 6)
    values, vectors = eigenvectors(rows @ rows.mT)
    for k in range(5):
        np.testing.assert_allclose(values[k].numpy(), np.linalg.eigvalsh((rows[k] @ rows[k].T).numpy()), atol=1e-9)
        torch.testing.assert_close((vectors[k] * values[k]) @ vectors[k].T, rows[k] @ rows[k].T)


def test_leading_eigenpairs_are_the_largest() -> None:
    rows = normal(4, 200, 90) * torch.cat([torch.full((6,), 20.0), torch.ones(84)])
    gram = rows.mT @ rows
    values, vectors = leading_eigenpairs(gram)
    assert values.shape == (4, LEADING)
    exact = torch.linalg.eigvalsh(gram)[:, -6:]
    torch.testing.assert_close(values[:, -6:], exact, rtol=1e-8, atol=0)
    torch.testing.assert_close(gram @ vectors[..., -6:], vectors[..., -6:] * exact[:, None], rtol=1e-3, atol=1e-1)


def test_a_basis_of_few_directions_becomes_orthonormal() -> None:
    basis = orthonormal(normal(2, 50, 3))
    torch.testing.assert_close(basis.mT @ basis, torch.eye(3, dtype=torch.float64).expand(2, 3, 3), atol=1e-10, rtol=0)


def test_the_largest_of_many_sets_of_rows_is_hardly_ever_beyond_the_limit_and_comes_near_it() -> None:
    rows = normal(400, 100, 20).square()  # the squared lengths of single rows
    share = float((rows.sum(2).amax(1) > surely_signal_of_any(1, 20, 100, 0.2)).double().mean())
    assert share == pytest.approx(0.2, abs=0.06)
    pairs = torch.linalg.svdvals(normal(20_000, 2, 20)).amax(1).square()
    assert 0 < float((pairs > surely_signal_of_any(2, 20, 2, 1e-3)).double().mean()) < 2e-3
