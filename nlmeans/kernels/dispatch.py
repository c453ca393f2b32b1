"""The choice between implementations in torch, for the CPU and for GPUs, and what GPU kernels need."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

ImplementationT = TypeVar("ImplementationT", bound=Callable[..., object])


def kernel_for(
    tensors: Sequence[Tensor],
    *,
    plain: ImplementationT,
    cpu: ImplementationT | None = None,
    gpu: ImplementationT | None = None,
    dtypes: Sequence[torch.dtype] = (torch.float32,),
) -> ImplementationT:
    """Choose between functions that compute the same result.

    Args:
        tensors: the tensors that the function will work on.
        plain: function of torch operations, for any device and precision.
        cpu: function with a compiled kernel for the CPU; None if there is none.
        gpu: function with a compiled kernel for GPUs; None if there is none. It is chosen only if such kernels can be
            compiled here.
        dtypes: types that the compiled kernels support.

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
            return gpu
    return plain


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
