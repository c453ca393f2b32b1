"""The layers of the preview on napari's canvas."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.components import ViewerModel
from napari.layers import Image, Vectors

from napari_nlm.canvas import drawn_letters, hold_canvas, paint_in_own_turn
from napari_nlm.collector import new_objects_alone, no_collection
from napari_nlm.geometry import appearance, translate_of
from napari_nlm.jobs import Deliver, call_now
from napari_nlm.layer_source import unwrapped
from napari_nlm.pictures import (
    DENOISED,
    EXACT_REGION,
    KINDS,
    ORIGINAL,
    PANELS,
    SIDE_BY_SIDE,
    SPLIT,
    Content,
    Picture,
    Scene,
)

NAME_SIZE = 8
"""Size of the names on the canvas, in points."""

OUTLINE_COLOUR = "#e0a030"

SHARED_PLACE = ("scale", "rotate", "shear", "affine", "units", "axis_labels")
"""What the outline takes of the appearance of its source."""

PREVIEW_MARK = "nlmeans preview"
"""Key in the metadata of preview layers. Its value identifies the source layer."""


END = object()
"""What is left to do after the last step."""


def is_preview(layer: Any) -> bool:
    return PREVIEW_MARK in layer.metadata


class PreviewLayers:
    """The layers that a mode needs, on top of all others.

    What is compared is always the slice as the picture has it, never a layer that happens to lie below. A layer that a
    mode does not need is hidden and stays in the list: napari takes far longer to remove one and to add it again.

    Args:
        viewer: where the layers are.
        next_turn: calls a function in the next turn of the event loop. napari takes up to a tenth of a second to add
            or to remove a layer, or to draw it for the first time, so one turn does only one of these.
    """

    def __init__(self, viewer: ViewerModel, next_turn: Deliver = call_now) -> None:
        self.viewer, self.next_turn = viewer, next_turn
        self.layers: dict[str, Any] = {}
        """By kind."""
        self.needless: set[str] = set()
        """Kinds that are hidden because the mode does not need them."""
        self.leaving: list[Any] = []
        """Layers that are hidden and about to be removed."""
        self.scene: Scene | None = None
        self.steps: Iterator[None] | None = None
        """What is still to do, one step a turn."""
        self.before_grid: tuple[bool, tuple[int, int], tuple[float, ...], float] | None = None
        """napari's grid and camera as they were before the side-by-side mode."""
        self.veiled: list[Any] = []
        """Layers of others that the side-by-side mode hides, because each visible layer takes a place of the grid."""

    # what others ask for

    @property
    def busy(self) -> bool:
        """Whether something is still to do in the next turns."""
        return self.steps is not None

    def show(self, picture: Picture, mode: str, split: float, covered: bool) -> None:
        """Show a picture: at once if its layers are there, else in the next turns.

        Args:
            picture: what to show.
            mode: one of `COMPARE_MODES`.
            split: where the dividing line lies, from 0 to 1 of the slice.
            covered: whether a result layer already shows the same slice.
        """
        self.scene = Scene(picture, mode, split, covered)
        self.begin(self.setting(self.scene))

    def clear(self) -> None:
        """Hide all layers, and remove them in the next turns."""
        self.leave_all()
        for layer in self.leaving:
            layer.visible = False
        self.leave_grid()
        self.unveil()
        self.begin(self.dismissing())

    def clear_now(self) -> None:
        """Remove all layers at once."""
        self.leave_all()
        self.stop()
        present = [layer for layer in self.leaving if layer in self.viewer.layers]
        self.leaving = []
        with new_objects_alone(), self.viewer.layers.batched_update() if present else contextlib.nullcontext():
            self.leave_grid()
            self.unveil()
            hold_canvas(self.viewer)
            for layer in present:
                self.viewer.layers.remove(layer)

    def stop(self) -> None:
        """Do nothing in the next turns."""
        self.steps = None

    def forget(self, layer: Any) -> str | None:
        """Forget a layer that somebody else removed. Returns its kind, or None if it is not ours."""
        kind = next((kind for kind, own in self.layers.items() if own is layer), None)
        if kind is not None:
            del self.layers[kind]
            self.needless.discard(kind)
        return kind

    def raise_to_top(self) -> None:
        """Move the preview above layers that were added later and would hide it, in the order of `KINDS`."""
        self.layers = {kind: self.layers[kind] for kind in KINDS if kind in self.layers}
        top = len(self.viewer.layers)
        for place, layer in enumerate(self.layers.values(), top - len(self.layers)):
            index = self.viewer.layers.index(layer)
            if index != place:
                self.viewer.layers.move(index, top)

    # steps

    def begin(self, steps: Iterator[None]) -> None:
        """Take these steps instead of those before: the first one now, unless a turn is being waited for."""
        waiting = self.busy
        self.steps = steps
        if not waiting:
            self.advance()

    def advance(self) -> None:
        """Take one step, and the next one in the next turn."""
        steps = self.steps
        if steps is None:
            return
        paint_in_own_turn(self.viewer, self.next_turn)
        try:
            ended = next(steps, END) is END
        except BaseException:
            self.steps = None
            raise
        if ended and self.steps is steps:
            self.steps = None
        elif self.busy:
            self.next_turn(lambda: self.next_turn(self.advance))  # the canvas is painted in between

    def setting(self, scene: Scene) -> Iterator[None]:
        """The steps that lead to a scene from whatever is shown now."""
        picture, beside = scene.picture, scene.mode == SIDE_BY_SIDE
        shown = scene.wanted | {kind for kind, layer in self.layers.items() if layer.visible}
        contents = {kind: found for kind in shown if (found := scene.content(kind)) is not None}
        wanted = scene.wanted & contents.keys()
        for kind in [kind for kind, layer in self.layers.items() if not fits(layer, picture, contents.get(kind))]:
            self.leaving.append(self.layers.pop(kind))
            self.needless.discard(kind)
        yield from self.dismissing()
        if not beside:
            if self.before_grid is not None:
                self.hide(self.layers.keys() - wanted)
                self.leave_grid()
                yield
            self.unveil()
        for kind in sorted(wanted - self.layers.keys(), key=KINDS.index):
            with no_collection():
                self.add(kind, picture, contents[kind])
            yield
        self.raise_to_top()
        for kind in KINDS:
            if kind in self.layers and kind in contents:
                self.put(kind, picture, contents[kind])
                if kind in wanted & self.needless:
                    self.needless.remove(kind)
                    self.layers[kind].visible = True
                    yield
            if beside and kind == PANELS[0]:
                self.veil()
                if self.before_grid is None:
                    self.hide(self.layers.keys() - {kind})
                    yield
                    self.enter_grid()
                    yield
        self.hide(self.layers.keys() - wanted)
        for kind in KINDS:
            if kind in self.layers:
                named = scene.mode in (SPLIT, SIDE_BY_SIDE) and kind in wanted - {EXACT_REGION}
                yield from self.written(kind, named, right=(kind, scene.mode) == (DENOISED, SPLIT))

    def dismissing(self) -> Iterator[None]:
        """The steps that remove what is leaving."""
        while self.leaving:
            yield  # hiding it was the step before
            layer = self.leaving.pop()
            if layer in self.viewer.layers:
                hold_canvas(self.viewer)
                with new_objects_alone():  # napari collects garbage now
                    self.viewer.layers.remove(layer)

    def hide(self, kinds: Collection[str]) -> None:
        """Hide what a mode does not need, apart from what the user has shown nevertheless."""
        for kind in set(kinds) - self.needless:
            self.needless.add(kind)
            self.layers[kind].visible = False

    def on_eye(self, event: Any) -> None:
        """The user shows a layer that the mode does not need, and that may be out of date."""
        needless = [self.layers[kind] for kind in self.needless]
        if self.scene is not None and any(layer is event.source and layer.visible for layer in needless):
            self.begin(self.setting(self.scene))

    # one layer

    def add(self, kind: str, picture: Picture, content: Content) -> None:
        """Add a layer, hidden at first, without a change of the selection."""
        source = picture.source
        own = {"visible": False, "opacity": 1.0, "translate": place_in_world(picture, content)}
        looks = appearance(source) | own
        if kind == EXACT_REGION:
            place = {name: looks[name] for name in (*SHARED_PLACE, *own)}
            layer: Any = Vectors(content.data, vector_style="line", edge_color=OUTLINE_COLOUR, **place, **content.look)
        else:
            layer = Image(content.data, **looks | content.look)
        layer.name, layer.metadata = f"{source.name} · {kind}", {PREVIEW_MARK: id(source)}
        selection = set(self.viewer.layers.selection)
        self.viewer.add_layer(layer)
        if selection:
            self.viewer.layers.selection = {unwrapped(chosen) for chosen in selection}
        if kind in (ORIGINAL, DENOISED):
            self.viewer.layers.link_layers([source, layer], ("contrast_limits", "colormap", "gamma"))
        layer.events.visible.connect(self.on_eye)
        self.layers[kind] = layer
        self.needless.add(kind)

    def put(self, kind: str, picture: Picture, content: Content) -> None:
        """Change what a layer shows."""
        layer = self.layers[kind]
        if isinstance(layer, Image) and layer.data.shape != content.data.shape:
            layer.data = layer.data[(slice(1),) * layer.ndim]  # so that it never extends beyond its source
        layer.translate = place_in_world(picture, content)
        layer.data = content.data
        for name in {"contrast_limits", "edge_width"} & content.look.keys():
            setattr(layer, name, content.look[name])

    def written(self, kind: str, named: bool, right: bool) -> Iterator[None]:
        """The steps that write the name of a layer on the canvas, or take it away.

        Args:
            kind: of the layer.
            named: whether its name is to be there.
            right: whether it stands at the right.
        """
        layer = self.layers[kind]
        name = layer.name_overlay
        new = named and not name.visible
        if new:
            yield from drawn_letters(self.viewer, layer.name)
        name.position, name.font_size = "top_right" if right else "top_left", NAME_SIZE
        name.box, name.visible = not new, named
        if new:
            yield
            name.box = True  # in a turn of its own, as it takes napari as long as all the letters
            yield

    # the grid

    def enter_grid(self) -> None:
        """Use napari's grid, with one layer in it. It takes others as they are shown."""
        grid, camera = self.viewer.canvas.grid, self.viewer.scene.camera
        self.before_grid = bool(grid.enabled), tuple(grid.shape), tuple(camera.center), float(camera.zoom)
        grid.shape, grid.enabled = (1, len(PANELS)), True  # napari builds the grid anew whenever its shape changes
        self.viewer.reset_view()

    def leave_grid(self) -> None:
        """Restore napari's grid and its camera."""
        if self.before_grid is not None:
            grid, camera = self.viewer.canvas.grid, self.viewer.scene.camera
            grid.enabled, grid.shape, camera.center, camera.zoom = self.before_grid
            self.before_grid = None

    def veil(self) -> None:
        """Hide the layers of others."""
        for layer in [layer for layer in self.viewer.layers if not is_preview(layer) and layer.visible]:
            self.veiled.append(unwrapped(layer))
            layer.visible = False

    def unveil(self) -> None:
        """Show the layers of others again."""
        for layer in self.veiled:
            layer.visible = True
        self.veiled = []

    def leave_all(self) -> None:
        self.scene = None
        self.leaving += self.layers.values()
        self.layers, self.needless = {}, set()


def is_placed_like(layer: Any, source: Image) -> bool:
    """Whether a preview layer belongs to a source and has its transforms, apart from the translation."""
    return bool(layer.metadata[PREVIEW_MARK] == id(source)) and all(
        np.array_equal(np.asarray(getattr(layer, name)), np.asarray(getattr(source, name)))
        for name in ("scale", "rotate", "shear", "affine")
    )


def fits(layer: Any, picture: Picture, content: Content | None) -> bool:
    """Whether a preview layer can show something else, or nothing, of a picture without being replaced."""
    if not is_placed_like(layer, picture.source):
        return False
    same = content is None or (layer.data.ndim == content.data.ndim and layer.data.dtype == content.data.dtype)
    return bool(same or isinstance(layer, Vectors))


def place_in_world(picture: Picture, content: Content) -> npt.NDArray[np.float64]:
    """The `translate` of a layer of the preview."""
    if content.box is None:
        return np.asarray(picture.source.translate, dtype=float)
    return translate_of(picture.source, picture.view, content.box)
