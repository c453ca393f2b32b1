"""Products of small matrices in registers, compared with numpy."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from nlmeans.kernels.matrix import TILE_ROWS, multiply, transpose
from nlmeans.kernels.vector import LANES


@njit
def product(array, out, left, right, depth, vectors, subtract):  # type: ignore[no-untyped-def]
    pitch = vectors * LANES
    multiply(array, out, pitch, left, 1, TILE_ROWS, right, pitch, depth, vectors, subtract)


@njit
def turned(array):  # type: ignore[no-untyped-def]
    transpose(array, 0, LANES + 3, LANES * (LANES + 3), LANES)


@pytest.mark.parametrize("subtract", [False, True])
@pytest.mark.parametrize("vectors", range(1, 8))
def test_a_product_is_that_of_the_matrices(vectors: int, subtract: bool) -> None:
    rng = np.random.default_rng(0)
    depth, width = 5, vectors * LANES
    left, right, before = (rng.random(shape, np.float32) for shape in ((depth, 4), (depth, width), (4, width)))
    array = np.concatenate([left.ravel(), right.ravel(), before.ravel()])
    product(array, left.size + right.size, 0, left.size, depth, vectors, subtract)
    expected = before - left.T @ right if subtract else left.T @ right
    np.testing.assert_allclose(array[left.size + right.size :].reshape(4, width), expected, rtol=1e-5, atol=1e-5)


def test_a_square_is_transposed() -> None:
    square = np.arange(LANES * (LANES + 3), dtype=np.float32).reshape(LANES, LANES + 3)
    array = np.concatenate([square.ravel(), np.zeros(LANES * LANES, np.float32)])
    turned(array)
    np.testing.assert_array_equal(array[square.size :].reshape(LANES, LANES), square[:, :LANES].T)
