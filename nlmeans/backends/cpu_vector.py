"""A vector of 16 floats as a numba type, with the arithmetic that the CPU kernels need.

LLVM maps it to one AVX-512, two AVX or four NEON registers.  With vectors spelled out, speed depends neither on
LLVM's loop vectoriser nor on its preference for 256 bits, and there are no index checks.  numba's disk cache does not
see this file: after a change here, touch cpu_kernel.py.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

LANES = 16
FLOATS = ir.VectorType(ir.FloatType(), LANES)
INTEGERS = ir.VectorType(ir.IntType(32), LANES)
# `contract` lets a * b + c become one instruction; reassociation would break rounding by adding a large number.
FAST = ("contract", "nsz", "nnan", "ninf")


class Vector(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"nlmeans_float32x{LANES}")


vector = Vector()


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, frontend_type: Vector) -> None:
        super().__init__(manager, frontend_type, FLOATS)


def define_binary(function: Callable, emit: Callable) -> None:
    @infer_global(function)
    class Template(ConcreteTemplate):
        cases = [signature(vector, vector, vector)]

    @lower_builtin(function, vector, vector)
    def lower(context, builder, sig, args):
        return emit(builder, *args)


define_binary(operator.add, lambda builder, a, b: builder.fadd(a, b, flags=FAST))
define_binary(operator.sub, lambda builder, a, b: builder.fsub(a, b, flags=FAST))
define_binary(operator.mul, lambda builder, a, b: builder.fmul(a, b, flags=FAST))
define_binary(min, lambda builder, a, b: builder.select(builder.fcmp_ordered("<", a, b), a, b))
define_binary(max, lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))


def lane_pointer(context, builder, array_type, array, index):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), FLOATS.as_pointer())


@intrinsic
def load(typing_context, array, index):
    """The LANES floats of a flat array from `index` on; any alignment."""

    def emit(context, builder, sig, args):
        return builder.load(lane_pointer(context, builder, sig.args[0], *args), align=4)

    return vector(array, types.intp), emit


@intrinsic
def store(typing_context, array, index, value):
    def emit(context, builder, sig, args):
        pointer = lane_pointer(context, builder, sig.args[0], *args[:2])
        builder.store(args[2], pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), emit


@intrinsic
def splat(typing_context, value):
    """All lanes equal to a float32."""

    def emit(context, builder, sig, args):
        undefined = ir.Constant(FLOATS, ir.Undefined)
        first = builder.insert_element(undefined, args[0], ir.IntType(32)(0))
        return builder.shuffle_vector(first, undefined, ir.Constant(INTEGERS, [0] * LANES))

    return vector(types.float32), emit


@intrinsic
def add_exponent(typing_context, value, rounded):
    """value * 2**n, where the low mantissa bits of `rounded` hold the integer n."""

    def emit(context, builder, sig, args):
        value_bits, rounded_bits = (builder.bitcast(arg, INTEGERS) for arg in args)
        exponent = builder.shl(rounded_bits, ir.Constant(INTEGERS, [23] * LANES))
        return builder.bitcast(builder.add(value_bits, exponent), FLOATS)

    return vector(vector, vector), emit


@intrinsic(prefer_literal=True)
def repeat(typing_context, value, count):
    """A tuple with `count` times the same value, for a compile-time count."""
    result = types.UniTuple(value, count.literal_value)

    def emit(context, builder, sig, args):
        return context.make_tuple(builder, result, [args[0]] * result.count)

    return result(value, count), emit
