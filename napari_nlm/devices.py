"""Where a run can be computed, and how much memory is free there."""

from __future__ import annotations

import torch

from nlmeans.core import memory


def devices() -> tuple[str, ...]:
    """The CPU and every GPU, as torch names them."""
    return ("cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count())))


def device_title(device: str) -> str:
    """
    >>> device_title("cpu")
    'cpu'
    """
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.startswith("cuda") else device


def free_on(device: str) -> int:
    """Free memory of a device, in bytes; of the computer for the CPU."""
    return memory.free() if torch.device(device).type == "cpu" else int(torch.cuda.mem_get_info(device)[0])
