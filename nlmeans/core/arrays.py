"""Arrays in memory and on disk: read a piece as a tensor, and write a tensor back into an array.

An array that does not fit into memory is read and written slice by slice.
"""

from __future__ import annotations

import mmap
import sys
from typing import Any, Protocol, TypeGuard, TypeVar, cast, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[Any] | Tensor
Slices = tuple[slice, ...]
ArrayT = TypeVar("ArrayT", bound=Array)


@runtime_checkable
class Readable(Protocol):
    """Array that returns its values when sliced: a zarr array, an h5py dataset, ``dataobj`` of nibabel, any array."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...
    @property
    def ndim(self) -> int: ...
    def __getitem__(self, key: Any, /) -> Any: ...


@runtime_checkable
class Writable(Protocol):
    """Array whose slices can be assigned, such as a zarr array, an h5py dataset or a numpy array."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...
    def __setitem__(self, key: Any, value: Any, /) -> None: ...


class Sliced:
    """An array that is only read piece by piece."""

    def __init__(self, array: Readable) -> None:
        self.array = array
        self.shape = tuple(int(n) for n in array.shape)
        self.ndim = len(self.shape)
        self.chunks = chunks(array)
        first = (slice(0, 1),) * self.ndim
        self.dtype = array.dtype if 0 in self.shape else np.asarray(array[first]).dtype
        """Type of the values read. The ``dtype`` of nibabel is the type in the file, before the values are scaled."""

    def __getitem__(self, key: Slices) -> npt.NDArray[Any]:
        return np.asarray(self.array[key])


Source = Array | Sliced
"""Array that a volume is read from."""

WIDE_DTYPES = frozenset({"float64", "int32", "uint32", "int64", "uint64", "longdouble", "float128"})
"""Types with more digits than float32. An offset is subtracted from their values before these become float32."""


def check_array(array: object, name: str) -> Array:
    """Return `array`; raise an error unless it is a real numpy array or strided tensor with at least one voxel."""
    if isinstance(array, Tensor):
        if array.layout != torch.strided:
            raise TypeError(f"{name} has layout {array.layout}; give a dense tensor: {name}.to_dense()")
    elif isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; give {name}.filled(...), and its valid voxels as mask=")
    elif not isinstance(array, np.ndarray):
        raise TypeError(f"{name} is a {type(array).__name__}; give a numpy array or a torch tensor")
    check_numbers(array, name)
    return array


def readable(array: object, name: str) -> Source:
    """Return `array`; raise an error unless it passes `check_array` or can be read piece by piece."""
    if isinstance(array, np.ndarray | np.generic | Tensor) or not isinstance(array, Readable):
        return check_array(array, name)
    source = array if isinstance(array, Sliced) else Sliced(array)
    check_numbers(source, name)
    return source


def check_numbers(array: Readable, name: str) -> None:
    """Raise an error unless the array holds real numbers and has at least one voxel."""
    if isinstance(array, Tensor):
        real = not (array.is_complex() or array.is_quantized or dtype_name(array).startswith("float8"))
    else:
        real = array.dtype.kind in "buif"
    if not real:
        raise TypeError(f"{name} has dtype {array.dtype}; give real numbers, for instance its magnitude")
    if 0 in array.shape:
        raise ValueError(f"{name} has shape {tuple(array.shape)} and so no voxels; every axis needs at least one")


def is_complex(array: object) -> TypeGuard[Array]:
    """Whether this is a numpy array or a tensor of complex numbers."""
    return (
        array.is_complex() if isinstance(array, Tensor) else isinstance(array, np.ndarray) and array.dtype.kind == "c"
    )


def in_memory(array: Source) -> TypeGuard[Array]:
    """Whether the whole array is in memory, so that reading it takes no more."""
    return not isinstance(array, Sliced) and memory_map(array) is None


def memory_map(array: object) -> np.memmap[Any, Any] | None:
    """The memory map that an array is a view of; None if it is a view of none."""
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap):
            return array
        array = array.base
    return None


def release(array: object) -> None:
    """Drop the pages of a memory-mapped file from this process; what was written to them stays written.

    Otherwise every page that was ever touched would count as memory of the process. Changes to a copy-on-write map
    (mode ``"c"``) exist only in its pages, so these stay.
    """
    found = memory_map(array)
    if found is not None and found.mode != "c" and hasattr(mmap, "MADV_DONTNEED"):
        assert isinstance(found.base, mmap.mmap)
        found.base.madvise(mmap.MADV_DONTNEED)


def is_dask(array: object) -> TypeGuard[Any]:
    """Whether the array is a dask array. Does not import dask."""
    return "dask.array" in sys.modules and isinstance(array, sys.modules["dask.array"].Array)


def fetch(array: Source, piece: Slices) -> Array:
    """A piece with its values as stored: a view if the array is in memory, otherwise a copy."""
    if in_memory(array):
        return array[piece]
    values: npt.NDArray[Any] = array[piece] if isinstance(array, Sliced) else np.array(array[piece])
    release(array)
    return values


