"""The mask layer that says where to denoise."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_nlm.geometry import matrix_and_offset
from napari_nlm.layer_source import LayerSource, VolumeIndex
from napari_nlm.volume_view import LayerArray, VolumeView, view_of_volume


@dataclass(frozen=True, eq=False)
class LayerMask:
    """A layer whose voxels that are not zero are denoised.

    It has the spatial shape of the source, or the whole shape of the source except for channels.
    """

    data: Any
    name: str
    source: LayerSource

    @classmethod
    def of(cls, layer: Any, source: LayerSource) -> LayerMask:
        """Raises ``ValueError`` if the layer has another shape than the source, or lies elsewhere."""
        data = layer.data[0] if layer.multiscale else layer.data
        whole = tuple(n for axis, n in enumerate(source.shape) if axis != source.axes.channels)
        if tuple(data.shape) not in (source.spatial_shape, whole):
            raise ValueError(
                f"mask {layer.name!r} has shape {tuple(data.shape)}, but the image has {source.spatial_shape}; "
                "choose a layer of the same shape, or no mask"
            )
        if lies_elsewhere(layer, source):
            raise ValueError(
                f"mask {layer.name!r} lies elsewhere than the image, by the scale and the place of both layers; choose "
                "a layer that lies where the image does, or no mask"
            )
        return cls(data, layer.name, source)

    def view(self, volume: VolumeIndex) -> LayerArray | VolumeView:
        """The mask of one volume. Reads nothing yet if the data are lazy."""
        if tuple(self.data.shape) == self.source.spatial_shape:
            return view_of_volume(self.data, [slice(0, int(n)) for n in self.data.shape])
        axes = self.source.axes
        at: dict[int, int | slice] = dict(zip(axes.separate, volume, strict=True))
        at |= {axis: slice(0, self.source.shape[axis]) for axis in axes.spatial}
        return view_of_volume(self.data, [at[axis] for axis in sorted(at)])


FARTHEST = 0.5
"""Largest distance between corresponding corners of a mask and its image, in voxels."""


def lies_elsewhere(layer: Any, source: LayerSource) -> bool:
    """Whether a mask lies elsewhere than the image. A layer with neither scale nor place does not say where it lies."""
    axes = list(source.axes.spatial)
    own = axes if layer.ndim == source.layer.ndim else list(range(layer.ndim))
    if layer.ndim not in (source.layer.ndim, len(axes)):
        return False
    places = []
    for one, spatial in ((layer, own), (source.layer, axes)):
        matrix, offset = matrix_and_offset(one)
        if np.array_equal(matrix, np.eye(one.ndim)) and not offset.any():
            return False
        ends = [(0, n - 1) for n in source.spatial_shape]
        corners = np.array(list(itertools.product(*ends)), np.float64)
        places.append(corners @ matrix[np.ix_(spatial, spatial)].T + offset[spatial])
    voxel = np.linalg.norm(matrix[np.ix_(axes, axes)], axis=0).min()
    return bool(np.abs(places[0] - places[1]).max() > FARTHEST * voxel)
