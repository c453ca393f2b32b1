"""The layers of the preview: the denoised slice, and the noise that was removed from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image

from napari_nlm.geometry import View, appearance, translate_of
from napari_nlm.layer_source import LayerBox, unwrapped
from napari_nlm.volume_view import LayerArray

DENOISED, SPLIT, SIDE_BY_SIDE, REMOVED = COMPARE_MODES = ("denoised", "split", "side by side", "removed noise")

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
    deviation: float
    """Standard deviation of what was removed, in image units."""
    draft: bool = False
    """Whether it was computed by a faster method than the one chosen."""


class PreviewLayers:
    """At most two layers on top of all others: the denoised slice and the removed noise."""

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer = viewer
        self.layers: dict[str, Image] = {}
        self.before_grid: tuple[bool, tuple[int, int], tuple[float, ...], float] | None = None
        """napari's grid and camera as they were before the side-by-side mode."""

    def show(self, picture: Picture, mode: str, split: float, covered: bool) -> None:
        """Show a picture. `covered` means that a result layer already shows the same slice."""
        wanted = set()
        if mode == SPLIT or (mode in (DENOISED, SIDE_BY_SIDE) and not covered):
            wanted.add("preview")
            box, after = picture.view.box, picture.after
            if mode == SPLIT:
                box, after = right_part(picture, split)
            self.put("preview", picture, box, after, {})
        if mode in (SIDE_BY_SIDE, REMOVED):
            wanted.add("removed noise")
            removed = picture.before.astype(np.float32) - picture.after.astype(np.float32)
            reach = SHOWN_DEVIATIONS * (picture.sigma or picture.deviation) or 1.0
            if picture.source.rgb:  # RGB values cannot be negative, so grey stands for zero
                removed = np.clip(0.5 + removed / (2 * reach), 0, 1)
                if removed.shape[-1] == 4:
                    removed[..., 3] = 1
                look: dict[str, Any] = {"contrast_limits": (0, 1)}
            else:
                look = {"contrast_limits": (-reach, reach), "colormap": "gray", "gamma": 1.0}
            self.put("removed noise", picture, picture.view.box, removed, look)
        self.remove([kind for kind in self.layers if kind not in wanted])
        self.arrange(mode)

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
        looks = appearance(picture.source) | {"translate": translate} | look
        layer = Image(
            data, name=f"{picture.source.name} · {kind}", metadata={PREVIEW_MARK: id(picture.source)}, **looks
        )
        selection = set(self.viewer.layers.selection)
        self.viewer.add_layer(layer)
        if selection:
            self.viewer.layers.selection = {unwrapped(chosen) for chosen in selection}
        self.layers[kind] = layer
        if kind == "preview":
            self.viewer.layers.link_layers([picture.source, layer], ("contrast_limits", "colormap", "gamma"))

    def raise_to_top(self) -> None:
        """Move the preview above layers that were added later and would hide it."""
        top = len(self.viewer.layers)
        for place, layer in enumerate(self.layers.values(), top - len(self.layers)):
            index = self.viewer.layers.index(layer)
            if index < place:
                self.viewer.layers.move(index, top)

    def arrange(self, mode: str) -> None:
        """Use napari's grid in the side-by-side mode, and restore grid and camera afterwards."""
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
        self.remove(list(self.layers))
        self.arrange(DENOISED)

    def forget(self, layer: Any) -> str | None:
        """Forget a layer that somebody else removed. Returns its kind, or None if it is not ours."""
        kind = next((kind for kind, own in self.layers.items() if own is layer), None)
        if kind is not None:
            del self.layers[kind]
        return kind


def can_take(layer: Image, source: Image, data: LayerArray) -> bool:
    """Whether a preview layer can take these numbers without being replaced."""
    same_place = all(
        np.array_equal(np.asarray(getattr(layer, name)), np.asarray(getattr(source, name)))
        for name in ("scale", "rotate", "shear", "affine")
    )
    return (
        layer.metadata[PREVIEW_MARK] == id(source)
        and same_place
        and layer.data.ndim == data.ndim
        and layer.data.dtype == data.dtype
    )


def right_part(picture: Picture, split: float) -> tuple[LayerBox, LayerArray]:
    """The part of the denoised slice right of the dividing line."""
    axis = picture.view.displayed[1]
    side = picture.view.box[axis]
    cut = round(split * (side.stop - side.start))
    box = list(picture.view.box)
    box[axis] = slice(side.start + cut, side.stop)
    return tuple(box), picture.after[(slice(None),) * axis + (slice(cut, None),)]
