"""The real window: what is seen on the canvas, and what a person can do to it at any moment."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from napari.utils.notifications import notification_manager
from qtpy.QtGui import QGuiApplication

from napari_nlm.geometry import linear
from napari_nlm.parameters import Parameters
from napari_nlm.preview import MODES
from napari_nlm.results import KEY
from tests.napari_nlm.conftest import Dock
from tests.napari_nlm.images import ORIENTATIONS, volume

Pixels = npt.NDArray[Any]


def bright(pixels: Pixels) -> npt.NDArray[np.bool_]:
    """The box of `volume`, whose grey is far from that of its ground."""
    return pixels[..., 0] > 110


def slow(dock: Dock) -> None:
    """A run that takes some ten seconds and reports its progress often."""
    dock.session.set(method="classic", backend="loop", search_radius=12)


def notices(since: int) -> list[str]:
    return [str(notice.message) for notice in list(notification_manager.records)[since:]]


@pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("place", ORIENTATIONS)
def test_the_preview_lies_on_the_image(dock: Dock, place: str, order: tuple[int, ...]) -> None:
    dock.viewer.add_image(volume(), contrast_limits=(0, 255), **ORIENTATIONS[place])
    dock.viewer.dims.order = order
    dock.settle()
    hidden = order[0]
    matrix, offset = linear(dock.viewer.layers[0])
    inverse = np.linalg.inv(matrix)
    middle = 3 * dock.viewer.layers[0].data.shape[hidden] // 8  # of the box, along the axis that is not on the canvas
    dock.viewer.dims.set_point(hidden, (middle + (inverse @ offset)[hidden]) / inverse[hidden, hidden])
    after = dock.shot()
    dock.session.hold(True)
    before = dock.shot()
    dock.session.hold(False)
    boxes = bright(before), bright(after)
    assert boxes[0].sum() > 1000
    # noise makes single voxels of the original cross the threshold; a shift by one voxel would cost a whole edge
    assert (boxes[0] & boxes[1]).sum() > 0.97 * (boxes[0] | boxes[1]).sum()
    inside = boxes[0] & boxes[1]
    assert after[inside][:, 0].std() < 0.6 * before[inside][:, 0].std()


def test_the_preview_does_not_move_the_sliders_or_the_camera(dock: Dock) -> None:
    dock.viewer.add_image(volume(), scale=(3, 1, 1.5), contrast_limits=(0, 255))
    dock.viewer.dims.set_current_step(0, 3)
    ranges, zoom = dock.viewer.dims.range, dock.viewer.__wrapped__.scene.camera.zoom
    dock.settle()
    assert len(dock.viewer.layers) == 2
    assert dock.viewer.dims.range == ranges
    assert dock.viewer.dims.current_step[0] == 3
    assert dock.viewer.__wrapped__.scene.camera.zoom == zoom


def test_a_split_view_shows_noise_on_the_left_alone(dock: Dock) -> None:
    data = 100 + 20 * np.random.default_rng(0).standard_normal((8, 64, 64)).astype(np.float32)
    dock.viewer.add_image(data, contrast_limits=(0, 255))
    dock.settle()
    dock.widget.preview.modes.button(MODES.index("split")).click()
    shot = dock.shot()[..., 0].astype(float)
    lit = np.flatnonzero(shot.max(0) > 40)
    left, right = np.array_split(shot[:, lit], 2, axis=1)
    rows = shot[:, lit].mean(1) > 60
    assert right[rows].std() < 0.5 * left[rows].std()


def test_large_slices_are_cropped_to_the_view(dock: Dock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_nlm.session.LARGEST_PREVIEW", 128 * 128)
    dock.viewer.add_image(volume(4, 400, 400), contrast_limits=(0, 255))
    dock.settle()
    camera = dock.viewer.__wrapped__.scene.camera
    camera.center, camera.zoom = (0, 100, 300), 20
    dock.settle()
    dock.session.refresh()
    dock.settle()
    preview = dock.viewer.layers[-1]
    start, size = np.array(preview.translate[1:]), np.array(preview.data.shape[1:])
    np.testing.assert_allclose(start + size / 2, (100, 300), atol=6)


def test_three_clicks_from_sample_data_to_a_denoised_volume(dock: Dock) -> None:
    dock.viewer.__wrapped__.open_sample("nlmeans", "head")
    dock.settle()
    dock.widget.runs.button.click()
    dock.settle()
    result = dock.viewer.layers["head denoised"]
    assert result.data.shape == dock.viewer.layers["head"].data.shape
    assert result.metadata[KEY]["sigma_estimated"]
    assert dock.widget.runs.save.isEnabled()


def test_the_button_cancels_while_a_run_goes_on(dock: Dock) -> None:
    dock.viewer.add_image(volume(40, 40, 40), name="scan")
    dock.settle()
    slow(dock)
    dock.widget.runs.button.click()
    dock.wait(lambda: dock.widget.runs.bar.value() > 0)
    assert dock.widget.runs.button.text() == "Cancel"
    assert dock.widget.activity is not None
    dock.widget.runs.button.click()
    assert dock.widget.runs.button.text() == "Denoise"
    assert not dock.widget.runs.bar.isVisible()
    dock.session.set(backend="auto", search_radius=None)
    dock.settle()
    assert all("denoised" not in layer.name for layer in dock.viewer.layers)


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
    dock.wait(lambda: not dock.session.running)
    dock.settle()
    assert [layer.name for layer in dock.viewer.layers if layer.visible] == ["scan"]


def test_closing_the_dock_ends_all_work_and_takes_the_preview_along(dock: Dock) -> None:
    dock.viewer.add_image(volume(40, 40, 40), name="scan")
    dock.settle()
    slow(dock)
    dock.widget.runs.button.click()
    dock.wait(seconds=0.05)
    dock.close()
    dock.wait(seconds=0.3)
    assert [layer.name for layer in dock.viewer.layers] == ["scan"]
    assert dock.widget.activity is None
    dock.viewer.dims.set_current_step(0, 3)
    dock.wait(seconds=0.1)


def test_the_cross_of_the_dock_closes_the_session(dock: Dock) -> None:
    dock.viewer.add_image(volume(), name="scan")
    dock.settle()
    dock.holder.destroyOnClose()
    dock.wait(lambda: dock.session.closed)
    dock.wait(seconds=0.1)
    dock.closed = True
    assert [layer.name for layer in dock.viewer.layers] == ["scan"]


def test_closing_the_window_during_a_run_is_silent(dock: Dock) -> None:
    dock.viewer.add_image(volume(40, 40, 40), name="scan")
    dock.settle()
    slow(dock)
    dock.widget.runs.button.click()
    dock.wait(seconds=0.1)
    dock.viewer.__wrapped__.close()
    dock.wait(seconds=0.3)
    dock.closed = True
    assert dock.session.closed


def test_too_little_memory_is_told_with_a_remedy(dock: Dock, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*arguments: Any, **named: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB")

    dock.viewer.add_image(volume())
    dock.settle()
    monkeypatch.setattr("napari_nlm.compute.run", exhausted)
    before = len(notification_manager.records)
    dock.widget.runs.button.click()
    dock.settle()
    assert any("out of memory" in text and "device cpu" in text for text in notices(before))
    assert dock.widget.runs.button.text() == "Denoise"
    assert all("denoised" not in layer.name for layer in dock.viewer.layers)


def test_errors_of_the_engine_are_notifications_and_said_once(dock: Dock, capfd: pytest.CaptureFixture[str]) -> None:
    data = volume()
    data[:, 3, 4] = np.nan
    before = len(notification_manager.records)
    dock.viewer.add_image(data, contrast_limits=(0, 255))
    dock.settle()
    for step in (1, 2, 3):
        dock.viewer.dims.set_current_step(0, step)
        dock.settle()
    said = [text for text in notices(before) if "nan_to_num" in text]
    assert len(said) == 1
    assert "nan_to_num" in dock.widget.preview.status.text()
    assert "Traceback" not in capfd.readouterr().err


def test_a_slider_sets_h_in_multiples_of_sigma_and_shows_it(dock: Dock) -> None:
    dock.viewer.add_image(volume())
    dock.settle()
    panel = dock.widget.parameters[1]
    panel.fields["h"].editor.setValue(1.5)
    dock.settle()
    assert dock.session.parameters.h == 1.5
    assert f"{1.5 * dock.session.sigma:.4g}" in panel.notes["h"].text()
    panel.fields["h"].auto.click()
    assert dock.session.parameters.h is None
    dock.settle()
    assert panel.fields["h"].editor.value() == pytest.approx(0.76, abs=0.3)


def test_sigma_is_shown_and_can_be_overruled(dock: Dock) -> None:
    dock.viewer.add_image(volume())
    dock.settle()
    field = dock.widget.parameters[0].fields["sigma"]
    assert field.editor.value() == pytest.approx(dock.session.sigma, abs=1e-3)
    assert field.value() is None
    field.editor.setValue(12.5)
    assert dock.session.sigma == 12.5
    dock.viewer.add_image(volume(seed=1) * 2)
    dock.settle()
    assert field.value() is None


def test_choices_last_and_can_be_reset(dock: Dock, own_settings: dict[str, str]) -> None:
    dock.viewer.add_image(volume())
    dock.settle()
    dock.widget.parameters[1].fields["search_radius"].editor.setValue(5)
    assert Parameters.from_json(own_settings["choices"]).search_radius == 5
    dock.widget.runs.reset.trigger()
    assert own_settings["choices"] == "{}"
    assert dock.session.parameters == Parameters()


@pytest.mark.parametrize("kind", ["Python"])
def test_text_goes_to_the_clipboard(dock: Dock, kind: str) -> None:
    dock.viewer.add_image(volume(), name="scan")
    dock.settle()
    dock.widget.runs.copies[kind].trigger()
    clipboard = QGuiApplication.clipboard()
    assert clipboard is not None
    assert "nlmeans.denoise(volume" in clipboard.text()


def test_holding_the_key_shows_the_original(dock: Dock) -> None:
    dock.viewer.add_image(volume())
    dock.settle()
    press = dock.viewer.__wrapped__.keymap[next(k for k in dock.viewer.__wrapped__.keymap if str(k) == "Shift+O")]
    held = press(dock.viewer)
    next(held)
    assert not dock.viewer.layers[-1].visible
    next(held, None)
    assert dock.viewer.layers[-1].visible


def test_a_closed_dock_leaves_its_keys_to_another_or_to_nobody(dock: Dock) -> None:
    keymap, own = dock.viewer.__wrapped__.keymap, dict(dock.viewer.__wrapped__.keymap)
    second = Dock(dock.viewer, dock.application)
    taken = dict(keymap)
    assert taken.keys() == own.keys()
    dock.close()
    assert keymap == taken != own
    second.close()
    assert keymap == {}


def test_every_kind_of_layer_can_come_and_go(dock: Dock) -> None:
    viewer = dock.viewer
    viewer.add_points(np.zeros((2, 3)))
    viewer.add_image(volume(), name="volume")
    dock.settle()
    viewer.add_labels(np.ones((16, 24, 28), int))
    viewer.add_image(volume(20, 30), name="image")
    viewer.add_image(np.zeros((20, 30, 3), np.uint8), rgb=True, name="colours")
    dock.settle()
    viewer.layers["volume"].name = "renamed"
    assert dock.widget.image.layer.findText("renamed") >= 0
    viewer.layers.clear()
    dock.settle()
    assert dock.session.source is None
    assert not dock.widget.runs.button.isEnabled()


def test_the_selected_layers_are_denoised_one_after_the_other(dock: Dock) -> None:
    for number in range(2):
        dock.viewer.add_image(volume(10, 16, 18, seed=number), name=f"scan {number}")
    dock.settle()
    dock.viewer.layers.selection = {dock.viewer.layers["scan 0"], dock.viewer.layers["scan 1"]}
    dock.widget.runs.batch.trigger()
    dock.settle()
    assert {"scan 0 denoised", "scan 1 denoised"} <= {layer.name for layer in dock.viewer.layers}
