"""The image layer that is chosen: the roles of its axes, its mask, and its surveys."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from napari.components import ViewerModel
from napari.layers import Image, Labels
from psygnal import Signal

from napari_nlm.layer_mask import LayerMask
from napari_nlm.layer_source import AxisRoles, LayerSource, is_boolean, unwrapped
from napari_nlm.preview_layers import is_preview
from napari_nlm.results import is_map
from napari_nlm.surveys import Surveys

Connections = list[tuple[Any, Callable[..., None]]]

PLACE_EVENTS = ("scale", "translate", "rotate", "shear", "affine")


class ChosenImage:
    """The layer to denoise. Watches the layer, and emits signals when something about it changes.

    Args:
        viewer: the viewer whose layers can be chosen.
        failed: called with the error if the mask does not fit the layer any more.
    """

    replaced = Signal(bool)
    """The layer or the roles of its axes were replaced. True if it is another layer."""
    renewed = Signal()
    """The surveys were dropped."""
    changed = Signal()
    """All is up to date after a change of the layer, its axes or its place."""
    data_changed = Signal()
    """The layer has other data, and must be chosen again."""
    moved = Signal()
    """The layer has another place in the world."""

    def __init__(self, viewer: ViewerModel, failed: Callable[[Exception], None]) -> None:
        self.viewer, self.failed = viewer, failed
        self.source: LayerSource | None = None
        self.mask_layer: Any = None
        self.surveys: Surveys | None = None
        self.watched: Connections = []

    @property
    def images(self) -> list[Image]:
        """Layers that can be denoised."""
        layers = [unwrapped(layer) for layer in self.viewer.layers]
        images = [one for one in layers if isinstance(one, Image) and not is_preview(one) and not is_map(one)]
        return [one for one in images if not is_boolean(one)]

    @property
    def masks(self) -> list[Any]:
        """Layers whose shape suits a mask of the image."""
        found = []
        for layer in map(unwrapped, self.viewer.layers):
            if isinstance(layer, Labels | Image) and not is_preview(layer) and self.source is not None:
                with contextlib.suppress(ValueError):
                    if layer is not self.source.layer and not getattr(layer, "rgb", False):
                        LayerMask.of(layer, self.source)
                        found.append(layer)
        return found

    def choose(self, layer: Image | None, axes: AxisRoles | None = None) -> None:
        """Choose another layer, or other roles of its axes. None: no layer."""
        layer = unwrapped(layer)
        another = not self.is_chosen(layer)
        self.watch(layer)
        self.source = None if layer is None else LayerSource.of(layer, axes)
        if another:
            self.mask_layer = None
        self.replaced.emit(another)
        self.renew()
        self.changed.emit()

    def is_chosen(self, layer: Any) -> bool:
        return self.source is not None and layer is self.source.layer

    def choose_first(self) -> None:
        """Choose the selected image, else the topmost."""
        active, images = unwrapped(self.viewer.layers.selection.active), self.images
        self.choose(active if active in images else images[-1] if images else None)

    def choose_again(self) -> None:
        """Read the layer anew after its data changed, with the same roles of its axes if they still fit."""
        source = self.source
        if source is not None:
            same_axes = source.axes if source.layer.ndim == len(source.shape) - source.layer.rgb else None
            self.choose(source.layer, same_axes)

    def set_axes(self, axes: AxisRoles) -> None:
        if self.source is not None:
            self.choose(self.source.layer, axes)

    def set_mask(self, layer: Any) -> None:
        self.mask_layer = unwrapped(layer)
        self.renew()

    @property
    def mask(self) -> LayerMask | None:
        """Raises ``ValueError`` if the mask does not fit the image."""
        if self.mask_layer is None or self.source is None:
            return None
        return LayerMask.of(self.mask_layer, self.source)

    def renew(self) -> None:
        """Drop the surveys of the image."""
        self.surveys = None
        if self.source is not None:
            try:
                self.surveys = Surveys(self.source, self.mask)
            except ValueError as error:
                self.failed(error)
        self.renewed.emit()

    def forget(self, layer: Any) -> None:
        """A layer was removed from the viewer."""
        if layer is self.mask_layer:
            self.set_mask(None)
        if self.is_chosen(layer):
            self.choose(None)

    def watch(self, layer: Image | None) -> None:
        """Follow the data and the place of a layer instead of those of the layer before. None: follow no layer."""
        disconnect(self.watched)
        if layer is not None:
            self.watched.append((layer.events.data, self.on_data))
            self.watched += [(getattr(layer.events, name), self.on_place) for name in PLACE_EVENTS]
        for event, function in self.watched:
            event.connect(function)

    def on_data(self, event: Any) -> None:
        self.data_changed.emit()

    def on_place(self, event: Any) -> None:
        self.moved.emit()
        self.changed.emit()


def disconnect(connections: Connections) -> None:
    """Disconnect all and empty the list. What is already gone is skipped."""
    while connections:
        event, function = connections.pop()
        with contextlib.suppress(ValueError, RuntimeError, TypeError):
            event.disconnect(function)
