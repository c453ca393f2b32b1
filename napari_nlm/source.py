"""An image layer as the engine sees it: which axis is what, and how to read a part of it without the rest."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.layers import Image

from nlmeans.core.layout import Layout

Box = tuple[slice, ...]
"""One slice per axis of the data, with start and stop."""

SERIES_NAMES = frozenset({"t", "time", "frame", "frames", "repetition", "direction", "directions", "echo", "b"})
CHANNEL_NAMES = frozenset({"c", "channel", "channels"})


@dataclass(frozen=True)
class Axes:
    """The roles of the axes of an array: compared in space, compared together, or taken one by one."""

    spatial: tuple[int, ...]
    channels: int | None = None
    separate: tuple[int, ...] = ()

    @property
    def title(self) -> str:
        kind = "volume" if len(self.spatial) == 3 else "image"
        if self.separate:
            kind += f"s, one by one along axis {' and '.join(map(str, self.separate))}"
        return kind if self.channels is None else f"{kind}, axis {self.channels} compared together"


def plain(thing: Any) -> Any:
    """The layer itself: napari hands plugins proxies, a new one at every access."""
    return getattr(thing, "__wrapped__", thing)


def roles(layer: Image) -> list[Axes]:
    """The ways to read the axes of a layer, the likeliest first."""
    dimensions = layer.ndim
    everything = tuple(range(dimensions))
    if layer.rgb:
        depths = [depth for depth in (3, 2) if depth <= dimensions]
        return [Axes(everything[-depth:], dimensions, everything[:-depth]) for depth in depths]
    if dimensions == 2:
        return [Axes((0, 1))]
    labels = [str(label).lower() for label in layer.axis_labels]
    spatial = everything[:3] if is_medical(layer) else everything[-3:]
    others = tuple(axis for axis in everything if axis not in spatial)
    flat = everything[-2:]
    one_by_one = [Axes(spatial, None, others)]
    together = [Axes(spatial, axis, tuple(other for other in others if other != axis)) for axis in others]
    images = [Axes(flat, None, everything[:-2])]
    if dimensions == 3:
        images_together = [Axes(flat, 0)]
        if labels[0] in SERIES_NAMES:
            return images + images_together + one_by_one
        if labels[0] in CHANNEL_NAMES:
            return images_together + images + one_by_one
        return one_by_one + images + images_together
    named = [axes for axes in together if axes.channels is not None and labels[axes.channels] in CHANNEL_NAMES]
    return named + one_by_one + [axes for axes in together if axes not in named] + images


def is_medical(layer: Image) -> bool:
    """Whether napari-nifti has read it, which puts time behind the three spatial axes."""
    return {"header", "coordinate_system"} <= set(layer.metadata)


@dataclass(frozen=True, eq=False)
class Source:
    """The data of a layer at full resolution, as they are now, and the roles of their axes."""

    layer: Image
    data: Any
    axes: Axes

    @classmethod
    def of(cls, layer: Image, axes: Axes | None = None) -> Source:
        data = layer.data[0] if layer.multiscale else layer.data
        return cls(layer, plain(data), axes or roles(layer)[0])

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(n) for n in self.data.shape)

    @property
    def alpha(self) -> bool:
        """Whether the last of the colours is opacity, which has no noise."""
        return bool(self.layer.rgb) and self.shape[-1] == 4

    @property
    def layout(self) -> Layout:
        """Of one volume: the axes without those that are taken one by one."""
        shape = list(self.shape)
        if self.alpha:
            shape[-1] = 3
        kept = [axis for axis in range(len(shape)) if axis not in self.axes.separate]
        channels = None if self.axes.channels is None else kept.index(self.axes.channels)
        return Layout(tuple(shape[axis] for axis in kept), channels, None)

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        return tuple(self.shape[axis] for axis in self.axes.spatial)

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """Voxel size along the spatial axes, in world units, of the layer with all its transforms."""
        origin = np.array(self.layer.data_to_world((0,) * self.layer.ndim))
        steps = [
            np.array(self.layer.data_to_world(tuple(np.eye(self.layer.ndim)[axis]))) - origin
            for axis in self.axes.spatial
        ]
        sizes = tuple(float(np.linalg.norm(step)) for step in steps)
        return sizes if all(np.isfinite(sizes)) and all(size > 0 for size in sizes) else None

    @property
    def volumes(self) -> list[tuple[int, ...]]:
        """The indices along the axes that are taken one by one."""
        return list(itertools.product(*(range(self.shape[axis]) for axis in self.axes.separate)))

    @property
    def path(self) -> Path | None:
        """The file that the layer was opened from."""
        name = self.layer.source.path or self.layer.metadata.get("nlmeans", {}).get("path")
        return Path(name) if name else None

    def everywhere(self) -> Box:
        return tuple(slice(0, n) for n in self.shape)

    def read(self, volume: tuple[int, ...], spatial: Box | None = None) -> npt.NDArray[Any]:
        """A box of one volume, without opacity; of lazy data nothing else is loaded."""
        index: list[int | slice] = list(self.everywhere())
        for axis, number in zip(self.axes.separate, volume, strict=True):
            index[axis] = number
        for axis, part in zip(self.axes.spatial, spatial or (), strict=False):
            index[axis] = part
        if self.alpha:
            index[-1] = slice(0, 3)
        return np.asarray(self.data[tuple(index)])
