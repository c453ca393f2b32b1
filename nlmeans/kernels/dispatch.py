"""The choice between implementations in torch, for the CPU and for GPUs, and what GPU kernels need."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
from collections.abc import Callable, Hashable, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

log = logging.getLogger("nlmeans.kernels")

ImplementationT = TypeVar("ImplementationT", bound=Callable[..., object])


class Trial(NamedTuple):
    """A small problem that a kernel for GPUs must solve as torch does, before it is first used."""

    kernel: Hashable
    """The name of the kernel and everything that it is compiled for."""
    solve: Callable[[Callable[..., Any], torch.device, torch.dtype], Tensor]
    """Solves the problem by a given implementation, on this device and in this precision."""
    tolerance: float
    """Largest difference between float32 on the GPU and float64 on the CPU."""


def kernel_for(
    tensors: Sequence[Tensor],
    *,
    plain: ImplementationT,
    cpu: ImplementationT | None = None,
    gpu: ImplementationT | None = None,
    dtypes: Sequence[torch.dtype] = (torch.float32,),
    trial: Trial | None = None,
) -> ImplementationT:
    """Choose between functions that compute the same result.

    Args:
        tensors: the tensors that the function will work on.
        plain: function of torch operations, for any device and precision.
        cpu: function with a compiled kernel for the CPU; None if there is none.
        gpu: function with a compiled kernel for GPUs; None if there is none. It is chosen only if such kernels can be
            compiled here and it passes its trial.
        dtypes: types that the compiled kernels support.
        trial: compares `gpu` with `plain`, once per process and device; None trusts `gpu`.

    Returns:
        The function with a compiled kernel if it supports the device and type of all tensors, otherwise `plain`.

    Example:
        >>> kernel_for([torch.zeros(3)], plain=torch.sum, cpu=torch.mean) is torch.mean
        True
    """
    if all(tensor.dtype in dtypes for tensor in tensors):
        if cpu is not None and all(tensor.device.type == "cpu" for tensor in tensors):
            return cpu
        if gpu is not None and all(tensor.is_cuda for tensor in tensors) and not missing():
            return gpu if trial is None or passes(trial, gpu, plain, tensors[0].device) else plain
    return plain


_passed: dict[Hashable, bool] = {}
"""Whether each kernel has passed its trial on a device."""


def passes(trial: Trial, gpu: Callable[..., object], plain: Callable[..., object], device: torch.device) -> bool:
    """Return whether a kernel compiles for a GPU and gives there what torch gives; log a warning if it does not."""
    key = (trial.kernel, device)
    if key not in _passed:
        try:
            found = trial.solve(gpu, device, torch.float32).cpu()
            apart = float((found - trial.solve(plain, torch.device("cpu"), torch.float64)).abs().max())
            fault = "" if apart <= trial.tolerance else f"its result differs by {apart:.2g}"
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a compiler may raise
            fault = type(error).__name__ + ": " + str(error).strip().partition("\n")[0]
            log.debug("the trial of %s failed", trial.kernel, exc_info=True)
        if fault:
            log.warning("torch is used in place of the GPU kernel %s on %s: %s", trial.kernel, device, fault)
        _passed[key] = not fault
    return _passed[key]


def interpreted() -> bool:
    """Whether Triton interprets kernels on the CPU, which is slow and meant for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def missing() -> str:
    """The reason why kernels for a GPU cannot be compiled here; an empty string if they can."""
    if importlib.util.find_spec("triton") is None:
        return "it needs the package triton (pip install triton; PyTorch for CUDA on Linux includes it)"
    triton = importlib.import_module("triton")
    if tuple(int(part) for part in triton.__version__.split(".")[:2]) < (3, 3):
        return f"it needs triton 3.3 (PyTorch 2.7) or newer, not {triton.__version__}"
    if interpreted():
        return ""
    if torch.version.hip:
        return "it needs an NVIDIA card, and this PyTorch is made for AMD cards"
    if torch.cuda.get_device_capability() < (8, 0):
        return "it needs an NVIDIA card of compute capability 8.0 (Ampere, 2020) or newer"
    return ""
