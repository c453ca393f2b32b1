"""The dock widget: controls around a `Session`, which does the work."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from napari.components import ViewerModel
from napari.utils.notifications import notification_manager, show_error, show_info
from qtpy.QtCore import QObject, QSignalBlocker, Qt, QTimer, Signal
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QComboBox,
    QFileDialog,
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
    QToolButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_nlm import storage, words
from napari_nlm.activity import Activity
from napari_nlm.controls import Choice, Field, field_for
from napari_nlm.errors import message
from napari_nlm.nifti import write_nifti
from napari_nlm.parameters import CONTROLS, Parameters
from napari_nlm.preview import MODES, SPLIT, Picture, is_preview
from napari_nlm.recipes import KINDS, recipe
from napari_nlm.results import KEY
from napari_nlm.session import Running, Session
from napari_nlm.source import Axes, plain, roles

GATHER = 15
"""Milliseconds in which several changes become one preview."""

HOLD_KEY = "Shift-O"
RUN_KEY = "Control-Shift-N"


class Mailbox(QObject):
    """Brings functions from any thread to the main one."""

    posted = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.posted.connect(lambda function: function(), Qt.ConnectionType.QueuedConnection)

    def deliver(self, function: Callable[[], None]) -> None:
        try:
            self.posted.emit(function)
        except RuntimeError:  # the window is gone
            return


class DenoiseWidget(QWidget):
    """Denoise image layers by non-local means, with a live preview."""

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.mailbox = Mailbox()
        self.session = Session(napari_viewer, self.mailbox.deliver)
        self.session.parameters = storage.load()
        self.activity: Activity | None = None
        self.told: str | None = None
        self.timer = QTimer(self)
        self.timer.setSingleShot(True)
        self.timer.setInterval(GATHER)
        self.timer.timeout.connect(self.session.refresh)
        self.session.refresh_soon = self.timer.start
        self.fields: dict[str, Field] = {
            f.name: field_for(CONTROLS[f.name], f.default) for f in dataclasses.fields(Parameters)
        }
        self.build()
        self.connect()
        self.bind_keys()
        self.show_layers()
        active = plain(napari_viewer.layers.selection.active)
        images = self.session.images
        self.session.choose(active if active in images else images[-1] if images else None)

    # layout

    def build(self) -> None:
        self.image, self.axes, self.mask = QComboBox(), QComboBox(), QComboBox()
        for box in (self.image, self.axes, self.mask):
            box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.image.setToolTip("The image layer to denoise. It is never changed.")
        self.axes.setToolTip("Which axes are compared in space, which are taken one by one, which are compared together.")
        self.mask.setToolTip("Where to denoise: voxels of this layer that are not zero. Elsewhere the image stays.")
        self.notes = {name: note_label() for name in ("sigma", "h", "search_radius", "patch_radius")}

        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(2, 2, 2, 2)
        column.setSpacing(6)
        top, self.rows = form(), {}
        top.addRow("Image", self.image)
        top.addRow("Axes", self.axes)
        top.addRow("Mask", self.mask)
        self.top = top
        column.addLayout(top)
        for title, group in (("Noise", "noise"), ("Filter", "filter")):
            box = QGroupBox(title)
            box.setLayout(self.form_of(group))
            column.addWidget(box)
        column.addWidget(self.build_preview())
        advanced = QCollapsible("Advanced")
        folded = QWidget()
        rows = self.form_of("advanced")
        self.with_removed = QCheckBox("Add the removed noise as a layer")
        self.with_removed.setToolTip("Image minus result, of all voxels, in image units; hidden at first.")
        rows.addRow(self.with_removed)
        folded.setLayout(rows)
        advanced.addWidget(folded)
        column.addWidget(advanced)
        column.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(inside)
        whole = QVBoxLayout(self)
        whole.setContentsMargins(4, 4, 4, 4)
        whole.addWidget(scroll, 1)
        whole.addLayout(self.build_run())
        self.setMinimumWidth(330)

    def form_of(self, group: str) -> QFormLayout:
        layout = form()
        for name, field in self.fields.items():
            if field.control.group != group:
                continue
            if isinstance(field.control, Field) or field.__class__.__name__ == "Switch":
                layout.addRow(field)
            else:
                label = QLabel(field.control.label)
                label.setToolTip(field.control.tip)
                layout.addRow(label, field)
            self.rows[name] = layout
            if name in self.notes:
                layout.addRow("", self.notes[name])
        return layout

    def build_preview(self) -> QGroupBox:
        box = QGroupBox("Preview")
        column = QVBoxLayout(box)
        first = QHBoxLayout()
        self.live = QCheckBox("Live")
        self.live.setChecked(True)
        self.live.setToolTip("Denoise the visible slice at every change: exactly what the whole run will give there.")
        self.hold = QPushButton("Hold to see the original")
        self.hold.setToolTip(f"Also while the key {HOLD_KEY} is held down.")
        first.addWidget(self.live)
        first.addWidget(self.hold, 1)
        column.addLayout(first)
        second = QHBoxLayout()
        second.setSpacing(2)
        self.modes = QButtonGroup(self)
        tips = (
            "The denoised slice over the original.",
            "Left of the line the original, right of it the denoised slice.",
            "Original, denoised slice and removed noise in napari's grid.",
            "Original minus denoised, zero in the middle, four sigma to either side: there should be no anatomy in it.",
        )
        for number, (mode, tip) in enumerate(zip(MODES, tips, strict=True)):
            button = QToolButton()
            button.setText(mode.capitalize())
            button.setToolTip(tip)
            button.setCheckable(True)
            button.setChecked(number == 0)
            self.modes.addButton(button, number)
            second.addWidget(button, 1)
        second.addStretch(0)
        column.addLayout(second)
        self.split = QSlider(Qt.Orientation.Horizontal)
        self.split.setRange(0, 100)
        self.split.setValue(50)
        self.split.setToolTip("Where the line between original and denoised lies.")
        self.split.hide()
        column.addWidget(self.split)
        self.status = note_label()
        column.addWidget(self.status)
        return box

    def build_run(self) -> QVBoxLayout:
        column = QVBoxLayout()
        self.scope = QComboBox()
        self.scope.setToolTip("Of a series: the volume that is shown, or all of them, each with a sigma of its own.")
        self.memory = note_label()
        self.run = QPushButton("Denoise")
        self.run.setMinimumHeight(34)
        font = self.run.font()
        font.setBold(True)
        self.run.setFont(font)
        self.run.setToolTip(f"Denoise the whole volume into a new layer ({RUN_KEY}).")
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.bar.hide()
        row = QHBoxLayout()
        self.save, self.copy, self.more = QPushButton("Save…"), QPushButton("Copy as"), QPushButton("More")
        self.save.setToolTip("Save the result as NIfTI: on the grid and with the header of the file it came from.")
        self.copy.setToolTip("Put text that does the same on the clipboard.")
        menu = QMenu(self.copy)
        for kind in KINDS:
            menu.addAction(kind, lambda checked=False, kind=kind: self.on_copy(kind))
        self.copy.setMenu(menu)
        menu = QMenu(self.more)
        self.batch = menu.addAction("Denoise the selected layers", self.on_batch)
        menu.addAction("Reset all choices", self.on_reset)
        self.more.setMenu(menu)
        for button in (self.save, self.copy, self.more):
            row.addWidget(button)
        for widget in (self.scope, self.memory, self.run, self.bar):
            column.addWidget(widget)
        column.addLayout(row)
        return column

    def connect(self) -> None:
        session = self.session
        self.image.activated.connect(lambda _: session.choose(self.image.currentData()))
        self.axes.activated.connect(lambda _: self.on_axes(self.axes.currentData()))
        self.mask.activated.connect(lambda _: session.set_mask(self.mask.currentData()))
        for name, field in self.fields.items():
            field.changed.connect(lambda value, name=name: self.on_parameter(name, value))
        self.live.toggled.connect(session.set_live)
        self.hold.pressed.connect(lambda: session.hold(True))
        self.hold.released.connect(lambda: session.hold(False))
        self.modes.idToggled.connect(self.on_mode)
        self.split.valueChanged.connect(lambda value: session.set_mode(SPLIT, value / 100))
        self.with_removed.toggled.connect(self.on_with_removed)
        self.scope.activated.connect(lambda _: self.show_memory())
        self.run.clicked.connect(self.on_run)
        self.save.clicked.connect(self.on_save)
        session.layers_changed.connect(self.show_layers)
        session.source_changed.connect(self.show_source)
        session.sigma_changed.connect(self.show_numbers)
        session.previewed.connect(self.show_picture)
        session.status.connect(self.show_status)
        session.run_changed.connect(self.show_run)
        session.finished.connect(self.on_finished)
        session.failed.connect(self.on_failed)
        session.noticed.connect(show_info)
        self.viewer.dims.events.current_step.connect(self.show_numbers)
        closing = session  # not self, which is no more when this is called
        self.destroyed.connect(lambda: closing.close(window_gone=True))

    def bind_keys(self) -> None:
        session = self.session

        def hold(viewer: Any) -> Any:
            session.hold(True)
            yield
            session.hold(False)

        def run(viewer: Any) -> None:
            if not session.closed:
                self.on_run()

        self.viewer.bind_key(HOLD_KEY, hold, overwrite=True)
        self.viewer.bind_key(RUN_KEY, run, overwrite=True)

    # what the session says

    def show_layers(self) -> None:
        source = self.session.source
        fill(self.image, [(layer.name, layer) for layer in self.session.images], source and source.layer)
        masks = [("none", None), *((layer.name, layer) for layer in self.session.masks)]
        fill(self.mask, masks, self.session.mask_layer)
        self.batch.setEnabled(bool(self.session.images))

    def show_source(self) -> None:
        """Another image, or other roles of its axes."""
        source = self.session.source
        self.show_layers()
        choices: list[Axes] = [] if source is None else roles(source.layer)
        fill(self.axes, [(axes.title, axes) for axes in choices], source and source.axes)
        show_row(self.top, self.axes, len(choices) > 1)
        several = source is not None and len(source.volumes) > 1
        if source is not None and several:
            self.scope.setCurrentIndex(-1)
            fill(self.scope, [("Current volume", False), (f"All {len(source.volumes)} volumes", True)], False)
        self.scope.setVisible(several)
        with QSignalBlocker(self.live):
            self.live.setChecked(self.session.live)
        self.show_numbers()

    def show_numbers(self, event: Any = None) -> None:
        """All controls, with what ``None`` comes to for this image."""
        session = self.session
        if session.closed:
            return
        automatic: dict[str, Any] = {"sigma": words.mean(session.sigma)}
        settings = None
        try:
            settings = session.settings()
        except (ValueError, TypeError):
            pass  # the preview says it
        if settings is not None:
            automatic |= words.automatic(settings)
        for name, field in self.fields.items():
            if isinstance(field, Choice) and name == "device":
                field.choose_from(words.devices())
            field.show_value(getattr(session.parameters, name), automatic.get(name))
            show_row(self.rows[name], field, field.control.applies(session.parameters))
        texts = words.notes(session, settings)
        for name, note in self.notes.items():
            note.setText(texts.get(name, ""))
            note.setVisible(bool(texts.get(name)))
        ready = session.source is not None
        for widget in (self.run, self.copy):
            widget.setEnabled(ready)
        self.save.setEnabled(self.result() is not None)
        self.show_memory()

    def show_memory(self) -> None:
        text, enough = words.memory(self.session, self.all_volumes)
        self.memory.setText(text)
        self.memory.setStyleSheet("" if enough else "color: #e0a030;")

    def show_picture(self, picture: Picture) -> None:
        self.told = None
        self.show_status(words.picture(picture))
        self.save.setEnabled(self.result() is not None)

    def show_status(self, text: str) -> None:
        self.status.setText(text)

    def show_run(self, running: Running | None) -> None:
        self.run.setText("Denoise" if running is None else "Cancel")
        self.bar.setVisible(running is not None)
        if running is None:
            if self.activity is not None:
                self.activity.close()
                self.activity = None
            return
        if self.activity is None:
            names = ", ".join(plan.source.layer.name for plan in self.session.running)
            self.activity = Activity(f"Denoising {names}")
        self.bar.setValue(round(1000 * running.fraction))
        self.bar.setFormat(words.progress(running))
        if self.activity.show(running.fraction):
            self.session.cancel()

    def on_finished(self, layer: Any) -> None:
        show_info(f"{layer.name}: {words.outcome(layer.metadata[KEY])}")
        self.show_numbers()

    def on_failed(self, error: Exception) -> None:
        """Once for the same words: a preview fails anew at every change."""
        text = message(error)
        self.status.setText(text or "The preview failed")
        if text is None:
            notification_manager.receive_error(type(error), error, error.__traceback__)
        elif text != self.told:
            show_error(text)
        self.told = text

    # what a person does

    def on_parameter(self, name: str, value: Any) -> None:
        self.session.set(**{name: value})
        storage.save(self.session.parameters)
        self.show_numbers()

    def on_axes(self, axes: Axes) -> None:
        if self.session.source is not None:
            self.session.choose(self.session.source.layer, axes)

    def on_mode(self, number: int, checked: bool) -> None:
        if not checked:
            return
        self.split.setVisible(MODES[number] == SPLIT)
        if not self.live.isChecked():
            self.live.setChecked(True)
        self.session.set_mode(MODES[number])

    def on_with_removed(self, wanted: bool) -> None:
        self.session.with_removed = wanted
        self.show_memory()

    @property
    def all_volumes(self) -> bool:
        return bool(self.scope.currentData())

    def on_run(self) -> None:
        if self.session.running:
            self.session.cancel()
        else:
            self.told = None
            self.session.start(self.all_volumes)

    def on_batch(self) -> None:
        chosen = [plain(layer) for layer in self.viewer.layers.selection]
        layers = [layer for layer in self.session.images if layer in chosen and not is_preview(layer)]
        if not layers:
            show_info("Select the image layers to denoise in the layer list first")
            return
        self.told = None
        self.session.start(layers=layers)

    def on_reset(self) -> None:
        self.session.set(**dataclasses.asdict(Parameters()))
        storage.save(self.session.parameters)
        self.with_removed.setChecked(False)
        self.show_numbers()

    def result(self) -> Any:
        """The result layer to save: the selected one, or the latest of this image."""
        active = plain(self.viewer.layers.selection.active)
        if active is not None and isinstance(active.metadata.get(KEY), dict) and "settings" in active.metadata[KEY]:
            return active
        source = self.session.source
        outcome = None if source is None else self.session.results.outcomes.get(id(source.layer))
        return None if outcome is None else self.session.results.layer_of(outcome)

    def on_save(self) -> None:
        layer = self.result()
        if layer is None:
            return
        folder, name = words.file_name(layer)
        path, _ = QFileDialog.getSaveFileName(self, "Save like the source", str(folder / name), "NIfTI (*.nii.gz *.nii)")
        if path:
            self.save_to(path, layer)

    def save_to(self, path: str, layer: Any) -> None:
        """In the background; says where it went, or why not."""
        _, meta, _ = layer.as_layer_data_tuple()
        data = layer.data
        self.save.setEnabled(False)

        def done(paths: list[str]) -> None:
            self.save.setEnabled(True)
            show_info(f"Saved {paths[0]}")

        def failed(error: Exception) -> None:
            self.save.setEnabled(True)
            self.told = None
            self.on_failed(error)

        self.session.saving.submit(lambda job: write_nifti(path, data, meta), done, failed)

    def on_copy(self, kind: str) -> None:
        try:
            plan = self.session.plan()
            if plan is None:
                return
            whole = self.all_volumes or not plan.source.axes.separate
            mask = self.session.mask_layer
            mask_path = mask.source.path if mask is not None else None
            text = recipe(kind, plan, None if whole else self.session.volume, mask_path)
        except (ValueError, TypeError) as error:
            show_error(str(error))
            return
        QGuiApplication.clipboard().setText(text)
        show_info(f"Copied as {kind}")


def form() -> QFormLayout:
    layout = QFormLayout()
    layout.setContentsMargins(4, 4, 4, 4)
    layout.setVerticalSpacing(4)
    layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    return layout


def note_label() -> QLabel:
    label = QLabel()
    label.setWordWrap(True)
    font = label.font()
    font.setPointSizeF(font.pointSizeF() * 0.9)
    label.setFont(font)
    return label


def fill(box: QComboBox, choices: list[tuple[str, Any]], current: Any) -> None:
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
