"""How much memory a run may use."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from fractions import Fraction

import psutil
import torch

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def parse_bytes(text: str) -> int:
    """A number of bytes with an optional unit.

    >>> parse_bytes("2GB"), parse_bytes("1.5 GiB"), parse_bytes("4096")
    (2000000000, 1610612736, 4096)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", text.lower())
    if match is None:
        raise ValueError(f"memory={text!r} is not an amount of memory; write for instance '2GB' or '512MiB'")
    return int(Fraction(match[1]) * UNITS[match[2] or ""])


def available(device: torch.device) -> int:
    """What a run may take by default, in bytes: half the free memory of the computer, four fifths of the GPU's."""
    if device.type == "cuda":
        return int(0.8 * torch.cuda.mem_get_info(device)[0])
    return int(0.5 * free())


def free() -> int:
    """Free memory of the computer, in bytes."""
    return int(psutil.virtual_memory().available)


def allowed(device: torch.device, limit: int | None) -> int:
    """The limit of a run on a device, in bytes; where there is none, what is `available`."""
    return available(device) if limit is None else limit


@contextlib.contextmanager
def shortage() -> Iterator[None]:
    """What torch and the system say when the computer's memory is used up, as ``MemoryError``."""
    try:
        yield
    except RuntimeError as error:
        if not any(words in str(error) for words in ("can't allocate memory", "can't start new thread")):
            raise
        raise MemoryError(
            "the computer has too little free memory, or this process may not have more: free some, or allow less "
            "with memory="
        ) from error


def readable(amount: float) -> str:
    """
    >>> readable(3 * 2**30)
    '3.00 GiB'
    """
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if amount >= size:
            return f"{amount / size:.2f} {unit}"
    return f"{amount / 2**10:.2f} KiB"
