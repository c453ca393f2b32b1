"""The layers of the preview: the slice as it is, the denoised slice, and the noise that was removed from it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Shapes

from napari_nlm.geometry import View, appearance, runs_backwards, translate_of
from napari_nlm.layer_source import LayerBox, unwrapped
from napari_nlm.volume_view import LayerArray
from nlmeans.core.arrays import standard_deviation
from nlmeans.engine.survey import Judgement

DENOISED, SPLIT, SIDE_BY_SIDE, REMOVED = COMPARE_MODES = ("denoised", "split", "side by side", "removed noise")

ORIGINAL, EXACT_REGION = "original", "exact region"

KINDS = (ORIGINAL, DENOISED, REMOVED, EXACT_REGION)
"""The layers of the preview, by the end of their names, from below to the top."""

NAME_SIZE = 8
"""Size of the names on the canvas, in points."""

OUTLINE_COLOUR = "#e0a030"

PREVIEW_MARK = "nlmeans preview"
"""Key in the metadata of preview layers. Its value identifies the source layer."""

SHOWN_DEVIATIONS = 4
"""The removed noise is shown from minus to plus this many standard deviations."""


def is_preview(layer: Any) -> bool:
    return PREVIEW_MARK in layer.metadata


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


class PreviewLayers:
    """The layers of `KINDS` that a mode needs, on top of all others."""

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer = viewer
        self.layers: dict[str, Any] = {}
        self.before_grid: tuple[bool, tuple[int, int], tuple[float, ...], float] | None = None
        """napari's grid and camera as they were before the side-by-side mode."""
        self.veiled: list[Any] = []
        """Layers of others that the side-by-side mode hides, because each visible layer takes a place of the grid."""

    def show(self, picture: Picture, mode: str, split: float, covered: bool) -> None:
        """Show a picture. `covered` means that a result layer already shows the same slice.

        What is compared is always the slice as the picture has it, never a layer that happens to lie below. napari
        collects garbage whenever a layer is removed, for a third of a second, so removals are one batch.
        """
        wanted = kinds_for(picture, mode, covered)
        gone = [kind for kind in self.layers if kind not in wanted]
        with self.viewer.layers.batched_update() if gone else contextlib.nullcontext():
            if mode != SIDE_BY_SIDE:
                self.arrange(mode)
            self.remove(gone)
            self.put_wanted(picture, mode, split, wanted)
            self.raise_to_top()
            self.name_panels(mode)
            if mode == SIDE_BY_SIDE:
                self.arrange(mode)

    def put_wanted(self, picture: Picture, mode: str, split: float, wanted: set[str]) -> None:
        """Add or change the layers of some kinds."""
        box = picture.view.box
        if ORIGINAL in wanted:
            self.put(ORIGINAL, picture, box, picture.before, {})
        if DENOISED in wanted:
            part, after = denoised_part(picture, split) if mode == SPLIT else (box, picture.after)
            self.put(DENOISED, picture, part, after, {})
        if REMOVED in wanted:
            removed = picture.before.astype(np.float32) - picture.after.astype(np.float32)
            reach = SHOWN_DEVIATIONS * (picture.sigma or standard_deviation(removed[np.isfinite(removed)])) or 1.0
            if picture.source.rgb:  # RGB values cannot be negative, so grey stands for zero
                removed = np.clip(0.5 + removed / (2 * reach), 0, 1)
                if removed.shape[-1] == 4:
                    removed[..., 3] = 1
                look: dict[str, Any] = {"contrast_limits": (0, 1)}
            else:
                look = {"contrast_limits": (-reach, reach), "colormap": "gray", "gamma": 1.0}
            self.put(REMOVED, picture, box, removed, look)
        if EXACT_REGION in wanted and picture.exact is not None:
            self.put_outline(picture, picture.exact)

    def name_panels(self, mode: str) -> None:
        """Write on the canvas what is the original and what is denoised, where both are there."""
        for kind, layer in self.layers.items():
            if kind != EXACT_REGION:
                layer.name_overlay.position = "top_right" if (kind, mode) == (DENOISED, SPLIT) else "top_left"
                layer.name_overlay.font_size = NAME_SIZE
                layer.name_overlay.visible = mode in (SPLIT, SIDE_BY_SIDE)

    def put_outline(self, picture: Picture, exact: View) -> None:
        """Draw a rectangle around the part of a slice that is exact."""
        corners = np.array([[side.start for side in exact.box]] * 4, dtype=float)
        rows, columns = exact.displayed
        top, left = exact.box[rows], exact.box[columns]
        corners[:, rows] = np.array([top.start, top.start, top.stop, top.stop]) - 0.5
        corners[:, columns] = np.array([left.start, left.stop, left.stop, left.start]) - 0.5
        width = max(top.stop - top.start, left.stop - left.start) / 200
        places = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
        looks = appearance(picture.source)
        old = self.layers.get(EXACT_REGION)
        if old is not None and is_placed_like(old, picture.source) and old.ndim == corners.shape[1]:
            old.data = [corners]
            old.edge_width = width
            return
        self.remove([EXACT_REGION])
        self.add(
            EXACT_REGION,
            picture.source,
            Shapes(
                [corners],
                shape_type="rectangle",
                face_color="transparent",
                edge_color=OUTLINE_COLOUR,
                edge_width=width,
                **{name: looks[name] for name in places},
            ),
        )

    def add(self, kind: str, source: Image, layer: Any) -> None:
        """Add a layer without a change of the selection."""
        layer.name, layer.metadata = f"{source.name} · {kind}", {PREVIEW_MARK: id(source)}
        selection = set(self.viewer.layers.selection)
        self.viewer.add_layer(layer)
        if selection:
            self.viewer.layers.selection = {unwrapped(chosen) for chosen in selection}
        self.layers[kind] = layer

    def put(self, kind: str, picture: Picture, box: LayerBox, data: LayerArray, look: dict[str, Any]) -> None:
        """Change a layer in place if possible. To replace it takes napari a third of a second."""
        translate = translate_of(picture.source, picture.view, box)
        if 0 in data.shape:
            self.remove([kind])
            return
        old = self.layers.get(kind)
        if old is not None and can_take(old, picture.source, data):
            if old.data.shape != data.shape:  # through one voxel, so that it never extends beyond its source
                old.data = old.data[(slice(1),) * old.ndim]
            old.translate = translate
            old.data = data
            if look:
                old.contrast_limits = look["contrast_limits"]
            return
        self.remove([kind])
        looks = appearance(picture.source) | {"translate": translate, "opacity": 1.0} | look
        layer = Image(data, metadata={PREVIEW_MARK: id(picture.source)}, **looks)
        self.add(kind, picture.source, layer)
        if kind in (ORIGINAL, DENOISED):
            self.viewer.layers.link_layers([picture.source, layer], ("contrast_limits", "colormap", "gamma"))

    def raise_to_top(self) -> None:
        """Move the preview above layers that were added later and would hide it, in the order of `KINDS`."""
        self.layers = {kind: self.layers[kind] for kind in KINDS if kind in self.layers}
        top = len(self.viewer.layers)
        for place, layer in enumerate(self.layers.values(), top - len(self.layers)):
            index = self.viewer.layers.index(layer)
            if index != place:
                self.viewer.layers.move(index, top)

    def arrange(self, mode: str) -> None:
        """Use napari's grid in the side-by-side mode, and restore grid, camera and other layers afterwards."""
        if mode == SIDE_BY_SIDE:
            others = [one for one in self.viewer.layers if not is_preview(one) and one.visible]
            self.veiled += [unwrapped(layer) for layer in others]
            for layer in others:
                layer.visible = False
        else:
            for layer in self.veiled:
                layer.visible = True
            self.veiled = []
        grid, camera = self.viewer.canvas.grid, self.viewer.scene.camera
        if mode == SIDE_BY_SIDE and self.before_grid is None:
            self.before_grid = bool(grid.enabled), tuple(grid.shape), tuple(camera.center), float(camera.zoom)
            grid.shape, grid.enabled = (1, -1), True
            self.viewer.reset_view()
        elif mode != SIDE_BY_SIDE and self.before_grid is not None:
            grid.enabled, grid.shape, camera.center, camera.zoom = self.before_grid
            self.before_grid = None

    def remove(self, kinds: Sequence[str]) -> None:
        for kind in kinds:
            layer = self.layers.pop(kind, None)
            if layer is not None and layer in self.viewer.layers:
                self.viewer.layers.remove(layer)

    def clear(self) -> None:
        """Remove all layers. napari collects garbage after each removal, so they are removed in one batch."""
        with self.viewer.layers.batched_update() if self.layers else contextlib.nullcontext():
            self.arrange(DENOISED)
            self.remove(list(self.layers))

    def forget(self, layer: Any) -> str | None:
        """Forget a layer that somebody else removed. Returns its kind, or None if it is not ours."""
        kind = next((kind for kind, own in self.layers.items() if own is layer), None)
        if kind is not None:
            del self.layers[kind]
        return kind


def kinds_for(picture: Picture, mode: str, covered: bool) -> set[str]:
    """Kinds of layers that a mode needs. `covered` means that a result layer already shows the same slice."""
    wanted = set()
    if mode in (SPLIT, SIDE_BY_SIDE):
        wanted |= {ORIGINAL, DENOISED}
    if mode in (SIDE_BY_SIDE, REMOVED):
        wanted.add(REMOVED)
    if mode == DENOISED and not covered:
        wanted.add(DENOISED)
    if picture.exact is not None and mode != SIDE_BY_SIDE:
        wanted.add(EXACT_REGION)
    return wanted


def is_placed_like(layer: Any, source: Image) -> bool:
    """Whether a preview layer belongs to a source and has its transforms, apart from the translation."""
    return bool(layer.metadata[PREVIEW_MARK] == id(source)) and all(
        np.array_equal(np.asarray(getattr(layer, name)), np.asarray(getattr(source, name)))
        for name in ("scale", "rotate", "shear", "affine")
    )


def can_take(layer: Image, source: Image, data: LayerArray) -> bool:
    """Whether a preview layer can take these numbers without being replaced."""
    return is_placed_like(layer, source) and layer.data.ndim == data.ndim and layer.data.dtype == data.dtype


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
