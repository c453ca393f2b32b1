"""The window of the module for 3D Slicer, on stand-ins for Slicer and Qt: what it starts, shows and stores."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

MODULE = Path(__file__).parents[2] / "slicer" / "NonLocalMeans"
sys.path.insert(0, str(MODULE))

pytest.importorskip("SimpleITK")

from tests.slicer.volumes import write  # noqa: E402


class Base:
    """Stands for the base classes of scripted modules."""

    def __init__(self, parent: object = None) -> None:
        self.layout = MagicMock()

    def setup(self) -> None:
        pass


class Node:
    """Stands for a volume of the scene: a file."""

    def __init__(self, path: Path | None = None) -> None:
        self.path, self.image = path, None

    def GetName(self) -> str:
        return "scan"

    def GetTransformNodeID(self) -> None:
        return None

    def GetImageData(self) -> bytes:
        assert self.path is not None
        return self.path.read_bytes()

    def CopyOrientation(self, other: Node) -> None:
        self.oriented_like = other

    def SetAndObserveImageData(self, image: Any) -> None:
        self.image = image

    def CreateDefaultDisplayNodes(self) -> None:
        pass

    def SetAndObserveTransformNodeID(self, name: str | None) -> None:
        self.transform = name


@pytest.fixture
def slicer(monkeypatch: pytest.MonkeyPatch) -> Any:
    slicer = MagicMock()
    slicer.util.startupEnvironment = lambda: dict(os.environ)
    slicer.util.exportNode = lambda node, path: shutil.copy(node.path, path)
    slicer.util.loadVolume = lambda path, properties: Node(Path(path))
    slicer.mrmlScene.AddNewNodeByClass.side_effect = lambda kind, name: Node()
    names = ("", "Logic", "Test", "Widget")
    scripted = SimpleNamespace(**{f"ScriptedLoadableModule{name}": Base for name in names})
    qt = MagicMock()
    for name in ("QComboBox", "QDoubleSpinBox", "QPushButton", "QProgressBar", "QLabel"):
        setattr(qt, name, lambda *_: MagicMock())
    qt.QSettings.return_value.value.return_value = ""
    modules = {"slicer": slicer, "slicer.ScriptedLoadableModule": scripted, "qt": qt, "ctk": MagicMock()}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "NonLocalMeans", raising=False)
    return slicer


@pytest.fixture
def widget(slicer: Any, tmp_path: Path) -> Iterator[Any]:
    module: ModuleType = importlib.import_module("NonLocalMeans")
    widget = module.NonLocalMeansWidget()
    widget.setup()
    program = tmp_path / "nlmeans"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m nlmeans.cli "$@"\n')
    program.chmod(0o755)
    widget.program.currentPath = str(program)
    widget.method.currentText, widget.noise.currentText = "classic", "auto"
    widget.strength.value, widget.sigma.value = 1.0, 8.0
    write(tmp_path / "scan.nrrd")
    widget.input, widget.output = MagicMock(), MagicMock()
    widget.input.currentNode.return_value, widget.output.currentNode.return_value = Node(tmp_path / "scan.nrrd"), None
    yield widget
    widget.cleanup()


def wait(widget: Any) -> None:
    """Do what the timer does."""
    until = time.monotonic() + 120
    while widget.run is not None:
        assert time.monotonic() < until
        widget.look()
        time.sleep(0.02)


def test_a_volume_of_the_scene_gets_a_denoised_one(widget: Any, slicer: Any) -> None:
    widget.startOrCancel()
    assert widget.button.text == "Cancel"
    folder = widget.run.folder
    wait(widget)
    volume, (output,) = widget.volume, widget.output.setCurrentNode.call_args.args
    assert output.image not in (None, volume.GetImageData())
    assert output.oriented_like is volume
    assert (widget.button.text, widget.bar.value) == ("Denoise", 100)
    assert "sigma 8" in widget.said.text
    slicer.mrmlScene.RemoveNode.assert_called_once()
    assert not folder.exists()


def test_a_chosen_output_is_overwritten(widget: Any, slicer: Any) -> None:
    chosen = widget.output.currentNode.return_value = Node()
    widget.startOrCancel()
    wait(widget)
    assert chosen.image is not None
    slicer.mrmlScene.AddNewNodeByClass.assert_not_called()


def test_the_button_cancels_a_run(widget: Any, slicer: Any) -> None:
    widget.startOrCancel()
    widget.startOrCancel()
    wait(widget)
    assert "cancelled" in widget.said.text
    slicer.mrmlScene.AddNewNodeByClass.assert_not_called()


def test_a_missing_volume_or_program_is_said(widget: Any) -> None:
    widget.program.currentPath = "/nowhere/nlmeans"
    widget.startOrCancel()
    assert "/nowhere/nlmeans" in widget.said.text
    widget.input.currentNode.return_value = None
    widget.startOrCancel()
    assert "Choose an input volume" in widget.said.text
    assert widget.run is None
