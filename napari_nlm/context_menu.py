"""Denoise the layers that are selected in the layer list, from its context menu and without the dock widget."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from napari.components import ViewerModel
from napari.layers import Image
from napari.utils.notifications import notification_manager, show_error, show_info
from qtpy.QtWidgets import QApplication

from napari_nlm import captions
from napari_nlm.activity import Activity
from napari_nlm.chosen import ChosenImage
from napari_nlm.errors import message
from napari_nlm.jobs import Deliver, Lane
from napari_nlm.layer_source import unwrapped
from napari_nlm.mailbox import Mailbox
from napari_nlm.marks import PROVENANCE_KEY
from napari_nlm.next_run import NextRun
from napari_nlm.parameters import Parameters
from napari_nlm.results import ResultLayers
from napari_nlm.runs import Running, Runs

WAITING: list[MenuRun] = []
"""Runs of this process that are not over. The first one is computing: each may use all threads and half the memory."""


def denoise_layers(viewer: ViewerModel, selected: Sequence[Any], method: str) -> None:
    """Denoise those of the selected layers that are images, each with its own noise; a line says so if there are none.

    Args:
        viewer: where the layers are.
        selected: layers of any kind. Those that were removed meanwhile are left out.
        method: for all of them.
    """
    images = ChosenImage(viewer, show_failure).images
    layers = [layer for layer in images if layer in set(map(unwrapped, selected))]
    if layers:
        MenuRun(viewer, layers, Parameters(method=method)).start()
    else:
        show_info("Select an image layer to denoise; layers of True and False, labels and maps have no noise")


def show_failure(error: Exception) -> None:
    """Show an error: expected ones, which name their layer, as a line, and others with their traceback."""
    text = message(error)
    if text is None:
        notification_manager.receive_error(type(error), error, error.__traceback__)
    else:
        show_error(text)


class MenuRun:
    """One run of selected layers, with its progress in the activity dock. It waits until those before it are over.

    Args:
        viewer: where the layers are, and where the results appear.
        layers: to denoise, one after the other.
        parameters: for all of them.
        deliver: calls functions in the main thread; None for Qt's event loop.
    """

    def __init__(
        self, viewer: ViewerModel, layers: Sequence[Image], parameters: Parameters, deliver: Deliver | None = None
    ) -> None:
        self.viewer, self.layers = viewer, list(layers)
        self.mailbox = Mailbox()
        self.lane = Lane("nlmeans menu", deliver or self.mailbox.deliver)
        next_run = NextRun(viewer, ChosenImage(viewer, show_failure), parameters)
        self.runs = Runs(viewer, next_run, ResultLayers(viewer), self.lane)
        self.runs.progressed.connect(self.show)
        self.runs.finished.connect(self.on_finished)
        self.runs.failed.connect(show_failure)
        self.activity = Activity()

    def start(self) -> None:
        """Start as soon as no other run of this kind is computing."""
        self.viewer.layers.events.removed.connect(self.on_removed)
        application = QApplication.instance()
        if application is not None:
            application.aboutToQuit.connect(self.end)
        WAITING.append(self)
        if WAITING[0] is self:
            self.begin()

    def begin(self) -> None:
        self.activity.open(f"Denoising {', '.join(layer.name for layer in self.layers)}")
        self.runs.start(layers=self.layers)
        if not self.runs.running:  # no layer can be denoised, which was said
            self.end()

    def show(self, running: Running | None) -> None:
        """Move the bar, or end the run."""
        if running is None:
            self.end()
        elif self.activity.show(running.fraction):
            self.runs.cancel()

    def on_finished(self, layer: Image) -> None:
        show_info(f"{layer.name}: {captions.result_text(layer.metadata[PROVENANCE_KEY])}")

    def on_removed(self, event: Any) -> None:
        """Denoise the other layers if one is removed that waits; end if it is being denoised."""
        layer = unwrapped(event.value)
        if self.runs.concern(layer):
            show_info(f"{layer.name} was removed, so its denoising was cancelled")
            self.runs.cancel()
        elif not self.runs.running:
            self.layers = [one for one in self.layers if one is not layer]

    def end(self) -> None:
        """Stop, and let the next run begin."""
        if self not in WAITING:
            return
        first = WAITING[0] is self
        WAITING.remove(self)
        self.lane.close()
        self.activity.close()
        self.viewer.layers.events.removed.disconnect(self.on_removed)
        application = QApplication.instance()
        if application is not None:
            application.aboutToQuit.disconnect(self.end)
        for following in itertools.islice(WAITING, int(first)):
            following.begin()
