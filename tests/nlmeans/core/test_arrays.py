"""Arrays of numpy and torch: what is accepted, how it is read, and how it is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from nlmeans.core import arrays

EVERYTHING = (slice(None),)
CPU = torch.device("cpu")


def made(library: str, values: npt.ArrayLike, dtype: str) -> arrays.Array:
    array = np.asarray(values).astype(dtype)
    return torch.from_numpy(array) if library == "torch" else array


@pytest.mark.parametrize(
    ("dtype", "wide"),
    [
        *(("float64", True), ("int32", True), ("uint32", True), ("int64", True), ("uint64", True)),
        *((">f8", True), (">i4", True), ("<u8", True), ("longdouble", True)),
        *(("float16", False), ("float32", False), (">f4", False), ("int16", False), (">i2", False), ("bool", False)),
    ],
)
def test_types_with_more_digits_than_float32_are_known_in_any_byte_order(dtype: str, wide: bool) -> None:
    assert arrays.is_wide(np.zeros(1, dtype=dtype)) == wide


@pytest.mark.parametrize(("dtype", "wide"), [(torch.float64, True), (torch.int32, True), (torch.bfloat16, False)])
def test_so_are_those_of_torch(dtype: torch.dtype, wide: bool) -> None:
    assert arrays.is_wide(torch.zeros(1, dtype=dtype)) == wide


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_reading_copies(library: str) -> None:
    array = made(library, np.arange(6.0), "float32")
    read = arrays.read(array, (slice(1, 4),), torch.float32, CPU)
    read += 100
    assert arrays.value_range(array, "array") == (0, 5)


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "int64", "uint64"])
def test_writing_rounds_and_clips(dtype: str, library: str) -> None:
    limits = np.iinfo(dtype)
    array = made(library, np.zeros(6), dtype)
    arrays.write(array, EVERYTHING, torch.tensor([-1e30, 0.4, 0.6, 1.5, 2.5, 1e30], dtype=torch.float64))
    assert array.tolist() == [limits.min, 0, 1, 2, 2, limits.max]


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_writing_booleans_takes_the_nearer(library: str) -> None:
    array = made(library, np.zeros(3), "bool")
    arrays.write(array, EVERYTHING, torch.tensor([-0.2, 0.4, 0.6]))
    assert array.tolist() == [False, False, True]


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_writing_a_piece_leaves_the_rest(library: str) -> None:
    array = made(library, np.zeros(4), "int16")
    arrays.write(array, (slice(1, 3),), torch.tensor([7.2, 8.8]))
    assert array.tolist() == [0, 7, 9, 0]


@pytest.mark.parametrize("dtype", [None, "float32"])
def test_an_empty_array_is_of_the_same_kind(dtype: str | None) -> None:
    for array in (np.zeros((2, 3), dtype=">i2"), torch.zeros(2, 3, dtype=torch.int16)):
        empty = arrays.empty_like(array, dtype)
        assert type(empty) is type(array)
        assert empty.shape == array.shape
        assert dtype is not None or empty.dtype == array.dtype
        assert dtype is None or arrays.dtype_name(empty) == dtype


TORCH_INTEGERS = (torch.bool, torch.uint8, torch.int16, torch.uint16, torch.uint32, torch.uint64, torch.int64)


@pytest.mark.parametrize("dtype", [*TORCH_INTEGERS, torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_range_of_any_tensor_is_found(dtype: torch.dtype) -> None:
    assert arrays.value_range(torch.tensor([1, 0, 1]).to(dtype), "array") == (0, 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_numbers_that_are_not_finite_are_refused(dtype: str, library: str, bad: float) -> None:
    with pytest.raises(ValueError, match="guide contains NaN or infinite values; replace them first"):
        arrays.value_range(made(library, [0.0, bad, 1.0], dtype), "guide")


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        ([1, 2], TypeError, "mask is a list; give a numpy array or a torch tensor"),
        (None, TypeError, "mask is a NoneType"),
        (np.float64(3), TypeError, "mask is a float64"),
        (np.zeros(2, dtype=complex), TypeError, "mask has dtype complex128; give real numbers"),
        (np.array(["a"]), TypeError, "mask has dtype <U1"),
        (np.zeros(2, dtype="M8[s]"), TypeError, "mask has dtype datetime64"),
        (torch.zeros(2, dtype=torch.complex64), TypeError, "mask has dtype torch.complex64"),
        (torch.zeros(2, 2).to_sparse(), TypeError, r"mask has layout torch.sparse_coo; .*mask.to_dense\(\)"),
        (torch.zeros(2).to(torch.float8_e5m2), TypeError, "mask has dtype torch.float8_e5m2"),
        (np.ma.masked_array([1.0, 2.0], [0, 1]), TypeError, r"mask is a masked array; give mask.filled\(.*as mask="),
        (np.zeros((2, 0)), ValueError, r"mask has shape \(2, 0\) and so no voxels"),
        (torch.zeros(0), ValueError, r"mask has shape \(0,\) and so no voxels"),
    ],
)
def test_what_is_no_array_of_real_numbers_is_refused(array: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        arrays.check_array(array, "mask")


@pytest.mark.parametrize("dtype", ["u1", "i2", ">i4", "f2", "f4", ">f8"])
def test_the_deviation_of_any_type_is_found(dtype: str) -> None:
    assert arrays.standard_deviation(np.array([90, 110], dtype)) == pytest.approx(10, rel=1e-3)
    assert arrays.standard_deviation(np.array([[7, 7]], dtype)) == 0
    assert arrays.standard_deviation(np.zeros(0, dtype)) == 0


@pytest.mark.parametrize(("dtype", "scale"), [("f4", 1e37), ("f4", 1e-37), ("f8", 1e300), ("f8", 1e-300)])
def test_so_is_that_of_numbers_whose_squares_leave_it(dtype: str, scale: float) -> None:
    assert arrays.standard_deviation(scale * np.array([3, 5], dtype)) == pytest.approx(scale, rel=1e-6)


def test_a_graph_survives_a_change_of_type() -> None:
    values = torch.zeros(3, requires_grad=True)
    converted: Tensor = arrays.to_dtype(values, torch.float16)
    assert converted.requires_grad


class Stored:
    """An array on disk that returns float64 values, although its type in the file is int16."""

    def __init__(self, shape: tuple[int, ...], chunks: Any = None, shards: Any = None) -> None:
        self.shape, self.chunks, self.shards = shape, chunks, shards
        self.ndim, self.dtype = len(shape), np.dtype("int16")

    def __getitem__(self, key: Any, /) -> npt.NDArray[np.float64]:
        return np.arange(np.prod(self.shape), dtype=np.float64).reshape(self.shape)[key] / 2


def test_an_array_on_disk_is_read_by_slices_and_has_the_type_of_its_values() -> None:
    source = arrays.readable(Stored((3, 4)), "volume")
    assert source.dtype == np.float64
    assert not arrays.in_memory(source)
    piece = arrays.read(source, (slice(1, 3), slice(0, 2)), torch.float32, CPU)
    assert piece.tolist() == [[2.0, 2.5], [4.0, 4.5]]
    with pytest.raises(ValueError, match=r"volume has shape \(3, 0\) and so no voxels; every axis needs at least one"):
        arrays.readable(Stored((3, 0)), "volume")
    with pytest.raises(TypeError, match="volume is a str; give a numpy array or a torch tensor"):
        arrays.readable("scan.nii", "volume")


def test_shards_count_before_chunks_and_irregular_chunks_not_at_all() -> None:
    assert arrays.chunks(Stored((8, 8), (2, 2))) == (2, 2)
    assert arrays.chunks(Stored((8, 8), (2, 2), (4, 8))) == (4, 8)
    assert arrays.chunks(Stored((8, 8), ((5, 3), (8,)))) is None
    assert arrays.chunks(np.zeros((8, 8))) is None


def test_a_memory_map_is_found_behind_its_views(tmp_path: Path) -> None:
    stored = np.memmap(tmp_path / "volume", np.int16, "w+", shape=(4, 5))
    assert arrays.memory_map(stored[1:].T) is not None
    assert not arrays.in_memory(stored[1:].T)
    assert arrays.memory_map(np.array(stored)) is None
    stored[:] = 7
    arrays.release(stored)
    assert (stored == 7).all()
    changed = np.memmap(tmp_path / "volume", np.int16, "c", shape=(4, 5))
    changed[0] = 9
    arrays.release(changed)
    assert (changed[0] == 9).all()


@pytest.mark.parametrize(
    ("out", "source", "dtype", "message"),
    [
        ("text", np.zeros(3), None, "out is a str; give an array, such as a numpy or zarr array"),
        (
            np.zeros(2),
            np.zeros(3),
            None,
            r"out has shape \(2,\), but the result has \(3,\); give an array",
        ),
        (
            np.zeros(3),
            np.zeros(3),
            "float32",
            "out has dtype float64, but dtype='float32' was asked for; leave out",
        ),
        (np.zeros(3, "i2"), np.zeros(3), None, "out has dtype int16, which does not hold all values of float64"),
        (np.zeros(3, "u1"), np.zeros(3, "i1"), None, "out has dtype uint8, which does not hold all values of int8"),
    ],
)
def test_an_output_that_cannot_hold_the_result_is_refused(out: Any, source: Any, dtype: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        arrays.check_out(out, source, (3,), dtype)


def test_an_output_must_not_be_the_input() -> None:
    volume = np.zeros((4, 3))
    arrays.check_out(np.zeros((4, 3)), volume, (4, 3), None)
    for out in (volume, volume[::-1]):
        with pytest.raises(ValueError, match=r"^out is the volume itself, .*; give another array$"):
            arrays.check_out(out, volume, (4, 3), None)


@pytest.mark.parametrize(("dtype", "low", "high"), [("float16", -1, 7e4), ("float16", 0, 1e-6), ("float32", -1e39, 0)])
def test_a_type_too_narrow_for_the_values_is_refused(dtype: str, low: float, high: float) -> None:
    message = f"^dtype='{dtype}' holds numbers from .*, but volume goes .*; take a wider dtype, or None for the dtype"
    with pytest.raises(ValueError, match=message):
        arrays.check_holds(dtype, low, high, "volume")
    arrays.check_holds("float64", low, high, "volume")
    arrays.check_holds(dtype, 0, 0, "volume")


@pytest.mark.parametrize("given", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_numbers_become_the_nearest_integers_of_their_type(name: str, given: type) -> None:
    limits = np.iinfo(name)
    numbers = np.array([-1e30, -1.5, -0.5, 0.5, 2.5, 99.49, 1e30], given)
    expected = [limits.min, max(limits.min, -2), 0, 0, 2, 99, limits.max]
    before = numbers.copy()
    assert arrays.to_integers(numbers, np.dtype(name)).tolist() == expected
    np.testing.assert_array_equal(numbers, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64])
def test_nan_is_found_in_any_type_and_nothing_in_empty_tensors(dtype: torch.dtype) -> None:
    values = torch.ones(2, 3).to(dtype)
    assert arrays.is_nan(values) is None
    assert arrays.is_nan(values[:0]) is None
    values[1, 2] = float("nan")
    assert arrays.is_nan(values).nonzero().tolist() == [[1, 2]]


def test_integers_beyond_float64_are_refused() -> None:
    arrays.value_range(np.array([0, 2**53]), "volume")
    with pytest.raises(ValueError, match=r"those beyond 2\*\*53 would be rounded; subtract an offset first"):
        arrays.value_range(np.array([0, 2**53 + 2]), "volume")


@pytest.mark.parametrize("dtype", ["int16", "float16", "float64", ">f4"])
def test_values_are_converted_to_the_kind_of_the_image(dtype: str) -> None:
    values = torch.tensor([1.2, 2.7], dtype=torch.float64)
    found = arrays.convert_like(values, np.zeros(5, dtype))
    assert found.dtype == np.dtype(dtype)
    assert found.tolist() == pytest.approx([1, 3] if dtype == "int16" else [1.2, 2.7], rel=1e-3)
    assert arrays.convert_like(values, torch.zeros(5, dtype=torch.uint8)).tolist() == [1, 3]


@pytest.mark.parametrize(
    ("dtype", "expected"), [("int16", torch.float32), ("int32", torch.float64), (">f8", torch.float64)]
)
def test_finite_values_become_floats_without_a_loss_of_digits(dtype: str, expected: torch.dtype) -> None:
    found = arrays.finite_floats(np.array([1, 2, 3], dtype), "image")
    assert found.dtype == expected
    assert found.tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match=r"^image contains NaN or infinite values"):
        arrays.finite_floats(np.array([1.0, np.nan]), "image")
    assert arrays.check_finite(found, "mask") is found
    with pytest.raises(ValueError, match=r"^mask contains NaN or infinite values"):
        arrays.check_finite(torch.tensor([1.0, -torch.inf]), "mask")
