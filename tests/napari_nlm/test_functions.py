"""Functions that other plugins call."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from app_model.expressions import parse_expression
from napari.types import ImageData
from npe2 import PluginManager, PluginManifest

import napari_nlm
import nlmeans
from napari_nlm.functions import denoise_image
from tests.napari_nlm.images import volume

MANIFEST = Path(napari_nlm.__file__).with_name("napari.yaml")


def test_another_plugin_denoises_by_the_command_of_the_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = PluginManager()
    monkeypatch.setattr(PluginManager, "instance", lambda: manager)
    manager.register(PluginManifest.from_file(MANIFEST))
    image = volume(10, 12, 14)
    result = manager.commands.execute("nlmeans.denoise_image", (image,), {"method": "classic"})
    np.testing.assert_array_equal(result, nlmeans.denoise(image, method="classic"))


def test_it_is_typed_as_an_image_of_napari_and_public() -> None:
    hints = inspect.get_annotations(denoise_image, eval_str=True)
    assert hints["image"] is hints["return"] is ImageData
    assert napari_nlm.denoise_image is denoise_image
    with pytest.raises(AttributeError, match="no attribute 'denoiser'"):
        _ = napari_nlm.denoiser  # type: ignore[attr-defined]


def test_arguments_reach_the_engine() -> None:
    image = volume(10, 12, 14)
    weak, strong = (denoise_image(image, "classic", strength, "CT") for strength in (0.5, 2.0))
    assert np.std(weak - image) < np.std(strong - image)
    with pytest.raises(ValueError, match="method='blur'"):
        denoise_image(image, method="blur")


def test_the_palette_of_napari_does_not_offer_what_it_cannot_call() -> None:
    commands = PluginManifest.from_file(MANIFEST).contributions.commands or ()
    (command,) = (one for one in commands if one.id == "nlmeans.denoise_image")
    assert parse_expression(str(command.enablement)).eval({}) is False


def test_finding_the_plugin_imports_neither_torch_nor_qt() -> None:
    code = "import sys, napari_nlm; print(*({'torch', 'qtpy', 'napari'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
