"""What the preview shows of a picture: which layers a mode needs, and what each of them holds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from napari.layers import Image

from napari_nlm.geometry import View, runs_backwards
from napari_nlm.layer_source import LayerBox
from napari_nlm.volume_view import LayerArray
from nlmeans.core.arrays import standard_deviation
from nlmeans.engine.survey import Judgement

DENOISED, SPLIT, SIDE_BY_SIDE, REMOVED = COMPARE_MODES = ("denoised", "split", "side by side", "removed noise")

ORIGINAL, EXACT_REGION = "original", "exact region"

KINDS = (ORIGINAL, DENOISED, REMOVED, EXACT_REGION)
"""The layers of the preview, by the end of their names, from below to the top."""

PANELS = (ORIGINAL, DENOISED, REMOVED)
"""What lies side by side, from left to right."""

SHOWN_DEVIATIONS = 4
"""The removed noise is shown from minus to plus this many standard deviations."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A slice before and after denoising, and where it lies."""

    source: Image
    view: View
    before: LayerArray
    after: LayerArray
    sigma: float
    """In image units; 0 if the noise is not one number."""
    judgement: Judgement | None = None
    """What was removed, and what it says; None if there is no noise."""
    draft: bool = False
    """Whether it was computed by a faster method than the one chosen."""
    exact: View | None = None
    """The part that is exact, if the rest is a draft."""
    run_seconds: float = 0.0
    """About how long the whole volume takes; 0 if it is done already."""

    def on_top_of(self, draft: Picture) -> Picture:
        """A draft of a larger part, in which this picture replaces what it shows."""
        if draft.view.box == self.view.box:
            return self
        after = draft.after.copy()
        place = tuple(
            slice(side.start - whole.start, side.stop - whole.start)
            for side, whole in zip(self.view.box, draft.view.box, strict=True)
        )
        after[place] = self.after
        return replace(self, view=draft.view, before=draft.before, after=after, exact=self.view)


@dataclass(frozen=True, eq=False)
class Content:
    """What a layer of the preview shows."""

    data: LayerArray
    box: LayerBox | None
    """The part of the source that it covers; None if the data are coordinates of the source."""
    look: dict[str, Any] = field(default_factory=dict)
    """How it differs from its source."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture, and how to compare it."""

    picture: Picture
    mode: str
    split: float
    """Where the dividing line lies, from 0 to 1 of the slice."""
    covered: bool
    """Whether a result layer already shows the same slice."""

    @property
    def wanted(self) -> set[str]:
        """The kinds of layers that the mode needs."""
        kinds = {SPLIT: {ORIGINAL, DENOISED}, SIDE_BY_SIDE: set(PANELS)}.get(self.mode, {self.mode})
        if self.mode == DENOISED and self.covered:
            kinds = set()
        outlined = self.picture.exact is not None and self.mode != SIDE_BY_SIDE
        return kinds | {EXACT_REGION} if outlined else kinds

    def content(self, kind: str) -> Content | None:
        """What the layer of a kind shows; None if there is nothing."""
        picture, box = self.picture, self.picture.view.box
        if kind == EXACT_REGION:
            return None if picture.exact is None else outline(picture.exact)
        if kind == REMOVED:
            return removed_noise(picture)
        data = picture.before if kind == ORIGINAL else picture.after
        if (kind, self.mode) == (DENOISED, SPLIT):
            box, data = denoised_part(picture, self.split)
        return None if 0 in data.shape else Content(data, box)


def denoised_part(picture: Picture, split: float) -> tuple[LayerBox, LayerArray]:
    """The part of the denoised slice that lies right of the dividing line on the canvas."""
    axis = picture.view.displayed[1]
    side, box = picture.view.box[axis], list(picture.view.box)
    if runs_backwards(picture.source, axis):
        cut = round((1 - split) * (side.stop - side.start))
        box[axis], part = slice(side.start, side.start + cut), slice(0, cut)
    else:
        cut = round(split * (side.stop - side.start))
        box[axis], part = slice(side.start + cut, side.stop), slice(cut, None)
    return tuple(box), picture.after[(slice(None),) * axis + (part,)]


def removed_noise(picture: Picture) -> Content:
    """Original minus denoised, from minus to plus `SHOWN_DEVIATIONS`."""
    removed = picture.before.astype(np.float32) - picture.after.astype(np.float32)
    reach = SHOWN_DEVIATIONS * (picture.sigma or standard_deviation(removed[np.isfinite(removed)])) or 1.0
    if picture.source.rgb:  # RGB values cannot be negative, so grey stands for zero
        removed = np.clip(0.5 + removed / (2 * reach), 0, 1)
        if removed.shape[-1] == 4:
            removed[..., 3] = 1
        return Content(removed, picture.view.box, {"contrast_limits": (0, 1)})
    look = {"contrast_limits": (-reach, reach), "colormap": "gray", "gamma": 1.0}
    return Content(removed, picture.view.box, look)


def outline(exact: View) -> Content:
    """Four lines around the part of a slice that is exact, each as its start and its direction."""
    corners = np.array([[side.start for side in exact.box]] * 4, dtype=float)
    rows, columns = exact.displayed
    top, left = exact.box[rows], exact.box[columns]
    corners[:, rows] = np.array([top.start, top.start, top.stop, top.stop]) - 0.5
    corners[:, columns] = np.array([left.start, left.stop, left.stop, left.start]) - 0.5
    width = max(top.stop - top.start, left.stop - left.start) / 200
    return Content(np.stack([corners, np.roll(corners, -1, 0) - corners], 1), None, {"edge_width": width})
