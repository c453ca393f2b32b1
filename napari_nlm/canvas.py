"""napari's canvas, where OpenGL keeps what is drawn."""

from __future__ import annotations

import contextlib
from typing import Any

from napari.components import ViewerModel

from napari_nlm.layer_source import unwrapped


def hold_canvas(viewer: ViewerModel) -> None:
    """Let OpenGL work on the canvas of a viewer. To be called before layers are removed; without a window, nothing is.

    When a layer goes, napari 0.9 deletes what OpenGL keeps for it in whatever canvas or window was drawn last. If that
    is another one than its own, the next drawing of the canvas may read what is no longer there, and the process
    crashes. It does so after names were written on the canvas.
    """
    window: Any = getattr(unwrapped(viewer), "window", None)
    inner = getattr(getattr(window, "_qt_viewer", None), "canvas", None)
    native = getattr(inner, "native", None)
    if native is not None:
        with contextlib.suppress(RuntimeError):  # the window is gone, and its canvas with it
            native.makeCurrent()
