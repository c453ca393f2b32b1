"""Layers go while OpenGL works on their canvas; else napari may crash at the next drawing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from napari.components import ViewerModel
from qtpy.QtGui import QOpenGLContext

from napari_nlm.canvas import drawn_letters, hold_canvas, paint_in_own_turn
from napari_nlm.pictures import COMPARE_MODES, SPLIT
from tests.napari_nlm.conftest import Dock
from tests.napari_nlm.images import volume


def is_held(viewer: Any) -> bool:
    canvas = getattr(viewer, "__wrapped__", viewer).window._qt_viewer.canvas.native
    return bool(QOpenGLContext.currentContext() == canvas.context())


def test_a_viewer_without_a_window_has_no_canvas_to_hold() -> None:
    hold_canvas(ViewerModel())


def test_the_canvas_is_held_although_something_else_was_drawn_last(viewer: Any) -> None:
    viewer.add_image(np.ones((4, 5, 6)))
    context = QOpenGLContext.currentContext()
    if context is not None:
        context.doneCurrent()
    assert not is_held(viewer)
    hold_canvas(viewer)
    assert is_held(viewer)


def test_what_is_changed_is_painted_in_a_turn_of_its_own(viewer: Any) -> None:
    native = viewer.__wrapped__.window._qt_viewer.canvas.native
    turns: list[Callable[[], None]] = []
    paint_in_own_turn(viewer, turns.append)
    paint_in_own_turn(viewer, turns.append)
    assert not native.updatesEnabled()
    (turn,) = turns
    turn()
    assert native.updatesEnabled()
    paint_in_own_turn(ViewerModel(), turns.append)
    assert len(turns) == 1


def test_letters_are_drawn_one_a_turn_and_only_once(own_viewer: Any) -> None:
    """A version of napari that keeps its fonts elsewhere fails here: then the names come all at once."""
    fonts = own_viewer.__wrapped__.window._qt_viewer.canvas._font_info
    assert len(list(drawn_letters(own_viewer, "noise · ñoise"))) == len(set("noise · ñoise"))
    assert set("noise · ñ") <= fonts.font_manager.get_font(fonts.face)._glyphs.keys()
    assert list(drawn_letters(own_viewer, "noise")) == []
    assert list(drawn_letters(ViewerModel(), "noise")) == []


def test_the_canvas_is_painted_again_after_every_way_to_compare(dock: Dock) -> None:
    dock.viewer.add_image(volume(), name="scan", contrast_limits=(0, 255))
    dock.settle()
    native = dock.viewer.__wrapped__.window._qt_viewer.canvas.native
    for mode in range(len(COMPARE_MODES)):
        dock.widget.preview.modes.button(mode).click()
        dock.settle()
        assert native.updatesEnabled()
    dock.close()
    dock.wait(lambda: not dock.session.preview.layers.busy)
    dock.wait(native.updatesEnabled)


def test_layers_of_the_preview_go_while_their_canvas_is_held(dock: Dock) -> None:
    held: list[bool] = []
    dock.viewer.add_image(volume(), name="scan", contrast_limits=(0, 255))
    dock.settle()

    def look(_: Any) -> None:
        held.append(is_held(dock.viewer))

    dock.viewer.layers.events.removed.connect(look)
    for _ in range(2):
        dock.widget.preview.modes.button(COMPARE_MODES.index(SPLIT)).click()
        dock.shot()
        dock.viewer.layers.remove("scan · original")  # by the user
        dock.shot()
        dock.session.set_live(False)
        dock.shot()
        dock.session.set_live(True)
        dock.shot()
    dock.viewer.layers.events.removed.disconnect(look)
    assert len(held) == 4
    assert all(held)
    assert {"scan · original", "scan · denoised"} <= {layer.name for layer in dock.viewer.layers}
