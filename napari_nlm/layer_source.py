"""An image layer as the engine sees it: which axis is what, and one volume at a time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image

from napari_nlm.volume_view import LayerArray, VolumeView, read_all, stored_chunks, view_of_volume
from nlmeans.core.layout import Layout

LayerBox = tuple[slice, ...]
"""One slice per axis of the layer's data, with start and stop."""

VolumeIndex = tuple[int, ...]
"""Which volume: one number per axis along which volumes are denoised one by one."""

SERIES_NAMES = frozenset({"t", "time", "frame", "frames", "repetition", "direction", "directions", "echo", "b"})
SPACE_NAMES = frozenset({"z", "y", "x"})
CHANNEL_NAMES = frozenset({"c", "channel", "channels"})


@dataclass(frozen=True)
class AxisRoles:
    """What each axis of a layer is: spatial, channels, or an axis of volumes."""

    spatial: tuple[int, ...]
    channels: int | None = None
    separate: tuple[int, ...] = ()
    """Axes along which volumes are denoised one by one, unless the method takes a series together."""

    def title(self, labels: Sequence[str] | None = None) -> str:
        """What the axes are, in words, with their names or else their numbers.

        >>> AxisRoles((2, 3), 1, (0,)).title("tcyx"), AxisRoles((1, 2, 3), None, (0,)).title()
        ('images along t, c compared together', 'volumes along axis 0')
        """

        def name(axis: int) -> str:
            return f"axis {axis}" if labels is None else labels[axis]

        kind = "volume" if len(self.spatial) == 3 else "image"
        if self.separate:
            kind += f"s along {' and '.join(map(name, self.separate))}"
        return kind if self.channels is None else f"{kind}, {name(self.channels)} compared together"


def labels_of(layer: Image) -> list[str] | None:
    """The names that a layer gives its axes; None if it gives none, or one twice."""
    labels = [str(label) for label in layer.axis_labels]
    numbers = [str(axis - len(labels)) for axis in range(len(labels))]
    return labels if labels != numbers and len(set(labels)) == len(labels) and all(labels) else None


def axis_names(layer: Image, axes: AxisRoles) -> list[str]:
    """A name for each axis of a layer: its label, else z, y, x for spatial axes, and t, c and so on for others."""
    labels = labels_of(layer)
    if labels is not None:
        return labels
    names = dict(zip(axes.spatial, "zyx"[-len(axes.spatial) :], strict=True))
    others = iter(("t", "c", "u", "v", "w"))
    return [names.get(axis) or next(others) for axis in range(layer.ndim)]


def unwrapped(thing: Any) -> Any:
    """The layer itself, where napari gives plugins a proxy, and a new proxy at every access."""
    return getattr(thing, "__wrapped__", thing)


def is_boolean(layer: Image) -> bool:
    """Whether the values of a layer are True and False, which have no noise."""
    return bool(np.dtype(layer.dtype) == np.bool_)


def possible_roles(layer: Image) -> list[AxisRoles]:
    """The ways to read the axes of a layer, the most likely first."""
    dimensions = layer.ndim
    everything = tuple(range(dimensions))
    if layer.rgb:
        depths = [depth for depth in (3, 2) if depth <= dimensions]
        return [AxisRoles(everything[-depth:], dimensions, everything[:-depth]) for depth in depths]
    if dimensions == 2:
        return [AxisRoles((0, 1))]
    labels = [str(label).lower() for label in layer.axis_labels]
    named_space = tuple(axis for axis in everything if labels[axis] in SPACE_NAMES)
    spatial = everything[:3] if is_medical(layer) else everything[-3:]
    if len(named_space) == 3:
        spatial = named_space
    others = tuple(axis for axis in everything if axis not in spatial)
    flat = named_space if len(named_space) == 2 else tuple(spatial[-2:])
    stacked = tuple(axis for axis in everything if axis not in flat)
    one_by_one = [AxisRoles(spatial, None, others)]
    together = [AxisRoles(spatial, axis, tuple(other for other in others if other != axis)) for axis in others]
    images = [AxisRoles(flat, None, stacked)]
    if dimensions == 3:
        images_together = [AxisRoles(flat, stacked[0])]
        if labels[stacked[0]] in CHANNEL_NAMES:
            return images_together + images + one_by_one
        if labels[stacked[0]] in SERIES_NAMES or len(named_space) == 2:
            return images + images_together + one_by_one
        return one_by_one + images + images_together
    if len(named_space) == 2:  # several images, and none of the other axes is a place
        flat_together = [
            AxisRoles(flat, axis, tuple(other for other in stacked if other != axis))
            for axis in stacked
            if labels[axis] in CHANNEL_NAMES
        ]
        return flat_together + images + one_by_one
    named = [roles for roles in together if roles.channels is not None and labels[roles.channels] in CHANNEL_NAMES]
    return named + one_by_one + [roles for roles in together if roles not in named] + images


