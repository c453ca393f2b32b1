"""Parts of the GPU kernel for similar patches, each against numpy; in Triton's interpreter if there is no GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("triton", "3.3", reason="the kernel needs triton 3.3 or newer")

import triton
import triton.language as tl

from nlmeans.patches.groups_gpu_kernel import OUTSIDE_BITS, smallest_with

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@triton.jit
def find_limit(values: Any, inside: Any, result: Any, wanted: Any, COUNT: tl.constexpr) -> None:
    k = tl.arange(0, COUNT)
    mask = tl.load(inside + k) != 0
    tl.store(result, smallest_with(tl.load(values + k), mask, wanted, -2, OUTSIDE_BITS, 31))


@pytest.mark.parametrize("wanted", [1, 5, 12])
def test_the_limit_is_the_value_of_that_rank_inside_the_mask(wanted: int) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2**31 - 3, 32, dtype=np.int32)
    values[:6] = values[6]  # ties
    inside = rng.random(32) < 0.7
    result = torch.zeros(1, dtype=torch.int32, device=DEVICE)
    arguments = (torch.from_numpy(a).to(DEVICE) for a in (values, inside.astype(np.int32)))
    find_limit[(1,)](*arguments, result, wanted, COUNT=32)
    assert int(result) == np.sort(values[inside])[wanted - 1]


def test_the_distance_outside_the_volume_is_larger_than_the_bits_of_any_float() -> None:
    largest = np.array([np.finfo(np.float32).max], np.float32).view(np.int32)[0]
    assert largest < OUTSIDE_BITS.value
    assert OUTSIDE_BITS.value + 2 <= 2**31 - 1
