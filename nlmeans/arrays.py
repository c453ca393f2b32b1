"""numpy arrays and torch tensors alike: read a piece as a tensor, write a piece back as what came in."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[Any] | Tensor
Slices = tuple[slice, ...]

WIDE = frozenset({"float64", "int32", "uint32", "int64", "uint64", "longdouble", "float128"})
"""Types with more digits than float32: their offset is taken off before they are rounded to it."""


def checked(array: object, name: str) -> Array:
    """`array`, if it is a real-valued numpy array or strided tensor with at least one element."""
    if isinstance(array, Tensor):
        if array.layout != torch.strided:
            raise TypeError(f"{name} has layout {array.layout}; give a dense tensor: {name}.to_dense()")
        real = not (array.is_complex() or array.is_quantized or dtype_name(array).startswith("float8"))
    elif isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; give {name}.filled(...), and where it is valid as mask=")
    elif isinstance(array, np.ndarray):
        real = array.dtype.kind in "buif"
    else:
        raise TypeError(f"{name} is a {type(array).__name__}; give a numpy array or a torch tensor")
    if not real:
        raise TypeError(f"{name} has dtype {array.dtype}; give real numbers, for instance its magnitude")
    if 0 in array.shape:
        raise ValueError(f"{name} has shape {tuple(array.shape)} and so no voxels")
    return array


def dtype_name(array: Array) -> str:
    """The type of the numbers, whatever their byte order."""
    return str(array.dtype).removeprefix("torch.") if isinstance(array, Tensor) else array.dtype.name


def is_wide(array: Array) -> bool:
    return dtype_name(array) in WIDE


def precise_dtype(array: Array) -> torch.dtype:
    """float32, or float64 where the array's type has more digits."""
    return torch.float64 if is_wide(array) else torch.float32


def read(array: Array, piece: Slices, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A new tensor with the values of a piece; the array itself is never shared."""
    if isinstance(array, Tensor):
        return array.detach()[piece].to(device=device, dtype=dtype, copy=True)
    numbers = np.array(array[piece], dtype=str(dtype).removeprefix("torch."), order="C")
    return torch.from_numpy(numbers).to(device)


def device_of(array: Array) -> torch.device:
    return array.device if isinstance(array, Tensor) else torch.device("cpu")


def empty_like(array: Array, dtype: str | None = None, shape: tuple[int, ...] | None = None) -> Array:
    """An uninitialised array of the same kind and device; dtype (by name) and shape too, if not given."""
    shape = tuple(array.shape) if shape is None else shape
    if isinstance(array, Tensor):
        return torch.empty(shape, dtype=getattr(torch, dtype) if dtype else array.dtype, device=array.device)
    return np.empty(shape, dtype=dtype or array.dtype)


def check_holds(dtype: str, low: float, high: float, name: str) -> None:
    """Raises ``ValueError`` if values from `low` to `high` are too large or too small for a floating-point type."""
    limits, peak = torch.finfo(getattr(torch, dtype)), max(-low, high)
    if peak > limits.max or 0 < peak < limits.smallest_normal:
        raise ValueError(
            f"dtype={dtype!r} holds numbers from {limits.smallest_normal:.2g} to {limits.max:.6g}, but {name} goes "
            f"from {low:.6g} to {high:.6g}; take a wider dtype, or None for that of {name}"
        )


def write(array: Array, piece: Slices, values: Tensor) -> None:
    """Store a piece, rounded where the array holds integers, and clipped to what its type holds."""
    if isinstance(array, Tensor):
        array[piece] = to_dtype(values, array.dtype).to(array.device)
        return
    numbers = values.detach().cpu().numpy()
    if array.dtype.kind == "b":
        numbers = numbers >= 0.5
    elif array.dtype.kind in "ui":
        numbers = clip_to_integers(np.rint(numbers.astype(np.float64)), array.dtype)
    elif array.dtype.itemsize < numbers.dtype.itemsize:
        limits = np.finfo(array.dtype)
        numbers = numbers.clip(float(limits.min), float(limits.max))
    array[piece] = numbers


def to_dtype(values: Tensor, dtype: torch.dtype) -> Tensor:
    """`values` as `dtype`, rounded for integers, and clipped to what it holds."""
    if dtype == torch.bool:
        return values >= 0.5
    if dtype.is_floating_point:
        limits = torch.finfo(dtype)
        narrower = limits.max < torch.finfo(values.dtype).max
        return (values.clamp(limits.min, limits.max) if narrower else values).to(dtype)
    numpy_type = np.dtype(str(dtype).removeprefix("torch."))
    integers = clip_to_integers(np.rint(values.detach().cpu().double().numpy()), numpy_type)
    return torch.from_numpy(integers).to(values.device)


def clip_to_integers(numbers: npt.NDArray[np.float64], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Whole float64 numbers as `dtype`, without the overflow of 64-bit limits that float64 rounds up."""
    limits = np.iinfo(dtype)
    below, above = numbers <= limits.min, numbers >= limits.max
    integers = np.where(below | above, 0, numbers).astype(dtype)
    integers[below], integers[above] = limits.min, limits.max
    return integers


EXACT_INTEGERS = 2**53
"""Beyond it float64, in which all that is wide is read, skips integers."""


def value_range(array: Array, name: str) -> tuple[float, float]:
    """Smallest and largest value; ``ValueError`` if any is NaN, infinite, or an integer that float64 does not hold."""
    if isinstance(array, Tensor):
        values = array.detach()
        if values.dtype in (torch.bool, torch.uint16, torch.uint32, torch.uint64):
            values = values.double()
        low, high = (float(v) for v in torch.aminmax(values))
    else:
        low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise not_finite(name)
    if max(-low, high) > EXACT_INTEGERS and dtype_name(array) in ("int64", "uint64"):
        raise ValueError(
            f"{name} has integers from {low:.6g} to {high:.6g}, of which those beyond 2**53 would be rounded; take an "
            "offset off first, or give it as float64"
        )
    return low, high


def finite(values: Tensor, name: str) -> Tensor:
    """`values`, unless any is NaN or infinite, as often outside of what a program has computed: ``ValueError``."""
    if not bool(values.isfinite().all()):
        raise not_finite(name)
    return values


def not_finite(name: str) -> ValueError:
    return ValueError(f"{name} contains NaN or infinite values; replace them first, for instance with numpy.nan_to_num")
