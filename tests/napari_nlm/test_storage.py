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
    settings: Any = storage.kept()
    if settings is None:
        pytest.skip("the plugin is not installed here, napari does not know it")
    storage.save(Parameters(search_radius=4))
    assert storage.load() == Parameters(search_radius=4)
    assert any("search_radius" in file.read_text() for file in tmp_path.glob("*.yaml"))
