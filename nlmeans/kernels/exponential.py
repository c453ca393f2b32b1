"""2ᵗ for t ≤ 0 in float32 by a polynomial, for vectors (kernels/vector.py) and for single numbers.

With t = n + f, n is the nearest integer. Adding a number whose last mantissa bit is worth 1 rounds t to n. The
polynomial gives 2ᶠ, and n is added to the exponent bits. If the constant term is 1, the result is exactly 1 at t = 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

from nlmeans.kernels.vector import FAST, INTEGER_VECTOR, LANES, NUMBA_OPTIONS, VECTORS

ROUNDER = np.float32(1.5 * 2**23)
"""Number whose last mantissa bit is worth 1: adding it rounds to integers."""

OPTIONS: dict[str, Any] = {"forceinline": True, "fastmath": set(FAST), **NUMBA_OPTIONS}
"""`contract` lets a * b + c become one instruction; reassociation would undo the rounding."""


@intrinsic
def add_exponent(typing_context, value, rounded):
    """value · 2ⁿ, where the low mantissa bits of `rounded` hold the integer n."""
    kind = value if value == VECTORS[types.float32] else types.float32
    integers, places = (ir.IntType(32), 23) if kind == types.float32 else (INTEGER_VECTOR, [23] * LANES)

    def emit(context, builder, sig, args):
        value_bits, rounded_bits = (builder.bitcast(arg, integers) for arg in args)
        shifted = builder.shl(rounded_bits, ir.Constant(integers, places))
        return builder.bitcast(builder.add(value_bits, shifted), args[0].type)

    return kind(kind, kind), emit


def polynomial(f, coefficients):
    """c₀ + c₁·f + c₂·f² + …, for a tuple of coefficients whose length is a compile-time constant."""
    value = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        value = coefficient + f * value
    return value


@overload(polynomial, jit_options=OPTIONS)
def compile_polynomial(f, coefficients):
    if coefficients.count == 1:
        return lambda f, coefficients: coefficients[0]
    return lambda f, coefficients: coefficients[0] + f * polynomial(f, coefficients[1:])


@njit(**OPTIONS)
def exp2(t, terms):
    """2ᵗ for t ≤ 0; `terms` are `ROUNDER`, the bound to which smaller t are raised, and the coefficients."""
    rounder = terms[0]
    t = max(t, terms[1])
    rounded = t + rounder
    return add_exponent(polynomial(t - (rounded - rounder), terms[2:]), rounded)
