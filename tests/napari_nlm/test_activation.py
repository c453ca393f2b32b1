"""The first use of the plugin brings its items into the context menu of the layer list."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from app_model.backends.qt import QModelMenu
from app_model.types import Action
from napari._app_model import get_app_model
from napari._app_model.context import get_context
from npe2 import PluginContext, PluginManifest

from napari_nlm import activation
from napari_nlm.activation import CONTEXT_MENU, ITEMS, activate

MANIFEST = PluginManifest.from_file(Path(activation.__file__).with_name("napari.yaml"))


@pytest.fixture
def active(own_viewer: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[PluginContext]:
    """The context of the plugin after its first use."""
    context, application = PluginContext("nlmeans", None), get_app_model()  # type: ignore[arg-type]
    monkeypatch.setattr(activation.Application, "get_app", lambda name: application)  # napari's tests have their own
    for command in ITEMS:  # napari itself registers the commands of manifests
        if command not in application.commands:
            action = Action(id=command, title=command, callback=lambda: None)
            context.register_disposable(application.register_action(action))
    activate(context)
    yield context
    context._dispose()


def visible(viewer: Any) -> set[str]:
    """Titles in the context menu, as they are for the selected layers."""
    menu = QModelMenu(CONTEXT_MENU, get_app_model())
    menu.update_from_context(get_context(viewer.__wrapped__.layers))
    return {action.text() for action in menu.actions() if action.isVisible()}


def test_image_layers_can_be_denoised_from_their_context_menu(own_viewer: Any, active: PluginContext) -> None:
    own_viewer.add_image(np.random.default_rng(0).random((4, 5, 6)))
    assert set(ITEMS.values()) <= visible(own_viewer)
    own_viewer.add_labels(np.ones((4, 5, 6), int))
    assert not set(ITEMS.values()) & visible(own_viewer)


def test_a_plugin_that_is_switched_off_leaves_the_menu(own_viewer: Any, active: PluginContext) -> None:
    own_viewer.add_image(np.random.default_rng(0).random((4, 5, 6)))
    active._dispose()
    assert not set(ITEMS.values()) & visible(own_viewer)


def test_the_items_are_commands_of_the_manifest_and_napari_calls_it_at_the_first_use() -> None:
    commands = {command.id: command.title for command in MANIFEST.contributions.commands or ()}
    assert ITEMS.items() <= commands.items()
    assert str(MANIFEST.on_activate) == "napari_nlm.activation:activate"


def test_without_napari_nothing_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation.Application, "get_app", lambda name: None)
    context = PluginContext("nlmeans", None)  # type: ignore[arg-type]
    activate(context)
    assert not context._disposables


def test_the_engine_is_imported_in_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    done = threading.Event()

    def importing(name: str) -> None:
        threads.append(threading.current_thread().name)
        assert name == activation.HEAVY
        done.set()

    monkeypatch.setattr(activation.Application, "get_app", lambda name: None)
    monkeypatch.setattr(activation, "import_apart", importing)
    activate(PluginContext("nlmeans", None))  # type: ignore[arg-type]
    assert done.wait(10)
    assert threads == ["nlmeans import"]
