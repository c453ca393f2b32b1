"""From a source and parameters to numbers: the engine, called for one slice, one volume or all of them."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from napari_nlm.parameters import Parameters, is_poisson
from napari_nlm.source import Box, Source
from nlmeans import METHODS, Settings
from nlmeans.core.arrays import deviation
from nlmeans.api import resolve, run
from nlmeans.core.memory import allowed
from nlmeans.core.progress import Report, part
from nlmeans.engine.settings import device_or_gpu
from nlmeans.engine.survey import TINY
from nlmeans.engine.plan import CONVERSION_BYTES, Task, grain_of, halo_of, radii
from nlmeans.core.tiles import Piece, Tile, lengths

Volume = tuple[int, ...]
Array = npt.NDArray[Any]


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


def denoised(
    source: Source,
    volume: Volume,
    settings: Settings,
    spatial: Box | None = None,
    *,
    sigma_map: Array | None = None,
    mask: Mask | None = None,
    progress: Report,
) -> Array:
    """A box of one denoised volume, equal to that box of the whole result.

    `settings` are resolved, sigma and h with them, so that only the box and what it depends on is read.
    """
    layout = source.layout
    wanted = layout.piece(spatial or tuple(slice(0, n) for n in layout.spatial_shape))
    tile = Tile.around(wanted, layout.shape, halo_of(settings), grain_of(settings))
    outer = spatial_of(tile.outer, layout.spatial_shape)
    inside = None if mask is None else mask.read(volume, outer)
    if sigma_map is not None:
        largest, sigma_map = max(float(sigma_map.max()), TINY), sigma_map[outer]
        here = max(float(sigma_map.max()), TINY)
        settings = replace(settings, h=(settings.h or largest) * here / largest)  # h is that of the largest sigma
    return run(
        source.read(volume, outer), settings, mask=inside, sigma_map=sigma_map, progress=progress, region=tile.within
    )


def spatial_of(piece: Piece, spatial_shape: tuple[int, ...]) -> Box:
    """(D, H, W) as one slice per spatial axis."""
    return tuple(piece[-len(spatial_shape) :])


def needed_memory(source: Source, settings: Settings) -> float:
    """Bytes that a run takes beside the image: what the engine works in, at most what it may, and the result."""
    layout, method = source.layout, METHODS[settings.method]
    channels = layout.channel_count
    working = method.bytes_per_voxel(settings.backend, channels, *radii(settings)) + CONVERSION_BYTES * channels
    everything = working * math.prod(lengths(layout.everywhere))
    return min(everything, allowed_memory(settings))


def allowed_memory(settings: Settings) -> float:
    return allowed(torch.device(device_or_gpu(settings.device)), settings.memory)


def parts(progress: Report, count: int) -> list[Report]:
    """Reports for equal pieces of the work."""
    return [part(progress, index / count, (index + 1) / count) for index in range(count)]


@dataclass(frozen=True, eq=False)
class Level:
    """What is known of the noise of one volume, beside what a person has said."""

    sigma: tuple[float, ...]
    """One per channel; where sigma varies in space its largest value; with Poisson noise 1."""
    contrast: float
    """What the values span, in units of sigma: the engine's own h follows from it."""
    map: Array | None = None

    @property
    def unit(self) -> float:
        """What h is a multiple of: sigma, on average over the channels that have noise."""
        return sum(self.sigma) / max(sum(s > 0 for s in self.sigma), 1)


class Levels:
    """The noise of every volume of a source, found out when it is first asked for."""

    def __init__(self, source: Source, mask: Mask | None) -> None:
        self.source, self.mask = source, mask
        self.known: dict[tuple[object, ...], Level] = {}

    @staticmethod
    def key(volume: Volume, parameters: Parameters) -> tuple[object, ...]:
        """All that a level depends on."""
        p = parameters
        return volume, p.noise, p.sigma, p.maps_sigma, p.despeckle, p.gain, p.offset

    def peek(self, volume: Volume, parameters: Parameters) -> Level | None:
        """What is known already, or needs no look at the data."""
        if parameters.sigma is not None and parameters.h is not None and not is_poisson(parameters):
            return Level((parameters.sigma,) * self.source.layout.channel_count, 0.0)
        return self.known.get(self.key(volume, parameters))

    def of(self, volume: Volume, parameters: Parameters) -> Level:
        found = self.peek(volume, parameters)
        if found is None:
            found = self.known[self.key(volume, parameters)] = self.measured(volume, parameters)
        return found

    def measured(self, volume: Volume, parameters: Parameters) -> Level:
        """As the engine measures it, which looks at all of the volume."""
        layout, data = self.source.layout, self.source.read(volume)
        settings = resolve(parameters.settings(self.source.spacing, layout.channels), layout)
        mask = None if self.mask is None else self.mask.read(volume)
        task = Task.of(data, 0, layout, settings, mask, None, layout.everywhere)
        return Level(
            task.facts.sigma, task.facts.contrast, None if task.sigma_map is None else np.asarray(task.sigma_map)
        )


@dataclass(frozen=True, eq=False)
class Plan:
    """All that decides the numbers of a result: what, how, where."""

    source: Source
    parameters: Parameters
    mask: Mask | None
    levels: Levels

    def level(self, volume: Volume) -> Level:
        return self.levels.of(volume, self.parameters)

    def settings(self, level: Level | None) -> Settings:
        """With nothing left to choose: method, radii, device, and, once the level is known, sigma and h."""
        settings = resolve(
            self.parameters.settings(self.source.spacing, self.source.layout.channels), self.source.layout
        )
        settings = replace(settings, device=device_or_gpu(settings.device))
        if level is None:
            return settings
        if settings.sigma is None and not is_poisson(self.parameters):
            sigma = level.sigma[0] if settings.channels is None else level.sigma
            settings = replace(settings, sigma=sigma)
        return replace(settings, h=self.strength(settings, level) * level.unit or None)  # without noise there is none

    def strength(self, settings: Settings, level: Level) -> float:
        """h in units of sigma: as given, or the engine's own."""
        if self.parameters.h is not None:
            return self.parameters.h
        return METHODS[settings.method].usual_h(level.contrast, radii(settings)[1])

    def denoised(self, volume: Volume, spatial: Box | None, progress: Report) -> Array:
        """A box of one volume, spatial and with all its channels."""
        level = self.level(volume)
        settings = self.settings(level)
        if level.map is not None and settings.channels is not None:  # each channel has a map: the engine's own affair
            data, layout = self.source.read(volume), self.source.layout
            mask = None if self.mask is None else self.mask.read(volume)
            region = layout.piece(spatial or tuple(slice(0, n) for n in layout.spatial_shape))
            return run(data, settings, mask=mask, progress=progress, region=region)
        return denoised(self.source, volume, settings, spatial, sigma_map=level.map, mask=self.mask, progress=progress)

    def same_as(self, other: Plan) -> bool:
        """Whether both give the same numbers. Where and in how much memory they are computed does not count."""
        ours, theirs = (replace(plan.parameters, device=None, memory=None) for plan in (self, other))
        masks = [None if plan.mask is None else id(plan.mask.data) for plan in (self, other)]
        same_data = self.source.data is other.source.data and self.source.axes == other.source.axes
        return same_data and ours == theirs and masks[0] == masks[1]

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
            piece = self.denoised(volume, spatial, report)
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
    return deviation(removed)
