"""numpy and torch alike: what is taken, how it is read, and how it is written back."""

from __future__ import annotations

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
        arrays.checked(array, "mask")


@pytest.mark.parametrize("dtype", ["u1", "i2", ">i4", "f2", "f4", ">f8"])
def test_the_deviation_of_any_type_is_found(dtype: str) -> None:
    assert arrays.deviation(np.array([90, 110], dtype)) == pytest.approx(10, rel=1e-3)
    assert arrays.deviation(np.array([[7, 7]], dtype)) == 0
    assert arrays.deviation(np.zeros(0, dtype)) == 0


@pytest.mark.parametrize(("dtype", "scale"), [("f4", 1e37), ("f4", 1e-37), ("f8", 1e300), ("f8", 1e-300)])
def test_so_is_that_of_numbers_whose_squares_leave_it(dtype: str, scale: float) -> None:
    assert arrays.deviation(scale * np.array([3, 5], dtype)) == pytest.approx(scale, rel=1e-6)


def test_a_graph_survives_a_change_of_type() -> None:
    values = torch.zeros(3, requires_grad=True)
    converted: Tensor = arrays.to_dtype(values, torch.float16)
    assert converted.requires_grad
