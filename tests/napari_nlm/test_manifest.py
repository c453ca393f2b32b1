"""The manifest and what it promises."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

from npe2 import PluginManifest
from PIL import Image

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "napari_nlm" / "napari.yaml"


def test_it_is_valid() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "npe2", "validate", str(MANIFEST)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "valid" in done.stdout


def test_the_hub_finds_a_picture_and_a_place_for_it() -> None:
    manifest = PluginManifest.from_file(MANIFEST)
    package, _, name = str(manifest.icon).partition(":")
    with Image.open(ROOT / package / name) as icon:
        assert icon.size == (128, 128)
    assert "Image Processing" in manifest.categories


def test_the_extra_of_napari_opens_the_files_that_the_plugin_is_for() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert any(line.startswith("napari-nifti") for line in extras["napari"])


def test_every_command_is_there() -> None:
    manifest = PluginManifest.from_file(MANIFEST)
    for command in manifest.contributions.commands or ():
        module, name = str(command.python_name).split(":")
        assert callable(getattr(__import__(module, fromlist=[name]), name))


def test_the_widget_and_the_quick_runs_are_in_the_menu_of_layers() -> None:
    manifest = PluginManifest.from_file(MANIFEST)
    items = [item.command for item in manifest.contributions.menus["napari/layers/filter"]]
    assert items == ["nlmeans.widget", "nlmeans.denoise_fast", "nlmeans.denoise_best"]


WITHOUT_MONAI = """
import importlib.abc, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"monai", "monai_transforms"}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
import napari_nlm.widget, napari_nlm.nifti, napari_nlm.sample_data
"""


def test_the_plugin_loads_where_monai_is_missing() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_MONAI], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_only_widgets_know_of_qt() -> None:
    windows = {
        "context_menu.py",
        "docked.py",
        "loading.py",
        "widget.py",
        "panels.py",
        "map_panel.py",
        "controls.py",
        "mailbox.py",
        "noise_panel.py",
        "short_form.py",
    }
    for path in (ROOT / "napari_nlm").glob("*.py"):
        assert ("qtpy" in path.read_text() or "superqt" in path.read_text()) == (path.name in windows), path.name
