"""The CPU kernels for spherical and diagonal covariances compared with `loop` in float64, and their sums with numpy."""

from __future__ import annotations

import numpy as np
import pytest

from nlmeans.blur import cpu
from nlmeans.blur.separable_cpu_kernel import (
    add_moments,
    add_to_rows,
    fill_factors,
    sum_along_x,
    sum_mirrored_rows,
    sum_squares_along_x,
)
from tests.nlmeans.blur.padded import CASES, largest_error

PLACES = [(0, 0, 1), (0, 2, 2), (1, 0, 2), (1, 2, 4)]
"""Steps along z and y, and how many rows mirror each other."""


@pytest.mark.parametrize("entries", [1, 3])
@pytest.mark.parametrize("case", CASES)
def test_both_ways_give_the_same(case: str, entries: int) -> None:
    assert largest_error(cpu, case, entries) <= 1e-5


def mirrored(oz: int, oy: int) -> set[tuple[int, int]]:
    return {(3 + z, 4 + y) for z in (-oz, oz) for y in (-oy, oy)}


@pytest.mark.parametrize(("oz", "oy", "count"), PLACES)
def test_rows_that_mirror_each_other_are_summed(oz: int, oy: int, count: int, rng: np.random.Generator) -> None:
    padded, row = rng.random((7, 9, 5), np.float32), np.empty(5, np.float32)
    assert sum_mirrored_rows(padded, 3, oz, 4, oy, row) == count
    np.testing.assert_allclose(row, sum(padded[place] for place in mirrored(oz, oy)), rtol=1e-6)


@pytest.mark.parametrize(("oz", "oy", "count"), PLACES)
def test_a_row_is_added_to_those_that_mirror_each_other(oz: int, oy: int, count: int, rng: np.random.Generator) -> None:
    padded, row = np.zeros((7, 9, 5), np.float32), rng.random(5, np.float32)
    add_to_rows(row, padded, 3, oz, 4, oy)
    expected = np.zeros_like(padded)
    for place in mirrored(oz, oy):
        expected[place] = row
    np.testing.assert_array_equal(padded, expected)
    assert (padded != 0).any(2).sum() == count


def test_factors_and_their_moments_follow_the_formula(rng: np.random.Generator) -> None:
    precision, factors = rng.random(6, np.float32) * 2, np.empty((4, 6), np.float32)
    fill_factors(precision, 1.3, factors)
    steps = np.arange(4)[:, None]
    expected = np.exp(-0.5 * precision.astype(np.float64) * (1.3 * steps) ** 2)
    np.testing.assert_allclose(factors, expected, rtol=1e-5, atol=1e-8)
    total, second = np.empty(6, np.float32), np.empty(6, np.float32)
    add_moments(factors, total, second)
    np.testing.assert_allclose(total, 2 * expected.sum(0) - 1, rtol=1e-5)
    np.testing.assert_allclose(second, 2 * (steps**2 * expected).sum(0), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("radius", [0, 1, 3])
def test_sums_along_x_are_those_of_weighted_differences(radius: int, rng: np.random.Generator) -> None:
    width, count = 7, 2
    factors, own = rng.random((radius + 1, width), np.float32), rng.random(width, np.float32)
    row = rng.random(width + 2 * radius, np.float32)
    total, again, second = (np.empty(width, np.float32) for _ in range(3))
    sum_along_x(factors, row, count, own, total)
    sum_squares_along_x(factors, row, count, own, again, second)
    expected, squares = np.zeros(width), np.zeros(width)
    for x in range(width):
        for step in range(-radius, radius + 1):
            value = float(factors[abs(step), x]) * (float(row[x + radius + step]) - count * float(own[x]))
            expected[x] += value
            squares[x] += step**2 * value
    np.testing.assert_allclose(total, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(again, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(second, squares, rtol=1e-5, atol=1e-5)
