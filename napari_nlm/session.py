"""The state of one dock widget, without Qt: connects the viewer, the chosen image, the preview and the runs."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from napari.components import ViewerModel
from napari.layers import Image
from psygnal import Signal

from napari_nlm.canvas import hold_canvas
from napari_nlm.chosen import ChosenImage, Connections, disconnect
from napari_nlm.jobs import Deliver, Lane, call_now
from napari_nlm.layer_source import is_boolean, unwrapped
from napari_nlm.next_run import NextRun
from napari_nlm.parameters import Parameters
from napari_nlm.pictures import DENOISED
from napari_nlm.preview import Gather, LivePreview, at_once
from napari_nlm.preview_layers import is_preview
from napari_nlm.results import ResultLayers, is_result
from napari_nlm.runs import Runs
from napari_nlm.split_line import SplitLine

SESSIONS: weakref.WeakSet[Session] = weakref.WeakSet()
"""All sessions of this process."""


def sessions_of(viewer: ViewerModel) -> list[Session]:
    """The open sessions of a viewer."""
    return [one for one in SESSIONS if not one.closed and unwrapped(one.viewer) is unwrapped(viewer)]


class Session:
    """Holds the parts, and says what one part must do when another changes. All methods are called in the main thread.

    Args:
        viewer: napari's viewer.
        deliver: calls functions in the main thread, from any thread.
        parameters: the choices to begin with.
        gather: turns several changes into one refresh of the preview.
        next_turn: calls functions of the main thread in the next turn of the event loop.
    """

    layers_changed = Signal()
    """Layers were added, removed or renamed."""
    image_changed = Signal()
    """Another image, other roles of its axes, or the preview was switched on or off."""
    numbers_changed = Signal()
    """Sigma or something that follows from it."""
    failed = Signal(object)
    """An exception of a run or a preview."""
    noticed = Signal(str)
    """Something that the user should know."""

    def __init__(
        self,
        viewer: ViewerModel,
        deliver: Deliver,
        parameters: Parameters | None = None,
        gather: Gather = at_once,
        next_turn: Deliver = call_now,
    ) -> None:
        look, run, self.saving = (Lane(f"nlmeans {name}", deliver) for name in ("look", "run", "save"))
        self.viewer, self.deliver, self.closed = viewer, deliver, False
        self.results = ResultLayers(viewer)
        self.chosen = ChosenImage(viewer, self.on_failed)
        self.next_run = NextRun(viewer, self.chosen, parameters or Parameters())
        self.preview = LivePreview(viewer, self.next_run, self.results, look, gather, next_turn)
        self.split_line = SplitLine(self.preview)
        self.runs = Runs(viewer, self.next_run, self.results, run)
        self.lanes = (look, run, self.saving)
        self.connections: Connections = []
        SESSIONS.add(self)
        self.connect_parts()
        self.connect_viewer()

    def connect_parts(self) -> None:
        self.chosen.replaced.connect(self.on_replaced)
        self.chosen.renewed.connect(self.on_renewed)
        self.chosen.changed.connect(self.image_changed.emit)
        self.chosen.data_changed.connect(self.on_data)
        self.chosen.moved.connect(self.preview.on_view)
        self.next_run.changed.connect(self.preview.refresh_soon)
        self.preview.surveyed.connect(self.numbers_changed.emit)
        self.preview.failed.connect(self.failed.emit)
        self.runs.finished.connect(self.on_finished)
        self.runs.failed.connect(self.failed.emit)

    def connect_viewer(self) -> None:
        layers, dims = self.viewer.layers, self.viewer.dims
        wanted: list[tuple[Any, Callable[..., None]]] = [
            (layers.events.inserted, self.on_inserted),
            (layers.events.removing, self.on_removing),
            (layers.events.removed, self.on_removed),
            (layers.events.renamed, self.on_renamed),
            (layers.selection.events.active, self.on_active),
            (dims.events.current_step, self.on_view),
            (dims.events.order, self.on_view),
            (dims.events.ndisplay, self.on_dimensions),
        ]
        for event, function in wanted:
            event.connect(function)
            self.connections.append((event, function))
        unwrapped(self.viewer).mouse_drag_callbacks.append(self.split_line)

    @property
    def busy(self) -> bool:
        """Whether anything is computed or saved in the background, or shown in the next turns of the event loop."""
        return self.preview.layers.busy or any(lane.busy for lane in self.lanes)

    def close(self, window_gone: bool = False) -> None:
        """Stop all work and, if there is still a window, remove the preview."""
        if self.closed:
            return
        self.closed = True
        self.runs.lane.close()
        self.saving.close(wait=True)  # let it finish a file that it is writing
        disconnect(self.connections)
        unwrapped(self.viewer).mouse_drag_callbacks.remove(self.split_line)
        self.chosen.watch(None)
        self.preview.close(window_gone)

    def set_live(self, live: bool) -> None:
        """Switch the preview on or off."""
        self.preview.set_live(live)
        self.image_changed.emit()

    # the viewer

    def on_inserted(self, event: Any) -> None:
        if is_preview(event.value):
            return
        self.layers_changed.emit()
        if not self.runs.adding:
            self.preview.layers.raise_to_top()

    def on_removing(self, event: Any) -> None:
        """The user may remove layers of the preview whose names are on the canvas."""
        hold_canvas(self.viewer)

    def on_removed(self, event: Any) -> None:
        layer, preview = unwrapped(event.value), self.preview
        if is_preview(layer):
            if preview.layers.forget(layer) == DENOISED and preview.live and preview.mode == DENOISED:
                self.deliver(self.on_preview_deleted)
            return
        if self.runs.concern(layer):
            self.runs.cancel()
            self.noticed.emit(f"{layer.name} was removed, so its denoising was cancelled")
        self.deliver(lambda: self.forget(layer))

    def on_preview_deleted(self) -> None:
        """Switch a preview off that the user deleted, so that it does not come back, unless all layers were deleted."""
        source = self.chosen.source
        if not self.closed and source is not None and source.layer in self.viewer.layers:
            self.set_live(False)

    def forget(self, layer: Any) -> None:
        """Drop what belongs to a layer that was removed, once napari has finished: it may be removing several."""
        if self.closed or layer in self.viewer.layers:
            return
        self.results.forget(layer)
        self.chosen.forget(layer)
        self.layers_changed.emit()

    def on_renamed(self, event: Any) -> None:
        self.layers_changed.emit()

    def on_active(self, event: Any) -> None:
        """Follow the selected layer, except for results, which people look at but do not denoise again."""
        layer = unwrapped(self.viewer.layers.selection.active)
        if self.runs.adding or not isinstance(layer, Image) or is_preview(layer) or is_result(layer):
            return
        if is_boolean(layer):
            self.noticed.emit(f"{layer.name} holds True and False alone, without any noise; it can be a mask")
        elif not self.chosen.is_chosen(layer):
            self.chosen.choose(layer)

    def on_dimensions(self, event: Any) -> None:
        """Remove the preview at once in 3D: napari crashes if a layer goes between the switch and its first picture."""
        if self.viewer.dims.ndisplay != 2:
            self.preview.layers.clear_now()
        self.on_view(event)

    def on_view(self, event: Any) -> None:
        self.preview.on_view()

    # the parts

    def on_replaced(self, another_layer: bool) -> None:
        self.preview.reset()
        if another_layer:
            self.next_run.forget_image()

    def on_renewed(self) -> None:
        self.numbers_changed.emit()
        self.preview.refresh_soon()

    def on_data(self) -> None:
        source = self.chosen.source
        if source is not None and self.runs.concern(source.layer):
            self.runs.cancel()
            self.noticed.emit(
                f"The data of {source.layer.name} changed, so its denoising was cancelled; start it again"
            )
        self.chosen.choose_again()

    def on_finished(self, layer: Image) -> None:
        self.preview.layers.raise_to_top()
        self.numbers_changed.emit()
        self.preview.refresh_soon()

    def on_failed(self, error: Exception) -> None:
        self.failed.emit(error)
