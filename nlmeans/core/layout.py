"""The meaning of the axes of an array: spatial, channels or series. The engine sees one (C, D, H, W) at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from nlmeans.core import arrays, checks
from nlmeans.core.axes import Axes
from nlmeans.core.tiles import Piece


@dataclass(frozen=True)
class Layout:
    """The meaning of each axis of an array. Axes are counted from the first, so no number is negative."""

    array_shape: tuple[int, ...]
    channels: int | None
    series: int | None

    @classmethod
    def of(cls, array: arrays.Readable, channels: int | None, series: int | None, name: str = "volume") -> Layout:
        """The layout of `array`, whose axes `channels` and `series` are given by number; `name` is for errors."""
        shape = tuple(array.shape)
        channels = None if channels is None else checks.axis("channels", channels, len(shape))
        series = None if series is None else checks.axis("series", series, len(shape))
        if channels is not None and channels == series:
            raise ValueError(f"channels={channels} and series={series} name the same axis; give each its own")
        layout = cls(shape, channels, series)
        checks.spatial_dimensions(name, layout.spatial_shape)
        return layout

    @property
    def spatial_axes(self) -> tuple[int, ...]:
        return tuple(axis for axis in range(len(self.array_shape)) if axis not in (self.channels, self.series))

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        return tuple(self.array_shape[axis] for axis in self.spatial_axes)

    @property
    def shape(self) -> Axes:
        """(D, H, W); a 2D image has depth 1."""
        d, h, w = (1, *self.spatial_shape) if len(self.spatial_axes) == 2 else self.spatial_shape
        return d, h, w

    @property
    def volumes(self) -> int:
        return 1 if self.series is None else self.array_shape[self.series]

    @property
    def channel_count(self) -> int:
        return 1 if self.channels is None else self.array_shape[self.channels]

    @property
    def everywhere(self) -> Piece:
        d, h, w = (slice(0, n) for n in self.shape)
        return d, h, w

    @property
    def joined(self) -> Layout:
        """The same array with the volumes of its series as channels."""
        return self if self.series is None else Layout(self.array_shape, self.series, None)

    @property
    def spatial_alone(self) -> Layout:
        """The layout of an array with the spatial axes alone, such as a mask or a map."""
        return Layout(self.spatial_shape, None, None)

    def piece(self, slices: Sequence[slice]) -> Piece:
        """Convert one slice per spatial axis to slices of (D, H, W) whose start and stop are numbers."""
        if len(slices) != len(self.spatial_axes) or any(s.step not in (None, 1) for s in slices):
            raise ValueError(
                f"region={tuple(slices)} must have one slice with step 1 for each spatial axis of {self.spatial_shape}"
            )
        boxes = [range(n)[s] for n, s in zip(self.spatial_shape, slices, strict=True)]
        if not all(boxes):
            raise ValueError(f"region={tuple(slices)} contains no voxel of the spatial shape {self.spatial_shape}")
        d, h, w = [slice(0, 1)] * (3 - len(boxes)) + [slice(box.start, box.stop) for box in boxes]
        return d, h, w

    def index(self, volume: int, piece: Piece, channels: slice | None = None) -> arrays.Slices:
        """Index into the array of a piece (slices of D, H, W) of one volume of the series, and of some channels."""
        slices = [slice(None)] * len(self.array_shape)
        if self.channels is not None and channels is not None:
            slices[self.channels] = channels
        if self.series is not None:
            slices[self.series] = slice(volume, volume + 1)
        for axis, part in zip(self.spatial_axes, piece[-len(self.spatial_axes) :], strict=True):
            slices[axis] = part
        return tuple(slices)

    def chunk(self, array: object) -> Axes:
        """Voxels along (D, H, W) of a stored chunk of an array with these axes; 1 if the array has no chunks."""
        stored = arrays.chunks(array)
        if stored is None:
            return 1, 1, 1
        sizes = [stored[axis] for axis in self.spatial_axes]
        d, h, w = [1] * (3 - len(sizes)) + sizes
        return d, h, w

    def array_shape_of(self, piece: Piece) -> tuple[int, ...]:
        """Shape of an array with the same axes that holds a piece of every volume."""
        shape = list(self.array_shape)
        for axis, part in zip(self.spatial_axes, piece[-len(self.spatial_axes) :], strict=True):
            shape[axis] = part.stop - part.start
        return tuple(shape)

    def channel_pieces(self, volume: int, piece: Piece) -> list[arrays.Slices]:
        """Index into the array of a piece of each channel of one volume of the series."""
        everything = list(self.index(volume, piece))
        if self.channels is None:
            return [tuple(everything)]
        before, after = everything[: self.channels], everything[self.channels + 1 :]
        return [(*before, slice(c, c + 1), *after) for c in range(self.array_shape[self.channels])]

    def to_engine(self, values: Tensor) -> Tensor:
        """Convert a piece of one volume from the axes of the array to (C, D, H, W)."""
        if self.series is not None:
            values = values.movedim(self.series, 0).squeeze(0)
        if self.channels is None:
            values = values.unsqueeze(0)
        else:
            after_series = self.series is not None and self.series < self.channels
            values = values.movedim(self.channels - after_series, 0)
        return values.unsqueeze(1) if values.ndim == 3 else values

    def from_engine(self, values: Tensor) -> Tensor:
        """Convert (C, D, H, W) to the axes of the array; the series axis has length 1."""
        if len(self.spatial_axes) == 2:
            values = values.squeeze(1)
        values = values.squeeze(0) if self.channels is None else values
        if self.channels is not None:
            after_series = self.series is not None and self.series < self.channels
            values = values.movedim(0, self.channels - after_series)
        return values if self.series is None else values.unsqueeze(self.series)

    def spatial(self, array: arrays.Readable, name: str) -> Layout:
        """Layout of an array with the spatial axes alone, such as a mask; raise ``ValueError`` if its shape differs."""
        if tuple(array.shape) != self.spatial_shape:
            raise ValueError(
                f"{name} has shape {tuple(array.shape)}, but the image has the spatial shape {self.spatial_shape}"
            )
        return self.spatial_alone
