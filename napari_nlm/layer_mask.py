"""The mask layer that says where to denoise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
        """Raises ``ValueError`` if the layer has another shape than the source."""
        data = layer.data[0] if layer.multiscale else layer.data
        whole = tuple(n for axis, n in enumerate(source.shape) if axis != source.axes.channels)
        if tuple(data.shape) not in (source.spatial_shape, whole):
            raise ValueError(
                f"mask {layer.name!r} has shape {tuple(data.shape)}, but the image has {source.spatial_shape}; "
                "choose a layer of the same shape, or no mask"
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
