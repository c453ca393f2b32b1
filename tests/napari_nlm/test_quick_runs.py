"""The commands of the context menu, before and after torch is imported."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest

from napari_nlm import context_menu, quick_runs
from napari_nlm.quick_runs import LAST, LOADING, WORK, denoise_best, denoise_fast


class Calls:
    """What would be said and denoised. The import waits until it may end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.said: list[str] = []
        self.done: list[tuple[list[str], str, str]] = []
        self.errors: list[Any] = []
        self.may_end = threading.Event()
        self.failure: Exception | None = None
        monkeypatch.setattr(quick_runs, "show_info", self.said.append)
        monkeypatch.setattr(quick_runs, "import_apart", self.importing)
        monkeypatch.setattr(context_menu, "denoise_layers", self.denoise)
        monkeypatch.setattr(
            quick_runs.notification_manager, "receive_error", lambda *error: self.errors.append(error[1])
        )

    def importing(self, name: str) -> None:
        assert threading.current_thread() is not threading.main_thread()
        assert name == WORK
        self.may_end.wait(20)
        if self.failure is not None:
            raise self.failure

    def denoise(self, viewer: Any, layers: Any, method: str) -> None:
        self.done.append(([layer.name for layer in layers], method, threading.current_thread().name))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


def test_what_is_imported_already_starts_at_once(viewer: Any, calls: Calls) -> None:
    viewer.add_image(np.ones((4, 5, 6)), name="scan")
    denoise_best(viewer)
    assert calls.done == [(["scan"], "best", "MainThread")]
    assert calls.said == []


def test_before_the_import_a_line_says_so_and_the_run_of_what_was_selected_follows(
    viewer: Any, qtbot: Any, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer.add_image(np.ones((4, 5, 6)), name="scan")
    monkeypatch.setattr(quick_runs, "LAST", "nothing of this name")
    denoise_fast(viewer)
    assert calls.said[0].startswith("Loading torch")
    assert calls.done == []
    viewer.add_image(np.ones((4, 5, 6)), name="another, which is selected now")
    calls.may_end.set()
    qtbot.waitUntil(lambda: bool(calls.done))
    assert calls.done == [(["scan"], "auto", "MainThread")]
    assert LOADING == []


def test_an_import_that_fails_is_shown(viewer: Any, qtbot: Any, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick_runs, "LAST", "nothing of this name")
    calls.failure = ImportError("no torch here")
    calls.may_end.set()
    denoise_fast(viewer)
    qtbot.waitUntil(lambda: bool(calls.errors))
    assert calls.errors == [calls.failure]
    assert calls.done == []


def test_the_commands_are_there_without_torch() -> None:
    code = "import napari_nlm.quick_runs, napari_nlm.loading, napari_nlm.activation, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert hasattr(context_menu, LAST)
