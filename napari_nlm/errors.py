"""Error messages for the user of the widget."""

from __future__ import annotations

import torch

REMEDY = (
    "free some memory, denoise only the current volume, or choose a lower memory limit or device cpu under Advanced"
)


def message(error: Exception) -> str | None:
    """The text of an expected error, which names the remedy. None for an unexpected error, which needs a traceback."""
    text = " ".join(str(error).split())
    if isinstance(error, torch.OutOfMemoryError):
        return f"The GPU is out of memory: {REMEDY}."
    if isinstance(error, MemoryError):
        return f"Out of memory: {text or 'the run does not fit'}; {REMEDY}."
    return text if isinstance(error, ValueError | TypeError | OSError) and text else None
