"""Survey a volume before it is cut into tiles: its noise and the range of its values, read piece by piece."""

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
    """Facts about one volume, in plain numbers, so that a record can store them for a run that is resumed later."""

    sigma: tuple[float, ...]
    """Standard deviation of the noise in each channel; with a map of sigma, its largest value. 0 for no noise."""
    shift: tuple[float, ...]
    """Middle of each channel's range, which is subtracted, so that a constant channel comes back exactly."""
    contrast: float
    """Range of the values in units of sigma, averaged over the channels. The default of h depends on it."""
    read_noise: float
    """Read noise of the detector, for Poisson noise. Sigma and shift are then those of the stabilised counts."""

    @property
    def unit(self) -> float:
        """Unit of h: the mean of sigma over the channels that have noise; 1 if none has."""
        noisy = [sigma for sigma in self.sigma if sigma > 0]
        return sum(noisy) / len(noisy) if noisy else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Return the facts by name."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Facts:
        """Make facts from their values by name. Lists, which JSON has instead of tuples, become tuples.

        >>> facts = Facts((8.0,), (127.5,), 31.9, 0.0)
        >>> Facts.from_dict({**facts.to_dict(), "sigma": [8.0]}) == facts
        True
        """
        arguments: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**arguments)


class Noise(NamedTuple):
    """Noise of one volume, given or estimated."""

    sigma: tuple[float, ...]
    """Standard deviation in each channel; with a map, its largest value."""
    read_noise: float
    """Read noise of the detector, for Poisson noise; otherwise 0."""
    map: arrays.Source | None
    """Sigma at every voxel, if it varies in space."""


def survey_volume(
    volume: arrays.Source, index: int, layout: Layout, settings: Settings, noise: Noise, region: Piece
) -> Facts:
    """Collect the facts of a volume of which only a region will be denoised.

    Raises:
        ValueError: the region holds NaN or infinite values.
    """
    return facts_of(look_through(volume, index, layout, settings, region), settings, noise)


def facts_of(seen: list[Seen], settings: Settings, noise: Noise) -> Facts:
    """Compute the facts of a volume from what was seen of each channel."""
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
    spans = [robust_span(some) / s for some, s in zip(values, sigma, strict=True) if s > 0 and len(some)]
    return Facts(sigma, middles, sum(spans) / max(len(spans), 1), noise.read_noise)


NEGLIGIBLE = 1e-12
"""Sigma relative to the largest absolute value below which it counts as 0: values / sigma would overflow float32."""


class Seen(NamedTuple):
    """Range and sampled values of one channel."""

    range: tuple[float, float]
    """Smallest and largest value."""
    values: Tensor
    """Evenly spaced values, float64. Only the default of h needs them; if h is given, there are none."""


def look_through(volume: arrays.Source, index: int, layout: Layout, settings: Settings, region: Piece) -> list[Seen]:
    """Find the range of a region, and sample evenly spaced values of the whole volume."""
    seen = []
    for box in pieces_to_read(volume, layout, settings, region if settings.h is not None else layout.everywhere):
        stored = arrays.fetch(volume, layout.index(index, box))
        seen.append(look_at(stored, box, layout, region, settings.h is None))
    return merge_seen(seen)


def look_at(stored: arrays.Array, box: Piece, layout: Layout, region: Piece, strided: bool) -> list[Seen]:
    """Find the range within one box, and sample evenly spaced values of it.

    Args:
        stored: the box of one volume, as it was read.
        box: where it lies in the volume.
        layout: what the axes of the whole array are.
        region: the part of the volume that counts for the range.
        strided: whether to sample values.
    """
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


def merge_seen(boxes: list[list[Seen]]) -> list[Seen]:
    """Merge what was seen of each channel in several boxes of a volume."""
    together = []
    for channel in zip(*boxes, strict=True):
        lows, highs = zip(*(seen.range for seen in channel), strict=True)
        together.append(Seen((min(lows), max(highs)), torch.cat([seen.values for seen in channel])))
    return together


def pieces_to_read(volume: arrays.Source, layout: Layout, settings: Settings, region: Piece) -> Iterator[Piece]:
    """Cut a region into pieces that fit the memory; an array in memory stays in one piece."""
    if arrays.in_memory(volume):
        yield region
        return
    memory = allowed(torch.device("cpu"), settings.memory)
    per_voxel = layout.channel_count * arrays.precise_dtype(volume).itemsize * COPIES
    yield from blocks(layout.shape, min(memory / per_voxel, LARGEST_PIECE), region, layout.chunk(volume))


COPIES = 4
"""Copies of a piece that are in memory while it is read and decompressed."""

LARGEST_PIECE = 2**24
"""Largest number of voxels in a piece."""

SPAN_VOXELS = 2**17
"""Number of evenly spaced voxels that suffice to know the robust range of a volume."""


def robust_span(values: Tensor) -> float:
    """Return the range of values without the lowest and highest half per cent."""
    low, high = np.quantile(values.numpy(), [0.005, 0.995])  # faster than torch.quantile, which sorts
    return float(high - low)


