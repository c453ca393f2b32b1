"""The plan of one volume: what is known of it, what was chosen for it, and how any box of its result is computed."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from nlmeans.core import arrays
from nlmeans.core.axes import Axes
from nlmeans.core.layout import Layout
from nlmeans.core.memory import allowed, readable, shortage
from nlmeans.core.progress import Report, part, silent
from nlmeans.core.tiles import Piece, Tile, shifted, tile_shape, tiles
from nlmeans.engine.choices import Choices
from nlmeans.engine.settings import Settings
from nlmeans.engine.survey import TINY, Facts, noise_of, survey
from nlmeans.methods.means import classic
from nlmeans.methods.method import Options
from nlmeans.noise import poisson
from nlmeans.noise.outliers import without_outliers
from nlmeans.noise.rician import rician_deviation, without_rician_bias

log = logging.getLogger("nlmeans")


class Work(NamedTuple):
    """How one box of a volume is computed."""

    options: Options
    device: torch.device
    tiles: list[Tile]


@dataclass(frozen=True)
class Plan:
    """One volume to denoise, with everything that must be known before any box of its result can be computed.

    Whoever needs a part of the result (tiles, dask, zarr, previews, napari) asks `run` for it.
    """

    volume: arrays.Source
    index: int
    """Number of the volume in its series."""
    layout: Layout
    choices: Choices
    facts: Facts
    mask: arrays.Source | None
    sigma_map: arrays.Source | None

    @classmethod
    def of(
        cls,
        volume: arrays.Source,
        index: int,
        layout: Layout,
        choices: Choices,
        *,
        mask: arrays.Source | None = None,
        sigma_map: arrays.Source | None = None,
        region: Piece | None = None,
        facts: Facts | None = None,
    ) -> Plan:
        """Survey a volume and plan its denoising.

        Args:
            volume: the array, of all volumes of a series.
            index: which volume of the series.
            layout: what the axes of `volume` are.
            choices: method and radii.
            mask: where to denoise.
            sigma_map: standard deviation of the noise at every voxel.
            region: the only box that will be asked for; None for any.
            facts: those of an earlier plan for the same volume, which save another look at it.
        """
        settings = choices.settings
        if facts is None or (settings.sigma == "map" and sigma_map is None):
            noise = noise_of(volume, index, layout, settings, mask, sigma_map)
            sigma_map = noise.map
        if facts is None:
            outer = Tile.around(layout.everywhere if region is None else region, layout.shape, choices.halo).outer
            facts = survey(volume, index, layout, settings, noise, outer)
        return cls(volume, index, layout, choices, facts, mask, sigma_map)

    @property
    def settings(self) -> Settings:
        return self.choices.settings

    @property
    def h(self) -> float:
        """The filter strength in units of sigma."""
        if self.settings.h is not None:
            return self.settings.h / self.facts.unit
        return self.choices.usual_h(self.facts.contrast)

    @property
    def device(self) -> torch.device:
        return torch.device(self.settings.device or arrays.device_of(self.volume))

    @property
    def memory(self) -> int:
        """Bytes that the plan may work in."""
        return allowed(self.device, self.settings.memory)

    def run(self, box: Piece, progress: Report = silent, into: arrays.Writable | None = None) -> arrays.Writable:
        """Denoise a box of the volume.

        Args:
            box: which voxels, as slices of depth, height and width.
            progress: called with the fraction done.
            into: where to write, with the shape of the box along the spatial axes; None for a new array. No two tiles
                write to the same chunk of it, unless one chunk with its halo takes more memory than allowed.

        Returns:
            `into`, or the new array.
        """
        if into is None:
            into = arrays.empty_like(self.volume, self.settings.dtype, self.layout.array_shape_of(box))
        work = self.work(box, self.layout.chunk(into))
        log.info("%s on %s, sigma %s, in %d tiles", self.choices.name, work.device, self.facts.sigma, len(work.tiles))
        for number, tile in enumerate(work.tiles):
            report = part(progress, number / len(work.tiles), (number + 1) / len(work.tiles))
            self.run_tile(tile, work, into, box, report)
            report(1.0)
        return into

    def work(self, box: Piece, chunk: Axes) -> Work:
        """Cut a box into tiles that fit the memory."""
        choices, memory = self.choices, self.memory
        voxels = memory / choices.bytes_per_voxel(self.layout.channel_count)
        try:
            size = tile_shape(self.layout.shape, choices.halo, voxels, box, chunk, choices.grain)
        except ValueError as error:
            raise ValueError(
                f"memory={readable(memory)} is too little: {error}; allow more or take a smaller search_radius"
            ) from error
        options = Options(
            self.h, choices.patch_radius, choices.search_radius, self.settings.backend, memory, self.settings.seed
        )
        return Work(options, self.device, list(tiles(self.layout.shape, size, choices.halo, box, choices.grain)))

    def run_tile(self, tile: Tile, work: Work, into: arrays.Writable, box: Piece, progress: Report) -> None:
        """Denoise a tile; if memory runs out, denoise its halves instead."""
        try:
            with shortage():
                denoised = self.denoise_tile(tile, work, progress)
        except (torch.OutOfMemoryError, MemoryError) as error:
            halves = tile.halves(self.layout.shape, self.choices.halo, self.choices.grain)
            if not halves:
                raise MemoryError(
                    f"{work.device} has too little free memory for even one voxel and its surroundings: "
                    "free some, take a smaller search_radius, or device='cpu'"
                ) from error
        else:
            place = shifted(tile.inner, box)
            arrays.write(into, self.layout.index(self.index, place), self.layout.from_engine(denoised))
            return
        torch.cuda.empty_cache()
        log.warning("%s: out of memory with a tile of %s voxels, going on in halves", work.device, tile.shape)
        for number, half in enumerate(halves):
            self.run_tile(half, work, into, box, part(progress, number / 2, (number + 1) / 2))

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
            values = poisson.stabilise_counts(values, *detector)
        scaled = ((values - shift) / unit).float()
        if self.settings.despeckle:
            scaled = torch.stack([without_outliers(channel, relative) for channel in scaled])
        level = relative
        if self.settings.noise == "rician" and self.choices.method.shrinks:
            level = relative * self.deviation_of_magnitudes(scaled + (shift / unit).float(), relative, work)
        denoised = self.choices.method.run(scaled, level, tile.within, work.options, progress)
        denoised = denoised.to(noisy.dtype) * unit + shift
        if self.settings.noise == "rician":
            scale = unit if isinstance(relative, float) else unit * relative[tile.within]
            denoised = without_rician_bias(denoised, scale)
        elif self.settings.noise == "poisson":
            denoised = poisson.restore_counts(denoised, *detector)
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


LEAST_RELATIVE_SIGMA = 1e-4
"""Relative to the map's largest value; where sigma is less, the noise is far below the rounding of float32."""
