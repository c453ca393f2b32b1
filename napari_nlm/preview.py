"""The layers that show the denoised slice: where it lies, how it is compared, and what was removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.components import ViewerModel
from napari.layers import Image

from napari_nlm.geometry import View, appearance, translate_of
from napari_nlm.source import Box, plain

DENOISED, SPLIT, SIDE_BY_SIDE, REMOVED = MODES = ("denoised", "split", "side by side", "removed noise")

MARK = "nlmeans preview"
"""Key in the metadata of layers that come and go with the preview."""

REACH = 4
"""Standard deviations to either side of zero that the removed noise is shown with."""


def is_preview(layer: Any) -> bool:
    return MARK in layer.metadata


@dataclass(frozen=True, eq=False)
class Picture:
    """A slice before and after, and where it lies."""

    source: Image
    view: View
    before: npt.NDArray[Any]
    after: npt.NDArray[Any]
    sigma: float
    deviation: float
    """Of what was removed, in image units."""
    draft: bool = False


class PreviewLayers:
    """At most two layers, the denoised slice and its removed noise, on top of all others."""

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer = viewer
        self.layers: dict[str, Image] = {}
        self.before_grid: tuple[bool, tuple[int, int], tuple[float, ...], float] | None = None
        """Of napari's grid and camera, as long as they are ours."""

    def show(self, picture: Picture, mode: str, split: float, covered: bool) -> None:
        """Show a picture. `covered`: a result layer shows the same slice already."""
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
            reach = REACH * (picture.sigma or picture.deviation) or 1.0
            if picture.source.rgb:  # colours have no negative values: grey is zero
                removed = np.clip(0.5 + removed / (2 * reach), 0, 1)
                if removed.shape[-1] == 4:
                    removed[..., 3] = 1
                look: dict[str, Any] = {"contrast_limits": (0, 1)}
            else:
                look = {"contrast_limits": (-reach, reach), "colormap": "gray", "gamma": 1.0}
            self.put("removed noise", picture, picture.view.box, removed, look)
        self.remove([kind for kind in self.layers if kind not in wanted])
        self.arrange(mode)

    def put(self, kind: str, picture: Picture, box: Box, data: npt.NDArray[Any], look: dict[str, Any]) -> None:
        """Change a layer in place where it can be, else replace it, which takes napari a third of a second."""
        translate = translate_of(picture.source, picture.view, box)
        if 0 in data.shape:
            self.remove([kind])
            return
        old = self.layers.get(kind)
        if old is not None and fits(old, picture.source, data):
            if old.data.shape != data.shape:  # by way of one voxel, so that it never reaches beyond its source
                old.data = old.data[(slice(1),) * old.ndim]
            old.translate = translate
            old.data = data
            if look:
                old.contrast_limits = look["contrast_limits"]
            return
        self.remove([kind])
        looks = appearance(picture.source) | {"translate": translate} | look
        layer = Image(data, name=f"{picture.source.name} · {kind}", metadata={MARK: id(picture.source)}, **looks)
        selection = set(self.viewer.layers.selection)
        self.viewer.add_layer(layer)
        if selection:
            self.viewer.layers.selection = {plain(chosen) for chosen in selection}
        self.layers[kind] = layer
        if kind == "preview":
            self.viewer.layers.link_layers([picture.source, layer], ("contrast_limits", "colormap", "gamma"))

    def raise_to_top(self) -> None:
        """Layers that were added later would hide these."""
        top = len(self.viewer.layers)
        for place, layer in enumerate(self.layers.values(), top - len(self.layers)):
            index = self.viewer.layers.index(layer)
            if index < place:
                self.viewer.layers.move(index, top)

    def arrange(self, mode: str) -> None:
        """Side by side takes napari's grid, in one row; afterwards grid and camera are as they were."""
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
        """A layer was removed by someone else; says which it was."""
        kind = next((kind for kind, own in self.layers.items() if own is layer), None)
        if kind is not None:
            del self.layers[kind]
        return kind


def fits(layer: Image, source: Image, data: npt.NDArray[Any]) -> bool:
    """Whether a layer of this source can take other numbers."""
    same_place = all(
        np.array_equal(np.asarray(getattr(layer, name)), np.asarray(getattr(source, name)))
        for name in ("scale", "rotate", "shear", "affine")
    )
    return (
        layer.metadata[MARK] == id(source)
        and same_place
        and layer.data.ndim == data.ndim
        and layer.data.dtype == data.dtype
    )


def right_part(picture: Picture, split: float) -> tuple[Box, npt.NDArray[Any]]:
    """What lies right of the line that divides original and denoised."""
    axis = picture.view.displayed[1]
    side = picture.view.box[axis]
    cut = round(split * (side.stop - side.start))
    box = list(picture.view.box)
    box[axis] = slice(side.start + cut, side.stop)
    return tuple(box), picture.after[(slice(None),) * axis + (slice(cut, None),)]
