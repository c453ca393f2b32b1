"""Fixtures of both tiers: a model of the viewer without any window, and a real one on a screen."""

from __future__ import annotations

import dataclasses
import os
import queue
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("napari")

from napari import Viewer
from napari._qt import qt_main_window
from napari._qt.dialogs.qt_notification import NapariQtNotification
from napari._qt.qt_viewer import QtViewer
from napari.components import ViewerModel
from napari.settings import get_settings
from napari.utils._proxies import PublicOnlyProxy
from npe2 import PluginManifest
from qtpy.QtCore import QEvent

from napari_nlm.known import Known
from napari_nlm.session import Session
from napari_nlm.widget import GATHER, DenoiseWidget
from nlmeans import METHODS

PATIENCE = 60
"""Seconds after which something that was to happen will not happen."""

TURN = 0.002
"""Seconds of sleep between two turns of the event loop."""

WINDOW = 1000, 700
"""Width and height of the viewer's window."""

QUIET_TURNS = round(2 * GATHER / 1000 / TURN)
"""Turns without work after which there will be none: requests are gathered for half as long."""


@pytest.fixture(autouse=True)
def own_settings(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Choices are kept for the test alone."""
    kept: dict[str, str] = {}

    class Kept:
        @property
        def choices(self) -> str:
            return kept.get("choices", "")

        @choices.setter
        def choices(self, text: str) -> None:
            kept["choices"] = text

    monkeypatch.setattr("napari_nlm.storage.plugin_settings", lambda: Kept())
    return kept


class Bench:
    """A session on a model of the viewer, with a queue in place of the event loop."""

    def __init__(self) -> None:
        self.mail: queue.Queue[Callable[[], None]] = queue.Queue()
        self.viewer = ViewerModel()
        self.session = Session(
            self.viewer, self.mail.put, plain_parameters(), lambda refresh: lambda: self.mail.put(refresh)
        )
        self.errors: list[Exception] = []
        self.notices: list[str] = []
        self.session.failed.connect(self.errors.append)
        self.session.noticed.connect(self.notices.append)

    def wait(self, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not ready():
            assert time.monotonic() < end, "nothing happened"
            try:
                self.mail.get(timeout=0.005)()
            except queue.Empty:
                continue

    def settle(self) -> None:
        """Wait until nothing is computed in the background."""
        self.wait(lambda: self.mail.empty() and not self.session.busy)

    @property
    def known(self) -> Known:
        """What the session knows of the chosen image."""
        known = self.session.next_run.known()
        assert known is not None
        return known

    @property
    def sigma(self) -> Any:
        return self.known.sigma

    def add(self, data: Any, **looks: Any) -> Any:
        layer = self.viewer.add_image(data, **looks)
        self.settle()
        return layer

    def run(self, **how: Any) -> Any:
        """Denoise and return the result layer."""
        made: list[Any] = []
        self.session.runs.finished.connect(made.append)
        self.session.runs.start(**how)
        self.settle()
        self.session.runs.finished.disconnect(made.append)
        return made[-1] if made else None

    def layer(self, ending: str) -> Any:
        """The layer of this name, if it is there to be seen."""
        return next((layer for layer in self.viewer.layers if layer.name.endswith(ending) and layer.visible), None)


def plain_parameters() -> Any:
    """The plain method, which takes no time."""
    from napari_nlm.parameters import Parameters

    return Parameters(method="classic")


@pytest.fixture
def another_method() -> Iterator[str]:
    """A method that another package registers after this one was imported."""
    METHODS["of another package"] = dataclasses.replace(METHODS["classic"], summary="classic by another name")
    yield "of another package"
    del METHODS["of another package"]


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.session.close()
    for lane in bench.session.lanes:
        lane.pool.shutdown(wait=True)


@pytest.fixture(scope="session")
def manifests() -> list[Any]:
    """The manifests of all plugins, which each viewer would look for and parse anew."""
    return list(PluginManifest.discover())


@pytest.fixture
def own_viewer(request: pytest.FixtureRequest, manifests: list[Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A real viewer, for a test that closes it or counts what it leaves; a screen that is missing is an error where one
    was promised."""
    need_a_screen()
    monkeypatch.setattr(PluginManifest, "discover", lambda paths=(): iter(manifests))
    made = request.getfixturevalue("make_napari_viewer_proxy")(show=True)
    made.__wrapped__.window._qt_window.resize(*WINDOW)
    return made


@pytest.fixture(scope="session")
def shared_viewer(qapp: Any, manifests: list[Any]) -> Iterator[Any]:
    """A real viewer with a window and a canvas, which takes a second to open and one to close."""
    need_a_screen()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PluginManifest, "discover", lambda paths=(): iter(manifests))
        patch.setattr("napari._qt.threads.status_checker.StatusChecker.start", lambda *_: None)
        patch.setattr(qt_main_window, "SHOW_QT_WARNING", False)
        made = Viewer(show=True, show_welcome_screen=False)
    QtViewer._instances.discard(made.window._qt_viewer)  # else napari takes it for one that a test has left behind
    yield PublicOnlyProxy(made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made.window._qt_window, "_save_current_window_settings", lambda: None)
        made.close()


