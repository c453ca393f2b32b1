"""One volume on its way through the engine: to units of sigma, in tiles through a method, and back."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from nlmeans import arrays, checks, poisson
from nlmeans.backends.request import Axes
from nlmeans.backends.windowed import windows_step
from nlmeans.layout import Layout
from nlmeans.memory import allowed, readable, shortage
from nlmeans.methods import METHODS, Method, Options, classic
from nlmeans.noise import rician_deviation, without_rician_bias
from nlmeans.outliers import REACH, without_outliers
from nlmeans.progress import Report, part, silent
from nlmeans.settings import Settings
from nlmeans.survey import TINY, Facts, noise_of, survey
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

    volume: arrays.Source
    index: int
    layout: Layout
    settings: Settings
    facts: Facts
    mask: arrays.Source | None
    sigma_map: arrays.Source | None

    @classmethod
    def of(
        cls,
        volume: arrays.Source,
        index: int,
        layout: Layout,
        settings: Settings,
        mask: arrays.Source | None,
        sigma_map: arrays.Source | None,
        region: Piece,
        facts: Facts | None = None,
    ) -> Task:
        """A task for this region; `facts` of an earlier task for the same volume save another look at it."""
        if facts is None or (settings.sigma == "map" and sigma_map is None):
            noise = noise_of(volume, index, layout, settings, mask, sigma_map)
            sigma_map = noise.map
        if facts is None:
            outer = Tile.around(region, layout.shape, halo_of(settings)).outer
            facts = survey(volume, index, layout, settings, noise, outer)
        return cls(volume, index, layout, settings, facts, mask, sigma_map)

    def run(self, result: arrays.Writable, region: Piece, progress: Report) -> None:
        """Denoise a region of the volume into `result`, which has the region's shape.

        No two tiles write to the same chunk of it, unless a single one with its halo takes more memory than allowed.
        """
        work = self.plan(region, self.layout.chunk(result))
        log.info(
            "%s on %s, sigma %s, in %d tiles", self.settings.method, work.device, self.facts.sigma, len(work.tiles)
        )
        for number, tile in enumerate(work.tiles):
            report = part(progress, number / len(work.tiles), (number + 1) / len(work.tiles))
            self.run_tile(tile, work, result, region, report)
            report(1.0)

    @property
    def mean_sigma(self) -> float:
        """Over the channels that have noise; 1 if none has."""
        noisy = [s for s in self.facts.sigma if s > 0]
        return sum(noisy) / len(noisy) if noisy else 1.0

    @property
    def h(self) -> float:
        """The filter strength in units of sigma."""
        if self.settings.h is not None:
            return self.settings.h / self.mean_sigma
        return METHODS[self.settings.method].usual_h(self.facts.contrast, radii(self.settings)[1])

    def plan(self, region: Piece, chunk: Axes) -> Work:
        method = METHODS[self.settings.method]
        patch_radius, search_radius = radii(self.settings)
        device = torch.device(self.settings.device or arrays.device_of(self.volume))
        memory = allowed(device, self.settings.memory)
        channels, halo, grain = self.layout.channel_count, halo_of(self.settings), grain_of(self.settings)
        working = method.bytes_per_voxel(self.settings.backend, channels, patch_radius, search_radius)
        voxels = memory / (working + CONVERSION_BYTES * channels)
        try:
            size = tile_shape(self.layout.shape, halo, voxels, region, chunk, grain)
        except ValueError as error:
            raise ValueError(
                f"memory={readable(memory)} is too little: {error}; allow more or take a smaller search_radius"
            ) from error
        options = Options(self.h, patch_radius, search_radius, self.settings.backend, memory, self.settings.seed)
        return Work(method, options, device, halo, list(tiles(self.layout.shape, size, halo, region, grain)))

    def run_tile(self, tile: Tile, work: Work, result: arrays.Writable, region: Piece, progress: Report) -> None:
        """Denoise a tile; where there is too little memory for it, in halves."""
        try:
            with shortage():
                denoised = self.denoise_tile(tile, work, progress)
        except (torch.OutOfMemoryError, MemoryError) as error:
            halves = tile.halves(self.layout.shape, work.halo, grain_of(self.settings))
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
            relative = (relative / max(self.facts.sigma[0], TINY)).float()
            inside &= relative[tile.within] > 0
            relative = relative.clamp_min(LEAST_RELATIVE_SIGMA)
        present = [channel for channel, sigma in enumerate(self.facts.sigma) if sigma > 0]
        if not present or not bool(inside.any()):
            return result

        unit = noisy.new_tensor([self.facts.sigma[c] for c in present])[:, None, None, None]
        shift = noisy.new_tensor([self.facts.shift[c] for c in present])[:, None, None, None]
        values, detector = noisy[present], (self.settings.gain, self.settings.offset, self.facts.read_noise)
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

    def read_beside(self, array: arrays.Source, name: str, piece: Piece, device: torch.device) -> Tensor:
        """The same piece of a mask or map, (D, H, W)."""
        layout = self.layout.spatial(array, name)
        values = arrays.read(array, layout.index(0, piece), arrays.precise_dtype(array), device)
        return layout.to_engine(arrays.finite(values, name))[0]


CONVERSION_BYTES = 24
"""Per voxel and channel, for the tile as read, in units of sigma, and on its way back."""

LEAST_RELATIVE_SIGMA = 1e-4
"""Beside the map's largest value; where it is less, the noise is far below float32's own rounding."""


def halo_of(settings: Settings) -> Axes:
    """What a voxel's result depends on, around it."""
    method, (patch_radius, search_radius) = METHODS[settings.method], radii(settings)
    margins = [method.halo(patch_radius, search_radius)]
    if settings.noise == "rician" and method.shrinks:
        margins.append(METHODS["classic"].halo(patch_radius, search_radius))
    if settings.backend == "windowed":  # a voxel lies at the edge of windows that reach twice as far
        margins += [search_radius] * len(margins)
    d, h, w = (sum(margin) + REACH * settings.despeckle for margin in zip(*margins, strict=True))
    return d, h, w


def grain_of(settings: Settings) -> int:
    """Tiles must start at multiples of so many voxels, so that grids of patches and windows are those of the whole."""
    windows = windows_step(radii(settings)[1]) if settings.backend == "windowed" else 1
    return math.lcm(METHODS[settings.method].grain, windows)


def radii(settings: Settings) -> tuple[Axes, Axes]:
    """Patch and search radius of resolved settings, along depth, height and width."""
    patch_radius, search_radius = settings.patch_radius, settings.search_radius
    if not isinstance(patch_radius, tuple) or not isinstance(search_radius, tuple):
        raise TypeError(f"radii must be resolved to one per axis, not {patch_radius} and {search_radius}")
    dimensions = len(patch_radius)
    return checks.radii("patch_radius", patch_radius, dimensions), checks.radii(
        "search_radius", search_radius, dimensions
    )
