"""One volume on its way through the engine: to units of sigma, in tiles through a method, and back."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nlmeans import arrays, checks, poisson
from nlmeans.backends.request import Axes
from nlmeans.estimate import estimate_sigma
from nlmeans.layout import Layout
from nlmeans.memory import allowed, readable, shortage
from nlmeans.methods import METHODS, Method, Options, classic
from nlmeans.noise import rician_deviation, without_rician_bias
from nlmeans.outliers import REACH, despeckle, without_outliers
from nlmeans.progress import Report, part, silent
from nlmeans.settings import Settings
from nlmeans.tiles import Piece, Tile, shifted, tile_shape, tiles

log = logging.getLogger("nlmeans")


class Work(NamedTuple):
    """How a volume is to be denoised."""

    method: Method
    options: Options
    device: torch.device
    halo: Axes
    tiles: list[Tile]


@dataclass(frozen=True)
class Task:
    """One volume to denoise, with all that must be known of it before it is cut into tiles."""

    volume: arrays.Array
    index: int
    layout: Layout
    settings: Settings
    sigma: tuple[float, ...]
    """One per channel; with a map of sigma, its largest value."""
    shift: tuple[float, ...]
    """The middle of each channel's range, which goes to zero, so that a constant channel comes back exactly."""
    contrast: float
    """What the values span, in units of sigma, on average over the channels. h follows from it where not given."""
    read_noise: float
    """Of a detector that counts; there sigma and shift are those of the stabilised counts."""
    mask: arrays.Array | None
    sigma_map: arrays.Array | None

    @classmethod
    def of(
        cls,
        volume: arrays.Array,
        index: int,
        layout: Layout,
        settings: Settings,
        mask: arrays.Array | None,
        sigma_map: arrays.Array | None,
        region: Piece,
    ) -> Task:
        halo = halo_of(settings)
        channels = layout.channel_pieces(index, Tile.around(region, layout.shape, halo).outer)
        ranges = [arrays.value_range(volume[piece], "volume") for piece in channels]
        read_noise = 0.0
        if settings.noise == "poisson":
            if sigma_map is not None:
                raise ValueError("sigma is the read noise where noise='poisson'; give a number, not a map")
            read_noise = read_noise_of(volume, index, layout, settings)
            ranges = [stabilised_range(settings, read_noise, low, high) for low, high in ranges]
            sigma: tuple[float, ...] = (1.0,) * len(channels)
        elif settings.sigma == "map" and sigma_map is None:
            sigma_map, sigma = estimated_map(volume, index, layout, settings, mask)
        elif sigma_map is not None:
            low, high = arrays.value_range(arrays.checked(sigma_map, "sigma"), "sigma")
            layout.spatial(sigma_map, "sigma")
            checks.not_negative("sigma", low)
            sigma = (high,) * len(channels)
        else:
            sigma = noise_levels(volume, index, layout, settings, mask)
        peaks = (max(-low, high) for low, high in ranges)
        sigma = tuple(s if 0 < peak * NEGLIGIBLE < s else 0.0 for s, peak in zip(sigma, peaks, strict=True))
        middles = tuple(low / 2 + high / 2 for low, high in ranges)
        whole = layout.channel_pieces(index, layout.everywhere) if settings.h is None else []
        spans = [span(volume, place, settings, read_noise) / s for place, s in zip(whole, sigma, strict=False) if s > 0]
        contrast = sum(spans) / max(len(spans), 1)
        return cls(volume, index, layout, settings, sigma, middles, contrast, read_noise, mask, sigma_map)

    def run(self, result: arrays.Array, region: Piece, progress: Report) -> None:
        """Denoise a region of the volume into `result`, which has the region's shape."""
        work = self.plan(region)
        log.info("%s on %s, sigma %s, in %d tiles", self.settings.method, work.device, self.sigma, len(work.tiles))
        for number, tile in enumerate(work.tiles):
            report = part(progress, number / len(work.tiles), (number + 1) / len(work.tiles))
            self.run_tile(tile, work, result, region, report)
            report(1.0)

    @property
    def mean_sigma(self) -> float:
        """Over the channels that have noise; 1 if none has."""
        noisy = [s for s in self.sigma if s > 0]
        return sum(noisy) / len(noisy) if noisy else 1.0

    @property
    def h(self) -> float:
        """The filter strength in units of sigma."""
        if self.settings.h is not None:
            return self.settings.h / self.mean_sigma
        return METHODS[self.settings.method].usual_h(self.contrast, radii(self.settings)[1])

    def plan(self, region: Piece) -> Work:
        method = METHODS[self.settings.method]
        patch_radius, search_radius = radii(self.settings)
        device = torch.device(self.settings.device or arrays.device_of(self.volume))
        memory = allowed(device, self.settings.memory)
        working = method.bytes_per_voxel(self.settings.backend, len(self.sigma), patch_radius, search_radius)
        halo = halo_of(self.settings)
        try:
            size = tile_shape(self.layout.shape, halo, memory / (working + CONVERSION_BYTES * len(self.sigma)), region)
        except ValueError as error:
            raise ValueError(
                f"memory={readable(memory)} is too little: {error}; allow more or take a smaller search_radius"
            ) from error
        options = Options(self.h, patch_radius, search_radius, self.settings.backend, memory, self.settings.seed)
        return Work(method, options, device, halo, list(tiles(self.layout.shape, size, halo, region, method.grain)))

    def run_tile(self, tile: Tile, work: Work, result: arrays.Array, region: Piece, progress: Report) -> None:
        """Denoise a tile; where there is too little memory for it, in halves."""
        try:
            with shortage():
                denoised = self.denoise_tile(tile, work, progress)
        except (torch.OutOfMemoryError, MemoryError) as error:
            halves = tile.halves(self.layout.shape, work.halo, work.method.grain)
            if not halves:
                raise MemoryError(
                    f"{work.device} has too little free memory for even one voxel and its surroundings: "
                    "free some, take a smaller search_radius, or device='cpu'"
                ) from error
        else:
            place = shifted(tile.inner, region)
            arrays.write(result, self.layout.index(self.index, place), self.layout.from_engine(denoised))
            return
        torch.cuda.empty_cache()
        log.warning("%s: out of memory with a tile of %s voxels, going on in halves", work.device, tile.shape)
        for number, half in enumerate(halves):
            self.run_tile(half, work, result, region, part(progress, number / 2, (number + 1) / 2))

    def denoise_tile(self, tile: Tile, work: Work, progress: Report) -> Tensor:
        """The inner voxels of a tile, denoised, in image units."""
        noisy = self.read(tile.outer, work.device)
        result = noisy[:, *tile.within].clone()
        inside = torch.ones_like(result[0], dtype=torch.bool)
        if self.mask is not None:
            inside &= self.read_beside(self.mask, "mask", tile.inner, work.device) != 0
        relative: float | Tensor = 1.0
        if self.sigma_map is not None:
            relative = self.read_beside(self.sigma_map, "sigma", tile.outer, work.device)
            relative = (relative / max(self.sigma[0], TINY)).float()
            inside &= relative[tile.within] > 0
            relative = relative.clamp_min(LEAST_RELATIVE_SIGMA)
        present = [channel for channel, sigma in enumerate(self.sigma) if sigma > 0]
        if not present or not bool(inside.any()):
            return result

        unit = noisy.new_tensor([self.sigma[c] for c in present])[:, None, None, None]
        shift = noisy.new_tensor([self.shift[c] for c in present])[:, None, None, None]
        values, detector = noisy[present], (self.settings.gain, self.settings.offset, self.read_noise)
        if self.settings.noise == "poisson":
            values = poisson.stabilise(values, *detector)
        scaled = ((values - shift) / unit).float()
        if self.settings.despeckle:
            scaled = torch.stack([without_outliers(channel, relative) for channel in scaled])
        level = relative
        if self.settings.noise == "rician" and work.method.shrinks:
            level = relative * self.deviation_of_magnitudes(scaled + (shift / unit).float(), relative, work)
        denoised = work.method.run(scaled, level, tile.within, work.options, progress)
        denoised = denoised.to(noisy.dtype) * unit + shift
        if self.settings.noise == "rician":
            scale = unit if isinstance(relative, float) else unit * relative[tile.within]
            denoised = without_rician_bias(denoised, scale)
        elif self.settings.noise == "poisson":
            denoised = poisson.restore(denoised, *detector)
        result[present] = torch.where(inside, denoised, result[present])
        return result

    def deviation_of_magnitudes(self, noisy: Tensor, relative: float | Tensor, work: Work) -> Tensor:
        """Of Rician noise, in units of sigma, where it is less for what is dark: (D, H, W), the rms over the channels.

        The mean that decides is that of plain non-local means.
        """
        mean = classic(noisy, relative, work.options, silent)
        return rician_deviation(mean / relative).square().mean(0).sqrt()

    def read(self, piece: Piece, device: torch.device) -> Tensor:
        """A piece of the volume, (C, D, H, W)."""
        index = self.layout.index(self.index, piece)
        return self.layout.to_engine(arrays.read(self.volume, index, arrays.precise_dtype(self.volume), device))

    def read_beside(self, array: arrays.Array, name: str, piece: Piece, device: torch.device) -> Tensor:
        """The same piece of a mask or map, (D, H, W)."""
        layout = self.layout.spatial(array, name)
        values = arrays.read(array, layout.index(0, piece), arrays.precise_dtype(array), device)
        return layout.to_engine(values)[0]


