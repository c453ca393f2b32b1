"""The dock opened, used and closed many times: no layers, widgets, threads or files stay, and no memory."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari")

from napari._qt.dialogs.qt_notification import NapariQtNotification
from qtpy.QtWidgets import QApplication

from tests.napari_nlm.conftest import Dock
from tests.soak import assert_nothing_stays, rounds


def use(viewer: Any, qapp: Any, index: int) -> list[weakref.ref[Any]]:
    """Open the dock, denoise and close it. Returns weak references to everything that was used."""
    dock = Dock(viewer, qapp)
    data = np.random.default_rng(index).normal(100, 10, (12, 40, 41 + index % 3)).astype(np.float32)
    viewer.add_image(data, name="noisy")
    dock.settle()
    made: list[Any] = []
    dock.session.runs.finished.connect(made.append)
    dock.session.runs.start()
    dock.wait(lambda: bool(made))
    dock.settle()
    assert len(viewer.layers) >= 2
    used = [dock.widget, dock.session, *viewer.__wrapped__.layers]
    dock.close()
    viewer.layers.clear()
    for notification in viewer.__wrapped__.window._qt_window.findChildren(NapariQtNotification):
        notification.close()  # napari itself does so only where the window is active
    dock.wait(seconds=0.05)
    assert len(viewer.layers) == 0
    return [weakref.ref(thing) for thing in used]


def test_open_denoise_close(own_viewer: Any, qapp: Any, request: pytest.FixtureRequest) -> None:
    widgets: list[int] = []
    used: list[weakref.ref[Any]] = []

    def run(index: int) -> None:
        used.extend(use(own_viewer, qapp, index))
        widgets.append(len(QApplication.allWidgets()))

    assert_nothing_stays(run, rounds(request, 1, 10), rounds(request, 2, 200))
    print(f"widgets {widgets[0]} to {widgets[-1]}")
    assert widgets[-1] <= widgets[1]
    gc.collect()
    assert [thing() for thing in used if thing() is not None] == []
