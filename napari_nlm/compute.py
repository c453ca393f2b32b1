"""From a source and parameters to numbers: the engine, called for one slice, one volume or all of them."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from napari_nlm.parameters import Parameters, Sigma
from napari_nlm.source import Box, Source
from nlmeans import METHODS, Settings, estimate_sigma
from nlmeans.denoise import resolve, run
from nlmeans.memory import available
from nlmeans.progress import Report, part
from nlmeans.task import CONVERSION_BYTES, radii
from nlmeans.tiles import Piece, Tile, lengths

Volume = tuple[int, ...]
Array = npt.NDArray[Any]


def device_of(settings: Settings) -> str:
    return settings.device or ("cuda" if torch.cuda.is_available() else "cpu")


def resolved(source: Source, parameters: Parameters, sigma: Sigma | None) -> Settings:
    """The settings of one volume with nothing left to choose: method, radii and device are picked."""
    settings = parameters.settings(sigma, source.spacing, source.layout.channels)
    return replace(resolve(settings, source.layout), device=device_of(settings))


def estimated(source: Source, volume: Volume, noise: str, mask: Mask | None = None) -> Sigma:
    """The standard deviation of the noise of one volume, one number per channel where there are any."""
    data = source.read(volume)
    inside = None if mask is None else mask.read(volume)
    found = np.atleast_1d(estimate_sigma(data, noise=noise, mask=inside, channels=source.layout.channels))
    return float(found[0]) if source.layout.channels is None else tuple(found.tolist())


@dataclass(frozen=True, eq=False)
class Mask:
    """Where to denoise: a layer's data, of the spatial shape or of the whole shape of the source."""

    data: Any
    name: str
    source: Source

    @classmethod
    def of(cls, layer: Any, source: Source) -> Mask:
        data = layer.data[0] if layer.multiscale else layer.data
        whole = tuple(n for axis, n in enumerate(source.shape) if axis != source.axes.channels)
        if tuple(data.shape) not in (source.spatial_shape, whole):
            raise ValueError(
                f"mask {layer.name!r} has shape {tuple(data.shape)}, but the image has {source.spatial_shape}; "
                "choose a layer of the same shape, or no mask"
            )
        return cls(data, layer.name, source)

    def read(self, volume: Volume, spatial: Box | None = None) -> Array:
        spatial = spatial or tuple(slice(0, n) for n in self.source.spatial_shape)
        if tuple(self.data.shape) == self.source.spatial_shape:
            return np.asarray(self.data[spatial])
        axes = self.source.axes
        where: dict[int, int | slice] = dict(zip(axes.separate, volume, strict=True))
        where |= dict(zip(axes.spatial, spatial, strict=True))
        return np.asarray(self.data[tuple(where[axis] for axis in sorted(where))])


def halo_of(settings: Settings) -> tuple[int, int, int]:
    """How far a voxel of the result looks, along depth, height and width."""
    return METHODS[settings.method].halo(*radii(settings))


def denoised(
    source: Source,
    volume: Volume,
    settings: Settings,
    spatial: Box | None = None,
    *,
    mask: Mask | None = None,
    progress: Report,
) -> Array:
    """A box of one denoised volume, equal to that box of the whole result; `settings` are resolved.

    Only the box and what it depends on is read.
    """
    layout = source.layout
    wanted = layout.piece(spatial or tuple(slice(0, n) for n in layout.spatial_shape))
    tile = Tile.around(wanted, layout.shape, halo_of(settings), METHODS[settings.method].grain)
    outer = spatial_of(tile.outer, layout.spatial_shape)
    inside = None if mask is None else mask.read(volume, outer)
    return run(source.read(volume, outer), settings, mask=inside, progress=progress, region=tile.within)


def spatial_of(piece: Piece, spatial_shape: tuple[int, ...]) -> Box:
    """(D, H, W) as one slice per spatial axis."""
    return tuple(piece[-len(spatial_shape) :])


def needed_memory(source: Source, settings: Settings) -> float:
    """Bytes that a run takes beside the image: what the engine works in, at most what it may, and the result."""
    layout, method = source.layout, METHODS[settings.method]
    channels = 1 if layout.channels is None else layout.array_shape[layout.channels]
    working = method.bytes_per_voxel(settings.backend, channels, *radii(settings)) + CONVERSION_BYTES * channels
    everything = working * math.prod(lengths(layout.everywhere))
    return min(everything, allowed_memory(settings))