@pytest.fixture
def viewer(shared_viewer: Any, qapp: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The shared viewer, as if it had just been opened."""
    monkeypatch.setenv("NAPARI_ENSURE_PLUGIN_MAIN_THREAD", "True")
    own = shared_viewer.__wrapped__
    main = own.window._qt_window
    get_settings().reset()  # holds on which side docks of a name were last
    main.resize(*WINDOW)
    qapp.processEvents()
    docks = main.saveState()
    yield shared_viewer
    own.window.remove_dock_widget("all")
    own.dims.ndisplay = 2
    own.layers.clear()
    own.keymap.clear()
    for notification in main.findChildren(NapariQtNotification):
        notification.close()
    qapp.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    qapp.processEvents()
    main.restoreState(docks)  # the controls of layers make theirs wider


def need_a_screen() -> None:
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        if os.environ.get("NLMEANS_GUI_TESTS") == "required":
            pytest.fail("there is no display, and NLMEANS_GUI_TESTS=required; run this under xvfb-run")
        pytest.skip("there is no display; run this under xvfb-run")


@pytest.fixture
def dock(viewer: Any, qapp: Any) -> Iterator[Dock]:
    made = Dock(viewer, qapp)
    yield made
    made.close()


class Dock:
    """The widget in a real window, and a user in front of it."""

    def __init__(self, viewer: Any, application: Any) -> None:
        self.viewer, self.application = viewer, application
        self.widget = DenoiseWidget(viewer)
        self.holder = viewer.__wrapped__.window.add_dock_widget(self.widget, name="Denoise")
        self.session = self.widget.session
        self.session.next_run.set(method="classic")
        self.closed = False

    def wait(self, ready: Callable[[], bool] = lambda: True, seconds: float = 0.0) -> None:
        start = time.monotonic()
        while not ready() or time.monotonic() < start + seconds:
            assert time.monotonic() < start + PATIENCE, "nothing happened"
            self.application.processEvents()
            self.application.sendPostedEvents(None, QEvent.Type.DeferredDelete)  # a running event loop does that itself
            time.sleep(TURN)

    def settle(self) -> None:
        """Wait until the picture is on the canvas and nothing is computed."""
        quiet = 0

        def quiet_for_long() -> bool:
            nonlocal quiet
            quiet = 0 if self.session.busy else quiet + 1
            return quiet > QUIET_TURNS

        self.wait(quiet_for_long)

    @property
    def sigma(self) -> Any:
        known = self.session.next_run.known()
        assert known is not None
        return known.sigma

    def shot(self) -> npt.NDArray[Any]:
        """The pixels of the canvas."""
        self.settle()
        return np.asarray(self.viewer.__wrapped__.screenshot(canvas_only=True, flash=False))

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.session.close()
            self.viewer.__wrapped__.window.remove_dock_widget(self.holder)
            self.wait(lambda: not self.session.preview.layers.busy, seconds=0.05)
        for lane in self.session.lanes:
            lane.pool.shutdown(wait=True)


def slow(dock: Dock) -> None:
    """Choose a run that takes some ten seconds and reports its progress often."""
    dock.session.next_run.set(method="classic", backend="loop", search_radius=12)
