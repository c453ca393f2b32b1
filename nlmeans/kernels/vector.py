"""A vector of 16 or 8 floats as a numba type, with the arithmetic that the CPU kernels need.

LLVM maps it to one AVX-512, one AVX or four NEON registers. With explicit vectors, the speed depends neither on the
loop vectoriser of LLVM nor on its preference for 256 bits, and there are no index checks.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import binding, ir
from numba import njit, types
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

from nlmeans.kernels import cache

Floats = npt.NDArray[np.float32]
"""Array that a kernel works on."""


def lanes_for(features: Mapping[str, bool]) -> int:
    """Number of floats in a vector: 8 with AVX alone, whose registers hold 8 and are too few for pairs; otherwise 16.

    >>> lanes_for({"avx": True, "avx512f": True}), lanes_for({"avx": True, "avx512f": False}), lanes_for({"neon": True})
    (16, 8, 16)
    """
    return 8 if features.get("avx") and not features.get("avx512f") else 16


LANES = lanes_for(binding.get_host_cpu_features())
FLOAT_VECTOR = ir.VectorType(ir.FloatType(), LANES)
INTEGER_VECTOR = ir.VectorType(ir.IntType(32), LANES)
# `contract` allows one instruction for a * b + c. Reassociation would break rounding by adding a large number.
FAST = ("contract", "nsz", "nnan", "ninf")


NUMBA_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
inlined_kernel = njit(forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True, **NUMBA_OPTIONS)
inner_kernel = njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **NUMBA_OPTIONS)  # called by other kernels only


def vector_kernel(function: Callable) -> Any:
    """Compile a kernel of vectors at its first call, and store it on disk."""
    return cache.compiled(function, **NUMBA_OPTIONS)


class Vector(types.Type):
    """The numba type of a vector of LANES floats."""

    def __init__(self) -> None:
        super().__init__(name=f"nlmeans_float32x{LANES}")


vector = Vector()


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    """The LLVM type of a vector."""

    def __init__(self, manager: Any, frontend_type: Vector) -> None:
        super().__init__(manager, frontend_type, FLOAT_VECTOR)


def define_binary(function: Callable, emit: Callable) -> None:
    """Let kernels call `function` with two vectors; `emit` writes its LLVM instructions."""

    @infer_global(function)
    class Template(ConcreteTemplate):
        cases = [signature(vector, vector, vector)]

    @lower_builtin(function, vector, vector)
    def lower(context, builder, sig, args):
        return emit(builder, *args)


define_binary(operator.add, lambda builder, a, b: builder.fadd(a, b, flags=FAST))
define_binary(operator.sub, lambda builder, a, b: builder.fsub(a, b, flags=FAST))
define_binary(operator.mul, lambda builder, a, b: builder.fmul(a, b, flags=FAST))
define_binary(operator.truediv, lambda builder, a, b: builder.fdiv(a, b, flags=FAST))
define_binary(min, lambda builder, a, b: builder.select(builder.fcmp_ordered("<", a, b), a, b))
define_binary(max, lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))


def lane_pointer(context, builder, array_type, array, index, lanes=FLOAT_VECTOR):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), lanes.as_pointer())


@intrinsic
def load(typing_context, array, index):
    """Read LANES floats of a flat array, starting at `index`, with any alignment."""

    def emit(context, builder, sig, args):
        return builder.load(lane_pointer(context, builder, sig.args[0], *args), align=4)

    return vector(array, types.intp), emit


@intrinsic
def store(typing_context, array, index, value):
    """Write a vector to a flat array, starting at `index`, with any alignment."""

    def emit(context, builder, sig, args):
        pointer = lane_pointer(context, builder, sig.args[0], *args[:2])
        builder.store(args[2], pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), emit


def in_all_lanes(builder, value):
    undefined = ir.Constant(FLOAT_VECTOR, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.IntType(32)(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(INTEGER_VECTOR, [0] * LANES))


@intrinsic
def splat(typing_context, value):
    """A vector whose lanes are all equal to a float32."""

    def emit(context, builder, sig, args):
        return in_all_lanes(builder, args[0])

    return vector(types.float32), emit


@intrinsic
def total(typing_context, value):
    """The sum of the lanes."""

    def emit(context, builder, sig, args):
        halves, lanes = args[0], LANES
        while lanes > 1:
            lanes //= 2
            low, high = (
                builder.shuffle_vector(
                    halves, halves, ir.Constant(ir.VectorType(ir.IntType(32), lanes), list(range(first, first + lanes)))
                )
                for first in (0, lanes)
            )
            halves = builder.fadd(low, high)
        return builder.extract_element(halves, ir.IntType(32)(0))

    return types.float32(vector), emit


@intrinsic
def at_most(typing_context, value, limit):
    """An int64 with one bit per lane, the lowest for the first lane, which is set where value ≤ limit."""

    def emit(context, builder, sig, args):
        lanes = builder.bitcast(builder.fcmp_ordered("<=", *args), ir.IntType(LANES))
        return builder.zext(lanes, ir.IntType(64))

    return types.int64(vector, vector), emit


@intrinsic
def where_above(typing_context, measure, limit, value):
    """`value` in the lanes where measure > limit, and 0 in the others."""

    def emit(context, builder, sig, args):
        above = builder.fcmp_ordered(">", *args[:2])
        return builder.select(above, args[2], ir.Constant(FLOAT_VECTOR, [0.0] * LANES))

    return vector(vector, vector, vector), emit


@intrinsic
def count_bits(typing_context, bits):
    """Number of bits of an int64 that are set."""
    return types.int64(types.int64), lambda context, builder, sig, args: builder.ctpop(args[0])


@intrinsic
def lowest_bit(typing_context, bits):
    """Index of the lowest bit of an int64 that is set."""
    zero_is_defined = ir.IntType(1)(0)
    return types.int64(types.int64), lambda context, builder, sig, args: builder.cttz(args[0], zero_is_defined)


@intrinsic(prefer_literal=True)
def repeat(typing_context, value, count):
    """A tuple that holds the same value `count` times; `count` is a compile-time constant."""
    result = types.UniTuple(value, count.literal_value)

    def emit(context, builder, sig, args):
        return context.make_tuple(builder, result, [args[0]] * result.count)

    return result(value, count), emit


FOUR_FLOATS = ir.VectorType(ir.FloatType(), 4)


@intrinsic
def copy_four(typing_context, source, i, target, o):
    """Copy four floats from index i of `source` to index o of `target`."""

    def emit(context, builder, sig, args):
        source, i, target, o = args
        value = builder.load(lane_pointer(context, builder, sig.args[0], source, i, FOUR_FLOATS), align=4)
        builder.store(value, lane_pointer(context, builder, sig.args[2], target, o, FOUR_FLOATS), align=4)
        return context.get_dummy_value()

    return types.void(source, types.intp, target, types.intp), emit


@intrinsic
def add_four(typing_context, source, i, target, o):
    """Add four floats at index i of `source` to those at index o of `target`."""

    def emit(context, builder, sig, args):
        source, i, target, o = args
        value = builder.load(lane_pointer(context, builder, sig.args[0], source, i, FOUR_FLOATS), align=4)
        pointer = lane_pointer(context, builder, sig.args[2], target, o, FOUR_FLOATS)
        builder.store(builder.fadd(builder.load(pointer, align=4), value), pointer, align=4)
        return context.get_dummy_value()

    return types.void(source, types.intp, target, types.intp), emit
