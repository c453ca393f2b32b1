"""The widget in a real window: what a user sees and can do at any moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt
from qtpy.QtGui import QGuiApplication
from qtpy.QtTest import QTest

from napari_nlm.controls import Choice
from napari_nlm.maps import COMPONENTS, MAP_NAMES, NOISE_MAP
from napari_nlm.marks import PROVENANCE_KEY
from napari_nlm.parameters import Parameters
from napari_nlm.pictures import REMOVED
from napari_nlm.widget import DenoiseWidget
from nlmeans import METHODS
from tests.napari_nlm.conftest import Dock, slow
from tests.napari_nlm.images import decay, series, volume
from tests.nlmeans.scans import RAS, noisy, save, scan


def notices(since: int) -> list[str]:
    return [str(notice.message) for notice in list(notification_manager.records)[since:]]


def test_three_clicks_from_sample_data_to_a_denoised_volume(dock: Dock) -> None:
    dock.viewer.__wrapped__.open_sample("nlmeans", "head")
    dock.settle()
    dock.widget.runs.button.click()
    dock.settle()
    result = dock.viewer.layers["head denoised"]
    assert result.data.shape == dock.viewer.layers["head"].data.shape
    assert result.metadata[PROVENANCE_KEY]["sigma_estimated"]
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
    dock.session.next_run.set(backend="auto", search_radius=None)
    dock.settle()
    assert all(not layer.name.endswith(" denoised") or " · " in layer.name for layer in dock.viewer.layers)


def test_the_original_is_shown_while_the_key_is_held_in_a_field_too(dock: Dock) -> None:
    dock.viewer.add_image(volume(), name="scan")
    dock.settle()
    editor = dock.widget.parameters.fields["sigma"].editor  # type: ignore[attr-defined]
    before = editor.text()
    for target in (editor, editor.lineEdit(), dock.widget.runs.button):
        QTest.keyPress(target, Qt.Key.Key_O, Qt.KeyboardModifier.ShiftModifier)
        assert dock.session.preview.hidden
        QTest.keyRelease(target, Qt.Key.Key_O, Qt.KeyboardModifier.ShiftModifier)
        assert not dock.session.preview.hidden
    assert editor.text() == before


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


def test_closing_the_window_during_a_run_is_silent(own_viewer: Any, qapp: Any) -> None:
    dock = Dock(own_viewer, qapp)
    dock.viewer.add_image(volume(40, 40, 40), name="scan")
    dock.settle()
    slow(dock)
    dock.widget.runs.button.click()
    dock.wait(seconds=0.1)
    dock.viewer.__wrapped__.close()
    dock.wait(seconds=0.3)
    dock.closed = True
    assert dock.session.closed
    dock.close()


def test_too_little_memory_is_told_with_a_remedy(dock: Dock, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*arguments: Any, **named: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB")

    dock.viewer.add_image(volume())
    dock.settle()
    monkeypatch.setattr("napari_nlm.denoising.Plan.run", exhausted)
    before = len(notification_manager.records)
    dock.widget.runs.button.click()
    dock.settle()
    assert any("out of memory" in text and "device cpu" in text for text in notices(before))
    assert dock.widget.runs.button.text() == "Denoise"
    assert all(not layer.name.endswith(" denoised") or " · " in layer.name for layer in dock.viewer.layers)


def test_errors_of_the_engine_are_notifications_and_said_once(dock: Dock, capfd: pytest.CaptureFixture[str]) -> None:
    data = volume()
    data[:, 3, 4] = np.inf
    before = len(notification_manager.records)
    dock.viewer.add_image(data, contrast_limits=(0, 255))
    dock.settle()
    for step in (1, 2, 3):
        dock.viewer.dims.set_current_step(0, step)
        dock.settle()
    said = [text for text in notices(before) if "infinite" in text]
    assert len(said) == 1
    assert "infinite" in dock.widget.preview.status.text()
    assert "Traceback" not in capfd.readouterr().err


def test_a_slider_sets_h_in_multiples_of_sigma_and_shows_it(dock: Dock) -> None:
    dock.viewer.add_image(volume())
    dock.settle()
    panel = dock.widget.parameters
    panel.fields["h"].editor.setValue(1.5)
    dock.settle()
    assert dock.session.next_run.parameters.h == 1.5
    assert f"{1.5 * dock.sigma:.4g}" in panel.notes["h"].text()
    panel.fields["h"].auto.click()
    assert dock.session.next_run.parameters.h is None
    dock.settle()
    assert panel.fields["h"].editor.value() == pytest.approx(0.76, abs=0.3)


def test_sigma_is_shown_and_can_be_overruled(dock: Dock) -> None:
    dock.viewer.add_image(volume())
    dock.settle()
    field = dock.widget.parameters.fields["sigma"]
    assert field.editor.value() == pytest.approx(dock.sigma, abs=1e-3)
    assert field.value() is None
    field.editor.setValue(12.5)
    assert dock.sigma == 12.5
    dock.viewer.add_image(volume(seed=1) * 2)
    dock.settle()
    assert field.value() is None


def test_choices_last_and_can_be_reset(dock: Dock, own_settings: dict[str, str]) -> None:
    dock.viewer.add_image(volume())
    dock.settle()
    dock.widget.parameters.fields["search_radius"].editor.setValue(5)
    assert Parameters.from_json(own_settings["choices"]).search_radius == 5
    dock.widget.runs.reset.trigger()
    assert own_settings["choices"] == "{}"
    assert dock.session.next_run.parameters == Parameters()


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
    assert dock.session.chosen.source is None
    assert not dock.widget.runs.button.isEnabled()


def test_the_selected_layers_are_denoised_one_after_the_other(dock: Dock) -> None:
    for number in range(2):
        dock.viewer.add_image(volume(10, 16, 18, seed=number), name=f"scan {number}")
    dock.settle()
    dock.viewer.layers.selection = {dock.viewer.layers["scan 0"], dock.viewer.layers["scan 1"]}
    dock.widget.runs.batch.trigger()
    dock.settle()
    assert {"scan 0 denoised", "scan 1 denoised"} <= {layer.name for layer in dock.viewer.layers}


def test_a_method_that_another_package_registers_can_be_chosen(dock: Dock) -> None:
    METHODS["of another package"] = METHODS["classic"]
    widget = None
    try:
        widget = DenoiseWidget(dock.viewer)
        field = widget.parameters.fields["method"]
        assert isinstance(field, Choice)
        assert field.box.findText("of another package") >= 0
    finally:
        del METHODS["of another package"]
        if widget is not None:
            widget.session.close()
            widget.deleteLater()
            dock.wait(seconds=0.05)


def test_a_second_widget_begins_with_the_choices_of_the_last(dock: Dock) -> None:
    dock.viewer.add_image(volume())
    dock.settle()
    dock.widget.parameters.fields["search_radius"].editor.setValue(4)
    assert Parameters.from_json(dock.session.next_run.parameters.to_json()).search_radius == 4
    widget = DenoiseWidget(dock.viewer)
    try:
        assert widget.session.next_run.parameters.search_radius == 4
        assert widget.parameters.fields["search_radius"].value() == 4
    finally:
        widget.session.close()
        widget.deleteLater()
        dock.wait(seconds=0.05)


def test_the_removed_noise_is_asked_for_by_its_box(dock: Dock) -> None:
    dock.viewer.add_image(volume(), name="scan")
    dock.settle()
    before = dock.widget.runs.memory.text()
    dock.widget.maps.boxes[REMOVED].setChecked(True)
    assert dock.session.next_run.maps == {REMOVED}
    assert dock.widget.runs.memory.text() != before
    dock.widget.runs.reset.trigger()
    assert not dock.session.next_run.maps


def test_a_series_is_denoised_with_all_maps_by_a_click(dock: Dock) -> None:
    dock.session.next_run.set(method="auto")
    dock.viewer.add_image(decay(), name="dwi")
    dock.settle()
    widget = dock.widget
    assert "here: series" in widget.parameters.notes["method"].text()
    assert widget.runs.scope.isHidden()
    for box in widget.maps.boxes.values():
        assert box.isEnabled()
        box.setChecked(True)
    before = len(notification_manager.records)
    widget.runs.button.click()
    dock.settle()
    assert {f"dwi {name}" for name in ("denoised", *MAP_NAMES)} <= {layer.name for layer in dock.viewer.layers}
    assert any(text.startswith("dwi denoised: series, ") for text in notices(before))
    widget.runs.copies["Python"].trigger()
    clipboard = QGuiApplication.clipboard()
    assert clipboard is not None
    assert "rank_map = found.rank_map" in clipboard.text()


def test_components_are_grey_with_the_reason_where_the_method_keeps_none(dock: Dock) -> None:
    dock.viewer.add_image(series(), name="scan")
    dock.settle()
    box, scope = dock.widget.maps.boxes[COMPONENTS], dock.widget.runs.scope
    assert not box.isEnabled()
    assert "only the method series" in box.toolTip()
    assert not scope.isHidden()
    assert dock.widget.maps.boxes[NOISE_MAP].isEnabled()
    dock.viewer.add_image(decay(), name="dwi")
    dock.session.next_run.set(method="series")
    dock.widget.show_numbers()
    dock.settle()
    assert box.isEnabled()
    assert scope.isHidden()


def test_a_map_that_is_wanted_but_not_there_is_told(dock: Dock) -> None:
    dock.viewer.add_image(volume(), name="scan")
    dock.settle()
    dock.widget.maps.boxes[COMPONENTS].setChecked(True)
    before = len(notification_manager.records)
    dock.widget.runs.button.click()
    dock.settle()
    assert any("no layer “components kept”: only the method series" in text for text in notices(before))


def test_the_preview_is_gone_before_the_first_picture_in_3d(dock: Dock) -> None:
    """Removed later, between the switch and the picture, it makes OpenGL crash."""
    dock.viewer.add_image(volume(16, 40, 44), name="scan")
    dock.settle()
    assert len(dock.viewer.layers) == 2
    dock.viewer.dims.ndisplay = 3
    assert [layer.name for layer in dock.viewer.layers] == ["scan"]
    assert dock.shot().size
    dock.viewer.dims.ndisplay = 2
    dock.settle()
    assert len(dock.viewer.layers) == 2


@pytest.mark.usefixtures("plain_pictures")
def test_a_folder_of_files_is_denoised_from_the_menu(
    dock: Dock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    save(scan(noisy(12, 14, 16), "int16", RAS), tmp_path / "in" / "scan.nii.gz")
    (tmp_path / "in" / "broken.nii.gz").write_bytes(b"no image")
    chosen = iter([str(tmp_path / "in"), str(tmp_path / "out")])
    monkeypatch.setattr("napari_nlm.widget.QFileDialog.getExistingDirectory", lambda *about: next(chosen))
    before = len(notification_manager.records)
    dock.widget.runs.folder.trigger()
    assert dock.widget.runs.button.text() == "Cancel"
    dock.settle()
    assert dock.widget.runs.button.text() == "Denoise"
    assert (tmp_path / "out" / "scan_denoised.nii.gz").is_file()
    said = notices(before)
    assert any(text.startswith("1 denoised") for text in said)
    assert any(text.startswith("broken.nii.gz: ") for text in said)


def test_a_result_is_saved_in_the_format_that_was_chosen(
    dock: Dock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dock.viewer.add_image(volume(), name="scan")
    dock.settle()
    dock.widget.runs.button.click()
    dock.settle()
    name = str(tmp_path / "scan"), "OME-Zarr (*.zarr)"
    monkeypatch.setattr("napari_nlm.widget.QFileDialog.getSaveFileName", lambda *about: name)
    dock.widget.runs.save.click()
    dock.settle()
    assert (tmp_path / "scan.zarr" / "zarr.json").is_file()


def test_a_method_for_series_is_grey_with_the_reason_where_there_is_no_series(dock: Dock) -> None:
    dock.viewer.add_image(volume(), name="scan")
    dock.settle()
    box = dock.widget.parameters.method.box
    at = box.findText("series")
    model: Any = box.model()
    assert not model.item(at).isEnabled()
    assert "4 volumes or more" in box.itemData(at, Qt.ItemDataRole.ToolTipRole)
    assert model.item(box.findText("bayes")).isEnabled()
    dock.viewer.add_image(decay(), name="dwi")
    dock.settle()
    assert model.item(at).isEnabled()
