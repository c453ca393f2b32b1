"""The line between the original and the denoised slice, dragged on the canvas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from napari_nlm.geometry import matrix_and_offset, runs_backwards
from napari_nlm.layer_source import unwrapped
from napari_nlm.pictures import SPLIT, Picture
from napari_nlm.preview import LivePreview

GRIP = 8
"""Pixels of the canvas beside the line where it can be taken."""


class SplitLine:
    """A callback for napari's mouse: moves the line of a preview while the mouse drags it."""

    def __init__(self, preview: LivePreview) -> None:
        self.preview = preview

    def __call__(self, viewer: Any, event: Any) -> Iterator[None]:
        """Follow a drag that begins near the line. The camera stays where it is meanwhile."""
        preview, camera = self.preview, unwrapped(self.preview.viewer).scene.camera
        picture = preview.picture
        if preview.mode != SPLIT or not preview.live or picture is None or viewer.dims.ndisplay != 2:
            return
        across = abs(place_of(picture, event.position) - preview.split) * width_in_world(picture) * camera.zoom
        if across > GRIP:
            return
        pans, camera.mouse_pan = camera.mouse_pan, False
        try:
            yield
            while event.type == "mouse_move":
                preview.set_mode(SPLIT, float(np.clip(place_of(picture, event.position), 0, 1)))
                yield
        finally:
            camera.mouse_pan = pans


def place_of(picture: Picture, position: tuple[float, ...]) -> float:
    """Where a point of the world lies along the horizontal axis of a picture: 0 at its left end, 1 at its right end."""
    axis = picture.view.displayed[1]
    side: slice = picture.view.box[axis]
    index = picture.source.world_to_data(position)[axis] + 0.5
    share = float((index - side.start) / (side.stop - side.start))
    return 1 - share if runs_backwards(picture.source, axis) else share


def width_in_world(picture: Picture) -> float:
    """Length of the horizontal side of a picture, in world units."""
    axis = picture.view.displayed[1]
    matrix, _ = matrix_and_offset(picture.source)
    side = picture.view.box[axis]
    return float(np.linalg.norm(matrix[:, axis]) * (side.stop - side.start))
