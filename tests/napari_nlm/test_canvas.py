"""Layers go while OpenGL works on their canvas; else napari may crash at the next drawing."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.components import ViewerModel
from qtpy.QtGui import QOpenGLContext

from napari_nlm.canvas import hold_canvas
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


def test_layers_of_the_preview_go_while_their_canvas_is_held(dock: Dock) -> None:
    held: list[bool] = []
    dock.viewer.add_image(volume(), name="scan", contrast_limits=(0, 255))
    dock.settle()
    dock.viewer.layers.events.removed.connect(lambda event: held.append(is_held(dock.viewer)))
    for _ in range(2):
        dock.widget.preview.modes.button(COMPARE_MODES.index(SPLIT)).click()
        dock.shot()
        dock.viewer.layers.remove("scan · original")  # by the user
        dock.shot()
        dock.session.set_live(False)
        dock.shot()
        dock.session.set_live(True)
        dock.shot()
    assert len(held) == 4
    assert all(held)
    assert {"scan · original", "scan · denoised"} <= {layer.name for layer in dock.viewer.layers}
