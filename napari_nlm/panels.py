"""The parts of the dock widget: what they look like. What happens on a click is the widget's business."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtGui import QAction  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QComboBox,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QMenu,
    QProgressBar,
    QPushButton,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from napari_nlm.controls import Field, Switch, field_for
from napari_nlm.parameters import CONTROLS, Parameters
from napari_nlm.preview import MODES
from napari_nlm.recipes import KINDS

NOTED = ("sigma", "method", "h", "search_radius", "patch_radius")
"""Parameters with a line below them that says what they come to."""

MODE_TIPS = (
    "The denoised slice over the original.",
    "Left of the line the original, right of it the denoised slice.",
    "Original, denoised slice and removed noise in napari's grid.",
    "Original minus denoised, zero in the middle, four sigma to either side: there should be no anatomy in it.",
)


class ImagePanel(QWidget):
    """Which layer, and how to read it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.axes, self.mask_layer = QComboBox(), QComboBox(), QComboBox()
        rows = (
            ("Image", self.layer, "The image layer to denoise. It is never changed."),
            ("Axes", self.axes, "Which axes are compared in space, which are taken one by one or compared together."),
            ("Mask", self.mask_layer, "Where to denoise: voxels of this layer that are not zero. Others stay."),
        )
        self.form = form()
        self.form.setContentsMargins(8, 4, 8, 0)
        self.setLayout(self.form)
        for title, box, tip in rows:
            box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            box.setToolTip(tip)
            self.form.addRow(title, box)


class ParameterPanel(QWidget):
    """The fields of one group of parameters, with notes below some."""

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
                label.setToolTip(control.tip)
                self.form.addRow(label, field)
            if name in NOTED:
                self.notes[name] = small_label()
                self.form.addRow("", self.notes[name])


class PreviewPanel(QGroupBox):
    """Live or not, how to compare, and what came of it."""

    def __init__(self, hold_key: str) -> None:
        super().__init__("Preview")
        column, first, second = QVBoxLayout(self), QHBoxLayout(), QHBoxLayout()
        self.live = QCheckBox("Live")
        self.live.setChecked(True)
        self.live.setToolTip("Denoise the visible slice at every change: exactly what the whole run will give there.")
        self.original = QPushButton("Hold to see the original")
        self.original.setToolTip(f"Or hold the key {hold_key}.")
        first.addWidget(self.live)
        first.addWidget(self.original, 1)
        second.setSpacing(2)
        self.modes = QButtonGroup(self)
        for number, (mode, tip) in enumerate(zip(MODES, MODE_TIPS, strict=True)):
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
        self.split.setToolTip("Where the line between original and denoised lies.")
        self.split.hide()
        self.status = small_label()
        self.status.setMinimumHeight(2 * self.status.fontMetrics().height())  # two lines, so that nothing jumps
        column.addLayout(first)
        column.addLayout(second)
        column.addWidget(self.split)
        column.addWidget(self.status)


class RunPanel(QWidget):
    """What a run needs, its button and its progress, and what to do with the result."""

    def __init__(self, run_key: str) -> None:
        super().__init__()
        self.scope = QComboBox()
        self.scope.setToolTip("Of a series: the volume that is shown, or all of them, each with a sigma of its own.")
        self.memory = small_label()
        self.memory.setToolTip("Memory to work in and for the result, beside what is free now.")
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
        self.save.setToolTip("Save the result as NIfTI: on the grid and with the header of the file it came from.")
        self.copy = QPushButton("Copy as")
        self.copy.setToolTip("Put text that does the same on the clipboard.")
        copies, others = QMenu(self.copy), QMenu(self)
        self.copies = {kind: QAction(kind, copies) for kind in KINDS}
        copies.addActions(list(self.copies.values()))
        self.copy.setMenu(copies)
        more = QPushButton("More")
        self.batch, self.reset = QAction("Denoise the selected layers", others), QAction("Reset all choices", others)
        others.addActions([self.batch, self.reset])
        more.setMenu(others)
        row = QHBoxLayout()
        for button in (self.save, self.copy, more):
            row.addWidget(button)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for widget in (self.scope, self.memory, self.button, self.bar):
            column.addWidget(widget)
        column.addLayout(row)


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
    """Set the choices and the current one without telling anyone."""
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
