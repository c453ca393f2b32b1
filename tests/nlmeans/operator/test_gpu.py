"""The backend `gpu`: launches, progress and refusals, on a GPU or in the interpreter of Triton."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

pytest.importorskip("triton", "3.3", reason="the gpu backend needs triton 3.3 or newer")

from nlmeans.core.axes import Axes
from nlmeans.core.progress import Cancelled
from nlmeans.operator import gpu
from nlmeans.operator.gpu import GPU
from tests.nlmeans.operator.gpu_requests import gpu_request, needs_cuda


def test_progress_rises_to_one() -> None:
    seen: list[float] = []
    GPU.run(dataclasses.replace(gpu_request((3, 3, 9), search_radius=(0, 0, 1)), progress=seen.append))
    assert seen == sorted(seen)
    assert seen[-1] == 1


def test_cancels() -> None:
    def stop(fraction: float) -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        GPU.run(dataclasses.replace(gpu_request((3, 3, 9), search_radius=(0, 0, 1)), progress=stop))


def test_refuses_float64() -> None:
    of = gpu_request((2, 3, 9))
    assert "float64" in GPU.refusal(dataclasses.replace(of, image=of.image.double()))


def test_refuses_large_patches() -> None:
    assert "patch_radius" in GPU.refusal(gpu_request((2, 3, 9), (4, 1, 1)))


def test_refuses_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    of = gpu_request((2, 3, 9))
    assert "cpu" in GPU.refusal(dataclasses.replace(of, image=of.image.cpu()))


def test_refuses_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    gpu.missing.cache_clear()
    assert "pip install triton" in GPU.refusal(gpu_request((2, 3, 9)))
    gpu.missing.cache_clear()


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("patch_radius", [(0, 0, 0), (1, 1, 1)])
def test_all_columns_and_launches_give_the_same_bits(patch_radius: Axes, monkeypatch: pytest.MonkeyPatch) -> None:
    of = gpu_request((33, 34, 35), patch_radius, (2, 2, 2))
    expected = GPU.run(of)
    monkeypatch.setattr(gpu, "PAIRS_PER_LAUNCH", math.prod(of.shape) * 125 // 5)
    monkeypatch.setattr(gpu, "WORTH_TRYING", 1)
    for column in gpu.COLUMNS[max(patch_radius)]:
        monkeypatch.setitem(gpu.COLUMNS, max(patch_radius), (column,))
        seen: list[float] = []
        assert torch.equal(GPU.run(dataclasses.replace(of, progress=seen.append)), expected)
        assert len(seen) >= 5
