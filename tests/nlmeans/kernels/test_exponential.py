"""2ᵗ by a polynomial compared with float64, for vectors and for single numbers."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from numba import njit

from nlmeans.blur.cpu_kernel import TERMS
from nlmeans.kernels.exponential import ROUNDER, exp2
from nlmeans.kernels.vector import LANES, load, splat, store
from nlmeans.operator.cpu_kernel import EXP2_TERMS

MINIMAX = tuple(np.float32(term) for term in EXP2_TERMS)
POLYNOMIALS = {"minimax of degree 4": (MINIMAX, 3.1e-6), "Taylor of degree 6": (TERMS, 4e-7)}
"""Terms of the kernels, and bounds of their relative errors with rounding."""


@njit
def of_numbers(t, terms, result):  # type: ignore[no-untyped-def]
    for i in range(len(t)):
        result[i] = exp2(t[i], terms)


@njit
def of_vectors(t, r, s, a, b, c, d, e, result):  # type: ignore[no-untyped-def]
    terms = splat(r), splat(s), splat(a), splat(b), splat(c), splat(d), splat(e)
    for i in range(0, len(t), LANES):
        store(result, i, exp2(load(t, i), terms))


def by_numbers(t: npt.NDArray[np.float32], terms: tuple[np.float32, ...]) -> npt.NDArray[np.float32]:
    result = np.empty_like(t)
    of_numbers(t, terms, result)
    return result


def by_vectors(t: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    result = np.empty_like(t)
    of_vectors(t, *MINIMAX, result)
    return result


@pytest.mark.parametrize("name", POLYNOMIALS)
def test_a_number_has_the_accuracy_of_its_polynomial(name: str) -> None:
    terms, bound = POLYNOMIALS[name]
    t = np.linspace(float(terms[1]), 0, 1 << 16).astype(np.float32)
    found, exact = by_numbers(t, terms), np.exp2(t.astype(np.float64))
    assert np.abs(found / exact - 1).max() < bound
    assert found[-1] == 1


def test_a_vector_has_the_same_accuracy() -> None:
    t = np.linspace(float(MINIMAX[1]), 0, 1 << 16).astype(np.float32)
    found, exact = by_vectors(t), np.exp2(t.astype(np.float64))
    assert np.abs(found / exact - 1).max() < POLYNOMIALS["minimax of degree 4"][1]
    assert found[-1] == 1
    np.testing.assert_allclose(found, by_numbers(t, MINIMAX), rtol=3e-7)  # may differ in the rounding of a · b + c


@pytest.mark.parametrize("name", POLYNOMIALS)
def test_numbers_below_the_bound_give_its_power(name: str) -> None:
    terms, bound = POLYNOMIALS[name]
    least = math.pow(2, float(terms[1]))
    below = np.array([float(terms[1]) - 1, -1e4, -1e30, -np.inf], np.float32).repeat(LANES)
    assert by_numbers(below, terms) == pytest.approx(least, rel=max(bound, 1e-5))
    if terms is MINIMAX:
        assert by_vectors(below) == pytest.approx(least, rel=1e-5)


@pytest.mark.parametrize("n", [0, -1, -7, -20, -28])
def test_whole_powers_are_exact(n: int) -> None:
    t = np.full(LANES, n, np.float32)
    assert (by_numbers(t, MINIMAX) == 2.0**n).all()
    assert (by_vectors(t) == 2.0**n).all()


def test_adding_the_rounder_rounds_to_whole_numbers() -> None:
    t = np.linspace(-100, 0, 1001, dtype=np.float32)
    np.testing.assert_array_equal((t + ROUNDER) - ROUNDER, np.rint(t))
