"""The choices live where napari keeps its settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from npe2 import PluginManager

from napari_nlm.parameters import Parameters


def test_they_are_on_disk_and_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real place, not that of other tests
    import napari.settings

    from napari_nlm import storage

    monkeypatch.setattr(napari.settings, "_PLUGIN_SETTINGS", {})
    monkeypatch.setattr(napari.settings, "_CFG_PATH", str(tmp_path / "settings.yaml"))
    PluginManager.instance().discover()
    settings: Any = storage.plugin_settings()
    if settings is None:
        pytest.skip("the plugin is not installed here, napari does not know it")
    storage.save_choices(Parameters(search_radius=4))
    assert storage.load_choices() == Parameters(search_radius=4)
    assert any("search_radius" in file.read_text() for file in tmp_path.glob("*.yaml"))


def test_where_napari_does_not_know_the_plugin_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_nlm import storage

    monkeypatch.setattr("napari_nlm.storage.plugin_settings", lambda: None)
    storage.save_choices(Parameters(search_radius=4))
    assert storage.load_choices() == Parameters()


def test_equal_choices_are_not_written_again(own_settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_nlm import storage

    storage.save_choices(Parameters(search_radius=4))
    assert storage.load_choices() == Parameters(search_radius=4)
    before = own_settings["choices"]
    storage.save_choices(Parameters(search_radius=4, sigma=3.0))  # sigma is not kept
    assert own_settings["choices"] is before
