"""Where the viewer looks, in voxels of a layer, and where a part of the layer's data lies in the world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.components import ViewerModel
from napari.layers import Image

from napari_nlm.source import Box

Matrix = npt.NDArray[np.float64]


FLAT = 1e-6
"""Area of a displayed voxel, beside that of a cube of its volume, below which there is nothing to see."""


@dataclass(frozen=True)
class View:
    """The part of a layer's data that is on the canvas."""

    displayed: tuple[int, ...]
    """The two axes of the layer on the canvas: rows, then columns."""
    box: Box
    """One slice per axis of the layer; of one voxel where the axis is not displayed."""
    cropped: bool
    """Whether there is more of this slice than `box`."""


def linear(layer: Image) -> tuple[Matrix, Matrix]:
    """Matrix and offset from data to world, with all transforms of the layer."""
    offset = np.array(layer.data_to_world((0.0,) * layer.ndim))
    columns = [np.array(layer.data_to_world(tuple(row))) - offset for row in np.eye(layer.ndim)]
    return np.array(columns).T, offset


def look(viewer: ViewerModel, layer: Image, most: int) -> View | None:
    """What the viewer shows of a layer: at most about `most` voxels, from the middle of the view.

    None where it shows no slice of it: in 3D, beyond its border, where an axis on the canvas is not the layer's, or
    where the layer is turned so far that napari sees it edge on.
    """
    missing = viewer.dims.ndim - layer.ndim
    displayed = tuple(axis - missing for axis in viewer.dims.displayed)
    if viewer.dims.ndisplay != 2 or min(displayed) < 0:
        return None
    matrix, offset = linear(layer)
    if abs(np.linalg.det(matrix[np.ix_(displayed, displayed)])) < FLAT * abs(np.linalg.det(matrix)) ** (2 / layer.ndim):
        return None
    inverse = np.linalg.inv(matrix)
    hidden = [axis for axis in range(layer.ndim) if axis not in displayed]
    point = np.array(viewer.dims.point[missing:])
    # as napari slices, which leaves out what a rotation out of the slice would add
    index = inverse[np.ix_(hidden, hidden)] @ point[hidden] - (inverse @ offset)[hidden]
    shape = layer.data[0].shape if layer.multiscale else layer.data.shape
    box = [slice(0, int(n)) for n in shape[: layer.ndim]]
    for axis, position in zip(hidden, np.round(index).astype(int).tolist(), strict=True):
        if not 0 <= position < shape[axis]:
            return None
        box[axis] = slice(position, position + 1)
    whole = [box[axis] for axis in displayed]
    if np.prod([side.stop for side in whole]) > most:
        edge = int(most**0.5)
        for axis, (first, last) in zip(displayed, on_canvas(layer, displayed), strict=True):
            middle = (first + last) // 2
            first, last = max(first, middle - edge // 2), min(last, middle - edge // 2 + edge)
            box[axis] = slice(first, last)
    return View(displayed, tuple(box), [box[axis] for axis in displayed] != whole)


def on_canvas(layer: Image, displayed: tuple[int, ...]) -> list[tuple[int, int]]:
    """First and last + 1 of the voxels of each displayed axis that the canvas shows; all where there is no canvas."""
    factors = layer.downsample_factors[layer.data_level] if layer.multiscale else np.ones(layer.ndim)
    shape = layer.data[0].shape if layer.multiscale else layer.data.shape
    found = []
    for axis in displayed:
        low, high = (int(corner[axis] * factors[axis]) for corner in layer.corner_pixels)
        low, high = max(low, 0), min(int(high + factors[axis]), int(shape[axis]))
        found.append((low, high) if high - low > 1 else (0, int(shape[axis])))
    return found


def translate_of(layer: Image, view: View, box: Box) -> npt.NDArray[np.float64]:
    """The `translate` that puts a part of the layer's data where it lies, for a layer that is else as this one.

    Where the layer is rotated out of the slice napari shows it without that rotation, and so must the part be shown:
    the same place on the canvas, at the same position of the sliders.
    """
    matrix, _ = linear(layer)
    start = np.array([float(side.start) for side in box])
    rows, wanted = np.linalg.inv(matrix), start.copy()
    shown = list(view.displayed)
    flat = matrix[np.ix_(shown, shown)] @ start[shown]
    for place, axis in enumerate(shown):
        rows[axis], wanted[axis] = np.eye(layer.ndim)[axis], flat[place]
    shift = np.linalg.solve(rows, wanted)
    outer: Any = layer.affine
    linear_part = np.asarray(outer.affine_matrix)[:-1, :-1]
    return np.asarray(layer.translate, dtype=float) + np.linalg.solve(linear_part, shift)


def appearance(layer: Image) -> dict[str, Any]:
    """What a layer of the same voxels needs to lie where this one lies and to look as it looks."""
    every = layer.as_layer_data_tuple()[1]
    wanted = (
        "scale", "translate", "rotate", "shear", "affine", "units", "axis_labels", "rgb", "contrast_limits", "colormap",
        "gamma", "interpolation2d", "interpolation3d", "rendering", "attenuation", "iso_threshold", "opacity",
        "projection_mode",
    )  # fmt: skip
    return {name: every[name] for name in wanted if name in every}
