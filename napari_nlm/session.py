"""What goes on behind the dock widget, without Qt: the image, the choices, the preview, the runs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Labels
from psygnal import Signal

from napari_nlm.compute import Level, Levels, Mask, Plan, Volume, is_slow, needed_memory, removed_deviation
from napari_nlm.geometry import look
from napari_nlm.jobs import Deliver, Job, Lane
from napari_nlm.parameters import Parameters, Sigma, is_poisson
from napari_nlm.preview import DENOISED, SPLIT, Picture, PreviewLayers, is_preview
from napari_nlm.results import KEY, Outcome, Results, compute
from napari_nlm.source import Axes, Source, plain
from nlmeans import Settings
from nlmeans.core.progress import part

LARGEST_PREVIEW = 2**20
"""Pixels of a slice that are previewed; of larger ones the middle of the view."""

LARGEST_SLOW_PREVIEW = 128**2
"""Likewise, for methods that compute a thick slab for one slice."""


@dataclass(frozen=True)
class Running:
    """How far a run is."""

    fraction: float
    seconds_left: float | None
    """None until there is something to judge by."""


class Session:
    """One dock widget's worth of state. All methods are called in the main thread."""

    layers_changed = Signal()
    source_changed = Signal()
    sigma_changed = Signal()
    previewed = Signal(object)
    """`Picture` that is shown now."""
    status = Signal(str)
    """Why there is no preview, or what is being waited for."""
    run_changed = Signal(object)
    """`Running`, or None when nothing runs."""
    finished = Signal(object)
    """The result layer."""
    failed = Signal(object)
    """An exception of a run or a preview."""
    noticed = Signal(str)
    """Something that a person should know."""

    def __init__(self, viewer: ViewerModel, deliver: Deliver) -> None:
        self.viewer = viewer
        self.parameters = Parameters()
        self.source: Source | None = None
        self.mask_layer: Any = None
        self.levels: Levels | None = None
        self.live, self.mode, self.split = True, DENOISED, 0.5
        self.with_removed = False
        self.picture: Picture | None = None
        self.preview, self.results = PreviewLayers(viewer), Results(viewer)
        self.looking, self.working, self.saving = (Lane(f"nlmeans {name}", deliver) for name in ("look", "run", "save"))
        self.running: list[Plan] = []
        self.hidden: list[Any] = []
        self.closed = self.our_doing = False
        self.refresh_soon: Callable[[], None] = self.refresh  # a widget gathers several changes into one refresh
        self.watched: list[tuple[Any, Callable[..., None]]] = []
        self.connections: list[tuple[Any, Callable[..., None]]] = []
        self.connect(viewer.layers.events.inserted, self.on_inserted)
        self.connect(viewer.layers.events.removed, self.on_removed)
        self.connect(viewer.layers.events.renamed, self.on_renamed)
        self.connect(viewer.layers.selection.events.active, self.on_active)
        for event in (viewer.dims.events.current_step, viewer.dims.events.order, viewer.dims.events.ndisplay):
            self.connect(event, self.on_view)

    # the viewer

    def connect(self, event: Any, function: Callable[..., None]) -> None:
        event.connect(function)
        self.connections.append((event, function))

    def disconnect(self, kept: int = 0) -> None:
        while len(self.connections) > kept:
            event, function = self.connections.pop()
            with contextlib.suppress(ValueError, RuntimeError, TypeError):
                event.disconnect(function)

    def close(self, window_gone: bool = False) -> None:
        """Stop everything and, where there is still a window, leave no preview behind."""
        if self.closed:
            return
        self.closed = True
        self.looking.close()
        self.working.close()
        self.saving.close(wait=True)  # a file is written to its end
        self.disconnect()
        self.watch(None)
        if not window_gone:
            self.hold(False)
            self.preview.clear()

    @property
    def images(self) -> list[Image]:
        """Layers that can be denoised."""
        layers = [plain(layer) for layer in self.viewer.layers]
        return [layer for layer in layers if isinstance(layer, Image) and not is_preview(layer)]

    @property
    def masks(self) -> list[Any]:
        """Layers that can be masks of the image: of its spatial shape or all of its shape."""
        found = []
        for layer in map(plain, self.viewer.layers):
            if isinstance(layer, Labels | Image) and not is_preview(layer) and self.source is not None:
                with contextlib.suppress(ValueError):
                    if layer is not self.source.layer and not getattr(layer, "rgb", False):
                        Mask.of(layer, self.source)
                        found.append(layer)
        return found

    def on_inserted(self, event: Any) -> None:
        if is_preview(event.value):
            return
        self.layers_changed.emit()
        if not self.our_doing:
            self.preview.raise_to_top()

    def on_removed(self, event: Any) -> None:
        layer = plain(event.value)
        if is_preview(layer):
            if self.preview.forget(layer) == "preview" and self.live and self.mode == DENOISED:
                self.set_live(False)  # someone has deleted it, so it is not wanted
            return
        if any(plan.source.layer is layer for plan in self.running):
            self.cancel()
            self.noticed.emit(f"{layer.name} was removed, so its denoising was cancelled")
        self.results.forget(layer)
        if layer is self.mask_layer:
            self.mask_layer = None
            self.renew()
        if self.source is not None and layer is self.source.layer:
            self.choose(None)
        self.layers_changed.emit()

    def on_active(self, event: Any) -> None:
        """Follow the layer that is selected, unless it is a result of ours: those are looked at, not denoised again."""
        layer = plain(self.viewer.layers.selection.active)
        ours = any(layer is result for result in self.results.layers.values())
        if self.our_doing or ours or not isinstance(layer, Image) or is_preview(layer):
            return
        if self.source is None or layer is not self.source.layer:
            self.choose(layer)

    def on_view(self, event: Any) -> None:
        self.picture = None
        self.refresh_soon()

    # the image

    def choose(self, layer: Image | None, axes: Axes | None = None) -> None:
        """Take another layer, or other roles of its axes."""
        layer = plain(layer)
        changed = self.source is None or layer is not self.source.layer
        self.looking.cancel()
        self.preview.clear()
        self.picture = None
        self.watch(layer)
        self.source = None if layer is None else Source.of(layer, axes)
        if changed:
            self.mask_layer = None
            self.parameters = replace(self.parameters, sigma=None, gain=Parameters().gain, offset=Parameters().offset)
        self.renew()
        self.source_changed.emit()

    def choose_first(self) -> None:
        """The selected image, or the topmost."""
        active, images = plain(self.viewer.layers.selection.active), self.images
        self.choose(active if active in images else images[-1] if images else None)

    def set_axes(self, axes: Axes) -> None:
        if self.source is not None:
            self.choose(self.source.layer, axes)

    def watch(self, layer: Image | None) -> None:
        """Know when the data or the place of the layer change."""
        self.disconnect_layer()
        self.watched = (
            []
            if layer is None
            else [
                (getattr(layer.events, name), function)
                for function, names in (
                    (self.on_data, ("data",)),
                    (self.on_place, ("scale", "translate", "rotate", "shear", "affine")),
                )
                for name in names
            ]
        )
        for event, function in self.watched:
            event.connect(function)

    def disconnect_layer(self) -> None:
        for event, function in self.watched:
            with contextlib.suppress(ValueError, RuntimeError, TypeError):
                event.disconnect(function)
        self.watched = []

    def on_data(self, event: Any) -> None:
        source = self.source
        if source is None:
            return
        if any(plan.source.layer is source.layer for plan in self.running):
            self.cancel()
            self.noticed.emit(
                f"The data of {source.layer.name} changed, so its denoising was cancelled; start it again"
            )
        same_axes = source.axes if source.layer.ndim == len(source.shape) - source.layer.rgb else None
        self.choose(source.layer, same_axes)

    def on_place(self, event: Any) -> None:
        self.picture = None
        self.refresh_soon()
        self.source_changed.emit()

    def on_renamed(self, event: Any) -> None:
        self.layers_changed.emit()

    def renew(self) -> None:
        """Forget the estimates of sigma, and look again."""
        self.levels = None
        if self.source is not None:
            with self.errors():
                self.levels = Levels(self.source, self.mask())
        self.sigma_changed.emit()
        self.refresh_soon()

    def mask(self) -> Mask | None:
        if self.mask_layer is None or self.source is None:
            return None
        return Mask.of(self.mask_layer, self.source)

    def set_mask(self, layer: Any) -> None:
        self.mask_layer = plain(layer)
        self.renew()

    def set(self, **changes: Any) -> None:
        """Change parameters."""
        before = self.parameters
        self.parameters = replace(before, **changes)
        if is_poisson(before) != is_poisson(self.parameters):
            self.parameters = replace(self.parameters, sigma=None)  # it means something else there
        if before != self.parameters:
            self.refresh_soon()

    @contextlib.contextmanager
    def errors(self) -> Any:
        """What goes wrong on the way is said, not raised."""
        try:
            yield
        except Exception as error:
            self.failed.emit(error)

    # what is known

    def plan(self, source: Source | None = None) -> Plan | None:
        """The run as it would be now."""
        if self.source is None or self.levels is None:
            return None
        return Plan(self.source, self.parameters, self.mask(), self.levels)

    @property
    def volume(self) -> Volume:
        """The one that the viewer shows, along the axes that are taken one by one."""
        if self.source is None or not self.source.axes.separate:
            return ()
        layer = self.source.layer
        point = layer.world_to_data(self.viewer.dims.point)
        return tuple(
            int(np.clip(np.round(point[axis]), 0, self.source.shape[axis] - 1)) for axis in self.source.axes.separate
        )

    @property
    def level(self) -> Level | None:
        """The noise of the volume that is shown, None as long as nobody knows."""
        return None if self.levels is None else self.levels.peek(self.volume, self.parameters)

    @property
    def sigma(self) -> Sigma | None:
        """Of the volume that is shown, one number or one per channel; of Poisson noise the read noise."""
        level = self.level
        if self.parameters.sigma is not None or is_poisson(self.parameters) or level is None:
            return self.parameters.sigma
        return level.sigma if self.source is not None and self.source.axes.channels is not None else level.sigma[0]

    def settings(self) -> Settings | None:
        """Resolved, for the volume that is shown; sigma and h as far as they are known."""
        plan = self.plan()
        return None if plan is None else plan.settings(self.level)

    def memory(self, all_volumes: bool) -> tuple[float, float]:
        """Bytes that a run needs: to work in, and for its result."""
        settings = self.settings()
        if settings is None or self.source is None:
            return 0.0, 0.0
        count = len(self.source.volumes) if all_volumes else 1
        size = np.dtype(settings.dtype or self.source.data.dtype).itemsize
        voxels = np.prod(self.source.shape) / max(len(self.source.volumes), 1) * count
        return needed_memory(self.source, settings), float(voxels * (size + 4 * self.with_removed))

    # the preview

    def set_live(self, live: bool) -> None:
        self.live = live
        self.refresh_soon()
        self.source_changed.emit()

    def set_mode(self, mode: str, split: float | None = None) -> None:
        """How to compare; `split` is where the line lies, 0 to 1 of the slice."""
        self.mode = mode
        self.split = self.split if split is None else split
        if self.picture is not None and self.live:
            self.show(self.picture)
        else:
            self.refresh_soon()

    def refresh(self) -> None:
        """Compute sigma and the visible slice anew, in the background."""
        if self.closed:
            return
        self.looking.cancel()
        plan = None
        with self.errors():
            plan = self.plan()
        if plan is None or self.source is None:
            self.preview.clear()
            self.status.emit("" if self.source is not None else "Open an image to begin")
            return
        volume = self.volume
        if not self.live:
            self.preview.clear()
            self.status.emit("")
            if self.level is None:
                self.looking.submit(lambda job: plan.level(volume), lambda _: self.sigma_changed.emit(), self.on_failed)
            return
        settings = None
        with self.errors():
            settings = self.settings()
        if settings is None:
            return
        slow = is_slow(settings)
        view = look(self.viewer, self.source.layer, LARGEST_PREVIEW)
        if view is None:
            self.preview.clear()
            in_3d = self.viewer.dims.ndisplay != 2
            self.status.emit("The preview shows slices: switch to 2D" if in_3d else "The image is not in this view")
        small = look(self.viewer, self.source.layer, LARGEST_SLOW_PREVIEW) if slow else view
        ready = self.results.latest(plan)

        def work(job: Job) -> Picture | None:
            if plan.levels.peek(volume, plan.parameters) is None:
                plan.level(volume)
                job.tell(lambda _: self.sigma_changed.emit(), None)
            if view is None or small is None:
                return None

            def picture(plan: Plan, where: Any, draft: bool = False) -> Picture:
                cut = ready.cut(where.box) if ready is not None else None
                if cut is None:
                    before, after = plan.box(where.box, job.report)
                else:
                    before, after = np.asarray(plan.source.data[where.box]), np.asarray(cut)
                deviation = removed_deviation(before, after, plan.parameters.noise)
                sigma = 0.0 if is_poisson(plan.parameters) else plan.level(volume).unit
                return Picture(plan.source.layer, where, before, after, sigma, deviation, draft)

            if slow and (ready is None or ready.cut(view.box) is None):
                job.tell(self.show, picture(plan.draft(), view, draft=True))
                return picture(plan, small)
            return picture(plan, view)

        def done(picture: Picture | None) -> None:
            if picture is not None:
                self.show(picture)

        self.looking.submit(work, done, self.on_failed, lambda f: self.status.emit(f"Computing the preview … {f:.0%}"))

    def show(self, picture: Picture) -> None:
        self.picture = picture
        if self.source is None or picture.source is not self.source.layer:
            return
        outcome, plan = None, self.plan()
        if plan is not None:
            outcome = self.results.latest(plan)
        covered = outcome is not None and not picture.draft and outcome.cut(picture.view.box) is not None
        result = None if outcome is None else self.results.layer_of(outcome)
        if result is not None and result not in self.hidden:
            result.visible = self.mode != SPLIT
        self.preview.show(picture, self.mode, self.split, covered)
        self.previewed.emit(picture)

    def on_failed(self, error: Exception) -> None:
        self.preview.clear()
        self.failed.emit(error)

    def hold(self, original: bool) -> None:
        """Show the original as long as this is held."""
        if original and not self.hidden:
            ours = [*self.preview.layers.values(), *self.results.layers.values()]
            self.hidden = [layer for layer in ours if layer in self.viewer.layers and layer.visible]
            for layer in self.hidden:
                layer.visible = False
        elif not original:
            for layer in self.hidden:
                if layer in self.viewer.layers:
                    layer.visible = True
            self.hidden = []

    # the run

    def start(self, all_volumes: bool = False, layers: Sequence[Image] = ()) -> None:
        """Denoise the image, or several layers one after the other, each with a sigma of its own."""
        plans: list[tuple[Plan, Volume | None]] = []
        with self.errors():
            if layers:
                plans = [(self.plan_of(layer), None) for layer in layers]
            else:
                plan = self.plan()
                if plan is not None:
                    alone = all_volumes or not plan.source.axes.separate
                    plans = [(plan, None if alone else self.volume)]
        if not plans:
            return
        began = time.monotonic()
        self.running = [plan for plan, _ in plans]
        with_removed = self.with_removed

        def work(job: Job) -> None:
            for number, (plan, volume) in enumerate(plans):
                report = part(job.report, number / len(plans), (number + 1) / len(plans))
                job.tell(self.add, compute(plan, volume, with_removed, report))

        def progress(fraction: float) -> None:
            elapsed = time.monotonic() - began
            left = elapsed / fraction - elapsed if fraction > 0.02 and elapsed > 0.5 else None
            self.run_changed.emit(Running(fraction, left))

        def done(_: None) -> None:
            self.running = []
            self.run_changed.emit(None)

        def failed(error: Exception) -> None:
            self.running = []
            self.run_changed.emit(None)
            self.failed.emit(error)

        self.working.submit(work, done, failed, progress)
        self.run_changed.emit(Running(0.0, None))

    def plan_of(self, layer: Image) -> Plan:
        """With the choices of now, but the layer's own axes and sigma, and without a mask."""
        source, own = Source.of(plain(layer)), replace(self.parameters, sigma=None)
        return Plan(source, own, None, Levels(source, None))

    def add(self, outcome: Outcome) -> None:
        self.our_doing = True
        try:
            layer = self.results.show(outcome)
        finally:
            self.our_doing = False
        self.running = [plan for plan in self.running if plan is not outcome.plan]
        self.preview.raise_to_top()
        self.sigma_changed.emit()
        self.refresh_soon()
        self.finished.emit(layer)

    def result(self) -> Image | None:
        """The result layer that a person means: the selected one, or the latest of this image."""
        active = plain(self.viewer.layers.selection.active)
        if active is not None and "settings" in (active.metadata.get(KEY) or {}):
            return active
        outcome = None if self.source is None else self.results.outcomes.get(id(self.source.layer))
        return None if outcome is None else self.results.layer_of(outcome)

    def cancel(self) -> None:
        """Stop the run; nothing of it will appear."""
        self.working.cancel()
        self.running = []
        self.run_changed.emit(None)
