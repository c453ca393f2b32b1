"""Modes of PyTorch: autocast, outside of which the engine computes, and the export of a layer as a graph."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

Given = ParamSpec("Given")
Returned = TypeVar("Returned")


def outside_autocast(function: Callable[Given, Returned]) -> Callable[Given, Returned]:
    """Make a function compute as it does without ``torch.autocast``, on the CPU and on NVIDIA cards.

    Example:
        >>> @outside_autocast
        ... def product(a, b):
        ...     return a @ b
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     product(torch.eye(2), torch.eye(2)).dtype
        torch.float32
    """

    @functools.wraps(function)
    def wrapper(*args: Given.args, **kwargs: Given.kwargs) -> Returned:
        if not (torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")):
            return function(*args, **kwargs)
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            return function(*args, **kwargs)

    return wrapper


def is_exporting() -> bool:
    """Whether a layer is being exported as a graph, by ``torch.export`` or to ONNX, and not run.

    >>> is_exporting()
    False
    """
    known = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)  # before PyTorch 2.7 there is no other
    return bool(known())