CONVERSION_BYTES = 24
"""Per voxel and channel, for the tile as read, in units of sigma, and on its way back."""

NEGLIGIBLE = 1e-12
"""Sigma beside the largest value; where it is less there is no noise to speak of, and values / sigma leave float32."""

LEAST_RELATIVE_SIGMA = 1e-4
"""Beside the map's largest value; where it is less, the noise is far below float32's own rounding."""

TINY = 1e-38


def halo_of(settings: Settings) -> Axes:
    """What a voxel's result depends on, around it."""
    method, (patch_radius, search_radius) = METHODS[settings.method], radii(settings)
    margins = [method.halo(patch_radius, search_radius)]
    if settings.noise == "rician" and method.shrinks:
        margins.append(METHODS["classic"].halo(patch_radius, search_radius))
    d, h, w = (sum(margin) + REACH * settings.despeckle for margin in zip(*margins, strict=True))
    return d, h, w


def span(volume: arrays.Array, place: arrays.Slices, settings: Settings, read_noise: float) -> float:
    """What the values of a channel span, but for half a per cent at either end."""
    channel = volume[place]
    sizes = [n for n in channel.shape if n > 1]
    stride = math.ceil((math.prod(sizes) / SPAN_VOXELS) ** (1 / max(len(sizes), 1)))
    values = arrays.read(channel, (slice(None, None, stride),) * channel.ndim, torch.float64, torch.device("cpu"))
    if settings.noise == "poisson":
        values = poisson.stabilise(values, settings.gain, settings.offset, read_noise)
    low, high = torch.quantile(values.flatten(), values.new_tensor([0.005, 0.995])).tolist()
    return float(high - low)


