"""The CPU kernels for full covariances compared with `loop` in float64, and their weights with the formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nlmeans.blur import cpu
from nlmeans.blur.full_cpu_kernel import set_exponents, set_weights
from tests.nlmeans.blur.padded import CASES, SIZES, largest_error, random_precision


@pytest.mark.parametrize("entries", [6])
@pytest.mark.parametrize("case", CASES)
def test_both_ways_give_the_same(case: str, entries: int) -> None:
    assert largest_error(cpu, case, entries) <= 1e-5


@pytest.mark.parametrize("offset", [(0, 0, 1), (0, 1, -2), (1, -1, 0), (1, 1, 1)])
def test_weights_of_a_row_follow_the_formula(offset: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    precision = random_precision(6, (2, 3, 9)).numpy()
    terms, weight = np.empty((3, 9), np.float32), np.empty(9, np.float32)
    oz, oy, ox = offset
    set_exponents(precision, SIZES, oz, oy, 1, 2, terms)
    set_weights(terms, ox, weight)
    matrices = np.empty((9, 3, 3))
    for entry, (row, column) in enumerate(zip(*np.triu_indices(3), strict=True)):
        matrices[:, row, column] = matrices[:, column, row] = precision[entry, 1, 2]
    step = np.array(offset) * SIZES
    expected = np.exp(-0.5 * np.einsum("i,xij,j->x", step, matrices, step))
    np.testing.assert_allclose(weight, expected, rtol=1e-5, atol=1e-8)
