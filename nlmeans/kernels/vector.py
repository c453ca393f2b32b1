"""A vector of 16 or 8 floats as a numba type, with the arithmetic that the CPU kernels need.

LLVM maps it to one AVX-512, one AVX or four NEON registers. With explicit vectors, the speed depends neither on the
loop vectoriser of LLVM nor on its preference for 256 bits, and there are no index checks. A vector of as many doubles
takes twice the registers: a kernel compiled for an array of float64 is the same code with more digits.
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

Reals = npt.NDArray[np.float32] | npt.NDArray[np.float64]
"""Array that a kernel works on in either precision."""


def lanes_for(features: Mapping[str, bool]) -> int:
    """Number of floats in a vector: 8 with AVX alone, whose registers hold 8 and are too few for pairs; otherwise 16.

    >>> lanes_for({"avx": True, "avx512f": True}), lanes_for({"avx": True, "avx512f": False}), lanes_for({"neon": True})
    (16, 8, 16)
    """
    return 8 if features.get("avx") and not features.get("avx512f") else 16


LANES = lanes_for(binding.get_host_cpu_features())
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
    """The numba type of a vector of LANES floats or doubles."""

    def __init__(self, element: types.Float) -> None:
        super().__init__(name=f"nlmeans_{element.name}x{LANES}")
        self.dtype = element


VECTORS = {element: Vector(element) for element in (types.float32, types.float64)}


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    """The LLVM type of a vector."""

    def __init__(self, manager: Any, frontend_type: Vector) -> None:
        element = manager.lookup(frontend_type.dtype).get_value_type()
        super().__init__(manager, frontend_type, ir.VectorType(element, LANES))


def define_binary(function: Callable, emit: Callable) -> None:
    """Let kernels call `function` with two vectors; `emit` writes its LLVM instructions."""

    @infer_global(function)
    class Template(ConcreteTemplate):
        cases = [signature(vector, vector, vector) for vector in VECTORS.values()]

    @lower_builtin(function, Vector, Vector)
    def lower(context, builder, sig, args):
        return emit(builder, *args)


define_binary(operator.add, lambda builder, a, b: builder.fadd(a, b, flags=FAST))
define_binary(operator.sub, lambda builder, a, b: builder.fsub(a, b, flags=FAST))
define_binary(operator.mul, lambda builder, a, b: builder.fmul(a, b, flags=FAST))
define_binary(operator.truediv, lambda builder, a, b: builder.fdiv(a, b, flags=FAST))
define_binary(min, lambda builder, a, b: builder.select(builder.fcmp_ordered("<", a, b), a, b))
define_binary(max, lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))


def lane_pointer(context, builder, array_type, array, index, lanes=LANES):
    """A pointer to the vector of `lanes` numbers of a flat array that starts at `index`, with any alignment."""
    data = context.make_array(array_type)(context, builder, array).data
    vector = ir.VectorType(context.get_value_type(array_type.dtype), lanes)
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


@intrinsic
def load(typing_context, array, index):
    """Read LANES numbers of a flat array, starting at `index`, with any alignment."""

    def emit(context, builder, sig, args):
        return builder.load(lane_pointer(context, builder, sig.args[0], *args), align=4)

    return VECTORS[array.dtype](array, types.intp), emit


@intrinsic
def store(typing_context, array, index, value):
    """Write a vector to a flat array, starting at `index`, with any alignment."""

    def emit(context, builder, sig, args):
        pointer = lane_pointer(context, builder, sig.args[0], *args[:2])
        builder.store(args[2], pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, VECTORS[array.dtype]), emit


def in_all_lanes(builder, value):
    undefined = ir.Constant(ir.VectorType(value.type, LANES), ir.Undefined)
    first = builder.insert_element(undefined, value, ir.IntType(32)(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(INTEGER_VECTOR, [0] * LANES))


@intrinsic
def splat(typing_context, value):
    """A vector whose lanes are all equal to a float32 or float64."""

    def emit(context, builder, sig, args):
        return in_all_lanes(builder, args[0])

    return (VECTORS[value](value), emit) if value in VECTORS else None


@intrinsic
def number_like(typing_context, array, value):
    """A float64 as a number of the type that the array has."""

    def emit(context, builder, sig, args):
        return context.cast(builder, args[1], types.float64, sig.return_type)

    return array.dtype(array, types.float64), emit


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

    return value.dtype(value), emit


@intrinsic
def at_most(typing_context, value, limit):
    """An int64 with one bit per lane, the lowest for the first lane, which is set where value ≤ limit."""

    def emit(context, builder, sig, args):
        lanes = builder.bitcast(builder.fcmp_ordered("<=", *args), ir.IntType(LANES))
        return builder.zext(lanes, ir.IntType(64))

    return types.int64(value, value), emit


@intrinsic
def where_above(typing_context, measure, limit, value):
    """`value` in the lanes where measure > limit, and 0 in the others."""

    def emit(context, builder, sig, args):
        above = builder.fcmp_ordered(">", *args[:2])
        return builder.select(above, args[2], ir.Constant(args[2].type, [0.0] * LANES))

    return value(value, value, value), emit


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


def converted(builder, values, wanted):
    """Round a vector to floats, or extend it to doubles, if it is not what is wanted."""
    if values.type.element == wanted.element:
        return values
    return (builder.fpext if isinstance(wanted.element, ir.DoubleType) else builder.fptrunc)(values, wanted)


@intrinsic
def copy_four(typing_context, source, i, target, o):
    """Copy four numbers from index i of `source` to index o of `target`, which may be of another type."""

    def emit(context, builder, sig, args):
        source, i, target, o = args
        values = builder.load(lane_pointer(context, builder, sig.args[0], source, i, 4), align=4)
        pointer = lane_pointer(context, builder, sig.args[2], target, o, 4)
        builder.store(converted(builder, values, pointer.type.pointee), pointer, align=4)
        return context.get_dummy_value()

    return types.void(source, types.intp, target, types.intp), emit


def adder(count):
    """Make a function that adds `count` numbers at once."""

    @intrinsic
    def add(typing_context, source, i, target, o):
        def emit(context, builder, sig, args):
            source, i, target, o = args
            values = builder.load(lane_pointer(context, builder, sig.args[0], source, i, count), align=4)
            pointer = lane_pointer(context, builder, sig.args[2], target, o, count)
            values = converted(builder, values, pointer.type.pointee)
            builder.store(builder.fadd(builder.load(pointer, align=4), values), pointer, align=4)
            return context.get_dummy_value()

        return types.void(source, types.intp, target, types.intp), emit

    return add


add_four = adder(4)
"""Add four numbers at index i of `source` to those at index o of `target`, which may be of another type."""

add_two = adder(2)
"""The same for two numbers."""
