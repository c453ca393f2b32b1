"""Parts of the GPU kernel for eigenvectors; in Triton's interpreter if there is no GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("triton", "3.3", reason="the kernel needs triton 3.3 or newer")

import triton
import triton.language as tl

from nlmeans.patches.low_rank.eigen_gpu_kernel import angles, opponents, rotated_by

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@triton.jit
def pair_up(result: Any, turn: Any, SIZE: tl.constexpr) -> None:
    k = tl.arange(0, SIZE)
    tl.store(result + k, opponents(k, turn, SIZE))


@pytest.mark.parametrize("size", [16, 32])
def test_every_index_meets_every_other_one_once_in_a_sweep(size: int) -> None:
    met = torch.zeros(size, size, dtype=torch.int64)
    for turn in range(size - 1):
        result = torch.empty(size, dtype=torch.int32, device=DEVICE)
        pair_up[(1,)](result, turn, size)
        other = result.cpu().long()
        assert torch.equal(other[other], torch.arange(size))
        met[torch.arange(size), other] += 1
    assert torch.equal(met, 1 - torch.eye(size, dtype=torch.int64))


@triton.jit
def turn_columns(matrix: Any, less: Any, factor: Any, result: Any, turn: Any, SIZE: tl.constexpr) -> None:
    k = tl.arange(0, SIZE)
    places = k[:, None] * SIZE + k[None, :]
    other = opponents(k, turn, SIZE)
    values = tl.load(matrix + places)
    shrunk, sine = angles(values, k, other)
    tl.store(less + k, shrunk)
    tl.store(factor + k, sine)
    there = tl.zeros([SIZE, SIZE], tl.int32) + other[None, :]
    tl.store(result + places, rotated_by(values, tl.gather(values, there, 1), shrunk[None, :], sine[None, :]))


@pytest.mark.parametrize("scale", [1.0, 1e-4, 0.0])
def test_a_rotation_sets_what_is_between_its_indices_to_zero(scale: float) -> None:
    size, turn = 16, 5
    noise = torch.randn(size, size, generator=torch.manual_seed(0))
    matrix = torch.diag(torch.arange(size) + 1.0) + scale * (noise + noise.mT)
    less, factor = (torch.empty(size, device=DEVICE) for _ in range(2))
    half, other = torch.empty(size, size, device=DEVICE), torch.empty(size, dtype=torch.int32, device=DEVICE)
    turn_columns[(1,)](matrix.to(DEVICE), less, factor, half, turn, size)
    pair_up[(1,)](other, turn, size)
    cosine, sine, k, there = 1 - less.cpu().double(), factor.cpu().double(), torch.arange(size), other.cpu().long()
    torch.testing.assert_close(cosine.square() + sine.square(), torch.ones(size).double(), rtol=0, atol=2e-7)
    assert torch.equal(sine[there], -sine)
    rotation = torch.diag(cosine)
    rotation[there, k] = sine
    torch.testing.assert_close(half.cpu().double(), matrix.double() @ rotation, rtol=0, atol=1e-5)
    assert (rotation.mT @ matrix.double() @ rotation)[there, k].abs().max() < 1e-5
