"""The panels: how they look for given values."""

from __future__ import annotations

import pytest
from qtpy.QtWidgets import QComboBox, QWidget
from superqt import QCollapsible

from napari_nlm.map_panel import MapPanel
from napari_nlm.panels import (
    MODE_TIPS,
    ImagePanel,
    ParameterPanels,
    PreviewPanel,
    RunPanel,
    fill,
    stack_panels,
)
from napari_nlm.parameters import CONTROLS, Parameters
from napari_nlm.pictures import COMPARE_MODES
from napari_nlm.recipes import RECIPE_KINDS

pytestmark = pytest.mark.usefixtures("qapp")


def test_every_parameter_has_a_field_in_one_group() -> None:
    panels = ParameterPanels()
    assert set(panels.fields) == {name for name, control in CONTROLS.items() if control.group != "applied"}
    assert sum(len(panel.fields) for panel in panels.panels) == len(panels.fields)


def test_values_and_notes_are_shown() -> None:
    panels = ParameterPanels()
    panels.show_values(Parameters(search_radius=4), {"sigma": 8.0, "h": 0.9}, {"h": "0.90 σ"}, {})
    assert panels.fields["search_radius"].value() == 4
    assert panels.fields["sigma"].value() is None
    assert panels.fields["sigma"].editor.value() == 8  # type: ignore[attr-defined]
    assert panels.notes["h"].text() == "0.90 σ"
    assert not panels.notes["h"].isHidden()
    assert panels.notes["method"].isHidden()


def test_only_parameters_that_apply_are_shown() -> None:
    panels = ParameterPanels()
    for noise, shown in (("gaussian", False), ("poisson", True)):
        panels.show_values(Parameters(noise=noise), {}, {}, {})
        assert panels.fields["gain"].isHidden() != shown
        assert panels.fields["sigma_varies"].isHidden() == shown
        assert panels.fields["curve"].isHidden()
    panels.show_values(Parameters(noise="curve"), {"curve": "0:3,9:8"}, {}, {})
    assert not panels.fields["curve"].isHidden()
    assert panels.fields["sigma"].isHidden()
    assert panels.fields["sigma_varies"].isHidden()


def test_what_a_method_has_no_use_for_is_grey_and_says_why() -> None:
    panels = ParameterPanels()
    for without in ({"h": "set the strength"}, {}):
        panels.show_values(Parameters(), {}, {}, without)
        assert panels.fields["h"].isEnabled() != bool(without)
        assert ("set the strength" in panels.fields["h"].toolTip()) == bool(without)
        assert panels.fields["strength"].isEnabled()


def test_the_first_controls_of_the_filter_are_strength_window_and_h() -> None:
    assert list(ParameterPanels().filter.fields)[:3] == ["strength", "search_radius", "h"]


def test_too_little_memory_has_another_colour() -> None:
    panel = RunPanel("Control-N")
    panel.show_memory("needs 1 GiB", enough=True)
    assert panel.memory.text() == "needs 1 GiB"
    panel.show_memory("needs 1 GiB", enough=False)
    assert "color" in panel.memory.text()
    assert "needs 1 GiB" in panel.memory.text()


def test_there_is_a_button_for_every_mode_and_every_recipe() -> None:
    preview, runs = PreviewPanel("Shift-O"), RunPanel("Control-N")
    assert [button.text().lower() for button in preview.modes.buttons()] == list(COMPARE_MODES)
    assert len(MODE_TIPS) == len(COMPARE_MODES)
    assert tuple(runs.copies) == RECIPE_KINDS
    assert "Shift-O" in preview.original.toolTip()
    assert "Control-N" in runs.button.toolTip()


def test_a_list_is_filled_without_a_signal() -> None:
    box = QComboBox()
    heard: list[int] = []
    box.currentIndexChanged.connect(heard.append)
    fill(box, [("none", None), ("scan", "layer")], "layer")
    assert box.currentText() == "scan"
    fill(box, [("none", None)], "layer")
    assert box.currentIndex() == -1
    assert heard == []


def test_the_run_panel_stays_below_the_column_that_scrolls() -> None:
    widget = QWidget()
    image, parameters, preview, runs = ImagePanel(), ParameterPanels(), PreviewPanel("A"), RunPanel("B")
    maps = MapPanel()
    stack_panels(widget, image, parameters, preview, maps, runs)
    layout = widget.layout()
    assert layout is not None
    assert layout.indexOf(runs) == 1
    assert runs.parent() is widget
    scroll = layout.itemAt(0).widget()  # type: ignore[union-attr]
    for panel in (image, preview, maps, *parameters.panels):
        assert scroll.isAncestorOf(panel)  # type: ignore[union-attr]


def test_the_keyboard_skips_what_is_folded() -> None:
    widget, parameters, maps = QWidget(), ParameterPanels(), MapPanel()
    stack_panels(widget, ImagePanel(), parameters, PreviewPanel("A"), maps, RunPanel("B"))
    for folded in widget.findChildren(QCollapsible):
        panel = maps if folded.isAncestorOf(maps) else parameters.advanced
        assert panel.isHidden()
        folded.expand(animate=False)
        assert not panel.isHidden()
        folded.collapse(animate=False)
        assert panel.isHidden()


def test_the_choice_of_volumes_is_there_if_there_are_several() -> None:
    panel = RunPanel("Control-N")
    panel.show_volumes(3)
    assert not panel.scope.isHidden()
    panel.scope.setCurrentIndex(1)
    panel.show_volumes(4)
    assert panel.scope.currentText() == "All 4 volumes"
    panel.show_volumes(1)
    assert panel.scope.isHidden()
