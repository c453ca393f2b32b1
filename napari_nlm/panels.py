"""The panels of the dock widget: how they look. `DenoiseWidget` decides what a click does."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtGui import QAction  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QComboBox,
    QFormLayout,
    QFrame,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QMenu,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSlider,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_nlm.controls import Choice, Field, Switch, field_for
from napari_nlm.map_panel import MapPanel
from napari_nlm.parameters import CONTROLS, Parameters
from napari_nlm.pictures import COMPARE_MODES
from napari_nlm.recipes import RECIPE_KINDS

NOTED = ("sigma", "curve", "method", "h", "search_radius", "patch_radius")
"""Parameters with a note below them, such as their value in other units."""

PADDING = 16
"""Pixels that napari's style adds to the width of the panels once they are in its window."""

WARNING_COLOUR = "#e0a030"

MODE_TIPS = (
    "Show the denoised slice over the original.",
    "Show the original left of a line, and the denoised slice right of it.",
    "Show the original, the denoised slice and the removed noise in napari's grid.",
    "Show original minus denoised, from minus four to plus four sigma. You should see no anatomy in it.",
)


class ImagePanel(QWidget):
    """The image layer, the roles of its axes, and the mask."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.axes, self.mask_layer = QComboBox(), QComboBox(), QComboBox()
        rows = (
            ("Image", self.layer, "The image layer to denoise. The layer itself never changes."),
            (
                "Axes",
                self.axes,
                "Which axes are spatial. Volumes along other axes are denoised one by one, or all together by the\n"
                "method series; or they are compared together.",
            ),
            ("Mask", self.mask_layer, "Denoise only where this layer is not zero. Other voxels stay unchanged."),
        )
        self.form = form()
        self.form.setContentsMargins(8, 4, 8, 0)
        self.setLayout(self.form)
        for title, box, tip in rows:
            box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            box.setToolTip(tip)
            self.form.addRow(title, box)


class ParameterPanel(QWidget):
    """The fields of one group of parameters, some with a note below."""

    def __init__(self, group: str) -> None:
        super().__init__()
        self.form = form()
        self.setLayout(self.form)
        self.fields: dict[str, Field] = {}
        self.notes: dict[str, QLabel] = {}
        for parameter in dataclasses.fields(Parameters):
            name, control = parameter.name, CONTROLS[parameter.name]
            if control.group != group:
                continue
            field = self.fields[name] = field_for(control, parameter.default)
            if isinstance(field, Switch):
                self.form.addRow(field)
            else:
                label = QLabel(control.label)
                label.setToolTip(control.tooltip)
                self.form.addRow(label, field)
            if name in NOTED:
                self.notes[name] = small_label()
                self.form.addRow("", self.notes[name])


class ParameterPanels:
    """The panels of all groups, and all their fields and notes by the name of the parameter."""

    def __init__(self) -> None:
        self.noise, self.filter, self.advanced = (ParameterPanel(group) for group in ("noise", "filter", "advanced"))
        self.panels = (self.noise, self.filter, self.advanced)
        self.fields = {name: field for panel in self.panels for name, field in panel.fields.items()}
        self.notes = {name: note for panel in self.panels for name, note in panel.notes.items()}
        self.method: Choice = self.fields["method"]  # type: ignore[assignment]  # its parameter has choices

    def show_values(
        self,
        parameters: Parameters,
        automatic: Mapping[str, Any],
        notes: Mapping[str, str],
        without: Mapping[str, str],
    ) -> None:
        """Show the parameters that apply.

        Args:
            parameters: the values.
            automatic: by name, the values that the engine takes for parameters on auto.
            notes: by name, the text below a parameter.
            without: by name, why the method has no use for a parameter, which is grey then.
        """
        for panel in self.panels:
            for name, field in panel.fields.items():
                field.show_value(getattr(parameters, name), automatic.get(name))
                show_row(panel.form, field, field.control.applies(parameters))
                why = without.get(name, "")
                field.setEnabled(not why)
                field.setToolTip(f"Not here: {why}." if why else field.control.tooltip)
            for name, note in panel.notes.items():
                note.setText(notes.get(name, ""))
                show_row(panel.form, note, bool(notes.get(name)))


class PreviewPanel(QGroupBox):
    """The switch of the preview, the ways to compare, and what was removed."""

    def __init__(self, hold_key: str) -> None:
        super().__init__("Preview")
        column, first, second = QVBoxLayout(self), QHBoxLayout(), QHBoxLayout()
        self.live = QCheckBox("Live")
        self.live.setChecked(True)
        self.live.setToolTip("Denoise the visible slice after every change, exactly as in the full result.")
        self.original = QPushButton("Hold to see the original")
        self.original.setToolTip(f"You can also hold {hold_key}.")
        first.addWidget(self.live)
        first.addWidget(self.original, 1)
        second.setSpacing(2)
        self.modes = QButtonGroup(self)
        for number, (mode, tip) in enumerate(zip(COMPARE_MODES, MODE_TIPS, strict=True)):
            button = QPushButton(mode.capitalize())
            button.setStyleSheet("padding: 4px 6px;")
            button.setToolTip(tip)
            button.setCheckable(True)
            button.setChecked(number == 0)
            self.modes.addButton(button, number)
            second.addWidget(button, len(mode))
        self.split = QSlider(Qt.Orientation.Horizontal)
        self.split.setRange(0, 100)
        self.split.setValue(50)
        self.split.setToolTip("Position of the line between the original and the denoised slice.")
        self.split.hide()
        self.status = small_label()
        self.status.setMinimumHeight(2 * self.status.fontMetrics().height())  # keeps what is below in place
        column.addLayout(first)
        column.addLayout(second)
        column.addWidget(self.split)
        column.addWidget(self.status)


class RunPanel(QWidget):
    """The memory, the button and the progress of a run, and what to do with the result."""

    def __init__(self, run_key: str) -> None:
        super().__init__()
        self.scope = QComboBox()
        self.scope.setToolTip("Denoise only the volume that is shown, or all volumes, each with its own sigma.")
        self.memory = small_label()
        self.memory.setToolTip("Memory that the run and its result need, and memory that is free now.")
        self.button = QPushButton("Denoise")
        self.button.setMinimumHeight(34)
        font = self.button.font()
        font.setBold(True)
        self.button.setFont(font)
        self.button.setToolTip(f"Denoise the whole volume into a new layer ({run_key}).")
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.bar.hide()
        self.save = QPushButton("Save…")
        self.save.setToolTip("Save the result as NIfTI, TIFF or OME-Zarr, like the file that the image came from.")
        self.copy = QPushButton("Copy as")
        self.copy.setToolTip("Copy text to the clipboard that repeats this run elsewhere.")
        copies, others = QMenu(self.copy), QMenu(self)
        self.copies = {kind: QAction(kind, copies) for kind in RECIPE_KINDS}
        copies.addActions(list(self.copies.values()))
        self.copy.setMenu(copies)
        more = QPushButton("More")
        titles = ("Denoise the selected layers", "Denoise a folder of files…", "Reset all choices")
        self.batch, self.folder, self.reset = (QAction(title, others) for title in titles)
        others.addActions([self.batch, self.folder, self.reset])
        more.setMenu(others)
        row = QHBoxLayout()
        for button in (self.save, self.copy, more):
            row.addWidget(button)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for widget in (self.scope, self.memory, self.button, self.bar):
            column.addWidget(widget)
        column.addLayout(row)

    def show_volumes(self, count: int) -> None:
        """Offer the choice of volumes if there are several to denoise one by one."""
        fill(self.scope, [("Current volume", False), (f"All {count} volumes", True)], bool(self.scope.currentData()))
        self.scope.setVisible(count > 1)

    def show_memory(self, text: str, enough: bool) -> None:
        self.memory.setText(text if enough else f"<font color='{WARNING_COLOUR}'>{text}</font>")


def stack_panels(
    widget: QWidget,
    image: ImagePanel,
    parameters: ParameterPanels,
    preview: PreviewPanel,
    maps: MapPanel,
    runs: RunPanel,
) -> None:
    """Lay the panels out in a widget: all but the last in a column that scrolls."""
    inside = QWidget()
    column = QVBoxLayout(inside)
    column.setContentsMargins(0, 0, 0, 0)
    column.addWidget(image)
    column.addWidget(preview)
    for title, panel in (("Filter", parameters.filter), ("Noise", parameters.noise)):
        group = QGroupBox(title)
        QVBoxLayout(group).addWidget(panel)
        column.addWidget(group)
    for title, rarely in (("Maps as layers", maps), ("Advanced", parameters.advanced)):
        folded = QCollapsible(title, expandedIcon="▾", collapsedIcon="▸")
        folded.addWidget(rarely)
        rarely.hide()  # else Tab would stop in it
        folded.toggled.connect(rarely.setVisible)
        column.addWidget(folded)
    column.addStretch(1)
    scroll = QScrollArea()
    scroll.setWidgetResizable(True)
    scroll.setFrameShape(QFrame.Shape.NoFrame)
    scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    scroll.setWidget(inside)
    whole = QVBoxLayout(widget)
    whole.setContentsMargins(4, 4, 4, 4)
    whole.addWidget(scroll, 1)
    whole.addWidget(runs)
    bar = scroll.verticalScrollBar()
    beside = PADDING + (bar.sizeHint().width() if bar else 0)
    scroll.setMinimumWidth(inside.minimumSizeHint().width() + beside)


def form() -> QFormLayout:
    layout = QFormLayout()
    layout.setContentsMargins(4, 2, 4, 2)
    layout.setVerticalSpacing(3)
    layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    return layout


def small_label() -> QLabel:
    label = QLabel()
    label.setWordWrap(True)
    label.setStyleSheet("padding: 0px; margin: 0px; font-size: 8pt;")
    return label


def fill(box: QComboBox, choices: Sequence[tuple[str, Any]], current: Any) -> None:
    """Set the choices and the current choice without emitting a signal."""
    with QSignalBlocker(box):
        box.clear()
        for text, value in choices:
            box.addItem(text, value)
        index = next((i for i, (_, value) in enumerate(choices) if value is current or value == current), -1)
        box.setCurrentIndex(index)


def show_row(layout: QFormLayout, field: QWidget, shown: bool) -> None:
    label = layout.labelForField(field)
    field.setVisible(shown)
    if label is not None:
        label.setVisible(shown)
