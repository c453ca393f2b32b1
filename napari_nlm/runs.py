"""Runs of whole volumes in the background: start, progress, cancel, and the result layers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari.components import ViewerModel
from napari.layers import Image
from psygnal import Signal

from napari_nlm.denoising import Denoising
from napari_nlm.folder_runs import FolderResult, denoise_folder
from napari_nlm.jobs import BackgroundJob, Lane
from napari_nlm.layer_source import VolumeIndex, unwrapped
from napari_nlm.next_run import NextRun
from napari_nlm.results import LayerResult, ResultLayers, denoise_layer, is_result
from nlmeans.core.progress import part

LEAST_FRACTION, LEAST_SECONDS = 0.02, 0.5
"""What must be done before the time left is estimated."""


@dataclass(frozen=True)
class Running:
    """Progress of a run."""

    fraction: float
    seconds_left: float | None
    """None until there is enough to estimate it from."""


class Pace:
    """How fast a run goes, from its first report on: what comes before, such as loading kernels, tells nothing."""

    def __init__(self) -> None:
        self.first: tuple[float, float] | None = None

    def seconds_left(self, fraction: float, now: float) -> float | None:
        """Estimate the time left, from the fraction done; None until there is enough to estimate it from.

        >>> pace = Pace()
        >>> [pace.seconds_left(fraction, now) for fraction, now in ((0.1, 20.0), (0.2, 21.0), (0.6, 25.0))]
        [None, 8.0, 4.0]
        """
        if self.first is None:
            self.first = fraction, now
        done, elapsed = fraction - self.first[0], now - self.first[1]
        if done <= LEAST_FRACTION or elapsed <= LEAST_SECONDS:
            return None
        return round(elapsed / done * (1 - fraction), 3)


EXPECTED = (ValueError, TypeError, OSError, MemoryError)
"""Errors of one layer of several, after which the others are denoised all the same."""


def of_layer(error: Exception, layer: Image) -> Exception:
    """The same error with the name of the layer."""
    kind = next((kind for kind in EXPECTED if isinstance(error, kind)), None)
    return error if kind is None else kind(f"{layer.name}: {error}")


class Runs:
    """At most one run at a time, of one image or of several layers one after the other."""

    progressed = Signal(object)
    """`Running`, or None when nothing runs any more."""
    finished = Signal(object)
    """The result layer."""
    failed = Signal(object)
    """An exception."""
    folder_done = Signal(object)
    """What became of the images in a folder, a `FolderResult`."""

    def __init__(self, viewer: ViewerModel, next_run: NextRun, results: ResultLayers, lane: Lane) -> None:
        self.viewer, self.next_run, self.results, self.lane = viewer, next_run, results, lane
        self.running: list[Denoising] = []
        """Layers that are not finished yet."""
        self.folder: Path | None = None
        """The folder whose images are being denoised."""
        self.adding = False
        """Whether a result layer is being added right now."""

    def start(self, all_volumes: bool = False, layers: Sequence[Image] = (), store: Path | None = None) -> None:
        """Denoise the chosen image, or else the given layers, each with its own sigma. What fails is told by name.

        Args:
            all_volumes: all volumes of the chosen image, not only the one that is shown.
            layers: denoise these instead of the chosen image.
            store: where to write the result of the chosen image as OME-Zarr; None keeps it in memory.
        """
        orders = list[tuple[Denoising, VolumeIndex | None]]()
        for layer in layers or (None,):
            try:
                orders += self.orders(all_volumes, layer)
            except Exception as error:  # the widget shows every error
                self.failed.emit(error if layer is None else of_layer(error, layer))
        if not orders:
            return
        pace = Pace()
        self.running = [denoising for denoising, _ in orders]
        maps = self.next_run.maps

        def work(job: BackgroundJob) -> None:
            for number, (denoising, volume) in enumerate(orders):
                report = part(job.report, number / len(orders), (number + 1) / len(orders))
                try:
                    job.tell(self.add, denoise_layer(denoising, volume, maps, report, store))
                except EXPECTED as error:
                    if not layers:
                        raise
                    job.tell(self.failed.emit, of_layer(error, denoising.source.layer))

        def progress(fraction: float) -> None:
            self.progressed.emit(Running(fraction, pace.seconds_left(fraction, time.monotonic())))

        def done(_: None) -> None:
            self.running = []
            self.progressed.emit(None)

        def failed(error: Exception) -> None:
            done(None)
            self.failed.emit(error)

        self.lane.submit(work, done, failed, progress)
        self.progressed.emit(Running(0.0, None))

    def start_folder(self, source: Path, out: Path) -> None:
        """Denoise the images in a folder into another one; see `denoise_folder`."""
        parameters, pace = self.next_run.parameters, Pace()
        self.folder = source

        def progress(fraction: float) -> None:
            self.progressed.emit(Running(fraction, pace.seconds_left(fraction, time.monotonic())))

        def end() -> None:
            self.folder = None
            self.progressed.emit(None)

        def done(result: FolderResult) -> None:
            end()
            self.folder_done.emit(result)

        def failed(error: Exception) -> None:
            end()
            self.failed.emit(error)

        self.lane.submit(lambda job: denoise_folder(source, out, parameters, job.report), done, failed, progress)
        self.progressed.emit(Running(0.0, None))

    @property
    def busy(self) -> bool:
        """Whether something is being denoised."""
        return bool(self.running) or self.folder is not None

    @property
    def title(self) -> str:
        """What is being denoised."""
        if self.folder is not None:
            return f"the images in {self.folder.name}"
        return ", ".join(denoising.source.layer.name for denoising in self.running)

    def orders(self, all_volumes: bool, layer: Image | None) -> list[tuple[Denoising, VolumeIndex | None]]:
        """What to denoise of a layer, or else of the chosen image, and which volume of it; None for all volumes."""
        if layer is not None:
            return [(self.next_run.denoising_of(layer), None)]
        denoising = self.next_run.denoising()
        if denoising is None:
            return []
        whole = all_volumes or not denoising.source.axes.separate
        return [(denoising, None if whole else self.next_run.volume)]

    def add(self, result: LayerResult) -> None:
        self.adding = True
        try:
            layer = self.results.show(result)
        finally:
            self.adding = False
        source = result.denoising.source.layer
        self.running = [denoising for denoising in self.running if denoising.source.layer is not source]
        self.finished.emit(layer)

    def result(self) -> Image | None:
        """The result layer to save: the selected one, else the latest of the chosen image."""
        active = unwrapped(self.viewer.layers.selection.active)
        if active is not None and is_result(active):
            return active
        source = self.next_run.chosen.source
        return None if source is None else self.results.layer_for(source.layer)

    def concern(self, layer: Any) -> bool:
        """Whether a layer is being denoised."""
        return any(denoising.source.layer is layer for denoising in self.running)

    def cancel(self) -> None:
        """Stop the run. Nothing of it will appear."""
        self.lane.cancel()
        self.running, self.folder = [], None
        self.progressed.emit(None)
