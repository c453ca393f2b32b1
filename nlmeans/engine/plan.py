"""The plan of one volume: its facts, the choices made for it, and the computation of any box of its result."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor

from nlmeans.core import arrays
from nlmeans.core.axes import Axes
from nlmeans.core.constants import constant_voxels, surrounded_by_others
from nlmeans.core.layout import Layout
from nlmeans.core.memory import allowed, give_back, shortage, size_text
from nlmeans.core.metrics import Removed
from nlmeans.core.modes import left_to_kernels, outside_autocast
from nlmeans.core.progress import Report, part, silent
from nlmeans.core.tiles import Piece, Tile, shifted, tile_shape, tiles
from nlmeans.engine.basis import shared_basis
from nlmeans.engine.choices import Choices
from nlmeans.engine.noise import LEAST_SIGMA, noise_of
from nlmeans.engine.settings import Settings
from nlmeans.engine.survey import (
    FEELABLE,
    NOTHING_FOUND,
    Facts,
    Judgement,
    judgement_of,
    noise_in_words,
    survey_volume,
    why_gaussian,
)
from nlmeans.methods.means import classic_pilot
from nlmeans.methods.method import Options
from nlmeans.methods.registry import METHODS
from nlmeans.methods.transform import neighbour_mean
from nlmeans.noise import poisson
from nlmeans.noise.kinds import MAGNITUDES
from nlmeans.noise.outliers import without_outliers
from nlmeans.noise.rician import rician_deviation, without_rician_bias
from nlmeans.noise.search.found import NOTHING_SEEN
from nlmeans.noise.variation import Levels, variation_at
from nlmeans.patches.low_rank.hot import FEWEST_TOGETHER, HOT_REACH, without_hot_voxels

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
    """What the signals have in common, (volumes, components), if the volumes of a series are denoised together."""
    removed: Removed = dataclasses.field(default_factory=Removed, compare=False, repr=False)
    """What was removed by `run` so far, in units of sigma."""

    @classmethod
    @outside_autocast
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
            ValueError: the volume holds infinite values, or sigma does not fit it.
        """
        settings = choices.settings
        if facts is None or (settings.sigma == "map" and sigma_map is None):
            search = mask if noise_mask is None else noise_mask
            noise = noise_of(volume, index, layout, settings, search, sigma_map, choices.method.joint)
            sigma_map = noise.map
        if facts is None:
            looked_at = layout.everywhere
            if region is not None and not choices.method.joint:  # the basis below needs the middles of whole volumes
                looked_at = Tile.around(region, layout.shape, choices.halo).outer
            facts = survey_volume(volume, index, layout, settings, noise, looked_at)
            if text := why_gaussian(settings, noise.model, facts.noise):
                choices.warn_once("magnitudes", text)
        if facts.noise.correlation is not None and not choices.method.whitens:
            able = ", ".join(name for name, method in METHODS.items() if method.whitens)
            choices.warn_once("white", f"method {choices.name} takes correlated noise for white noise; {able} do not")
        plan = cls(volume, index, layout, choices, facts, mask, sigma_map)
        if not choices.method.joint:
            return plan
        return dataclasses.replace(plan, basis=plan.shared_basis())

    def shared_basis(self) -> Tensor:
        """Find what the signals of all volumes have in common, (volumes, components)."""
        lags, count = self.facts.autocovariance, self.layout.channel_count
        found = self.for_all_volumes(shared_basis(self.signals, self.layout.shape, count, lags, self.memory))
        give_back()
        return found

    def signals(self, box: Piece) -> Tensor:
        """Read the signals of a box, of the volumes that have noise, in units of sigma; 0 where there is no noise.

        Raises:
            ValueError: there are infinite values.
        """
        around = Tile.around(box, self.layout.shape, (HOT_REACH,) * 3)
        present, noisy = self.present(), self.read(around.outer, self.device)
        arrays.known_range(noisy, "volume")
        relative = self.relative_sigma(around.outer, self.device)
        level = relative if isinstance(relative, float) else relative.clamp_min(LEAST_RELATIVE_SIGMA)
        scaled = self.scaled(chosen(noisy, present), present, level)
        del noisy
        signals = without_hot_voxels(scaled, level)[0][:, *around.within]
        if isinstance(relative, float):
            return signals
        inner = relative[tuple(around.within)]
        return torch.where(inner > 0, signals / inner.clamp_min(LEAST_RELATIVE_SIGMA), 0)

    def for_all_volumes(self, basis: Tensor) -> Tensor:
        """Complete a basis of the volumes that have noise; the others have no part in it."""
        complete = basis.new_zeros(self.layout.channel_count, basis.shape[1])
        complete[self.present()] = basis
        return complete

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

    @outside_autocast
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
        log.info("%s on %s, %s, in %d tiles", self.choices.title, work.device, noise, len(work.tiles))
        for number, tile in enumerate(work.tiles):
            report = part(progress, number / len(work.tiles), (number + 1) / len(work.tiles))
            self.run_tile(tile, work, into, box, report, rank)
            report(1.0)
        return into

    def judgement(self) -> Judgement | None:
        """Judge what `run` has removed so far; None if there is no noise, or nothing was denoised."""
        if not self.present():
            return None
        noise, whole = self.facts.noise, "float" not in arrays.dtype_name(self.volume)
        return judgement_of(self.removed, noise, whole and not noise.follows_intensity and self.facts.unit < FEELABLE)

    def verdict(self) -> list[str]:
        """Say what speaks against the result, once all of it was computed by `run`; see also `Judgement`."""
        if not self.present():
            known = self.settings.sigma is not None or NOTHING_SEEN in self.facts.noise.evidence
            return [] if known else [NOTHING_FOUND]
        if self.facts.noise.doubts:
            return list(self.facts.noise.doubts)
        if self.settings.strength != 1 or self.settings.h is not None or not self.choices.method.shrinks:
            return []
        judgement = self.judgement()
        return [judgement.doubt] if judgement is not None and judgement.doubt else []

    def work(self, box: Piece, chunk: Axes) -> Work:
        """Cut a box into tiles that fit the memory."""
        choices, memory = self.choices, self.memory
        channels = self.layout.channel_count if self.basis is None else max(self.basis.shape[1], VOLUMES_AT_ONCE)
        voxels = memory / choices.bytes_per_voxel(channels)
        try:
            size = tile_shape(self.layout.shape, self.halo, voxels, box, chunk, choices.grain)
        except ValueError as error:
            raise ValueError(
                f"memory={size_text(memory)} is too little: {error}; allow more or use a smaller search_radius"
            ) from error
        options = Options(
            self.h,
            choices.patch_radius,
            choices.search_radius,
            self.settings.backend,
            memory,
            self.settings.seed,
            self.facts.autocovariance,
            choices.spacing,
        )
        return Work(options, self.device, list(tiles(self.layout.shape, size, self.halo, box, choices.grain)))

    def run_tile(
        self, tile: Tile, work: Work, into: arrays.Writable, box: Piece, progress: Report, rank: Tensor | None
    ) -> None:
        """Denoise a tile; if memory runs out, denoise its halves instead."""
        try:
            with shortage():
                kept = None if rank is None else torch.zeros([s.stop - s.start for s in tile.outer], device=work.device)
                place = shifted(tile.inner, box)
                for channels, denoised in self.denoise_tile(tile, work, progress, kept):
                    where = self.layout.index(self.index, place, channels)
                    arrays.write(into, where, self.layout.from_engine(denoised))
                    del denoised  # before the next is computed
        except MemoryError as error:
            halves = tile.halves(self.layout.shape, self.halo, self.choices.grain)
            if not halves:
                raise MemoryError(
                    f"{work.device} has too little free memory for even one voxel with its halo; "
                    "free some, use a smaller search_radius, or device='cpu'"
                ) from error
        else:
            if rank is not None and kept is not None:
                rank[place] = kept[tile.within].to(rank.device)
            return
        torch.cuda.empty_cache()
        log.warning("%s ran out of memory with a tile of %s voxels; continuing with halves", work.device, tile.shape)
        for number, half in enumerate(halves):
            self.run_tile(half, work, into, box, part(progress, number / 2, (number + 1) / 2), rank)

    def denoise_tile(
        self, tile: Tile, work: Work, progress: Report, rank: Tensor | None = None
    ) -> Iterator[tuple[slice, Tensor]]:
        """Denoise the inner voxels of a tile, in image units, and write the rank of the whole tile, (D, H, W).

        Yields:
            some channels, and their denoised voxels.
        """
        everything, device = slice(0, self.layout.channel_count), work.device
        relative = self.relative_sigma(tile.outer, device)
        inside = torch.ones([s.stop - s.start for s in tile.inner], dtype=torch.bool, device=device)
        if self.mask is not None:
            inside &= self.read_spatial(self.mask, "mask", tile.inner, device) != 0
        if isinstance(relative, Tensor):
            inside &= relative[tile.within] > 0
            relative = relative.clamp_min(LEAST_RELATIVE_SIGMA)
        if not self.present() or not bool(inside.any()):
            yield everything, self.read(tile.inner, device)
        elif self.basis is None:
            kernels = work.device.type == "cpu" and self.settings.backend in ("auto", "cpu")
            with left_to_kernels() if kernels else contextlib.nullcontext():
                denoised = self.denoise_channels(tile, work, relative, inside, progress)
            yield everything, denoised
        else:
            options = dataclasses.replace(work.options, rank=rank)
            yield from self.denoise_components(
                self.basis.to(device, torch.float32), tile, work._replace(options=options), relative, inside, progress
            )

    def denoise_channels(
        self, tile: Tile, work: Work, relative: float | Tensor, inside: Tensor, progress: Report
    ) -> Tensor:
        """Denoise all channels of a tile; voxels that are not inside, and constant surroundings, stay as they are."""
        noisy, present = self.read(tile.outer, work.device), self.present()
        scaled = self.scaled(noisy[present], present, relative)
        level, before = relative, PILOT_SHARE if self.has_magnitudes else 0.0
        if self.has_few_photons:
            level = relative * self.deviation_of_counts(noisy[present])
        if self.has_magnitudes:
            report = part(progress, 0.0, before)
            level = relative * self.variance_of_magnitudes(scaled, present, relative, work, report).mean(0).sqrt()
        report = part(progress, before, FILTERED_SHARE)
        denoised = self.filtered(scaled, level, tile.within, work.options, report)
        result = noisy[:, *tile.within].clone()
        inside = inside & self.has_noise(noisy[present])[:, *tile.within]
        self.count_removed(scaled[:, *tile.within], denoised, relative, tile, inside)
        progress((FILTERED_SHARE + 1) / 2)
        result[present] = self.merged(result[present], denoised, present, tile, relative, inside)
        return result

    def denoise_components(
        self, basis: Tensor, tile: Tile, work: Work, relative: float | Tensor, inside: Tensor, progress: Report
    ) -> Iterator[tuple[slice, Tensor]]:
        """Denoise what the volumes of a tile have in common; only a few volumes are in memory at once."""
        shape = [side.stop - side.start for side in tile.outer]
        components = basis.new_zeros(basis.shape[1], *shape)
        variance, reading, report = basis.new_zeros(shape), part(progress, 0.0, 0.1), part(progress, 0.1, 0.9)
        chunks = self.volumes_at_once()
        for number, some in enumerate(chunks):
            self.add_components(basis, tile, work, relative, some, components, variance)
            reading((number + 1) / len(chunks))
        level = relative * (variance / len(self.present())).sqrt() if self.has_magnitudes else relative
        give_back()
        denoised = self.filtered(components, level, tile.within, work.options, report)
        left = max(0.0, 1 - self.settings.strength**2)  # the Wiener gain of noise that is taken to be weaker than it is
        if left:
            denoised.sub_(components[:, *tile.within], alpha=left)
        del components
        give_back()  # what the filter worked in: the result needs as much
        for some in chunks:  # no name holds a result while the next one is computed
            yield some, self.composed(basis, denoised, left, tile, work, relative, inside, some)
        progress(1.0)

    def add_components(
        self,
        basis: Tensor,
        tile: Tile,
        work: Work,
        relative: float | Tensor,
        some: slice,
        components: Tensor,
        variance: Tensor,
    ) -> None:
        """Add what some volumes of a tile have of the components, and the variance of their noise."""
        if not (present := self.present(some)):
            return
        noisy = chosen(self.read(tile.outer, work.device, some), [channel - some.start for channel in present])
        scaled, _ = without_hot_voxels(self.scaled(noisy, present, relative), relative)
        components.flatten(1).addmm_(basis[present].mT, scaled.flatten(1).contiguous())  # the same bits on any axis
        if self.has_magnitudes:
            variance += self.variance_of_magnitudes(scaled, present, relative, work).sum(0)

    def composed(
        self,
        basis: Tensor,
        denoised: Tensor,
        left: float,
        tile: Tile,
        work: Work,
        relative: float | Tensor,
        inside: Tensor,
        some: slice,
    ) -> Tensor:
        """Compose some volumes of a tile of denoised components, and of the share of their noise that is left."""
        result = self.read(tile.outer, work.device, some)
        if not (present := self.present(some)):
            return result[:, *tile.within]
        places = [channel - some.start for channel in present]
        noisy = chosen(result, places)
        scaled, hot = without_hot_voxels(self.scaled(noisy, present, relative), relative)
        changing = inside & (self.has_noise(noisy) & ~hot)[:, *tile.within]
        noisy, scaled, result = (values[:, *tile.within] for values in (noisy, scaled, result))
        signals = (basis[present] @ denoised.flatten(1)).view(-1, *denoised.shape[1:])
        if left:
            signals.add_(scaled, alpha=left)
        self.count_removed(scaled, signals, relative, tile, changing)
        del scaled
        merged = self.merged(noisy, signals, present, tile, relative, changing)
        if len(present) == len(result):
            return merged
        result[places] = merged
        return result

    def filtered(
        self, scaled: Tensor, level: float | Tensor, wanted: Piece, options: Options, progress: Report
    ) -> Tensor:
        """Let the method denoise a tile in units of sigma, as if the noise were `strength` times as strong as it is.

        A method's h and thresholds are multiples of the level it is told, so that every method obeys. What else depends
        on the noise, such as the bias of magnitudes, follows its true level.
        """
        return self.choices.method.run(scaled, level * self.settings.strength, wanted, options, progress)

    def count_removed(
        self, scaled: Tensor, denoised: Tensor, relative: float | Tensor, tile: Tile, inside: Tensor
    ) -> None:
        """Add what was removed from some channels of a tile, all in units of sigma, to `removed`."""
        level = relative if isinstance(relative, float) else relative[tile.within]
        for noisy, clean, counted in zip(scaled, denoised, inside.expand_as(denoised), strict=True):
            self.removed.add(((noisy - clean) / level)[None], counted)

    def present(self, channels: slice = slice(None)) -> list[int]:
        """Return the numbers of the channels that have noise, among all or some."""
        return [channel for channel in range(len(self.facts.sigma))[channels] if self.facts.sigma[channel] > 0]

    def volumes_at_once(self) -> list[slice]:
        """Return which volumes of a series are read and written together."""
        count = self.layout.channel_count
        some = min(VOLUMES_AT_ONCE, max(FEWEST_TOGETHER, int(SHARE_AT_ONCE * count)))
        starts = range(0, max(count - FEWEST_TOGETHER, 0) + 1, some)  # what is left over joins the last
        return [slice(first, last) for first, last in zip(starts, [*starts[1:], count], strict=True)]

    def units(self, channels: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor]:
        """Return sigma of some channels, and the middle of each, (C, 1, 1, 1)."""
        unit = like.new_tensor([self.facts.sigma[c] for c in channels])[:, None, None, None]
        return unit, like.new_tensor([self.facts.shift[c] for c in channels])[:, None, None, None]

    def scaled(self, noisy: Tensor, channels: Sequence[int], relative: float | Tensor) -> Tensor:
        """Return voxels of some channels in units of sigma, (C, D, H, W), float32, with Gaussian noise; NaN is 0."""
        unit, shift = self.units(channels, noisy)
        noisy = self.facts.noise.stabilise(arrays.without_nan(noisy))
        scaled = (noisy - shift).div_(unit).float()
        if self.settings.despeckle:
            for number, channel in enumerate(scaled):
                scaled[number] = without_outliers(channel, relative)
        return scaled

    def merged(
        self,
        noisy: Tensor,
        denoised: Tensor,
        channels: Sequence[int],
        tile: Tile,
        relative: float | Tensor,
        inside: Tensor,
    ) -> Tensor:
        """Return denoised voxels of some channels in image units; those that are not inside stay as they are."""
        unit, shift = self.units(channels, noisy)
        restored = denoised.to(noisy.dtype).mul_(unit).add_(shift)
        if self.facts.noise.kind in MAGNITUDES:
            scale = unit if isinstance(relative, float) else unit * relative[tile.within]
            restored = without_rician_bias(restored, scale, self.facts.noise.coils)
        restored = self.facts.noise.restore(restored)
        return torch.where(inside, restored, noisy, out=restored)

    def has_noise(self, noisy: Tensor) -> Tensor:
        """Return False at voxels that stay as they are: NaN, and those with exactly constant surroundings in a tile.

        Few photons can leave a neighbourhood without any, so counts must be constant as far as the result depends on.
        What lies far below the offset of a detector, such as a background set to zero, holds no counts.
        """
        if self.facts.noise.kind == "poisson":
            gain, offset, read_noise = self.facts.noise.detector
            return surrounded_by_others(noisy, self.halo) & (noisy >= offset - FAR_BELOW * (gain + read_noise))
        return ~(constant_voxels(noisy) | noisy.isnan())

    @property
    def has_magnitudes(self) -> bool:
        """Whether the noise is that of magnitudes, and the method subtracts it."""
        return self.facts.noise.kind in MAGNITUDES and self.choices.method.shrinks

    def variance_of_magnitudes(
        self,
        scaled: Tensor,
        channels: Sequence[int],
        relative: float | Tensor,
        work: Work,
        progress: Report = silent,
    ) -> Tensor:
        """Estimate the variance of Rician noise at each voxel, (C, D, H, W), in units of sigma².

        Dark magnitudes vary less than sigma. The mean magnitude comes from a pilot.
        """
        unit, shift = self.units(channels, scaled)
        mean = classic_pilot(scaled + shift / unit, relative, work.options, part(progress, 0.0, 0.5))
        variance = rician_deviation(mean / relative, self.facts.noise.coils).square()
        progress(1.0)
        return variance

    @property
    def has_few_photons(self) -> bool:
        """Whether the noise of an image may be less than 1 once it is stabilised, and the method subtracts it."""
        return self.facts.noise.kind == "poisson" and self.choices.method.shrinks and 1 in self.layout.shape

    def deviation_of_counts(self, noisy: Tensor) -> Tensor:
        """Return the level of the stabilised noise of an image of counts, (D, H, W), from means over 5 × 5 pixels.

        Few photons vary less than the transform promises: taken for 1, their noise costs faint structure. The level is
        rather too high than too low, as noise that is left costs more.
        """
        means = [neighbour_mean(neighbour_mean(arrays.without_nan(channel))) for channel in noisy]
        deviations = [poisson.deviation_of_stabilised(mean, *self.facts.noise.detector) for mean in means]
        level = torch.stack(deviations).square().mean(0).sqrt()
        return level.mul_(LEVEL_OF_COUNTS).clamp_(LEAST_LEVEL_OF_COUNTS, 1.0).float()

    def relative_sigma(self, piece: Piece, device: torch.device) -> float | Tensor:
        """Return the level of the noise at every voxel of a piece, (D, H, W), in units of sigma; 1 if it is even."""
        variation = self.facts.noise.variation
        if self.sigma_map is None:
            return 1.0 if variation is None else variation_at(cast(Levels, variation), self.layout.shape, piece, device)
        level = self.read_spatial(self.sigma_map, "sigma", piece, device)
        return (level / max(self.facts.sigma[0], LEAST_SIGMA)).float()

    def read(self, piece: Piece, device: torch.device, channels: slice | None = None) -> Tensor:
        """Read a piece of the volume, or of some of its channels, (C, D, H, W)."""
        index = self.layout.index(self.index, piece, channels)
        return self.layout.to_engine(arrays.read(self.volume, index, arrays.precise_dtype(self.volume), device))

    def read_spatial(self, array: arrays.Source, name: str, piece: Piece, device: torch.device) -> Tensor:
        """Read the same piece of a mask or map, (D, H, W)."""
        layout = self.layout.spatial(array, name)
        values = arrays.read(array, layout.index(0, piece), arrays.precise_dtype(array), device)
        return layout.to_engine(arrays.check_finite(values, name))[0]


def chosen(volumes: Tensor, numbers: Sequence[int]) -> Tensor:
    """Return some volumes of (C, D, H, W), by their numbers, which rise; the same tensor if these are all."""
    return volumes if len(numbers) == len(volumes) else volumes[list(numbers)]


PILOT_SHARE, FILTERED_SHARE = 0.15, 0.92
"""Where the progress of a tile is once the level of magnitudes is known, and once it is filtered; then it is restored
and judged."""

LEVEL_OF_COUNTS, LEAST_LEVEL_OF_COUNTS = 1.1, 0.2
"""Factor on the deviation of few photons, as it is found, and the least level that is told to a method."""

LEAST_RELATIVE_SIGMA = 1e-4
"""Lower limit of sigma relative to the largest value of the map. Smaller noise is far below the rounding of float32."""

FAR_BELOW = 10.0
"""Photons, or read noises, below the offset of a detector that chance does not lead to."""

VOLUMES_AT_ONCE, SHARE_AT_ONCE = 8, 1 / 16
"""Most volumes of a series that are read and written together, and the most of all that these are: several copies of
them are made."""
