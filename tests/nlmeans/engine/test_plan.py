"""Out of memory on a GPU or CPU, played through with a method that allocates in vain."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nlmeans import denoise
from nlmeans.core.progress import Report
from nlmeans.core.tiles import Piece
from nlmeans.methods.method import Options
from nlmeans.methods.registry import METHODS

ERRORS = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("can't start new thread"),
    MemoryError("Unable to allocate 20.0 GiB for an array"),
)


@pytest.fixture(params=ERRORS, ids=lambda error: type(error).__name__)
def limited(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tiles of more than the one number in the list are too many voxels; the sizes tried are appended."""
    tried = [10**9]
    classic = METHODS["classic"]

    def run(noisy: Tensor, sigma: float | Tensor, wanted: Piece, options: Options, progress: Report) -> Tensor:
        tried.append(math.prod(noisy.shape))
        if tried[-1] > tried[0]:
            raise request.param
        return classic.run(noisy, sigma, wanted, options, progress)

    monkeypatch.setitem(METHODS, "classic", dataclasses.replace(classic, run=run))
    return tried


def noisy() -> Any:
    return np.random.default_rng(0).standard_normal((24, 26, 28)).astype(np.float32)


def test_halves_the_tile_and_goes_on_with_the_same_result(limited: list[int]) -> None:
    expected = denoise(noisy(), 1.0, method="classic")
    limited[:] = [9000]
    fractions: list[float] = []
    assert denoise(noisy(), 1.0, method="classic", progress=fractions.append) == pytest.approx(expected, abs=1e-5)
    assert max(limited[1:]) > 9000 >= min(limited[1:])
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1


def test_says_what_to_do_when_the_smallest_tile_fails(limited: list[int]) -> None:
    limited[:] = [100]
    with pytest.raises(MemoryError, match=r"too little free memory .* smaller search_radius, or device='cpu'"):
        denoise(noisy(), 1.0, method="classic")
