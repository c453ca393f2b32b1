"""What must be known of a volume before it can be cut into tiles, from one look at all of it, piece by piece."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nlmeans.core import arrays, checks
from nlmeans.core.layout import Layout
from nlmeans.core.memory import allowed
from nlmeans.core.tiles import Piece, blocks, common, piece, shifted
from nlmeans.engine.settings import Settings
from nlmeans.noise import poisson
from nlmeans.noise.estimate import sigma_levels, sigma_maps

log = logging.getLogger("nlmeans")


@dataclass(frozen=True)
class Facts:
    """What is known of one volume. In plain numbers, so that a record can hold it for a run that goes on later."""

    sigma: tuple[float, ...]
    """One per channel; with a map of sigma, its largest value."""
    shift: tuple[float, ...]
    """The middle of each channel's range, which goes to zero, so that a constant channel comes back exactly."""
    contrast: float
    """What the values span, in units of sigma, on average over the channels. h follows from it where not given."""
    read_noise: float
    """Of a detector that counts; there sigma and shift are those of the stabilised counts."""

    @property
    def unit(self) -> float:
        """What h is a multiple of: the mean of sigma over the channels that have noise; 1 if none has."""
        noisy = [sigma for sigma in self.sigma if sigma > 0]
        return sum(noisy) / len(noisy) if noisy else 1.0

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Facts:
        """Lists, as JSON has them, become tuples.

        >>> facts = Facts((8.0,), (127.5,), 31.9, 0.0)
        >>> Facts.from_dict({**facts.to_dict(), "sigma": [8.0]}) == facts
        True
        """
        arguments: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**arguments)


class Noise(NamedTuple):
    """Of one volume."""

    sigma: tuple[float, ...]
    read_noise: float
    map: arrays.Source | None


def survey(volume: arrays.Source, index: int, layout: Layout, settings: Settings, noise: Noise, region: Piece) -> Facts:
    """The facts of a volume of which only a region will be read.

    Raises ``ValueError`` if anything there is not finite.
    """
    return facts_of(look_through(volume, index, layout, settings, region), settings, noise)


def facts_of(seen: list[Seen], settings: Settings, noise: Noise) -> Facts:
    """The facts of a volume, of whose channels this was seen."""
    ranges, values = [channel.range for channel in seen], [channel.values for channel in seen]
    if settings.dtype is not None:
        for low, high in ranges:
            arrays.check_holds(settings.dtype, low, high, "volume")
    if settings.noise == "poisson":
        detector = settings.gain, settings.offset, noise.read_noise
        limits = [poisson.stabilise_counts(torch.tensor(r, dtype=torch.float64), *detector).tolist() for r in ranges]
        ranges = [(low, high) for low, high in limits]
        values = [poisson.stabilise_counts(some, *detector) for some in values]
    peaks = (max(-low, high) for low, high in ranges)
    sigma = tuple(s if 0 < peak * NEGLIGIBLE < s else 0.0 for s, peak in zip(noise.sigma, peaks, strict=True))
    middles = tuple(low / 2 + high / 2 for low, high in ranges)
    spans = [span(some) / s for some, s in zip(values, sigma, strict=True) if s > 0 and len(some)]
    return Facts(sigma, middles, sum(spans) / max(len(spans), 1), noise.read_noise)


NEGLIGIBLE = 1e-12
"""Sigma beside the largest value; where it is less there is no noise to speak of, and values / sigma leave float32."""


class Seen(NamedTuple):
    """Of one channel."""

    range: tuple[float, float]
    values: Tensor
    """Evenly spaced ones, float64; none where h is given, which alone needs them."""


def look_through(volume: arrays.Source, index: int, layout: Layout, settings: Settings, region: Piece) -> list[Seen]:
    """The range of the region, and evenly spaced values of the whole volume."""
    seen = []
    for box in pieces(volume, layout, settings, region if settings.h is not None else layout.everywhere):
        stored = arrays.fetch(volume, layout.index(index, box))
        seen.append(look_at(stored, box, layout, region, settings.h is None))
    return merged(seen)


def look_at(stored: arrays.Array, box: Piece, layout: Layout, region: Piece, strided: bool) -> list[Seen]:
    """What there is to see in one box of one volume, which is `stored` there."""
    inside = shifted(common(box, region), box)
    ranges = [(math.inf, -math.inf)] * layout.channel_count
    if all(side.start < side.stop for side in inside):
        ranges = [arrays.value_range(stored[place], "volume") for place in layout.channel_pieces(0, inside)]
    if not strided:
        return [Seen(limits, torch.empty(0)) for limits in ranges]
    lengths = [n for n in layout.shape if n > 1]
    stride = math.ceil((math.prod(lengths) / SPAN_VOXELS) ** (1 / max(len(lengths), 1)))
    every = piece([slice(-side.start % stride, side.stop - side.start, stride) for side in box])
    places = layout.channel_pieces(0, every)
    values = [arrays.read(stored, place, torch.float64, torch.device("cpu")).flatten() for place in places]
    return [Seen(limits, some) for limits, some in zip(ranges, values, strict=True)]


