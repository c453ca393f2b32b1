"""The one rule by which patches and blur choose their kernel."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

FunctionT = TypeVar("FunctionT", bound=Callable[..., object])


def kernel_for(
    tensors: Sequence[Tensor],
    *,
    plain: FunctionT,
    cpu: FunctionT | None = None,
    gpu: FunctionT | None = None,
    dtypes: Sequence[torch.dtype] = (torch.float32,),
) -> FunctionT:
    """Choose between implementations that compute the same.

    Args:
        tensors: what they work on.
        plain: torch operations; it serves any device and precision.
        cpu: compiled for the CPU.
        gpu: compiled for GPUs; it is taken only where kernels can be compiled.
        dtypes: what the compiled ones serve.

    Returns:
        The compiled one for the device of the tensors, if there is one that serves them; otherwise `plain`.

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
    """Whether Triton runs kernels on the CPU, slowly, for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def missing() -> str:
    """Why kernels for a GPU cannot be compiled here; an empty string if they can."""
    if importlib.util.find_spec("triton") is None:
        return "it needs the package triton (pip install triton; PyTorch for CUDA on Linux brings it along)"
    triton = importlib.import_module("triton")
    if tuple(int(part) for part in triton.__version__.split(".")[:2]) < (3, 3):
        return f"it needs triton 3.3 (PyTorch 2.7) or newer, not {triton.__version__}"
    if interpreted():
        return ""
    if torch.version.hip:
        return "it is made for NVIDIA cards"
    if torch.cuda.get_device_capability() < (8, 0):
        return "it needs an NVIDIA card of compute capability 8.0 (Ampere, 2020) or newer"
    return ""
