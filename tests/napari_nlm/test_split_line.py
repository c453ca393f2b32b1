"""The line of the split view is dragged on the canvas."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from napari_nlm.pictures import SPLIT
from tests.napari_nlm.conftest import Bench
from tests.napari_nlm.images import volume


def drag(bench: Bench, *columns: float) -> bool:
    """Press at a world position along the columns, move on, and release. Returns whether the line was taken."""
    assert bench.session.split_line in bench.viewer.mouse_drag_callbacks
    event = SimpleNamespace(type="mouse_press", position=(4, 5, columns[0]))
    steps: Any = bench.session.split_line(bench.viewer, event)
    taken = next(steps, "not") is None
    camera = bench.viewer.scene.camera
    assert camera.mouse_pan != taken
    for place in columns[1:] if taken else ():
        event.type, event.position = "mouse_move", (4, 5, place)
        next(steps)
    event.type = "mouse_release"
    next(steps, None)
    assert camera.mouse_pan
    return taken


@pytest.mark.parametrize("size", [1.5, -1.5])
def test_a_drag_that_begins_at_the_line_moves_it(bench: Bench, size: float) -> None:
    bench.add(volume(), scale=(1, 1, size))
    moved: list[float] = []
    bench.session.preview.split_moved.connect(moved.append)
    bench.session.preview.set_mode(SPLIT)
    middle, quarter = 13.5 * size, (6.5 if size > 0 else 20.5) * size
    assert drag(bench, middle, quarter)
    assert bench.session.preview.split == pytest.approx(0.25)
    assert moved == [pytest.approx(0.25)]
    assert bench.layer("· denoised").data.shape[2] == 21
    assert drag(bench, quarter, -1000 * size)
    assert bench.session.preview.split == (0 if size > 0 else 1)


def test_a_drag_elsewhere_or_in_another_mode_is_the_cameras(bench: Bench) -> None:
    bench.add(volume())
    bench.viewer.scene.camera.zoom = 20
    assert not drag(bench, 13.5, 6)
    bench.session.preview.set_mode(SPLIT)
    assert not drag(bench, 5.0, 6.0)
    bench.session.close()
    assert bench.session.split_line not in bench.viewer.mouse_drag_callbacks