SPAN_VOXELS = 2**17
"""Of the volume, evenly spaced: enough to know its range by."""


def radii(settings: Settings) -> tuple[Axes, Axes]:
    """Patch and search radius of resolved settings, along depth, height and width."""
    patch_radius, search_radius = settings.patch_radius, settings.search_radius
    if not isinstance(patch_radius, tuple) or not isinstance(search_radius, tuple):
        raise TypeError(f"radii must be resolved to one per axis, not {patch_radius} and {search_radius}")
    dimensions = len(patch_radius)
    return checks.radii("patch_radius", patch_radius, dimensions), checks.radii(
        "search_radius", search_radius, dimensions
    )


def read_noise_of(volume: arrays.Array, index: int, layout: Layout, settings: Settings) -> float:
    """The read noise of a detector, which is what sigma stands for with Poisson noise."""
    if settings.sigma is None:
        return 0.0
    if settings.sigma == "map":
        raise ValueError("sigma='map' is not for noise='poisson', where noise follows the counts; give the read noise")
    levels = noise_levels(volume, index, layout, settings, None)
    if len(set(levels)) > 1:
        raise ValueError(f"sigma={levels} is the read noise where noise='poisson'; give one number for all channels")
    return levels[0]


def stabilised_range(settings: Settings, read_noise: float, *limits: float) -> tuple[float, float]:
    values = torch.tensor(limits, dtype=torch.float64)
    low, high = poisson.stabilise(values, settings.gain, settings.offset, read_noise).tolist()
    return low, high


def to_estimate_from(volume: arrays.Array, index: int, layout: Layout, settings: Settings) -> arrays.Array:
    """One volume of the series, without outliers if they are to be removed."""
    one = volume[layout.index(index, layout.everywhere)]
    return despeckle(one, channels=layout.channels, series=layout.series) if settings.despeckle else one


def estimated_map(
    volume: arrays.Array, index: int, layout: Layout, settings: Settings, mask: arrays.Array | None
) -> tuple[arrays.Array, tuple[float, ...]]:
    """Sigma of one volume where it varies in space, and its largest value in each channel.

    Channels share the mean of their maps, each relative to its largest value; the map is in units of the first.
    """
    one = to_estimate_from(volume, index, layout, settings)
    found = estimate_sigma(
        one, noise=settings.noise, mask=mask, map=True, channels=layout.channels, series=layout.series
    )
    maps = [found[place].reshape(layout.spatial_shape) for place in layout.channel_pieces(0, layout.everywhere)]
    sigma = tuple(float(values.max()) for values in maps)
    log.info("estimated a map of sigma, at most %s", sigma)
    relative = [values / max(s, TINY) for values, s in zip(maps, sigma, strict=True)]
    return np.mean(relative, axis=0) * max(sigma[0], TINY), sigma


def noise_levels(
    volume: arrays.Array, index: int, layout: Layout, settings: Settings, mask: arrays.Array | None
) -> tuple[float, ...]:
    """Sigma of each channel of one volume, as given or estimated."""
    channels = layout.channel_count
    if settings.sigma is None:
        one = to_estimate_from(volume, index, layout, settings)
        estimate = estimate_sigma(one, noise=settings.noise, mask=mask, channels=layout.channels, series=layout.series)
        levels = tuple(np.ravel(estimate).tolist())
        log.info("estimated sigma %s", levels)
        return levels
    if isinstance(settings.sigma, float | str):
        return (float(settings.sigma),) * channels
    expected = layout.volumes if layout.series is not None else channels
    if len(settings.sigma) != expected or (layout.series is None and layout.channels is None):
        raise ValueError(
            f"sigma has {len(settings.sigma)} numbers; give one, or one per volume of series= or channel of channels= "
            f"(here {expected}), or an array of the spatial shape {layout.spatial_shape}"
        )
    return (settings.sigma[index],) * channels if layout.series is not None else settings.sigma
