"""What went wrong, in words for the person at the window."""

from __future__ import annotations

import torch

REMEDY = (
    "free some memory, denoise the current volume only, lower the memory limit under Advanced, or take device cpu there"
)


def message(error: Exception) -> str | None:
    """The engine's own words, which name the remedy; None for what nobody foresaw, which wants a traceback."""
    text = " ".join(str(error).split())
    if isinstance(error, torch.OutOfMemoryError):
        return f"The GPU is out of memory: {REMEDY}."
    if isinstance(error, MemoryError):
        return f"Out of memory: {text or 'the run does not fit'}; {REMEDY}."
    return text if isinstance(error, ValueError | TypeError | OSError) and text else None
