"""Operations on vectors compared with numpy."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest
from numba import njit

from nlmeans.kernels import vector
from nlmeans.kernels.vector import LANES, load, splat, store

FUNCTIONS: dict[str, tuple[Any, Any]] = {
    "+": (operator.add, np.add),
    "-": (operator.sub, np.subtract),
    "*": (operator.mul, np.multiply),
    "/": (operator.truediv, np.divide),
    "min": (min, np.minimum),
    "max": (max, np.maximum),
}


@pytest.fixture
def pair(rng: np.random.Generator) -> Any:
    return rng.random((2, LANES + 3), np.float32) + np.float32(0.5)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arithmetic_works_lane_by_lane_at_any_alignment(name: str, pair: Any) -> None:
    function, expected = FUNCTIONS[name]

    @njit
    def apply(a, b, result):  # type: ignore[no-untyped-def]
        store(result, 1, function(load(a, 3), load(b, 2)))

    result = np.full(LANES + 2, -1, np.float32)
    apply(pair[0], pair[1], result)
    np.testing.assert_allclose(result[1:-1], expected(pair[0, 3:], pair[1, 2:-1]), rtol=1e-7)
    assert result[0] == result[-1] == -1


@njit
def summed(values):  # type: ignore[no-untyped-def]
    return vector.total(load(values, 0))


@njit
def bits_at_most(values, limit):  # type: ignore[no-untyped-def]
    return vector.at_most(load(values, 0), splat(limit))


@njit
def kept_above(values, limit, result):  # type: ignore[no-untyped-def]
    value = load(values, 0)
    store(result, 0, vector.where_above(value, splat(limit), value + value))


@njit
def counted(bits):  # type: ignore[no-untyped-def]
    return vector.count_bits(bits), vector.lowest_bit(bits)


@njit
def fours(source, target):  # type: ignore[no-untyped-def]
    vector.copy_four(source, 1, target, 0)
    vector.add_four(source, 2, target, 5)


@njit
def five_times(value):  # type: ignore[no-untyped-def]
    return vector.repeat(value, 5)


def test_lanes_are_summed(pair: Any) -> None:
    assert summed(pair[0]) == pytest.approx(pair[0, :LANES].sum(dtype=np.float64), rel=1e-6)


def test_lanes_are_compared_with_a_limit(pair: Any) -> None:
    values, limit = pair[0, :LANES], np.sort(pair[0, :LANES])[LANES // 2]
    bits = bits_at_most(pair[0], limit)
    assert [bool(bits >> lane & 1) for lane in range(64)] == [*(values <= limit), *[False] * (64 - LANES)]
    result = np.empty(LANES, np.float32)
    kept_above(pair[0], limit, result)
    np.testing.assert_array_equal(result, np.where(values > limit, 2 * values, 0))


@pytest.mark.parametrize("bits", [1, 2, 0b101000, (1 << 16) - 1, 1 << 40])
def test_bits_are_counted_and_the_lowest_is_found(bits: int) -> None:
    assert counted(bits) == (bits.bit_count(), (bits & -bits).bit_length() - 1)


def test_four_floats_are_copied_and_added() -> None:
    source, target = np.arange(8, dtype=np.float32), np.full(10, 100, np.float32)
    fours(source, target)
    assert target.tolist() == [1, 2, 3, 4, 100, 102, 103, 104, 105, 100]


def test_a_value_is_repeated() -> None:
    assert five_times(2.5) == (2.5,) * 5


def test_a_vector_fills_one_register_or_as_many_as_the_registers_allow() -> None:
    assert vector.lanes_for({"avx": True, "avx512f": False}) == 8
    assert vector.lanes_for({"avx": True, "avx512f": True}) == 16
    assert vector.lanes_for({}) == 16
    assert LANES in (8, 16)
