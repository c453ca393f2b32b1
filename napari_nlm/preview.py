"""The live preview: the visible slice, denoised in the background after every change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from napari.components import ViewerModel
from psygnal import Signal

from napari_nlm.captions import JUDGING
from napari_nlm.denoising import Denoising
from napari_nlm.geometry import View, visible_part
from napari_nlm.jobs import BackgroundJob, Deliver, Lane
from napari_nlm.layer_source import VolumeIndex
from napari_nlm.next_run import NextRun
from napari_nlm.pictures import DENOISED, Picture
from napari_nlm.preview_layers import PreviewLayers
from napari_nlm.results import LayerResult, ResultLayers
from napari_nlm.surveys import PreviewSlab
from nlmeans.core.progress import Report, part

LARGEST_PREVIEW = 2**20
"""Pixels of a slice that are previewed; of a larger slice only the middle of the view."""

LARGEST_SLAB = 10 * 2**20
"""Voxels around the slice that are computed for it. More would take more than some seconds, and than a gigabyte."""

LARGEST_SLOW_PREVIEW = 128**2
"""The same for methods that take seconds for one slice of a volume. The rest of the slice is a draft."""

LARGEST_FLAT_PREVIEW = 2**24
"""Pixels of an image, which needs no slab around it, that are previewed at all; `LARGEST_PREVIEW` of them by a slow
method."""

LOOKING = "Finding the noise …"

DRAFT_SHARE = 0.2
"""Share of the progress that a draft takes."""

Gather = Callable[[Callable[[], None]], Callable[[], None]]
"""Takes a function, and returns one that asks for a call of it soon. Several requests may become one call."""


def at_once(function: Callable[[], None]) -> Callable[[], None]:
    """A `Gather` that waits for nothing."""
    return function


class LivePreview:
    """Computes pictures of the visible slice and shows them as layers.

    Args:
        viewer: where to show them.
        next_run: what to compute.
        results: layers of finished runs, which may already show the slice.
        lane: the thread to compute in.
        gather: turns several changes into one refresh.
        next_turn: calls a function in the next turn of the event loop.
    """

    shown = Signal(object)
    """The `Picture` that is shown now."""
    split_moved = Signal(float)
    """Where the dividing line is now, from 0 to 1 of the slice."""
    surveyed = Signal()
    """The volume that is shown was surveyed."""
    status = Signal(str)
    """Why there is no preview, or how far it is."""
    failed = Signal(object)
    """An exception."""

    def __init__(
        self,
        viewer: ViewerModel,
        next_run: NextRun,
        results: ResultLayers,
        lane: Lane,
        gather: Gather,
        next_turn: Deliver,
    ) -> None:
        self.viewer, self.next_run, self.results, self.lane = viewer, next_run, results, lane
        self.layers = PreviewLayers(viewer, lambda step: next_turn(lambda: self.careful(step)))
        self.live, self.mode, self.split = True, DENOISED, 0.5
        self.picture: Picture | None = None
        self.hidden: list[Any] = []
        self.closed = False
        self.ask = gather(self.refresh)

    def refresh_soon(self) -> None:
        """Ask for a refresh, together with other changes of the same moment."""
        self.ask()

    def set_live(self, live: bool) -> None:
        self.live = live
        self.refresh_soon()

    def set_mode(self, mode: str, split: float | None = None) -> None:
        """How to compare. `split` is where the dividing line lies, from 0 to 1 of the slice."""
        self.mode = mode
        self.split = self.split if split is None else split
        if split is not None:
            self.split_moved.emit(split)
        if self.picture is not None and self.live:
            self.show(self.picture)
        else:
            self.refresh_soon()

    def on_view(self) -> None:
        """The viewer shows something else, or the image lies elsewhere."""
        self.picture = None
        self.refresh_soon()

    def reset(self) -> None:
        """Remove the preview of an image that is no longer chosen, and what was said about it."""
        self.lane.cancel()
        self.status.emit("")
        self.layers.clear()
        self.picture = None

    def close(self, window_gone: bool) -> None:
        """Stop all work and, if there is still a window, remove the preview."""
        self.closed = True
        self.lane.close()
        self.layers.stop()
        if not window_gone:
            self.hold(False)
            self.layers.clear()

    def refresh(self) -> None:
        """Survey the volume and compute the visible slice again, in the background."""
        if self.closed:
            return
        self.lane.cancel()
        try:
            denoising = self.next_run.denoising()
            if denoising is None:
                self.show_nothing("" if self.next_run.chosen.source is not None else "Open an image to begin")
            elif not denoising.judged:
                self.judge(denoising)
            elif self.live:
                self.compute(denoising)
            else:
                self.show_nothing("")
                self.only_survey(denoising)
        except Exception as error:  # the widget shows every error
            self.on_failed(error)

    def show_nothing(self, why: str) -> None:
        self.layers.clear()
        self.status.emit(why)

    def judge(self, denoising: Denoising) -> None:
        """Look whether the volumes of a series are denoised together, and refresh again."""

        def done(_: Denoising) -> None:
            self.surveyed.emit()
            self.refresh()

        self.status.emit(JUDGING.capitalize())
        self.lane.submit(lambda job: denoising.resolved(), done, self.on_failed)

    def only_survey(self, denoising: Denoising) -> None:
        """Estimate sigma for the widget to show."""
        volume = self.next_run.volume
        self.lane.submit(
            lambda job: self.survey(denoising, volume, job), lambda _: self.surveyed.emit(), self.on_failed
        )

    def survey(self, denoising: Denoising, volume: VolumeIndex, job: BackgroundJob) -> None:
        """Find the noise, in a background job: of a large volume first in a few voxels, which takes no time."""
        known = denoising.surveys.peek(volume, denoising.parameters)
        if known is not None and not known.provisional:
            return
        if denoising.surveys.glance(volume, denoising.parameters):
            job.tell(lambda _: self.surveyed.emit(), None)
            job.report(0.0)  # the view may have changed meanwhile
        denoising.survey(volume)

    def compute(self, denoising: Denoising) -> None:
        """Submit the work for the visible slice.

        A slow method shows a draft first, and then the middle of it exactly; the method series shows the middle alone.
        """
        layer, volume, slow = denoising.source.layer, self.next_run.volume, denoising.is_slow
        flat = len(denoising.source.axes.spatial) == 2
        view = visible_part(self.viewer, layer, LARGEST_FLAT_PREVIEW if flat else largest_preview(denoising))
        exactly = LARGEST_PREVIEW if flat else LARGEST_SLOW_PREVIEW
        small = visible_part(self.viewer, layer, exactly) if slow else view
        if view is None:
            in_3d = self.viewer.dims.ndisplay != 2
            self.show_nothing("The preview needs 2D: switch to 2D" if in_3d else "The image is not in this view")
        ready = self.results.latest(denoising)
        if view is not None and denoising.surveys.peek(volume, denoising.parameters) is None:
            self.status.emit(LOOKING)

        def work(job: BackgroundJob) -> Picture | None:
            self.survey(denoising, volume, job)
            job.tell(lambda _: self.surveyed.emit(), None)
            if view is None or small is None:
                return None
            if slow and (ready is None or ready.cut(view.box) is None):
                if denoising.joint:
                    return picture_of(denoising, volume, small, ready, job.report)
                first, second = part(job.report, 0.0, DRAFT_SHARE), part(job.report, DRAFT_SHARE, 1.0)
                draft = picture_of(denoising.draft, volume, view, ready, first, draft=True)
                job.tell(self.show, draft)
                return picture_of(denoising, volume, small, ready, second).on_top_of(draft)
            return picture_of(denoising, volume, view, ready, job.report)

        def done(picture: Picture | None) -> None:
            if picture is not None:
                self.show(picture)

        self.lane.submit(work, done, self.on_failed, lambda f: self.status.emit(f"Computing the preview … {f:.0%}"))

    def show(self, picture: Picture) -> None:
        """Show a picture in the current mode, unless another image was chosen meanwhile."""
        self.picture = picture
        if not self.next_run.chosen.is_chosen(picture.source):
            return
        denoising = self.next_run.denoising()
        result = None if denoising is None else self.results.latest(denoising)
        covered = result is not None and not picture.draft and result.cut(picture.view.box) is not None
        self.layers.show(picture, self.mode, self.split, covered)
        self.shown.emit(picture)

    def careful(self, step: Callable[[], None]) -> None:
        """Do something that the event loop calls, and must not see fail."""
        try:
            step()
        except Exception as error:  # the widget shows every error
            self.on_failed(error)

    def on_failed(self, error: Exception) -> None:
        self.layers.clear()
        self.failed.emit(error)

    def hold(self, original: bool) -> None:
        """Hide our layers while `original` is held, and show them again afterwards."""
        if original and not self.hidden:
            ours = [*self.layers.layers.values(), *self.results.layers.values()]
            self.hidden = [layer for layer in ours if layer in self.viewer.layers and layer.visible]
            for layer in self.hidden:
                layer.visible = False
        elif not original:
            for layer in self.hidden:
                if layer in self.viewer.layers:
                    layer.visible = True
            self.hidden = []


def largest_preview(denoising: Denoising) -> int:
    """Pixels of a slice of a volume that are previewed, by the method itself or, if that is slow, by that of drafts."""
    method = denoising.draft if denoising.is_slow else denoising
    return min(LARGEST_PREVIEW, LARGEST_SLAB // (2 * max(method.choices.halo_for(False)) + 1))


def picture_of(
    denoising: Denoising,
    volume: VolumeIndex,
    view: View,
    ready: LayerResult | None,
    report: Report,
    draft: bool = False,
) -> Picture:
    """A slice before and after, taken from a finished result if it lies in there."""
    cut = None if ready is None else ready.cut(view.box)
    if ready is None or cut is None:
        slabs: list[PreviewSlab] = []
        before, after = denoising.before_and_after(view.box, report, slabs)
        judgement = next((found for slab in slabs if (found := slab.plan.judgement()) is not None), None)
        seconds = slabs[0].seconds_for_all
    else:
        seconds = 0.0
        before, after = np.asarray(denoising.source.data[view.box]), np.asarray(cut)
        judgement = ready.judgements.get(volume)
    facts = denoising.survey(volume).facts
    one_sigma = not facts.noise.follows_intensity and any(facts.sigma)
    sigma = facts.unit if one_sigma else 0.0
    return Picture(denoising.source.layer, view, before, after, sigma, judgement, draft, run_seconds=seconds)