def merged(boxes: list[list[Seen]]) -> list[Seen]:
    """What was seen in several boxes of a volume."""
    together = []
    for channel in zip(*boxes, strict=True):
        lows, highs = zip(*(seen.range for seen in channel), strict=True)
        together.append(Seen((min(lows), max(highs)), torch.cat([seen.values for seen in channel])))
    return together


def pieces(volume: arrays.Source, layout: Layout, settings: Settings, region: Piece) -> Iterator[Piece]:
    """A region in one piece if it is in memory, else in some that fit there."""
    if arrays.in_memory(volume):
        yield region
        return
    memory = allowed(torch.device("cpu"), settings.memory)
    per_voxel = layout.channel_count * arrays.precise_dtype(volume).itemsize * COPIES
    yield from blocks(layout.shape, min(memory / per_voxel, LARGEST_PIECE), region, layout.chunk(volume))


COPIES = 4
"""Of a piece, while it is read and decompressed."""

LARGEST_PIECE = 2**24

SPAN_VOXELS = 2**17
"""Of the volume, evenly spaced: enough to know its range by."""


def span(values: Tensor) -> float:
    """What values span, but for half a per cent at either end."""
    low, high = np.quantile(values.numpy(), [0.005, 0.995])  # partitions, where torch.quantile sorts
    return float(high - low)


def noise_of(
    volume: arrays.Source,
    index: int,
    layout: Layout,
    settings: Settings,
    mask: arrays.Source | None,
    sigma_map: arrays.Source | None,
) -> Noise:
    """Sigma of each channel of one volume, its map if it varies, as given or estimated; and what a detector adds."""
    if settings.noise == "poisson":
        if sigma_map is not None:
            raise ValueError("sigma is the read noise where noise='poisson'; give a number, not a map")
        return Noise((1.0,) * layout.channel_count, read_noise_of(index, layout, settings), None)
    if sigma_map is not None:
        layout.spatial(sigma_map, "sigma")
        beside = Layout.of(sigma_map, None, None, "sigma")
        limits = [
            arrays.value_range(arrays.fetch(sigma_map, beside.index(0, box)), "sigma")
            for box in pieces(sigma_map, beside, settings, beside.everywhere)
        ]
        checks.not_negative("sigma", min(low for low, _ in limits))
        return Noise((max(high for _, high in limits),) * layout.channel_count, 0.0, sigma_map)
    if settings.sigma == "map":
        return estimated_map(volume, index, layout, settings, mask)
    if settings.sigma is None:
        found = sigma_levels(volume, index, layout, settings.noise, mask, settings.memory, settings.despeckle)
        log.info("estimated sigma %s", found)
        return Noise(found, 0.0, None)
    return Noise(given(settings.sigma, index, layout), 0.0, None)


def given(sigma: float | tuple[float, ...], index: int, layout: Layout) -> tuple[float, ...]:
    """Sigma of each channel of one volume, from one number or several."""
    channels = layout.channel_count
    if isinstance(sigma, float):
        return (sigma,) * channels
    expected = layout.volumes if layout.series is not None else channels
    if len(sigma) != expected or (layout.series is None and layout.channels is None):
        raise ValueError(
            f"sigma has {len(sigma)} numbers; give one, or one per volume of series= or channel of channels= "
            f"(here {expected}), or an array of the spatial shape {layout.spatial_shape}"
        )
    return (sigma[index],) * channels if layout.series is not None else sigma


def read_noise_of(index: int, layout: Layout, settings: Settings) -> float:
    """The read noise of a detector, which is what sigma stands for with Poisson noise."""
    if settings.sigma is None:
        return 0.0
    if settings.sigma == "map":
        raise ValueError("sigma='map' is not for noise='poisson', where noise follows the counts; give the read noise")
    found = given(settings.sigma, index, layout)
    if len(set(found)) > 1:
        raise ValueError(f"sigma={found} is the read noise where noise='poisson'; give one number for all channels")
    if found[0] > MOST_READ_NOISE * settings.gain:
        raise ValueError(
            f"sigma={found[0]:g}, the read noise where noise='poisson', is more than {MOST_READ_NOISE:g} times "
            f"gain={settings.gain:g}: beside it counts make no difference; use noise='gaussian', or mend one of them"
        )
    return found[0]


MOST_READ_NOISE = 1e4
"""Of a detector, in gains; stabilised with more, counts are lost in float32's rounding."""


def estimated_map(
    volume: arrays.Source, index: int, layout: Layout, settings: Settings, mask: arrays.Source | None
) -> Noise:
    """Sigma of one volume where it varies in space, and its largest value in each channel.

    Channels share the mean of their maps, each relative to its largest value; the map is in units of the first.
    """
    found = sigma_maps(volume, index, layout, settings.noise, mask, settings.despeckle)
    maps = [found[place].reshape(layout.spatial_shape) for place in layout.channel_pieces(0, layout.everywhere)]
    sigma = tuple(float(values.max()) for values in maps)
    log.info("estimated a map of sigma, at most %s", sigma)
    relative = [values / max(s, TINY) for values, s in zip(maps, sigma, strict=True)]
    return Noise(sigma, 0.0, np.mean(relative, axis=0) * max(sigma[0], TINY))


TINY = 1e-38
