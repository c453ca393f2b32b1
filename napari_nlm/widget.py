"""The dock widget: panels around a `Session`, which does the work."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

from napari.components import ViewerModel
from napari.utils.notifications import notification_manager, show_error, show_info
from qtpy.QtCore import QEvent, QObject, QSignalBlocker, Qt, QTimer, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QCheckBox, QFileDialog, QFrame, QGroupBox, QScrollArea, QVBoxLayout, QWidget
from superqt import QCollapsible

from napari_nlm import storage, words
from napari_nlm.activity import Activity
from napari_nlm.controls import Choice
from napari_nlm.errors import message
from napari_nlm.nifti import write_nifti
from napari_nlm.panels import ImagePanel, ParameterPanel, PreviewPanel, RunPanel, fill, show_row
from napari_nlm.parameters import Parameters
from napari_nlm.preview import MODES, SPLIT, Picture
from napari_nlm.recipes import recipe
from napari_nlm.results import KEY
from napari_nlm.session import Running, Session
from napari_nlm.source import plain, roles

GATHER = 15
"""Milliseconds in which several changes become one preview."""

HOLD_KEY = "Shift-O"
RUN_KEY = "Control-Shift-N"


class Mailbox(QObject):
    """Brings functions from any thread to the main one, in order."""

    posted = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.posted.connect(lambda function: function(), Qt.ConnectionType.QueuedConnection)

    def deliver(self, function: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the window is gone, and nobody waits for this any more
            self.posted.emit(function)


class DenoiseWidget(QWidget):
    """Denoise image layers by non-local means, with a live preview."""

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__()
        self.docked = False
        self.viewer = napari_viewer
        self.mailbox = Mailbox()
        self.session = Session(napari_viewer, self.mailbox.deliver)
        self.session.parameters = storage.load()
        self.activity: Activity | None = None
        self.last_error: str | None = None
        timer = QTimer(self)
        timer.setSingleShot(True)
        timer.setInterval(GATHER)
        timer.timeout.connect(self.session.refresh)
        self.session.refresh_soon = timer.start
        self.build()
        self.connect()
        self.bind_keys()
        self.session.choose_first()

    def build(self) -> None:
        self.image, self.preview, self.runs = ImagePanel(), PreviewPanel(HOLD_KEY), RunPanel(RUN_KEY)
        noise, filtering, advanced = (ParameterPanel(group) for group in ("noise", "filter", "advanced"))
        self.parameters = (noise, filtering, advanced)
        self.with_removed = QCheckBox("Add the removed noise as a layer")
        self.with_removed.setToolTip("Image minus result, of all voxels, in image units; hidden at first.")
        advanced.form.addRow(self.with_removed)
        folded = QCollapsible("Advanced", expandedIcon="▾", collapsedIcon="▸")
        folded.addWidget(advanced)

        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.image)
        for title, panel in (("Noise", noise), ("Filter", filtering)):
            group = QGroupBox(title)
            QVBoxLayout(group).addWidget(panel)
            column.addWidget(group)
        column.addWidget(self.preview)
        column.addWidget(folded)
        column.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(inside)
        whole = QVBoxLayout(self)
        whole.setContentsMargins(4, 4, 4, 4)
        whole.addWidget(scroll, 1)
        whole.addWidget(self.runs)
        bar = scroll.verticalScrollBar()
        scroll.setMinimumWidth(inside.minimumSizeHint().width() + (bar.sizeHint().width() if bar else 0))

    def event(self, event: QEvent | None) -> bool:
        """Taken out of its dock, which is what napari does when the dock is closed, it ends all work and goes.

        It is deleted then, at once and here: the garbage collector may come late, and from any thread.
        """
        if event is not None and event.type() == QEvent.Type.ParentChange:
            if self.docked and self.parent() is None:
                self.session.close()
                self.show_run(None)
                self.deleteLater()
            self.docked = self.parent() is not None
        return bool(super().event(event))

    def connect(self) -> None:
        session, image, preview, runs = self.session, self.image, self.preview, self.runs
        image.layer.activated.connect(lambda _: session.choose(image.layer.currentData()))
        image.axes.activated.connect(lambda _: session.set_axes(image.axes.currentData()))
        image.mask_layer.activated.connect(lambda _: session.set_mask(image.mask_layer.currentData()))
        for panel in self.parameters:
            for name, field in panel.fields.items():
                field.changed.connect(lambda value, name=name: self.on_parameter(name, value))
        self.with_removed.toggled.connect(self.on_with_removed)
        preview.live.toggled.connect(session.set_live)
        preview.original.pressed.connect(lambda: session.hold(True))
        preview.original.released.connect(lambda: session.hold(False))
        preview.modes.idToggled.connect(self.on_mode)
        preview.split.valueChanged.connect(lambda value: session.set_mode(SPLIT, value / 100))
        runs.scope.activated.connect(lambda _: self.show_memory())
        runs.button.clicked.connect(self.on_run)
        runs.save.clicked.connect(self.on_save)
        runs.batch.triggered.connect(self.on_batch)
        runs.reset.triggered.connect(self.on_reset)
        for kind, action in runs.copies.items():
            action.triggered.connect(lambda _=False, kind=kind: self.on_copy(kind))
        session.layers_changed.connect(self.show_layers)
        session.source_changed.connect(self.show_source)
        session.sigma_changed.connect(self.show_numbers)
        session.previewed.connect(self.show_picture)
        session.status.connect(self.show_status)
        session.run_changed.connect(self.show_run)
        session.finished.connect(self.on_finished)
        session.failed.connect(self.on_failed)
        session.noticed.connect(show_info)
        self.destroyed.connect(lambda: session.close(window_gone=True))

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
        keymap = plain(self.viewer).keymap

        def unbind() -> None:
            """The viewer outlives the widget, and must not hold it. Keys that another widget has taken stay."""
            for key in [key for key, function in keymap.items() if function in (hold, run)]:
                del keymap[key]

        self.destroyed.connect(unbind)

    # what the session says

    def show_layers(self) -> None:
        source = self.session.source
        layers = [(layer.name, layer) for layer in self.session.images]
        masks = [("none", None), *((layer.name, layer) for layer in self.session.masks)]
        fill(self.image.layer, layers, source and source.layer)
        fill(self.image.mask_layer, masks, self.session.mask_layer)

    def show_source(self) -> None:
        """Another image, or other roles of its axes."""
        source, scope = self.session.source, self.runs.scope
        self.show_layers()
        choices = [] if source is None else roles(source.layer)
        fill(self.image.axes, [(axes.title, axes) for axes in choices], source and source.axes)
        show_row(self.image.form, self.image.axes, len(choices) > 1)
        volumes = 1 if source is None else len(source.volumes)
        fill(scope, [("Current volume", False), (f"All {volumes} volumes", True)], bool(scope.currentData()))
        scope.setVisible(volumes > 1)
        with QSignalBlocker(self.preview.live):
            self.preview.live.setChecked(self.session.live)
        self.show_numbers()

    def show_numbers(self) -> None:
        """All fields, with what ``None`` comes to for this image."""
        session = self.session
        settings = None
        with contextlib.suppress(ValueError, TypeError):  # the preview says what is wrong
            settings = session.settings()
        automatic = words.automatic(session, settings)
        texts = words.notes(session, settings)
        for panel in self.parameters:
            for name, field in panel.fields.items():
                if isinstance(field, Choice) and name == "device":
                    field.choose_from(words.devices())
                field.show_value(getattr(session.parameters, name), automatic.get(name))
                show_row(panel.form, field, field.control.applies(session.parameters))
            for name, note in panel.notes.items():
                note.setText(texts.get(name, ""))
                show_row(panel.form, note, bool(texts.get(name)))
        self.runs.button.setEnabled(session.source is not None)
        self.runs.copy.setEnabled(session.source is not None)
        self.runs.save.setEnabled(session.result() is not None)
        self.show_memory()

    def show_memory(self) -> None:
        text, enough = words.memory(self.session, self.all_volumes)
        self.runs.memory.setText(text if enough else f"<font color='#e0a030'>{text}</font>")

    def show_picture(self, picture: Picture) -> None:
        self.last_error = None
        self.preview.status.setText(words.picture(picture))
        self.runs.save.setEnabled(self.session.result() is not None)

    def show_status(self, text: str) -> None:
        self.preview.status.setText(text)

    def show_run(self, running: Running | None) -> None:
        self.runs.button.setText("Denoise" if running is None else "Cancel")
        self.runs.bar.setVisible(running is not None)
        if running is None:
            if self.activity is not None:
                self.activity.close()
                self.activity = None
            return
        if self.activity is None:
            names = ", ".join(plan.source.layer.name for plan in self.session.running)
            self.activity = Activity()
            self.activity.open(f"Denoising {names}")
        self.runs.bar.setValue(round(self.runs.bar.maximum() * running.fraction))
        self.runs.bar.setFormat(words.progress(running))
        if self.activity is not None and self.activity.show(running.fraction):
            self.session.cancel()

    def on_finished(self, layer: Any) -> None:
        show_info(f"{layer.name}: {words.outcome(layer.metadata[KEY])}")
        self.show_numbers()

    def on_failed(self, error: Exception) -> None:
        """Once for the same words: a preview fails anew at every change."""
        text = message(error)
        self.preview.status.setText(text or "The preview failed")
        if text is None:
            notification_manager.receive_error(type(error), error, error.__traceback__)
        elif text != self.last_error:
            show_error(text)
        self.last_error = text

    # what a person does

    def on_parameter(self, name: str, value: Any) -> None:
        self.session.set(**{name: value})
        storage.save(self.session.parameters)
        self.show_numbers()

    def on_mode(self, number: int, checked: bool) -> None:
        if checked:
            self.preview.split.setVisible(MODES[number] == SPLIT)
            self.preview.live.setChecked(True)
            self.session.set_mode(MODES[number])

    def on_with_removed(self, wanted: bool) -> None:
        self.session.with_removed = wanted
        self.show_memory()

    @property
    def all_volumes(self) -> bool:
        return bool(self.runs.scope.currentData())

    def on_run(self) -> None:
        self.last_error = None
        if self.session.running:
            self.session.cancel()
        else:
            self.session.start(self.all_volumes)

    def on_batch(self) -> None:
        chosen = [plain(layer) for layer in self.viewer.layers.selection]
        layers = [layer for layer in self.session.images if layer in chosen]
        if not layers:
            show_info("First select the image layers to denoise in the layer list")
            return
        self.last_error = None
        self.session.start(layers=layers)

    def on_reset(self) -> None:
        self.session.set(**dataclasses.asdict(Parameters()))
        storage.save(self.session.parameters)
        self.with_removed.setChecked(False)
        self.show_numbers()

    def on_save(self) -> None:
        layer = self.session.result()
        if layer is None:
            return
        folder, name = words.file_name(layer)
        path, _ = QFileDialog.getSaveFileName(
            self, "Save like the source", str(folder / name), "NIfTI (*.nii.gz *.nii)"
        )
        if path:
            self.save_to(path, layer)

    def save_to(self, path: str, layer: Any) -> None:
        """In the background; says where it went, or why not."""
        data, meta, _ = layer.as_layer_data_tuple()
        self.runs.save.setEnabled(False)

        def done(paths: list[str]) -> None:
            self.runs.save.setEnabled(True)
            show_info(f"Saved {paths[0]}")

        def failed(error: Exception) -> None:
            self.runs.save.setEnabled(True)
            self.last_error = None
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
        clipboard = QGuiApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(text)
            show_info(f"Copied as {kind}")
