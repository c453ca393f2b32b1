"""Denoising from the context menu of the layer list, without the dock widget."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import nlmeans
from napari_nlm import context_menu, quick_runs
from napari_nlm.context_menu import WAITING, MenuRun
from napari_nlm.marks import PROVENANCE_KEY
from napari_nlm.parameters import Parameters
from tests.napari_nlm.images import series, volume

QUICK = Parameters(method="classic")
SLOW = Parameters(method="classic", backend="loop", search_radius=12)


class Said:
    """What napari would show to the user."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.notes: list[str] = []
        self.errors: list[str] = []
        monkeypatch.setattr(context_menu, "show_info", self.notes.append)
        monkeypatch.setattr(context_menu, "show_error", self.errors.append)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Said:
    return Said(monkeypatch)


@pytest.fixture
def wait(viewer: Any, qapp: Any) -> Iterator[Callable[..., None]]:
    """Let Qt work until something is so, which is that no run is left unless another is given."""

    def until(ready: Callable[[], bool] = lambda: not WAITING) -> None:
        end = time.monotonic() + 60
        while not ready():
            assert time.monotonic() < end, "nothing happened"
            qapp.processEvents()
            time.sleep(0.002)

    yield until
    for run in list(WAITING):
        run.end()


def choose(viewer: Any, *layers: Any) -> list[Any]:
    """Select layers as the right mouse button does."""
    viewer.__wrapped__.layers.selection = {getattr(layer, "__wrapped__", layer) for layer in layers}
    return list(viewer.__wrapped__.layers.selection)


def test_the_result_is_a_new_layer_with_its_provenance(viewer: Any, wait: Callable[..., None], said: Said) -> None:
    layer = viewer.add_image(volume(12, 16, 18), name="scan", scale=(3, 1, 1), units="mm")
    choose(viewer, layer)
    quick_runs.denoise_fast(viewer)
    assert WAITING
    wait()
    result = viewer.layers["scan denoised"]
    np.testing.assert_allclose(result.data, nlmeans.denoise(layer.data, spacing=(3, 1, 1)), atol=1e-3)
    assert tuple(result.scale) == (3, 1, 1)
    record = result.metadata[PROVENANCE_KEY]
    assert record["source"] == "scan"
    assert record["settings"]["method"] == "best"
    assert said.notes[-1].startswith("scan denoised: best")
    assert not said.errors
    choose(viewer, layer)
    quick_runs.denoise_best(viewer)
    wait()
    assert len(viewer.layers) == 3
    assert viewer.layers[-1].metadata[PROVENANCE_KEY]["settings"]["method"] == "best"


def test_a_series_is_denoised_with_all_its_volumes(viewer: Any, wait: Callable[..., None], said: Said) -> None:
    layer = viewer.add_image(series(), name="series")
    MenuRun(viewer, choose(viewer, layer), QUICK).start()
    wait()
    assert viewer.layers["series denoised"].data.shape == layer.data.shape


def test_a_layer_that_fails_is_told_by_name_and_others_are_denoised(
    viewer: Any, wait: Callable[..., None], said: Said
) -> None:
    bad = volume(12, 16, 18)
    bad[3, 2, 1] = np.inf
    broken = viewer.add_image(bad, name="broken", contrast_limits=(0, 255))
    good = viewer.add_image(volume(12, 16, 18), name="good")
    choose(viewer, broken, good)
    quick_runs.denoise_fast(viewer)
    wait()
    assert "good denoised" in viewer.layers
    assert "broken denoised" not in viewer.layers
    assert len(said.errors) == 1
    assert said.errors[0].startswith("broken: ")


def test_without_an_image_the_user_is_told_what_to_select(viewer: Any, said: Said) -> None:
    viewer.add_labels(np.ones((4, 5, 6), int))
    quick_runs.denoise_fast(viewer)
    assert not WAITING
    assert said.notes[-1].startswith("Select an image layer")


def test_runs_take_turns_and_the_bar_cancels_one(viewer: Any, wait: Callable[..., None], said: Said) -> None:
    slow = viewer.add_image(volume(40, 40, 40), name="slow")
    quick = viewer.add_image(volume(12, 16, 18), name="quick")
    first, second = MenuRun(viewer, choose(viewer, slow), SLOW), MenuRun(viewer, choose(viewer, quick), QUICK)
    first.start()
    second.start()
    assert first.runs.running
    assert not second.runs.running
    wait(lambda: first.activity.bar is not None and first.activity.bar.n > 0)
    assert first.activity.bar is not None
    first.activity.bar.cancel()
    wait()
    assert [layer.name for layer in viewer.layers] == ["slow", "quick", "quick denoised"]


def test_a_layer_that_is_removed_is_not_denoised_any_more(viewer: Any, wait: Callable[..., None], said: Said) -> None:
    slow = viewer.add_image(volume(40, 40, 40), name="slow")
    run = MenuRun(viewer, choose(viewer, slow), SLOW)
    run.start()
    wait(lambda: run.activity.bar is not None and run.activity.bar.n > 0)
    viewer.layers.remove("slow")
    wait()
    assert "slow was removed" in said.notes[-1]
    assert len(viewer.layers) == 0
