"""The plan of one volume: its facts, the choices made for it, and the computation of any box of its result."""

from __future__ import annotations

import dataclasses
import logging
from typing import NamedTuple

import torch
from torch import Tensor

from nlmeans.core import arrays
from nlmeans.core.axes import Axes
from nlmeans.core.layout import Layout
from nlmeans.core.memory import allowed, shortage, size_text
from nlmeans.core.progress import Report, part, silent
from nlmeans.core.tiles import Piece, Tile, shifted, tile_shape, tiles
from nlmeans.engine.basis import shared_basis
from nlmeans.engine.choices import Choices
from nlmeans.engine.noise import LEAST_SIGMA, noise_of
from nlmeans.engine.settings import Settings
from nlmeans.engine.survey import Facts, noise_in_words, survey_volume
from nlmeans.methods.means import classic
from nlmeans.methods.method import Options
from nlmeans.methods.registry import METHODS
from nlmeans.noise import poisson
from nlmeans.noise.kinds import MAGNITUDES
from nlmeans.noise.outliers import without_outliers
from nlmeans.noise.rician import rician_deviation, without_rician_bias

log = logging.getLogger("nlmeans")


class Work(NamedTuple):
    """The computation of one box of a volume."""

    options: Options
    """Options of the method."""
    device: torch.device
    """Device to compute on."""
    tiles: list[Tile]
    """Tiles that the box is cut into."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """One volume to denoise, with everything that must be known before any box of its result can be computed.

    Everything that needs a box of the result (dask, zarr, previews, napari) calls `run`.
    """

    volume: arrays.Source
    index: int
    """Number of the volume in its series."""
    layout: Layout
    choices: Choices
    facts: Facts
    mask: arrays.Source | None
    sigma_map: arrays.Source | None
    basis: Tensor | None = None
    """What the signals of a whole series have in common, if its volumes are denoised together; see `shared_basis`."""

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
        noise_mask: arrays.Source | None = None,
    ) -> Plan:
        """Survey a volume and plan its denoising.

        Args:
            volume: the array, with all volumes of the series.
            index: number of the volume in the series.
            layout: what the axes of `volume` are.
            choices: method and radii.
            mask: voxels where it is zero stay unchanged.
            sigma_map: standard deviation of the noise at every voxel.
            region: the only box that `run` will be called for; None for any.
            facts: those of an earlier plan for the same volume, to skip the survey.
            noise_mask: where to look for the noise; None for `mask`.

        Raises:
            ValueError: the volume holds NaN or infinite values, or sigma does not fit it.
        """
        settings = choices.settings
        if facts is None or (settings.sigma == "map" and sigma_map is None):
            search = mask if noise_mask is None else noise_mask
            noise = noise_of(volume, index, layout, settings, search, sigma_map, choices.method.joint)
            sigma_map = noise.map
        if facts is None:
            outer = Tile.around(layout.everywhere if region is None else region, layout.shape, choices.halo).outer
            facts = survey_volume(volume, index, layout, settings, noise, outer)
        if facts.noise.correlation is not None and not choices.method.whitens:
            able = ", ".join(name for name, method in METHODS.items() if method.whitens)
            log.warning("method %s takes correlated noise for white noise; %s do not", choices.name, able)
        plan = cls(volume, index, layout, choices, facts, mask, sigma_map)
        if not choices.method.joint:
            return plan
        return dataclasses.replace(plan, basis=shared_basis(volume, layout, settings, facts, sigma_map))

    @property
    def settings(self) -> Settings:
        """Settings as the user gave them."""
        return self.choices.settings

    @property
    def h(self) -> float:
        """Filter strength in units of sigma."""
        if self.settings.h is not None:
            return self.settings.h / self.facts.unit
        return self.choices.usual_h(self.facts.contrast)

    @property
    def halo(self) -> Axes:
        """Distance along each axis within which other voxels influence the result of a voxel."""
        return self.choices.halo_for(self.facts.noise.correlation is not None)

    @property
    def device(self) -> torch.device:
        """Device to compute on: the one in the settings, or that of the volume."""
        return torch.device(self.settings.device or arrays.device_of(self.volume))

    @property
    def memory(self) -> int:
        """Bytes to work in."""
        return allowed(self.device, self.settings.memory)

    def run(
        self,
        box: Piece,
        progress: Report = silent,
        into: arrays.Writable | None = None,
        rank: Tensor | None = None,
    ) -> arrays.Writable:
        """Denoise a box of the volume.

        Args:
            box: the voxels to denoise, as slices of depth, height and width.
            progress: called with the fraction done.
            into: the array to write to, with the shape of the box along the spatial axes; None for a new one. If its
                chunks with their halo fit the memory, no two tiles write to the same chunk.
            rank: where to write how many components a method for series keeps at each voxel of the box, (D, H, W).

        Returns:
            `into`, or the new array.

        Raises:
            ValueError: `memory` is too small for a single voxel with its halo.
            MemoryError: the device ran out of memory even so.
            Cancelled: `progress` returned ``False``.
        """
        if into is None:
            into = arrays.empty_like(self.volume, self.settings.dtype, self.layout.array_shape_of(box))
        work = self.work(box, self.layout.chunk(into))
        noise = noise_in_words([self.facts], "varies" if self.sigma_map is not None else "")
        log.info("%s on %s, %s, in %d tiles", self.choices.name, work.device, noise, len(work.tiles))
        for number, tile in enumerate(work.tiles):
            report = part(progress, number / len(work.tiles), (number + 1) / len(work.tiles))
            self.run_tile(tile, work, into, box, report, rank)
            report(1.0)
        return into

    def work(self, box: Piece, chunk: Axes) -> Work:
        """Cut a box into tiles that fit the memory."""
        choices, memory = self.choices, self.memory
        voxels = memory / choices.bytes_per_voxel(self.layout.channel_count)
        try:
            size = tile_shape(self.layout.shape, self.halo, voxels, box, chunk, choices.grain)
        except ValueError as error:
            raise ValueError(
                f"memory={size_text(memory)} is too little: {error}; allow more or use a smaller search_radius"
            ) from error
        lags = self.facts.noise.autocovariance
        options = Options(
            self.h,
            choices.patch_radius,
            choices.search_radius,
            self.settings.backend,
            memory,
            self.settings.seed,
            None if lags is None else torch.from_numpy(lags),
            self.basis,
        )
        return Work(options, self.device, list(tiles(self.layout.shape, size, self.halo, box, choices.grain)))

    def run_tile(
        self, tile: Tile, work: Work, into: arrays.Writable, box: Piece, progress: Report, rank: Tensor | None
    ) -> None:
        """Denoise a tile; if memory runs out, denoise its halves instead."""
        try:
            with shortage():
                kept = None if rank is None else torch.zeros([s.stop - s.start for s in tile.outer], device=work.device)
                denoised = self.denoise_tile(tile, work, progress, kept)
        except MemoryError as error:
            halves = tile.halves(self.layout.shape, self.halo, self.choices.grain)
            if not halves:
                raise MemoryError(
                    f"{work.device} has too little free memory for even one voxel with its halo; "
                    "free some, use a smaller search_radius, or device='cpu'"
                ) from error
        else:
            place = shifted(tile.inner, box)
            arrays.write(into, self.layout.index(self.index, place), self.layout.from_engine(denoised))
            if rank is not None and kept is not None:
                rank[place] = kept[tile.within].to(rank.device)
            return
        torch.cuda.empty_cache()
        log.warning("%s ran out of memory with a tile of %s voxels; continuing with halves", work.device, tile.shape)
        for number, half in enumerate(halves):
            self.run_tile(half, work, into, box, part(progress, number / 2, (number + 1) / 2), rank)

    def denoise_tile(self, tile: Tile, work: Work, progress: Report, rank: Tensor | None = None) -> Tensor:
        """Denoise the inner voxels of a tile, in image units, and write the rank of the whole tile, (D, H, W)."""
        noisy = self.read(tile.outer, work.device)
        result = noisy[:, *tile.within].clone()
        inside = torch.ones_like(result[0], dtype=torch.bool)
        if self.mask is not None:
            inside &= self.read_spatial(self.mask, "mask", tile.inner, work.device) != 0
        relative: float | Tensor = 1.0
        if self.sigma_map is not None:
            relative = self.read_spatial(self.sigma_map, "sigma", tile.outer, work.device)
            relative = (relative / max(self.facts.sigma[0], LEAST_SIGMA)).float()
            inside &= relative[tile.within] > 0
            relative = relative.clamp_min(LEAST_RELATIVE_SIGMA)
        present = [channel for channel, sigma in enumerate(self.facts.sigma) if sigma > 0]
        if not present or not bool(inside.any()):
            return result

        unit = noisy.new_tensor([self.facts.sigma[c] for c in present])[:, None, None, None]
        shift = noisy.new_tensor([self.facts.shift[c] for c in present])[:, None, None, None]
        values, kind, detector = noisy[present], self.facts.noise.kind, self.facts.noise.detector
        if kind == "poisson":
            values = poisson.stabilise_counts(values, *detector)
        scaled = ((values - shift) / unit).float()
        if self.settings.despeckle:
            scaled = torch.stack([without_outliers(channel, relative) for channel in scaled])
        level = relative
        if kind in MAGNITUDES and self.choices.method.shrinks:
            level = relative * self.deviation_of_magnitudes(scaled + (shift / unit).float(), relative, work)
        options = dataclasses.replace(work.options, rank=rank)
        denoised = self.choices.method.run(scaled, level, tile.within, options, progress)
        denoised = denoised.to(noisy.dtype) * unit + shift
        if kind in MAGNITUDES:
            scale = unit if isinstance(relative, float) else unit * relative[tile.within]
            denoised = without_rician_bias(denoised, scale, self.facts.noise.coils)
        elif kind == "poisson":
            denoised = poisson.restore_counts(denoised, *detector)
        result[present] = torch.where(inside, denoised, result[present])
        return result

    def deviation_of_magnitudes(self, noisy: Tensor, relative: float | Tensor, work: Work) -> Tensor:
        """Estimate the deviation of Rician noise at each voxel, (D, H, W), in units of sigma; rms over the channels.

        Dark magnitudes vary less than sigma. The mean magnitude comes from `classic`.
        """
        mean = classic(noisy, relative, work.options, silent)
        return rician_deviation(mean / relative, self.facts.noise.coils).square().mean(0).sqrt()

    def read(self, piece: Piece, device: torch.device) -> Tensor:
        """Read a piece of the volume, (C, D, H, W)."""
        index = self.layout.index(self.index, piece)
        return self.layout.to_engine(arrays.read(self.volume, index, arrays.precise_dtype(self.volume), device))

    def read_spatial(self, array: arrays.Source, name: str, piece: Piece, device: torch.device) -> Tensor:
        """Read the same piece of a mask or map, (D, H, W)."""
        layout = self.layout.spatial(array, name)
        values = arrays.read(array, layout.index(0, piece), arrays.precise_dtype(array), device)
        return layout.to_engine(arrays.check_finite(values, name))[0]


LEAST_RELATIVE_SIGMA = 1e-4
"""Lower limit of sigma relative to the largest value of the map. Smaller noise is far below the rounding of float32."""
