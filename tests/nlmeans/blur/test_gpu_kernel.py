"""Parts of the GPU kernels of the local blur; in Triton's interpreter if there is no GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("triton", "3.3", reason="the kernel needs triton 3.3 or newer")

import triton
import triton.language as tl

from nlmeans.blur.gpu_kernel import add_to, entries_of, position_of, terms_of_row
from nlmeans.blur.loop import slopes

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@triton.jit
def positions(result: Any, height: Any, width: Any) -> None:
    k = tl.arange(0, 32)
    z, y, x = position_of(k, height, width)
    tl.store(result + k, z)
    tl.store(result + 32 + k, y)
    tl.store(result + 64 + k, x)


def test_voxels_are_counted_row_by_row_and_plane_by_plane() -> None:
    found = torch.empty(3, 32, dtype=torch.int64, device=DEVICE)
    positions[(1,)](found, 3, 4)
    np.testing.assert_array_equal(found.cpu().numpy(), np.unravel_index(np.arange(32), (3, 3, 4)))


@triton.jit
def logarithms(precision: Any, result: Any, z: Any, y: Any, x: Any, ENTRIES: tl.constexpr) -> None:
    k = tl.arange(0, 16)
    zz, zy, zx, yy, yx, xx = entries_of(precision, k, k < 9, 9, ENTRIES)
    constant, linear = terms_of_row(zz, zy, zx, yy, yx, z, y, ENTRIES)
    tl.store(result + k, constant + x * (linear - 0.5 * x * xx))


@pytest.mark.parametrize("entries", [1, 3, 6])
def test_the_terms_of_a_row_add_up_to_the_logarithm_of_a_weight(entries: int) -> None:
    precision = torch.rand(entries, 9, generator=torch.manual_seed(0))
    found = torch.empty(16, device=DEVICE)
    logarithms[(1,)](precision.to(DEVICE), found, 1.5, -2.0, 3.0, entries)
    expected = torch.tensor(slopes((1, -2, 3), (1.5, 1.0, 1.0), entries)) @ precision
    torch.testing.assert_close(found[:9].cpu(), expected)
    assert not found[9:].any()


@triton.jit
def add(target: Any, values: Any) -> None:
    k = tl.arange(0, 16)
    add_to(target + k, tl.load(values + k), k < 9)


def test_values_are_added_where_the_mask_is_set() -> None:
    target = torch.ones(16, device=DEVICE)
    add[(1,)](target, torch.arange(16.0, device=DEVICE))
    assert target.tolist() == [*range(1, 10), *[1] * 7]
