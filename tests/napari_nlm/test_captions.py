"""Text from values."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from napari.layers import Image

from napari_nlm import captions
from napari_nlm.geometry import View
from napari_nlm.known import MemoryNeed
from napari_nlm.pictures import Picture
from napari_nlm.runs import Running
from nlmeans import METHODS, NoiseModel
from nlmeans.engine.survey import Facts, Judgement
from tests.napari_nlm.test_known import GIB, facts_with, known


def test_notes_say_where_sigma_is_from() -> None:
    assert captions.notes(known())["sigma"] == "estimating …"
    assert captions.notes(known(facts_with(8.0)))["sigma"] == "image units, estimated; found: gaussian noise"
    assert captions.notes(known(facts_with(8.0), noise="gaussian"))["sigma"] == "image units, estimated"
    assert captions.notes(known(sigma=8.0))["sigma"] == "image units, as given"
    assert "every voxel" in captions.notes(known(facts_with(8.0), sigma_varies=True))["sigma"]
    assert captions.notes(known(facts_with(8.0, 4.0, 6.0), channels=0))["sigma"].endswith("8, 4, 6")
    assert "read noise" in captions.notes(known(noise="poisson"))["sigma"]
    counts = captions.notes(known(facts_with(1.0, noise="poisson")))["sigma"]
    assert counts.endswith("in image units; found: poisson noise, gain 1, offset 0")
    curve = Facts((1.0,), (0.0,), 30.0, NoiseModel(kind="curve", curve="0:3,500:8"))
    notes = captions.notes(known(curve, noise="curve"))
    assert (notes["sigma"], notes["curve"]) == ("", "sigma 3 to 8 over intensities 0 to 500, found in the image")
    by_default = captions.notes(known(curve))["sigma"]
    assert by_default == "follows the intensity; found: signal-dependent noise: sigma 3 to 8 over intensities 0 to 500"
    assert captions.notes(known(curve, noise="curve", curve="0:3,500:8"))["curve"].endswith("as given")
    assert captions.notes(known(noise="curve"))["curve"] == "looking for the curve …"
    assert captions.notes(known(facts_with(0.0), noise="curve"))["curve"] == "no noise was found"
    lags = [[[0.4, 1.0, 0.4]]]
    correlated = Facts((8.0,), (0.0,), 30.0, NoiseModel(kind="rician", sigma=8.0, correlation=lags))
    said = "image units, estimated; found: rician noise, correlated between neighbours"
    assert captions.notes(known(correlated))["sigma"] == said


def test_notes_say_what_h_and_the_radii_come_to() -> None:
    notes = captions.notes(known(facts_with(8.0), h=1.5, spacing=(3.0, 1.0, 1.0), search_radius=3))
    assert notes["h"] == "1.50 σ = 12 image units"
    assert notes["search_radius"] == "3 × 7 × 7 voxels, 9 × 7 × 7 mm"
    assert notes["patch_radius"] == "1 × 3 × 3 voxels, 3 × 3 × 3 mm"
    assert "h" not in captions.notes(known())
    assert captions.notes(known())["search_radius"].endswith("voxels")


def test_notes_name_the_method_that_auto_stands_for() -> None:
    assert "method" not in captions.notes(known())
    automatic = known(method="auto")
    assert captions.notes(automatic)["method"] == (
        f"here: {automatic.choices.name}, {METHODS[automatic.choices.name].summary}"
    )


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_too_little_memory_comes_with_a_remedy(device: str) -> None:
    need = MemoryNeed(device, working=2 * GIB, result=GIB, free=GIB, free_here=GIB)
    assert "too little: choose" in captions.memory_text(need)
    enough = captions.memory_text(MemoryNeed(device, working=GIB, result=GIB, free=9 * GIB, free_here=9 * GIB))
    assert "too little" not in enough
    assert enough.startswith(f"{device}: needs {'2.00' if device == 'cpu' else '1.00'} GiB, free 9.00 GiB")
    assert ("result 1.00 GiB" in enough) == (device != "cpu")


def test_the_picture_says_how_much_was_removed() -> None:
    data = np.zeros((4, 5), np.float32)
    view = View((0, 1), (slice(0, 4), slice(0, 5)), cropped=False)
    layer = Image(data)
    said = Judgement(0.5, 0.0)
    text = captions.picture_text(Picture(layer, view, data, data, 2.0, said))
    assert text == "Removed: 0.50 σ = 1 image units; noise left: raise the strength"
    counts = captions.picture_text(Picture(layer, view, data, data, 0.0, Judgement(0.9, 0.0, enough=False)))
    assert counts == "Removed: 0.90 σ"
    assert "no noise" in captions.picture_text(Picture(layer, view, data, data, 0.0))
    timed = Picture(layer, view, data, data, 2.0, said, run_seconds=75.0)
    assert captions.picture_text(timed).endswith("the strength. The whole volume takes about 1 min 15 s")
    cropped = View((0, 1), (slice(0, 4), slice(0, 5)), cropped=True)
    assert captions.picture_text(Picture(layer, cropped, data, data, 2.0, said)).endswith("4 × 5 pixels of the view")
    assert captions.picture_text(Picture(layer, view, data, data, 2.0, said, draft=True)).startswith("Draft")


def test_progress_and_the_line_about_a_finished_run() -> None:
    assert captions.progress_text(Running(0.5, None)) == "50%"
    assert captions.progress_text(Running(0.5, 3700.0)) == "50%, 1 h 01 min left"
    settings = {"method": "classic", "noise": "rician"}
    record: dict[str, Any] = {"settings": settings, "seconds": 1.26, "left_out": {}, "doubts": [[], []]}
    assert captions.result_text(record) == "classic, rician noise, 1.3 s"
    record["doubts"] = [["hardly any"], ["hardly any"]]
    assert captions.result_text(record).endswith("1.3 s; hardly any")
    record["doubts"] = []
    record["left_out"] = {"components kept": "only a series has them"}
    assert captions.result_text(record).endswith("1.3 s; no layer “components kept”: only a series has them")


def test_notes_about_a_series_say_what_is_not_known_yet_and_that_sigma_varies() -> None:
    looking = dataclasses.replace(known(method="auto"), judged=False)
    assert captions.notes(looking)["method"] == captions.JUDGING
    assert captions.notes(known(facts_with(8.0, 8.0, 8.0), channels=0))["sigma"].startswith("image units, estimated")
    uneven = dataclasses.replace(known(facts_with(8.0)), varies=True)
    assert "estimated at every voxel" in captions.notes(uneven)["sigma"]