def is_medical(layer: Image) -> bool:
    """Whether napari-nifti has read the layer. It puts time after the three spatial axes."""
    return {"header", "coordinate_system"} <= set(layer.metadata)


@dataclass(frozen=True, eq=False)
class LayerSource:
    """The data of a layer at full resolution, as they are now, and the roles of their axes."""

    layer: Image
    data: Any
    axes: AxisRoles

    @classmethod
    def of(cls, layer: Image, axes: AxisRoles | None = None) -> LayerSource:
        data = layer.data[0] if layer.multiscale else layer.data
        return cls(layer, unwrapped(data), axes or possible_roles(layer)[0])

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(n) for n in self.data.shape)

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Shape of the chunks of the data; None if they have none."""
        return stored_chunks(self.data)

    @property
    def axis_names(self) -> list[str]:
        """A name for each axis: that of the layer, else z, y, x for spatial axes, and t, c for others."""
        return axis_names(self.layer, self.axes)

    @property
    def alpha(self) -> bool:
        """Whether the last colour channel is opacity, which has no noise."""
        return bool(self.layer.rgb) and self.shape[-1] == 4

    @property
    def layout(self) -> Layout:
        """The axes of one volume, without opacity."""
        shape = list(self.shape)
        if self.alpha:
            shape[-1] = 3
        kept = [axis for axis in range(len(shape)) if axis not in self.axes.separate]
        channels = None if self.axes.channels is None else kept.index(self.axes.channels)
        return Layout(tuple(shape[axis] for axis in kept), channels, None)

    @property
    def joined(self) -> LayerSource | None:
        """The same data with all volumes as one series; None if there is not one axis of volumes alone."""
        axes = self.axes
        if axes.channels is not None or len(axes.separate) != 1:
            return None
        return LayerSource(self.layer, self.data, AxisRoles(axes.spatial, axes.separate[0]))

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        return tuple(self.shape[axis] for axis in self.axes.spatial)

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """Voxel size along the spatial axes, in world units, after all transforms of the layer."""
        origin = np.array(self.layer.data_to_world((0,) * self.layer.ndim))
        steps = [
            np.array(self.layer.data_to_world(tuple(np.eye(self.layer.ndim)[axis]))) - origin
            for axis in self.axes.spatial
        ]
        sizes = tuple(float(np.linalg.norm(step)) for step in steps)
        return sizes if all(np.isfinite(sizes)) and all(size > 0 for size in sizes) else None

    @property
    def volumes(self) -> list[VolumeIndex]:
        """All volumes that are denoised one by one."""
        return list(itertools.product(*(range(self.shape[axis]) for axis in self.axes.separate)))

    def volume_at(self, point: Sequence[float]) -> VolumeIndex:
        """The volume at a point of the world, of those that are denoised one by one."""
        if not self.axes.separate:
            return ()
        place = self.layer.world_to_data(point)
        return tuple(int(np.clip(np.round(place[axis]), 0, self.shape[axis] - 1)) for axis in self.axes.separate)

    @property
    def path(self) -> Path | None:
        """The file that the layer was opened from."""
        name = self.layer.source.path or self.layer.metadata.get("nlmeans", {}).get("path")
        return Path(name) if name else None

    def everywhere(self) -> LayerBox:
        return tuple(slice(0, n) for n in self.shape)

    def view(self, volume: VolumeIndex) -> LayerArray | VolumeView:
        """One volume, without opacity. Reads nothing yet if the data are lazy."""
        at: list[int | slice] = list(self.everywhere())
        for axis, number in zip(self.axes.separate, volume, strict=True):
            at[axis] = number
        if self.alpha:
            at[-1] = slice(0, 3)
        return view_of_volume(self.data, at)

    def read(self, volume: VolumeIndex) -> LayerArray:
        """One volume in memory, without opacity."""
        return read_all(self.view(volume))
