"""The dock widget: connects the panels with a `Session`, which does the work."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

from napari.components import ViewerModel
from napari.utils.notifications import notification_manager, show_error, show_info
from qtpy.QtCore import QEvent, QObject, QSignalBlocker, Qt
from qtpy.QtGui import QGuiApplication, QKeyEvent
from qtpy.QtWidgets import QFileDialog, QWidget

from napari_nlm import captions, storage
from napari_nlm.activity import Activity
from napari_nlm.docked import DockedWidget
from napari_nlm.errors import message
from napari_nlm.folder_runs import FolderResult
from napari_nlm.known import Known
from napari_nlm.layer_source import labels_of, possible_roles, unwrapped
from napari_nlm.mailbox import Mailbox, gathered_in, next_turn
from napari_nlm.map_panel import MapPanel
from napari_nlm.marks import PROVENANCE_KEY
from napari_nlm.panels import ImagePanel, ParameterPanels, PreviewPanel, RunPanel, fill, show_row, stack_panels
from napari_nlm.parameters import Parameters
from napari_nlm.pictures import COMPARE_MODES, SPLIT, Picture
from napari_nlm.recipes import recipe
from napari_nlm.results import proposed_file
from napari_nlm.runs import Running
from napari_nlm.saving import FILTERS, filter_for, save_layer, with_ending
from napari_nlm.session import Session

GATHER = 15
"""Milliseconds: changes that follow one another faster become one preview."""

HOLD_KEY = "Shift-O"
RUN_KEY = "Control-Shift-N"


class DenoiseWidget(DockedWidget):
    """Denoise image layers by non-local means, with a live preview."""

    tab = "Denoise"

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.mailbox = Mailbox()
        self.session = Session(
            napari_viewer, self.mailbox.deliver, storage.load_choices(), gathered_in(self, GATHER), next_turn
        )
        self.activity: Activity | None = None
        self.last_error: str | None = None
        self.image, self.preview, self.runs = ImagePanel(), PreviewPanel(HOLD_KEY), RunPanel(RUN_KEY)
        self.parameters, self.maps = ParameterPanels(), MapPanel()
        stack_panels(self, self.image, self.parameters, self.preview, self.maps, self.runs)
        self.connect_panels()
        self.connect_session()
        self.bind_keys()
        self.session.chosen.choose_first()

    def end_work(self) -> None:
        self.session.close()
        self.show_run(None)

    def connect_panels(self) -> None:
        session, image, preview, runs = self.session, self.image, self.preview, self.runs
        image.layer.activated.connect(lambda _: session.chosen.choose(image.layer.currentData()))
        image.axes.activated.connect(lambda _: session.chosen.set_axes(image.axes.currentData()))
        image.mask_layer.activated.connect(lambda _: session.chosen.set_mask(image.mask_layer.currentData()))
        for name, field in self.parameters.fields.items():
            field.changed.connect(lambda value, name=name: self.on_parameter(name, value))
        self.maps.changed.connect(self.on_maps)
        preview.live.toggled.connect(session.set_live)
        preview.original.pressed.connect(lambda: session.preview.hold(True))
        preview.original.released.connect(lambda: session.preview.hold(False))
        preview.modes.idToggled.connect(self.on_mode)
        preview.split.valueChanged.connect(lambda value: session.preview.set_mode(SPLIT, value / 100))
        runs.scope.activated.connect(lambda _: self.show_memory())
        runs.button.clicked.connect(self.on_run)
        runs.save.clicked.connect(self.on_save)
        runs.batch.triggered.connect(self.on_batch)
        runs.folder.triggered.connect(self.on_folder)
        runs.reset.triggered.connect(self.on_reset)
        for kind, action in runs.copies.items():
            action.triggered.connect(lambda _=False, kind=kind: self.on_copy(kind))

    def connect_session(self) -> None:
        session = self.session
        session.layers_changed.connect(self.show_layers)
        session.image_changed.connect(self.show_image)
        session.numbers_changed.connect(self.show_numbers)
        session.preview.shown.connect(self.show_picture)
        session.preview.status.connect(self.show_status)
        session.preview.split_moved.connect(self.show_split)
        session.runs.progressed.connect(self.show_run)
        session.runs.finished.connect(self.on_finished)
        session.runs.folder_done.connect(self.on_folder_done)
        session.failed.connect(self.on_failed)
        session.noticed.connect(show_info)
        self.destroyed.connect(lambda: session.close(window_gone=True))

    def bind_keys(self) -> None:
        session = self.session

        def hold(viewer: Any) -> Any:
            session.preview.hold(True)
            yield
            session.preview.hold(False)

        def run(viewer: Any) -> None:
            if not session.closed:
                self.on_run()

        self.viewer.bind_key(HOLD_KEY, hold, overwrite=True)
        self.viewer.bind_key(RUN_KEY, run, overwrite=True)
        keymap = unwrapped(self.viewer).keymap

        def unbind() -> None:
            """The viewer outlives the widget and must not hold it. Keys that another widget has taken over stay."""
            for key in [key for key, function in keymap.items() if function in (hold, run)]:
                del keymap[key]

        self.destroyed.connect(unbind)

        for child in self.findChildren(QWidget):  # napari hears no keys while one of our fields has the focus
            child.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Show the original while the key is held, also while a field of the widget has the focus."""
        if isinstance(event, QKeyEvent) and event.key() == Qt.Key.Key_O:
            shift = event.modifiers() == Qt.KeyboardModifier.ShiftModifier
            pressed = event.type() == QEvent.Type.KeyPress and shift
            if pressed or (event.type() == QEvent.Type.KeyRelease and self.session.preview.hidden):
                if not event.isAutoRepeat():
                    self.session.preview.hold(pressed)
                return True
        return bool(super().eventFilter(watched, event))

    # what the session reports

    def show_layers(self) -> None:
        chosen = self.session.chosen
        layers = [(layer.name, layer) for layer in chosen.images]
        masks = [("none", None), *((layer.name, layer) for layer in chosen.masks)]
        fill(self.image.layer, layers, chosen.source and chosen.source.layer)
        fill(self.image.mask_layer, masks, chosen.mask_layer)

    def show_image(self) -> None:
        """Another image, or other roles of its axes."""
        source = self.session.chosen.source
        self.show_layers()
        choices = [] if source is None else possible_roles(source.layer)
        labels = None if source is None else labels_of(source.layer)
        fill(self.image.axes, [(axes.title(labels), axes) for axes in choices], source and source.axes)
        show_row(self.image.form, self.image.axes, len(choices) > 1)
        with QSignalBlocker(self.preview.live):
            self.preview.live.setChecked(self.session.preview.live)
        self.show_numbers()

    def show_numbers(self) -> None:
        """All fields. Those on auto show the number that the engine takes for this image."""
        known: Known | None = None
        with contextlib.suppress(ValueError, TypeError):  # the preview shows the error
            known = self.session.next_run.known()
        automatic, notes, without = dict[str, Any](), dict[str, str](), dict[str, str]()
        if known is not None:
            automatic, notes, without = known.automatic, captions.notes(known), dict(known.choices.method.without)
        surveys = self.session.chosen.surveys
        self.parameters.method.show_impossible({} if surveys is None else surveys.impossible_methods)
        self.parameters.show_values(self.session.next_run.parameters, automatic, notes, without)
        chosen = self.session.chosen.source is not None
        self.runs.button.setEnabled(chosen)
        self.runs.copy.setEnabled(chosen)
        self.runs.save.setEnabled(self.session.runs.result() is not None)
        self.show_what_runs()
        self.show_memory()

    def show_what_runs(self) -> None:
        """The volumes that can be denoised one by one, and the maps that there can be."""
        volumes, reasons = 1, dict[str, str]()
        with contextlib.suppress(ValueError, TypeError):  # the preview shows the error
            denoising, reasons = self.session.next_run.denoising(), self.session.next_run.no_maps()
            volumes = 1 if denoising is None else len(denoising.source.volumes)
        self.runs.show_volumes(volumes)
        self.maps.show_missing(reasons)

    def show_memory(self) -> None:
        need = None
        with contextlib.suppress(ValueError, TypeError):  # the preview shows the error
            need = self.session.next_run.memory(self.all_volumes)
        self.runs.show_memory("" if need is None else captions.memory_text(need), need is None or need.enough)

    def show_picture(self, picture: Picture) -> None:
        self.last_error = None
        self.preview.status.setText(captions.picture_text(picture))
        self.runs.save.setEnabled(self.session.runs.result() is not None)

    def show_status(self, text: str) -> None:
        self.preview.status.setText(text)

    def show_split(self, split: float) -> None:
        with QSignalBlocker(self.preview.split):
            self.preview.split.setValue(round(100 * split))

    def show_run(self, running: Running | None) -> None:
        self.runs.button.setText("Denoise" if running is None else "Cancel")
        self.runs.bar.setVisible(running is not None)
        if running is None:
            if self.activity is not None:
                self.activity.close()
                self.activity = None
            return
        if self.activity is None:
            self.activity = Activity()
            self.activity.open(f"Denoising {self.session.runs.title}")
        self.runs.bar.setValue(round(self.runs.bar.maximum() * running.fraction))
        self.runs.bar.setFormat(captions.progress_text(running))
        if self.activity is not None and self.activity.show(running.fraction):
            self.session.runs.cancel()

    def on_finished(self, layer: Any) -> None:
        show_info(f"{layer.name}: {captions.result_text(layer.metadata[PROVENANCE_KEY])}")
        self.show_numbers()

    def on_failed(self, error: Exception) -> None:
        """Notify once about the same error: a preview fails again at every change."""
        text = message(error)
        self.preview.status.setText(text or "The preview failed")
        if text is None:
            notification_manager.receive_error(type(error), error, error.__traceback__)
        elif text != self.last_error:
            show_error(text)
        self.last_error = text

    # what the user does

    def on_parameter(self, name: str, value: Any) -> None:
        self.session.next_run.set(**{name: value})
        storage.save_choices(self.session.next_run.parameters)
        self.show_numbers()

    def on_mode(self, number: int, checked: bool) -> None:
        if checked:
            self.preview.split.setVisible(COMPARE_MODES[number] == SPLIT)
            self.preview.live.setChecked(True)
            self.session.preview.set_mode(COMPARE_MODES[number])

    def on_maps(self) -> None:
        self.session.next_run.set_maps(self.maps.chosen)
        self.show_memory()

    @property
    def all_volumes(self) -> bool:
        return bool(self.runs.scope.currentData())

    def on_run(self) -> None:
        self.last_error = None
        if self.session.runs.busy:
            self.session.runs.cancel()
        else:
            self.start_run()

    def start_run(self) -> None:
        """Start a run; ask for a file first if the result is too large for memory."""
        store: Path | None = None
        with contextlib.suppress(ValueError, TypeError):  # the run shows the error
            if self.session.next_run.streams(self.all_volumes):
                name, _ = QFileDialog.getSaveFileName(
                    self, "Where to write the result, block by block", str(Path.home()), "OME-Zarr (*.zarr)"
                )
                if not name:
                    return
                store = Path(name) if name.endswith(".zarr") else Path(f"{name}.zarr")
        self.session.runs.start(self.all_volumes, store=store)

    def on_batch(self) -> None:
        selected = [unwrapped(layer) for layer in self.viewer.layers.selection]
        layers = [layer for layer in self.session.chosen.images if layer in selected]
        if not layers:
            show_info("Select the image layers to denoise in the layer list first")
            return
        self.last_error = None
        self.session.runs.start(layers=layers)

    def on_folder(self) -> None:
        """Ask for a folder of images and for one for the results, and denoise the images with the current choices."""
        source = QFileDialog.getExistingDirectory(self, "Folder of images to denoise", str(Path.home()))
        if not source:
            return
        beside = Path(source).with_name(f"{Path(source).name}_denoised")
        out = QFileDialog.getExistingDirectory(
            self, f"Folder for the results, such as {beside.name}", str(beside.parent)
        )
        if out:
            self.last_error = None
            self.session.runs.start_folder(Path(source), Path(out))

    def on_folder_done(self, result: FolderResult) -> None:
        show_info(result.text)
        for failure in result.failures:
            show_error(failure)

    def on_reset(self) -> None:
        self.session.next_run.set(**dataclasses.asdict(Parameters()))
        storage.save_choices(self.session.next_run.parameters)
        self.maps.clear()
        self.show_numbers()

    def on_save(self) -> None:
        layer = self.session.runs.result()
        if layer is None:
            return
        proposed = str(proposed_file(layer))
        path, chosen = QFileDialog.getSaveFileName(
            self, "Save like the source", proposed, ";;".join(FILTERS), filter_for(proposed)
        )
        if path:
            self.save_to(Path(with_ending(path, chosen)), layer)

    def save_to(self, path: Path, layer: Any) -> None:
        """Save in the background, and notify about the file or the error."""
        data, meta, _ = layer.as_layer_data_tuple()
        self.runs.save.setEnabled(False)

        def done(paths: list[str]) -> None:
            self.runs.save.setEnabled(True)
            show_info(f"Saved {paths[0]}")

        def failed(error: Exception) -> None:
            self.runs.save.setEnabled(True)
            self.last_error = None
            self.on_failed(error)

        self.session.saving.submit(lambda job: save_layer(path, data, meta), done, failed)

    def on_copy(self, kind: str) -> None:
        try:
            denoising = self.session.next_run.denoising()
            if denoising is None:
                return
            whole = self.all_volumes or not denoising.source.axes.separate
            mask = self.session.chosen.mask_layer
            mask_path = mask.source.path if mask is not None else None
            volume = None if whole else self.session.next_run.volume
            text = recipe(kind, denoising, volume, mask_path, self.session.next_run.maps)
        except (ValueError, TypeError) as error:
            show_error(str(error))
            return
        clipboard = QGuiApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(text)
            show_info(f"Copied as {kind}")
