"""The choice between functions that compute the same, and what GPU kernels need."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import types
from typing import Any

import pytest
import torch

from nlmeans.kernels import dispatch
from nlmeans.kernels.dispatch import Trial, kernel_for


def plain() -> str:
    return "plain"


def cpu() -> str:
    return "cpu"


def gpu() -> str:
    return "gpu"


def on(device: str, dtype: torch.dtype = torch.float32) -> Any:
    """Stands in for a tensor on a device that this computer may lack."""
    return types.SimpleNamespace(device=torch.device(device), is_cuda=device == "cuda", dtype=dtype)


@pytest.fixture(params=["", "it needs the package triton"])
def missing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    reason: str = request.param
    monkeypatch.setattr(dispatch, "missing", lambda: reason)
    return reason


def test_the_compiled_function_for_the_device_is_chosen(missing: str) -> None:
    assert kernel_for([on("cpu"), on("cpu")], plain=plain, cpu=cpu, gpu=gpu) is cpu
    assert kernel_for([on("cuda")], plain=plain, cpu=cpu, gpu=gpu) is (plain if missing else gpu)


def test_without_a_compiled_function_the_plain_one_is_chosen(missing: str) -> None:
    assert kernel_for([on("cpu")], plain=plain, gpu=gpu) is plain
    assert kernel_for([on("cuda")], plain=plain, cpu=cpu) is plain
    assert kernel_for([on("meta")], plain=plain, cpu=cpu, gpu=gpu) is plain


def test_tensors_on_two_devices_are_left_to_the_plain_function(missing: str) -> None:
    assert kernel_for([on("cpu"), on("cuda")], plain=plain, cpu=cpu, gpu=gpu) is plain


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int32])
def test_other_types_are_left_to_the_plain_function_unless_named(dtype: torch.dtype) -> None:
    tensors = [on("cpu"), on("cpu", dtype)]
    assert kernel_for(tensors, plain=plain, cpu=cpu) is plain
    assert kernel_for(tensors, plain=plain, cpu=cpu, dtypes=(torch.float32, dtype)) is cpu


def test_real_tensors_are_taken() -> None:
    assert kernel_for([torch.zeros(3), torch.zeros(2)], plain=plain, cpu=cpu) is cpu
    assert kernel_for([torch.zeros(3), torch.zeros(2).double()], plain=plain, cpu=cpu) is plain


@pytest.fixture
def untried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_passed", {})
    monkeypatch.setattr(dispatch, "missing", lambda: "")


def tried(off: float, fault: Exception | None = None) -> tuple[Trial, list[torch.dtype]]:
    """A trial in which the GPU is this far `off`, or fails. The list grows by the precision of each solution."""
    solved: list[torch.dtype] = []

    def solve(run: Any, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        solved.append(dtype)
        if run is gpu and fault is not None:
            raise fault
        return torch.tensor([1.0, 2.0 + off * (run is gpu)], dtype=dtype)

    return Trial("squares", solve, 0.1), solved


def test_a_kernel_that_agrees_with_torch_is_tried_once_and_used(
    untried: None, caplog: pytest.LogCaptureFixture
) -> None:
    trial, solved = tried(0.05)
    assert all(kernel_for([on("cuda")], plain=plain, gpu=gpu, trial=trial) is gpu for _ in range(3))
    assert solved == [torch.float32, torch.float64]
    assert not caplog.records


@pytest.mark.parametrize(
    ("off", "fault", "said"),
    [(0.2, None, "differs by 0.2"), (float("nan"), None, "differs by nan"), (0, ValueError("line 3"), "line 3")],
)
def test_a_kernel_that_does_not_is_replaced_by_torch_with_one_warning(
    off: float, fault: Exception | None, said: str, untried: None, caplog: pytest.LogCaptureFixture
) -> None:
    trial, solved = tried(off, fault)
    with caplog.at_level(logging.WARNING, "nlmeans"):
        assert all(kernel_for([on("cuda")], plain=plain, gpu=gpu, trial=trial) is plain for _ in range(3))
    assert len(solved) == (1 if fault else 2)
    (record,) = caplog.records
    assert "torch is used in place of the GPU kernel squares on cuda" in record.message
    assert said in record.message


def test_a_full_gpu_says_nothing_of_a_kernel(untried: None) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        kernel_for([on("cuda")], plain=plain, gpu=gpu, trial=tried(0, torch.OutOfMemoryError("full"))[0])
    assert kernel_for([on("cuda")], plain=plain, gpu=gpu, trial=tried(0)[0]) is gpu


def test_no_kernel_is_tried_that_is_not_going_to_be_used(untried: None) -> None:
    trial, solved = tried(0)
    kernel_for([on("cpu")], plain=plain, cpu=cpu, gpu=gpu, trial=trial)
    kernel_for([on("cuda", torch.float64)], plain=plain, gpu=gpu, trial=trial)
    kernel_for([on("cuda")], plain=plain, trial=trial)
    assert not solved


def reason(version: str, capability: tuple[int, int] = (9, 0), hip: str | None = None) -> str:
    """Why kernels cannot be compiled with this version of Triton (none if empty), this card and this PyTorch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.version, "hip", hip)
        patch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        patch.setattr(importlib.util, "find_spec", lambda name: version or None)
        patch.setattr(importlib, "import_module", lambda name: types.SimpleNamespace(__version__=version))
        found: str = dispatch.missing.__wrapped__()
    return found


def test_kernels_for_a_gpu_need_triton_and_a_card_that_is_not_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert reason("").startswith("it needs the package triton (pip install triton")
    assert reason("3.2.1") == "it needs triton 3.3 (PyTorch 2.7) or newer, not 3.2.1"
    assert reason("3.10.0") == ""
    assert "compute capability 8.0" in reason("3.3.0", capability=(7, 5))
    assert reason("3.3.0", hip="6.0").startswith("it needs an NVIDIA card")


def test_the_interpreter_needs_no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert dispatch.interpreted()
    assert reason("3.3.0", capability=(1, 0)) == ""
    assert "not 3.2.0" in reason("3.2.0")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    assert not dispatch.interpreted()
