"""napari's canvas, where OpenGL keeps what is drawn."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from napari.components import ViewerModel

from napari_nlm.jobs import Deliver
from napari_nlm.layer_source import unwrapped


def hold_canvas(viewer: ViewerModel) -> None:
    """Let OpenGL work on the canvas of a viewer. To be called before layers are removed; without a window, nothing is.

    When a layer goes, napari 0.9 deletes what OpenGL keeps for it in whatever canvas or window was drawn last. If that
    is another one than its own, the next drawing of the canvas may read what is no longer there, and the process
    crashes. It does so after names were written on the canvas.
    """
    native = getattr(canvas_of(viewer), "native", None)
    if native is not None:
        with contextlib.suppress(RuntimeError):  # the window is gone, and its canvas with it
            native.makeCurrent()


def canvas_of(viewer: ViewerModel) -> Any:
    """napari's canvas of a viewer; None without a window."""
    window: Any = getattr(unwrapped(viewer), "window", None)
    return getattr(getattr(window, "_qt_viewer", None), "canvas", None)


def paint_in_own_turn(viewer: ViewerModel, next_turn: Deliver) -> None:
    """Let what is changed now be painted in the next turn of the event loop, not at the end of this one.

    To add a layer and to paint it for the first time takes each up to a tenth of a second.
    """
    native = getattr(canvas_of(viewer), "native", None)
    with contextlib.suppress(RuntimeError):  # the window is gone
        if native is None or not native.updatesEnabled():
            return
        native.setUpdatesEnabled(False)
        next_turn(lambda: paint_again(native))


def paint_again(native: Any) -> None:
    with contextlib.suppress(RuntimeError):
        native.setUpdatesEnabled(True)


def drawn_letters(viewer: ViewerModel, text: str) -> Iterator[None]:
    """The steps that draw the letters of a text, one a turn: napari would draw all that are new when it shows the text.

    A letter takes some 4 ms, once in a session.
    """
    fonts = getattr(canvas_of(viewer), "_font_info", None)
    if fonts is None:  # there is no window, or another version of napari draws letters elsewhere
        return
    font = fonts.font_manager.get_font(fonts.face)
    for letter in dict.fromkeys(text):
        if letter not in font._glyphs:
            font[letter]
            yield
