"""Which voxels of a layer the viewer shows, and where a part of the layer's data lies in the world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.components import ViewerModel
from napari.layers import Image

from napari_nlm.layer_source import LayerBox

Matrix = npt.NDArray[np.float64]

EDGE_ON = 1e-6
"""A layer is seen edge on if a voxel covers less of the canvas than this share of the face of a cube of its volume."""


@dataclass(frozen=True)
class View:
    """The part of a layer's data that is on the canvas."""

    displayed: tuple[int, ...]
    """The two axes of the layer on the canvas: rows, then columns."""
    box: LayerBox
    """One slice per axis of the layer, one voxel long for axes that are not displayed."""
    cropped: bool
    """Whether `box` holds only a part of the slice."""


def matrix_and_offset(layer: Image) -> tuple[Matrix, Matrix]:
    """The matrix and the offset that lead from data to world, with all transforms of the layer."""
    offset = np.array(layer.data_to_world((0.0,) * layer.ndim))
    columns = [np.array(layer.data_to_world(tuple(row))) - offset for row in np.eye(layer.ndim)]
    return np.array(columns).T, offset


def runs_backwards(layer: Image, axis: int) -> bool:
    """Whether an axis of the data points left on the canvas, if it is the horizontal one."""
    matrix, _ = matrix_and_offset(layer)
    return bool(matrix[axis, axis] < 0)


def visible_part(viewer: ViewerModel, layer: Image, most: int) -> View | None:
    """What the viewer shows of a layer: at most about `most` voxels, from the middle of the view.

    None if the viewer shows no slice of the layer: in 3D, outside the layer, if the layer lacks an axis of the canvas,
    or if the layer is seen edge on.
    """
    missing = viewer.dims.ndim - layer.ndim
    displayed = tuple(axis - missing for axis in viewer.dims.displayed)
    if viewer.dims.ndisplay != 2 or min(displayed) < 0:
        return None
    matrix, offset = matrix_and_offset(layer)
    face = abs(np.linalg.det(matrix)) ** (2 / layer.ndim)
    if abs(np.linalg.det(matrix[np.ix_(displayed, displayed)])) < EDGE_ON * face:
        return None
    inverse = np.linalg.inv(matrix)
    hidden = [axis for axis in range(layer.ndim) if axis not in displayed]
    point = np.array(viewer.dims.point[missing:])
    # napari slices the same way: it ignores a rotation out of the slice
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
    """First and last + 1 of the voxels on the canvas along each displayed axis; all voxels if there is no canvas."""
    factors = layer.downsample_factors[layer.data_level] if layer.multiscale else np.ones(layer.ndim)
    shape = layer.data[0].shape if layer.multiscale else layer.data.shape
    found = []
    for axis in displayed:
        low, high = (int(corner[axis] * factors[axis]) for corner in layer.corner_pixels)
        low, high = max(low, 0), min(int(high + factors[axis]), int(shape[axis]))
        found.append((low, high) if high - low > 1 else (0, int(shape[axis])))
    return found


def translate_of(layer: Image, view: View, box: LayerBox) -> npt.NDArray[np.float64]:
    """The `translate` of a layer that holds a part of this layer's data and has this layer's other transforms.

    napari ignores a rotation out of the slice. The part must lie at the same place on the canvas and at the same
    position of the sliders, so this ignores it too.
    """
    matrix, _ = matrix_and_offset(layer)
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
    """Arguments for a layer of the same voxels that lies and looks like this one."""
    every = layer.as_layer_data_tuple()[1]
    wanted = (
        "scale", "translate", "rotate", "shear", "affine", "units", "axis_labels", "rgb", "contrast_limits", "colormap",
        "gamma", "interpolation2d", "interpolation3d", "rendering", "attenuation", "iso_threshold", "opacity",
        "projection_mode",
    )  # fmt: skip
    return {name: every[name] for name in wanted if name in every}


def translate_from(layer: Image, start: tuple[float, ...]) -> npt.NDArray[np.float64]:
    """The `translate` of a part of the layer's data that begins at the voxel `start`, which may be between two."""
    inner = np.array(layer.data_to_world(start)) - np.array(layer.data_to_world((0,) * layer.ndim))
    outer = np.asarray(layer.affine.affine_matrix)[:-1, :-1]
    return np.asarray(layer.translate, dtype=float) + np.linalg.solve(outer, inner)