def allowed_memory(settings: Settings) -> float:
    return available(torch.device(device_of(settings))) if settings.memory is None else settings.memory


def parts(progress: Report, count: int) -> list[Report]:
    """Reports for equal pieces of the work."""
    return [part(progress, index / count, (index + 1) / count) for index in range(count)]


class Levels:
    """Sigma of every volume of a source, estimated when it is first asked for."""

    def __init__(self, source: Source, noise: str, mask: Mask | None) -> None:
        self.source, self.noise, self.mask = source, noise, mask
        self.known: dict[Volume, Sigma | None] = {}

    def of(self, volume: Volume) -> Sigma | None:
        """None for Poisson noise, whose level follows from the image itself."""
        if self.noise == "poisson":
            return None
        if volume not in self.known:
            self.known[volume] = estimated(self.source, volume, self.noise, self.mask)
        return self.known[volume]


@dataclass(frozen=True, eq=False)
class Plan:
    """All that decides the numbers of a result: what, how, where."""

    source: Source
    parameters: Parameters
    mask: Mask | None
    levels: Levels

    def sigma(self, volume: Volume) -> Sigma | None:
        return self.levels.of(volume) if self.parameters.sigma is None else self.parameters.sigma

    def settings(self, volume: Volume) -> Settings:
        return resolved(self.source, self.parameters, self.sigma(volume))

    def same_as(self, other: Plan) -> bool:
        """Whether both give the same numbers. Where and in how much memory they are computed does not count."""
        ours, theirs = (
            replace(plan.parameters, device=None, memory=None, sigma=plan.sigma_given) for plan in (self, other)
        )
        masks = [None if plan.mask is None else id(plan.mask.data) for plan in (self, other)]
        same_data = self.source.data is other.source.data and self.source.axes == other.source.axes
        return same_data and ours == theirs and masks[0] == masks[1]

    @property
    def sigma_given(self) -> float | None:
        return self.parameters.sigma

    def box(self, box: Box, progress: Report) -> tuple[Array, Array]:
        """A box of the source, of one or several volumes, before and after; one slice per axis of the layer."""
        axes, source = self.source.axes, self.source
        spatial = tuple(box[axis] for axis in axes.spatial)
        before = np.asarray(source.data[box])
        after = np.empty(before.shape, self.parameters.dtype or before.dtype)
        after[...] = before  # opacity stays
        numbers = [range(box[axis].start, box[axis].stop) for axis in axes.separate]
        volumes = list(itertools.product(*numbers))
        for volume, report in zip(volumes, parts(progress, len(volumes)), strict=True):
            piece = denoised(source, volume, self.settings(volume), spatial, mask=self.mask, progress=report)
            first = tuple(number - box[axis].start for axis, number in zip(axes.separate, volume, strict=True))
            self.put(after, piece, first, box)
        return before, after

    def put(self, after: Array, piece: Array, volume: Volume, box: Box) -> None:
        """Store a denoised volume, all of its channels, at a place along the separate axes of `after`."""
        axes, rgb = self.source.axes, bool(self.source.layer.rgb)
        index: list[int | slice] = [slice(None)] * after.ndim
        for axis, number in zip(axes.separate, volume, strict=True):
            index[axis] = number
        if self.source.alpha:
            index[-1] = slice(0, 3)
        if axes.channels is not None and not rgb:
            kept = [axis for axis in range(after.ndim) if axis not in axes.separate]
            of_piece = [slice(None)] * len(kept)
            of_piece[kept.index(axes.channels)] = box[axes.channels]
            piece = piece[tuple(of_piece)]
        after[tuple(index)] = piece

    def draft(self) -> Plan:
        """The same by the plain method, in a fraction of the time."""
        return replace(self, parameters=replace(self.parameters, method="classic"))


FAR = 16
"""Voxels: methods that look farther than this need seconds for a slice, as they compute a thick slab of it."""


def is_slow(settings: Settings) -> bool:
    return max(halo_of(settings)) > FAR


def removed_deviation(before: Array, after: Array, noise: str) -> float:
    """Standard deviation of what was taken out; of magnitudes where they are bright, as the noise is sigma there."""
    removed = before.astype(np.float64) - after.astype(np.float64)
    if noise == "rician":
        removed = removed[before > before.mean()] if before.min() < before.max() else removed
    return float(removed.std())
