"""The plan of one volume: its facts, the choices made for it, and the computation of any box of its result."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from nlmeans.core import arrays
from nlmeans.core.axes import Axes
from nlmeans.core.layout import Layout
from nlmeans.core.memory import allowed, give_back, shortage, size_text
from nlmeans.core.metrics import Removed
from nlmeans.core.modes import left_to_kernels, outside_autocast
from nlmeans.core.progress import Report, part, silent
from nlmeans.core.tiles import Piece, Tile, shifted, tile_shape, tiles
from nlmeans.engine.basis import shared_basis
from nlmeans.engine.choices import Choices
from nlmeans.engine.noise import noise_of
from nlmeans.engine.scaled import LEAST_RELATIVE_SIGMA, ScaledVolume, chosen
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
from nlmeans.methods.method import Options
from nlmeans.methods.registry import METHODS
from nlmeans.noise.search.found import NOTHING_SEEN
from nlmeans.patches.low_rank.hot import FEWEST_TOGETHER, without_hot_voxels

log = logging.getLogger("nlmeans")


class Work(NamedTuple):
    """The computation of one box of a volume."""

    options: Options
    """Options of the method."""
    device: torch.device
    """Device to compute on."""
    tiles: list[Tile]
    """Tiles that the box is cut into."""


class Part(NamedTuple):
    """A tile that is being denoised."""

    tile: Tile
    options: Options
    device: torch.device
    relative: float | Tensor
    """Level of the noise at each voxel of the tile, in units of sigma; 1 if it is even."""
    inside: Tensor
    """Which of the inner voxels to denoise."""

    @property
    def relative_inside(self) -> float | Tensor:
        """`relative` at the inner voxels."""
        return self.relative if isinstance(self.relative, float) else self.relative[self.tile.within]


@dataclasses.dataclass(frozen=True)
class Plan(ScaledVolume):
    """One volume to denoise, with everything that must be known before any box of its result can be computed.

    Everything that needs a box of the result (dask, zarr, previews, napari) calls `run`.
    """

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

    def for_all_volumes(self, basis: Tensor) -> Tensor:
        """Complete a basis of the volumes that have noise; the others have no part in it."""
        complete = basis.new_zeros(self.layout.channel_count, basis.shape[1])
        complete[self.present()] = basis
        return complete

    @property
    def h(self) -> float:
        """Filter strength in units of sigma."""
        if self.settings.h is not None:
            return self.settings.h / self.facts.unit
        return self.choices.usual_h(self.facts.contrast)

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
            return
        one = Part(tile, dataclasses.replace(work.options, rank=rank), device, relative, inside)
        if self.basis is None:
            kernels = device.type == "cpu" and self.settings.backend in ("auto", "cpu")
            with left_to_kernels() if kernels else contextlib.nullcontext():
                denoised = self.denoise_channels(one, progress)
            yield everything, denoised
        else:
            yield from self.denoise_components(one, self.basis.to(device, torch.float32), progress)

    def denoise_channels(self, one: Part, progress: Report) -> Tensor:
        """Denoise all channels of a tile; voxels that are not inside, and constant surroundings, stay as they are."""
        noisy, present, within = self.read(one.tile.outer, one.device), self.present(), one.tile.within
        scaled = self.scaled(noisy[present], present, one.relative)
        level, before = one.relative, PILOT_SHARE if self.has_magnitudes else 0.0
        if self.has_few_photons:
            level = one.relative * self.level_of_few_photons(noisy[present])
        if self.has_magnitudes:
            report = part(progress, 0.0, before)
            level = level * self.variance_of_magnitudes(scaled, present, level, one.options, report).mean(0).sqrt()
        denoised = self.filtered(scaled, level, one, part(progress, before, FILTERED_SHARE))
        result = noisy[:, *within].clone()
        inside = one.inside & self.has_noise(noisy[present])[:, *within]
        self.count_removed(scaled[:, *within], denoised, one.relative_inside, inside)
        progress((FILTERED_SHARE + 1) / 2)
        result[present] = self.merged(result[present], denoised, present, one.relative_inside, inside)
        return result

    def denoise_components(self, one: Part, basis: Tensor, progress: Report) -> Iterator[tuple[slice, Tensor]]:
        """Denoise what the volumes of a tile have in common; only a few volumes are in memory at once."""
        shape = [side.stop - side.start for side in one.tile.outer]
        components = basis.new_zeros(basis.shape[1], *shape)
        variance, reading, report = basis.new_zeros(shape), part(progress, 0.0, 0.1), part(progress, 0.1, 0.9)
        chunks = self.volumes_at_once()
        for number, some in enumerate(chunks):
            self.add_components(one, basis, some, components, variance)
            reading((number + 1) / len(chunks))
        level = one.relative
        if self.has_magnitudes:
            level = level * (variance / len(self.present())).sqrt()
        give_back()
        denoised = self.filtered(components, level, one, report)
        left = max(0.0, 1 - self.settings.strength**2)  # the Wiener gain of noise that is taken to be weaker than it is
        if left:
            denoised.sub_(components[:, *one.tile.within], alpha=left)
        del components
        give_back()  # what the filter worked in: the result needs as much
        for some in chunks:  # no name holds a result while the next one is computed
            yield some, self.composed(one, basis, denoised, left, some)
        progress(1.0)

    def add_components(self, one: Part, basis: Tensor, some: slice, components: Tensor, variance: Tensor) -> None:
        """Add what some volumes of a tile have of the components, and the variance of their noise."""
        if not (present := self.present(some)):
            return
        noisy = chosen(self.read(one.tile.outer, one.device, some), [channel - some.start for channel in present])
        scaled, _ = without_hot_voxels(self.scaled(noisy, present, one.relative), one.relative)
        components.flatten(1).addmm_(basis[present].mT, scaled.flatten(1).contiguous())  # the same bits on any axis
        if self.has_magnitudes:
            variance += self.variance_of_magnitudes(scaled, present, one.relative, one.options).sum(0)

    def composed(self, one: Part, basis: Tensor, denoised: Tensor, left: float, some: slice) -> Tensor:
        """Compose some volumes of a tile of denoised components, and of the share of their noise that is left."""
        result, within = self.read(one.tile.outer, one.device, some), one.tile.within
        if not (present := self.present(some)):
            return result[:, *within]
        places = [channel - some.start for channel in present]
        noisy = chosen(result, places)
        scaled, hot = without_hot_voxels(self.scaled(noisy, present, one.relative), one.relative)
        changing = one.inside & (self.has_noise(noisy) & ~hot)[:, *within]
        noisy, scaled, result = (values[:, *within] for values in (noisy, scaled, result))
        signals = (basis[present] @ denoised.flatten(1)).view(-1, *denoised.shape[1:])
        if left:
            signals.add_(scaled, alpha=left)
        self.count_removed(scaled, signals, one.relative_inside, changing)
        del scaled
        merged = self.merged(noisy, signals, present, one.relative_inside, changing)
        if len(present) == len(result):
            return merged
        result[places] = merged
        return result

    def filtered(self, scaled: Tensor, level: float | Tensor, one: Part, progress: Report) -> Tensor:
        """Let the method denoise a tile in units of sigma, as if the noise were `strength` times as strong as it is.

        A method's h and thresholds are multiples of the level it is told, so that every method obeys. What else depends
        on the noise, such as the bias of magnitudes, follows its true level.
        """
        return self.choices.method.run(scaled, level * self.settings.strength, one.tile.within, one.options, progress)

    def count_removed(self, scaled: Tensor, denoised: Tensor, level: float | Tensor, inside: Tensor) -> None:
        """Add what was removed from some channels of a tile, all in units of sigma, to `removed`."""
        for noisy, clean, counted in zip(scaled, denoised, inside.expand_as(denoised), strict=True):
            self.removed.add(((noisy - clean) / level)[None], counted)

    def volumes_at_once(self) -> list[slice]:
        """Return which volumes of a series are read and written together."""
        count = self.layout.channel_count
        some = min(VOLUMES_AT_ONCE, max(FEWEST_TOGETHER, int(SHARE_AT_ONCE * count)))
        starts = range(0, max(count - FEWEST_TOGETHER, 0) + 1, some)  # what is left over joins the last
        return [slice(first, last) for first, last in zip(starts, [*starts[1:], count], strict=True)]


PILOT_SHARE, FILTERED_SHARE = 0.15, 0.92
"""Where the progress of a tile is once the level of magnitudes is known, and once it is filtered; then it is restored
and judged."""

VOLUMES_AT_ONCE, SHARE_AT_ONCE = 8, 1 / 16
"""Most volumes of a series that are read and written together, and the most of all that these are: several copies of
them are made."""
