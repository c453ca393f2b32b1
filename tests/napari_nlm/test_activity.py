"""The bar in napari's activity dock."""

from __future__ import annotations

from typing import Any

from napari.utils import progress

from napari_nlm.activity import Activity
from tests.napari_nlm.conftest import Dock, slow
from tests.napari_nlm.images import volume


def test_a_bar_whose_run_ends_while_napari_makes_it_does_not_stay() -> None:
    activity = Activity()
    changed = progress._all_instances.events.changed

    def over(event: Any) -> None:
        if event.added:
            activity.close()

    changed.connect(over)
    try:
        activity.open("Denoising scan")
    finally:
        changed.disconnect(over)
    assert not progress._all_instances


def test_the_activity_dock_cancels_too(dock: Dock) -> None:
    dock.viewer.add_image(volume(40, 40, 40), name="scan")
    dock.settle()
    dock.session.set_live(False)
    slow(dock)
    dock.widget.runs.button.click()
    dock.wait(lambda: dock.widget.runs.bar.value() > 0)
    assert dock.widget.activity is not None
    assert dock.widget.activity.bar is not None
    dock.widget.activity.bar.cancel()
    dock.wait(lambda: not dock.session.runs.running)
    dock.settle()
    assert [layer.name for layer in dock.viewer.layers if layer.visible] == ["scan"]