def noise_of(
    volume: arrays.Source,
    index: int,
    layout: Layout,
    settings: Settings,
    mask: arrays.Source | None,
    sigma_map: arrays.Source | None,
) -> Noise:
    """Find the noise of one volume: as the settings give it, or estimated.

    Args:
        volume: the array, with all volumes of the series.
        index: number of the volume.
        layout: what the axes of `volume` are.
        settings: how to denoise.
        mask: which voxels to estimate sigma from.
        sigma_map: sigma at every voxel, if it was given.

    Raises:
        ValueError: sigma does not fit the volume or the kind of noise.
    """
    if settings.noise == "poisson":
        if sigma_map is not None:
            raise ValueError("with noise='poisson', sigma is the read noise of the detector; give a number, not a map")
        return Noise((1.0,) * layout.channel_count, read_noise_of(index, layout, settings), None)
    if sigma_map is not None:
        layout.spatial(sigma_map, "sigma")
        own = Layout.of(sigma_map, None, None, "sigma")
        limits = [
            arrays.value_range(arrays.fetch(sigma_map, own.index(0, box)), "sigma")
            for box in pieces_to_read(sigma_map, own, settings, own.everywhere)
        ]
        checks.not_negative("sigma", min(low for low, _ in limits))
        return Noise((max(high for _, high in limits),) * layout.channel_count, 0.0, sigma_map)
    if settings.correlation is not None and (settings.sigma is None or settings.sigma == "map"):
        raise ValueError(
            f"correlation is given, but sigma={settings.sigma!r} would be estimated from differences of "
            "neighbours, which correlated noise makes too small; give sigma, or the model of nlmeans.estimate_noise"
        )
    if settings.sigma == "map":
        return estimated_map(volume, index, layout, settings, mask)
    if settings.sigma is None:
        found = sigma_levels(volume, index, layout, settings.noise, mask, settings.memory, settings.despeckle)
        log.info("estimated sigma %s", found)
        return Noise(found, 0.0, None)
    return Noise(given_sigma(settings.sigma, index, layout), 0.0, None)


def given_sigma(sigma: float | tuple[float, ...], index: int, layout: Layout) -> tuple[float, ...]:
    """Return sigma of each channel of one volume, from one number or several."""
    channels = layout.channel_count
    if isinstance(sigma, float):
        return (sigma,) * channels
    expected = layout.volumes if layout.series is not None else channels
    if len(sigma) != expected or (layout.series is None and layout.channels is None):
        raise ValueError(
            f"sigma has {len(sigma)} numbers; give one, or one per volume of series= or per channel of channels= "
            f"(here {expected}), or an array of the spatial shape {layout.spatial_shape}"
        )
    return (sigma[index],) * channels if layout.series is not None else sigma


def read_noise_of(index: int, layout: Layout, settings: Settings) -> float:
    """Return the read noise of the detector, which sigma stands for if the noise is Poisson."""
    if settings.sigma is None:
        return 0.0
    if settings.sigma == "map":
        raise ValueError(
            "sigma='map' does not work with noise='poisson', whose strength follows from the counts; "
            "give the read noise of the detector as a number, or None"
        )
    found = given_sigma(settings.sigma, index, layout)
    if len(set(found)) > 1:
        raise ValueError(
            f"sigma={found} has different numbers, but with noise='poisson' it is the read noise of one detector; "
            "give one number for all channels"
        )
    if found[0] > MOST_READ_NOISE * settings.gain:
        raise ValueError(
            f"sigma={found[0]:g}, the read noise of the detector, is more than {MOST_READ_NOISE:g} times "
            f"gain={settings.gain:g}, so that counts make no difference; correct one of them, or use noise='gaussian'"
        )
    return found[0]


MOST_READ_NOISE = 1e4
"""Largest read noise in units of the gain. With more, stabilised counts would be lost in the rounding of float32."""


def estimated_map(
    volume: arrays.Source, index: int, layout: Layout, settings: Settings, mask: arrays.Source | None
) -> Noise:
    """Estimate the map of sigma of one volume, and its largest value in each channel.

    All channels share one map: the mean of their own maps, each relative to its largest value, scaled to the first
    channel.
    """
    found = sigma_maps(volume, index, layout, settings.noise, mask, settings.despeckle)
    maps = [found[place].reshape(layout.spatial_shape) for place in layout.channel_pieces(0, layout.everywhere)]
    sigma = tuple(float(values.max()) for values in maps)
    log.info("estimated a map of sigma with the largest values %s", sigma)
    relative = [values / max(s, LEAST_SIGMA) for values, s in zip(maps, sigma, strict=True)]
    return Noise(sigma, 0.0, np.mean(relative, axis=0) * max(sigma[0], LEAST_SIGMA))


LEAST_SIGMA = 1e-38
"""Lower limit of sigma as a divisor."""
