"""Docks are there at once, and hold their widget as soon as it is imported."""

from __future__ import annotations

import logging
import sys
import threading
from typing import Any

import pytest
from qtpy.QtCore import QEvent

from napari_nlm import loading
from napari_nlm.loading import KERNEL_LOG, DenoiseDock, KernelNotices, LoadingDock, NoiseDock
from napari_nlm.noise_panel import NoisePanel
from napari_nlm.session import sessions_of
from napari_nlm.widget import DenoiseWidget


def put(viewer: Any, dock: LoadingDock) -> Any:
    return viewer.__wrapped__.window.add_dock_widget(dock, name="Dock")


def pump(qapp: Any, qtbot: Any, ready: Any) -> None:
    def done() -> bool:
        qapp.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        return bool(ready())

    qtbot.waitUntil(done, timeout=20_000)


@pytest.mark.parametrize(("kind", "inside"), [(DenoiseDock, DenoiseWidget), (NoiseDock, NoisePanel)])
def test_what_is_imported_already_is_there_at_once(viewer: Any, kind: Any, inside: Any) -> None:
    dock = kind(viewer)
    holder = put(viewer, dock)
    assert isinstance(dock.inner, inside)
    assert dock.said.isHidden()
    viewer.__wrapped__.window.remove_dock_widget(holder)


def test_the_work_ends_with_the_dock(viewer: Any, qapp: Any, qtbot: Any) -> None:
    dock = DenoiseDock(viewer)
    holder = put(viewer, dock)
    (session,) = sessions_of(viewer)
    viewer.__wrapped__.window.remove_dock_widget(holder)
    assert session.closed
    pump(qapp, qtbot, lambda: not sessions_of(viewer))


class Slow(LoadingDock):
    """Holds the denoising widget, from a module that takes a moment to import."""

    module, name, tab = "slow_module_of_a_test", "DenoiseWidget", "Slow"


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """The import of `Slow` waits for this; no kernels are warmed up."""
    gate = threading.Event()

    def importing(name: str) -> Any:
        gate.wait(20)
        monkeypatch.setitem(sys.modules, name, sys.modules["napari_nlm.widget"])

    monkeypatch.setattr(loading, "import_apart", importing)
    monkeypatch.setattr(loading, "warm_up", lambda: logging.getLogger(KERNEL_LOG).info("compiling kernels"))
    return gate


def test_a_dock_says_that_it_loads_until_its_module_is_imported(
    viewer: Any, qapp: Any, qtbot: Any, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(DenoiseWidget, "show_status", lambda self, text: said.append(text))
    dock = Slow(viewer)
    holder = put(viewer, dock)
    assert dock.inner is None
    assert dock.said.text() == "Loading …"
    pump(qapp, qtbot, lambda: dock.width() > 300)
    gate.set()
    pump(qapp, qtbot, lambda: isinstance(dock.inner, DenoiseWidget))
    inner: Any = dock.inner
    pump(qapp, qtbot, lambda: "Compiling kernels" in said)
    pump(qapp, qtbot, lambda: inner.height() > 0.95 * dock.height() > 300)
    viewer.__wrapped__.window.remove_dock_widget(holder)
    assert inner.session.closed


def test_a_dock_that_was_closed_meanwhile_stays_empty(
    viewer: Any, qapp: Any, qtbot: Any, gate: threading.Event
) -> None:
    dock = Slow(viewer)
    viewer.__wrapped__.window.remove_dock_widget(put(viewer, dock))
    gate.set()
    for thread in threading.enumerate():
        if thread.name == "nlmeans loading":
            thread.join(20)
    dock_is_gone: list[Any] = []
    dock.destroyed.connect(dock_is_gone.append)
    pump(qapp, qtbot, lambda: dock_is_gone)
    assert not sessions_of(viewer)


def test_an_import_that_fails_is_said_in_the_dock(
    viewer: Any, qapp: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(name: str) -> Any:
        raise ImportError("no torch here")

    monkeypatch.setattr(loading, "import_apart", failing)
    told: list[Any] = []
    monkeypatch.setattr(loading.notification_manager, "receive_error", lambda *error: told.append(error[1]))
    dock = Slow(viewer)
    holder = put(viewer, dock)
    pump(qapp, qtbot, lambda: told)
    assert dock.said.text() == "ImportError: no torch here"
    viewer.__wrapped__.window.remove_dock_widget(holder)


def test_what_kernels_log_is_passed_on_only_inside_the_block() -> None:
    logger, said = logging.getLogger(KERNEL_LOG), list[str]()
    level = logger.level
    with KernelNotices(said.append):
        logger.info("compiling %s", "kernels")
    logger.info("once more")
    assert said == ["compiling kernels"]
    assert logger.level == level


def test_the_kernels_can_be_warmed_up() -> None:
    loading.warm_up()
