"""Amounts of memory: how to read and write them, and how much a run may use."""

from __future__ import annotations

import contextlib
import ctypes
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def parse_bytes(text: str) -> int:
    """Read a number of bytes with an optional unit.

    >>> parse_bytes("2GB"), parse_bytes("1.5 GiB"), parse_bytes("4096")
    (2000000000, 1610612736, 4096)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", text.lower())
    if match is None:
        raise ValueError(f"memory={text!r} is not an amount of memory; write for instance '2GB' or '512MiB'")
    return int(Fraction(match[1]) * UNITS[match[2] or ""])


def available(device: torch.device) -> int:
    """Bytes that a run may use by default: half the free memory of the computer, or four fifths of that of the GPU."""
    if device.type == "cuda":
        import torch

        return int(0.8 * torch.cuda.mem_get_info(device)[0])
    return int(0.5 * free())


def free() -> int:
    """Free memory of the computer, in bytes."""
    import psutil

    return int(psutil.virtual_memory().available)


def allowed(device: torch.device, limit: int | None) -> int:
    """Bytes that a run on a device may use: `limit`, or without a limit what is `available`."""
    return available(device) if limit is None else limit


@contextlib.contextmanager
def shortage() -> Iterator[None]:
    """Raise ``MemoryError`` in place of the errors of torch and the system that say that the memory is used up."""
    try:
        yield
    except RuntimeError as error:
        if "out of memory" in str(error):  # torch.OutOfMemoryError, which says how much the GPU has and needs
            raise MemoryError(str(error)) from error
        if not any(words in str(error) for words in ("can't allocate memory", "can't start new thread")):
            raise
        raise MemoryError(
            "the computer has too little free memory, or this process has reached its limit; free some, or pass a "
            "smaller memory="
        ) from error


def give_back() -> None:
    """Return memory that was freed to the system at once, where the C library can.

    That of Linux keeps up to 64 MiB at the end of the heap of each thread, and all that is free between what is in use.

    >>> give_back()
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # other systems return it by themselves
        ctypes.CDLL(None).malloc_trim(0)


def size_text(amount: float) -> str:
    """Write a number of bytes in a unit that suits its size.

    >>> size_text(3 * 2**30)
    '3.00 GiB'
    """
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if amount >= size:
            return f"{amount / size:.2f} {unit}"
    return f"{amount / 2**10:.2f} KiB"