def chunks(array: object) -> tuple[int, ...] | None:
    """Shape of the shards or, without shards, of the chunks in which an array is stored; None if it has neither."""
    shape = getattr(array, "shards", None) or getattr(array, "chunks", None)
    regular = isinstance(shape, tuple) and all(isinstance(n, int) for n in shape)
    return shape if regular else None


def dtype_name(array: Readable | Writable) -> str:
    """Name of the type of the numbers, without their byte order."""
    return str(array.dtype).removeprefix("torch.") if isinstance(array, Tensor) else np.dtype(array.dtype).name


def is_wide(array: Source) -> bool:
    """Whether the type of the array has more digits than float32."""
    return dtype_name(array) in WIDE_DTYPES


def precise_dtype(array: Source) -> torch.dtype:
    """float64 if the type of the array has more digits than float32, otherwise float32."""
    return torch.float64 if is_wide(array) else torch.float32


def read(array: Source, piece: Slices, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A new tensor with the values of a piece. It never shares memory with the array."""
    if isinstance(array, Tensor):
        return array.detach()[piece].to(device=device, dtype=dtype, copy=True)
    numbers = np.array(array[piece], dtype=str(dtype).removeprefix("torch."), order="C")
    release(array)
    return torch.from_numpy(numbers).to(device)


def device_of(array: Source) -> torch.device:
    return array.device if isinstance(array, Tensor) else torch.device("cpu")


def empty_like(array: Source, dtype: str | None = None, shape: tuple[int, ...] | None = None) -> Array:
    """An uninitialised array in memory, of the kind and device of `array`, and of its dtype and shape unless given."""
    shape = tuple(array.shape) if shape is None else shape
    if isinstance(array, Tensor):
        return torch.empty(shape, dtype=getattr(torch, dtype) if dtype else array.dtype, device=array.device)
    return np.empty(shape, dtype=dtype or array.dtype)


def check_out(out: object, source: Source, shape: tuple[int, ...], dtype: str | None) -> None:
    """Raise an error unless a result from `source` can be written to `out` with no loss but rounding."""
    if not isinstance(out, Writable):
        raise TypeError(f"out is a {type(out).__name__}; give an array, such as a numpy or zarr array")
    if tuple(out.shape) != shape:
        raise ValueError(f"out has shape {tuple(out.shape)}, but the result has {shape}; give an array of that shape")
    name, source_name = dtype_name(out), dtype_name(source)
    if dtype is not None and dtype != name:
        raise ValueError(f"out has dtype {name}, but dtype={dtype!r} was asked for; leave out one of the two")
    if "float" not in name and name != source_name and ("float" in source_name or not np.can_cast(source_name, name)):
        raise ValueError(f"out has dtype {name}, which does not hold all values of {source_name}; use float32")
    whole = id(out) in (id(source), id(getattr(source, "array", None)))
    views = isinstance(out, np.ndarray) and isinstance(source, np.ndarray) and np.may_share_memory(out, source)
    if whole or views:
        raise ValueError("out is the volume itself, which is read while the result is written; give another array")


def check_holds(dtype: str, low: float, high: float, name: str) -> None:
    """Raise ``ValueError`` if values from `low` to `high` are too large or too small for a floating-point type."""
    limits, peak = torch.finfo(getattr(torch, dtype)), max(-low, high)
    if peak > limits.max or 0 < peak < limits.smallest_normal:
        raise ValueError(
            f"dtype={dtype!r} holds numbers from {limits.smallest_normal:.2g} to {limits.max:.6g}, but {name} goes "
            f"from {low:.6g} to {high:.6g}; take a wider dtype, or None for the dtype of {name}"
        )


def write(array: Writable, piece: Slices, values: Tensor) -> None:
    """Store a piece, rounded if the array holds integers, and clipped to the range of its type."""
    if isinstance(array, Tensor):
        array[piece] = to_dtype(values, array.dtype).to(array.device)
        return
    numbers = values.detach().cpu().numpy()
    if array.dtype.kind == "b":
        numbers = numbers >= 0.5
    elif array.dtype.kind in "ui":
        numbers = to_integers(numbers, array.dtype)
    elif array.dtype.itemsize < numbers.dtype.itemsize:
        limits = np.finfo(array.dtype)
        numbers = numbers.clip(float(limits.min), float(limits.max))
    array[piece] = numbers
    release(array)


def to_dtype(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert `values` to `dtype`: rounded for integers, and clipped to the range of the type."""
    if dtype == torch.bool:
        return values >= 0.5
    if dtype.is_floating_point:
        limits = torch.finfo(dtype)
        narrower = limits.max < torch.finfo(values.dtype).max
        return (values.clamp(limits.min, limits.max) if narrower else values).to(dtype)
    numpy_type = np.dtype(str(dtype).removeprefix("torch."))
    integers = to_integers(values.detach().cpu().numpy(), numpy_type)
    return torch.from_numpy(integers).to(values.device)


def to_integers(numbers: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Round floating-point numbers and clip them to `dtype`. 64-bit limits, which float64 rounds up, do not overflow.

    >>> to_integers(np.array([0.5, 1.5, 300.0]), np.dtype(np.uint8))
    array([  0,   2, 255], dtype=uint8)
    """
    limits = np.iinfo(dtype)
    enough = np.float32 if dtype.itemsize < 4 and numbers.dtype == np.float32 else np.float64
    whole = np.rint(numbers, dtype=enough)
    if dtype.itemsize < 8:
        narrow: npt.NDArray[Any] = whole.clip(limits.min, limits.max, out=whole).astype(dtype)
        return narrow
    below, above = whole <= limits.min, whole >= limits.max
    integers = np.where(below | above, 0, whole).astype(dtype)
    integers[below], integers[above] = limits.min, limits.max
    return integers


def finite_floats(array: Array, name: str) -> Tensor:
    """Convert an array to float32, or to float64 if its dtype has more digits; a tensor keeps its graph.

    Raises ``ValueError`` if any value is NaN or infinite.
    """
    value_range(array, name)
    dtype = precise_dtype(array)
    return array.to(dtype) if isinstance(array, Tensor) else read(array, (), dtype, torch.device("cpu"))


def convert_like(values: Tensor, image: ArrayT) -> ArrayT:
    """Convert `values` to the dtype of `image` and to its kind of array."""
    if isinstance(image, Tensor):
        return cast(ArrayT, to_dtype(values, image.dtype))
    result = empty_like(image, shape=tuple(values.shape))
    write(result, (), values)
    return cast(ArrayT, result)


EXACT_INTEGERS = 2**53
"""Float64 holds every integer up to this number. All wide types are read as float64."""


def value_range(array: Array, name: str) -> tuple[float, float]:
    """Smallest and largest value.

    Raises ``ValueError`` if any value is NaN, infinite, or an integer too large for float64.
    """
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
            f"{name} has integers from {low:.6g} to {high:.6g}, and those beyond 2**53 would be rounded; subtract an "
            "offset first, or convert it to float64"
        )
    return low, high


def known_range(array: Array, name: str) -> tuple[float, float]:
    """Smallest and largest value apart from NaN, which stands for voxels outside; inf and -inf if all are NaN.

    Raises ``ValueError`` if any value is infinite, or an integer too large for float64.

    >>> known_range(np.array([np.nan, 1, 3]), "volume")
    (1.0, 3.0)
    """
    if 0 in array.shape:
        return float("inf"), -float("inf")
    try:
        return value_range(array, name)
    except NotFiniteError as error:
        missing = is_nan(array)
        if missing is not None:
            return known_range(array[~missing], name)
        raise NotFiniteError(
            f"{name} contains infinite values; replace them, for instance by NaN, which counts as outside"
        ) from error


def contiguous(array: Array) -> Array:
    """The array with its values next to each other in memory; the same array if they are."""
    return array.contiguous() if isinstance(array, Tensor) else np.ascontiguousarray(array)


def is_nan(array: Array) -> Any:
    """Where an array is NaN, as the same kind of array; None if it is nowhere."""
    if isinstance(array, Tensor):
        if not (array.is_floating_point() or array.is_complex()) or not array.numel():
            return None
        if array.is_floating_point() and not bool(array.amin().isnan()):  # reads it once, and copies nothing
            return None
        found = array.isnan()
        return found if bool(found.any()) else None
    if array.dtype.kind not in "fc" or (array.dtype.kind == "f" and not np.isnan(array.min())):
        return None
    holes = np.isnan(array)
    return holes if holes.any() else None


def without_nan(values: Tensor) -> Tensor:
    """Return values with 0 in place of NaN, as a removed background has it; the same tensor if there is none."""
    missing = is_nan(values)
    return values if missing is None else values.masked_fill(missing, 0)


def standard_deviation(values: npt.NDArray[Any]) -> float:
    """Standard deviation, also of values whose squares would overflow or underflow; 0 if there are no values."""
    largest = float(np.abs(values).max(initial=0.0))
    return largest * float((values / largest).std(dtype=np.float64)) if largest > 0 else 0.0


def check_finite(values: Tensor, name: str) -> Tensor:
    """Return `values`; raise ``ValueError`` if any is NaN or infinite."""
    if not bool(values.isfinite().all()):
        raise not_finite(name)
    return values


class NotFiniteError(ValueError):
    """Values are NaN or infinite."""


def not_finite(name: str) -> NotFiniteError:
    return NotFiniteError(
        f"{name} contains NaN or infinite values; replace them first, for instance with numpy.nan_to_num"
    )
