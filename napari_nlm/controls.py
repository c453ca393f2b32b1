"""Input fields: one kind of widget for each kind of parameter, made from its `Control`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qtpy.QtCore import QSignalBlocker, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QSpinBox,
    QWidget,
)
from superqt import QLabeledDoubleSlider, QLabeledSlider

from napari_nlm.parameters import Control

UNKNOWN = "…"
"""What stands in place of a number that the engine has not told yet."""

DECIMALS = 4
"""Decimals of numbers that are typed."""

WIDEST_SLIDER = 100
"""Numbers with a longer range are typed in a spin box."""


class Field(QWidget):
    """The input of one parameter. Emits `changed` when the user changes the value."""

    changed = Signal(object)

    def __init__(self, control: Control) -> None:
        super().__init__()
        self.control = control
        self.setToolTip(control.tooltip)
        self.row = QHBoxLayout(self)
        self.row.setContentsMargins(0, 0, 0, 0)
        self.row.setSpacing(4)

    def value(self) -> Any:
        raise NotImplementedError

    def show_value(self, value: Any, automatic: Any = None) -> None:
        """Show a value without emitting `changed`. `automatic` is the value that the engine takes for ``None``."""
        raise NotImplementedError


class Switch(Field):
    """A check box."""

    def __init__(self, control: Control) -> None:
        super().__init__(control)
        self.box = QCheckBox(control.label)
        self.row.addWidget(self.box)
        self.box.toggled.connect(lambda checked: self.changed.emit(checked))

    def value(self) -> bool:
        return bool(self.box.isChecked())

    def show_value(self, value: Any, automatic: Any = None) -> None:
        with QSignalBlocker(self.box):
            self.box.setChecked(value)


class Choice(Field):
    """A drop-down list of the options that exist when the widget is built."""

    def __init__(self, control: Control) -> None:
        super().__init__(control)
        self.box = QComboBox()
        self.box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.row.addWidget(self.box)
        if control.automatic:
            self.box.addItem(control.automatic, None)
        for option in control.options:
            self.box.addItem(control.title_of(option), option)
        self.box.activated.connect(lambda _: self.changed.emit(self.value()))

    def show_impossible(self, reasons: Mapping[Any, str]) -> None:
        """Make options grey, with the reason in their tooltips."""
        model: Any = self.box.model()
        for index in range(self.box.count()):
            why = reasons.get(self.box.itemData(index), "")
            model.item(index).setEnabled(not why)
            self.box.setItemData(index, why or None, Qt.ItemDataRole.ToolTipRole)

    def value(self) -> Any:
        return self.box.currentData()

    def show_value(self, value: Any, automatic: Any = None) -> None:
        index = next((i for i in range(self.box.count()) if self.box.itemData(i) == value), 0)
        with QSignalBlocker(self.box):
            self.box.setCurrentIndex(index)


class Line(Field):
    """A line of text; an empty one leaves the choice to the engine, whose value is shown in grey."""

    def __init__(self, control: Control) -> None:
        super().__init__(control)
        self.editor = QLineEdit()
        self.editor.setClearButtonEnabled(True)
        self.row.addWidget(self.editor)
        self.shown: str | None = None
        self.editor.editingFinished.connect(self.on_finished)

    def value(self) -> str | None:
        return self.editor.text().strip() or None

    def on_finished(self) -> None:
        if self.value() != self.shown:
            self.shown = self.value()
            self.changed.emit(self.shown)

    def show_value(self, value: Any, automatic: Any = None) -> None:
        self.shown = value
        self.editor.setPlaceholderText(automatic or self.control.automatic)
        with QSignalBlocker(self.editor):
            self.editor.setText(value or "")


class Number(Field):
    """A slider or a spin box, with a button that leaves the number to the engine."""

    def __init__(self, control: Control) -> None:
        super().__init__(control)
        slides = self.slides = control.high - control.low <= WIDEST_SLIDER
        if slides and control.whole:
            self.editor: Any = QLabeledSlider(Qt.Orientation.Horizontal)
        elif slides:
            self.editor = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
            self.editor.setDecimals(2)
        elif control.whole:
            self.editor = QSpinBox()
            self.editor.setKeyboardTracking(False)
        else:
            self.editor = QDoubleSpinBox()
            self.editor.setDecimals(DECIMALS)
            self.editor.setKeyboardTracking(False)
            self.editor.setStepType(QDoubleSpinBox.StepType.AdaptiveDecimalStepType)
        whole = int if control.whole else float
        low = whole(control.low)
        if not slides and control.automatic:  # one step below the lowest number stands for none
            low -= 1 if control.whole else 10**-DECIMALS
            self.editor.setSpecialValueText(UNKNOWN)
        self.editor.setRange(low, whole(control.high))
        if slides:
            self.editor.setSingleStep(whole(control.step))
            self.editor.setPageStep(whole(control.step * 2))
        elif control.unit:
            self.editor.setSuffix(f" {control.unit}")
        self.row.addWidget(self.editor, 1)
        if slides and control.unit == "σ":
            self.row.addWidget(QLabel(control.unit))
        self.known = not control.automatic
        """Whether the number that is shown means something."""
        self.auto = QPushButton("auto")
        self.auto.setFixedWidth(44)
        self.auto.setCheckable(True)
        self.auto.setChecked(True)
        self.auto.setToolTip(f"Go back to: {control.automatic}")
        self.auto.setVisible(bool(control.automatic))
        self.row.addWidget(self.auto)
        self.editor.valueChanged.connect(self.on_edited)
        self.auto.clicked.connect(self.on_auto)

    def value(self) -> Any:
        number = self.editor.value()
        if self.control.automatic and (self.auto.isChecked() or number < self.control.low):
            return None
        return int(number) if self.control.whole else float(number)

    def on_edited(self, _: Any) -> None:
        self.auto.setChecked(False)
        self.auto.setChecked(self.value() is None)
        self.changed.emit(self.value())

    def on_auto(self, checked: bool) -> None:
        """Leave auto for the number that is shown, if there is one."""
        if not checked and not self.known:
            self.auto.setChecked(True)
        self.changed.emit(self.value())

    def show_value(self, value: Any, automatic: Any = None) -> None:
        self.auto.setChecked(value is None)
        number = automatic if value is None else value
        self.known = number is not None
        if self.slides:
            self.editor.setEnabled(self.known)  # a slider has no place for "not known yet"
        with QSignalBlocker(self.editor):
            self.editor.setValue(self.editor.minimum() if number is None else number)


def field_for(control: Control, default: Any) -> Field:
    """The kind of field that suits a parameter with this default."""
    if isinstance(default, bool):
        return Switch(control)
    if control.choices:
        return Choice(control)
    return Number(control) if control.high > control.low else Line(control)
