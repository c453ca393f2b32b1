"""A volume in units of its noise: how pieces of it are read, and how what was denoised gets image units again."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from nlmeans.core import arrays
from nlmeans.core.axes import Axes
from nlmeans.core.constants import constant_voxels, surrounded_by_others
from nlmeans.core.layout import Layout
from nlmeans.core.progress import Report, part, silent
from nlmeans.core.tiles import Piece, Tile
from nlmeans.engine.choices import Choices
from nlmeans.engine.noise import LEAST_SIGMA
from nlmeans.engine.settings import Settings
from nlmeans.engine.survey import Facts
from nlmeans.methods.means import classic_pilot
from nlmeans.methods.method import Options
from nlmeans.methods.transform import neighbour_mean
from nlmeans.noise import poisson
from nlmeans.noise.kinds import MAGNITUDES
from nlmeans.noise.outliers import without_outliers
from nlmeans.noise.rician import rician_deviation, without_rician_bias
from nlmeans.noise.variation import Levels, variation_at
from nlmeans.patches.low_rank.hot import HOT_REACH, without_hot_voxels


@dataclasses.dataclass(frozen=True)
class ScaledVolume:
    """One volume to denoise, and what is known of it and of its noise."""

    volume: arrays.Source
    index: int
    """Number of the volume in its series."""
    layout: Layout
    choices: Choices
    facts: Facts
    mask: arrays.Source | None
    sigma_map: arrays.Source | None

    @property
    def settings(self) -> Settings:
        """Settings as the user gave them."""
        return self.choices.settings

    @property
    def halo(self) -> Axes:
        """Distance along each axis within which other voxels influence the result of a voxel."""
        return self.choices.halo_for(self.facts.noise.correlation is not None)

    @property
    def device(self) -> torch.device:
        """Device to compute on: the one in the settings, or that of the volume."""
        return torch.device(self.settings.device or arrays.device_of(self.volume))

    def present(self, channels: slice = slice(None)) -> list[int]:
        """Return the numbers of the channels that have noise, among all or some."""
        return [channel for channel in range(len(self.facts.sigma))[channels] if self.facts.sigma[channel] > 0]

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
        relative: float | Tensor,
        inside: Tensor,
    ) -> Tensor:
        """Return denoised voxels of some channels in image units; those that are not inside stay as they are."""
        unit, shift = self.units(channels, noisy)
        restored = denoised.to(noisy.dtype).mul_(unit).add_(shift)
        if self.facts.noise.kind in MAGNITUDES:
            scale = unit if isinstance(relative, float) else unit * relative
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
        options: Options,
        progress: Report = silent,
    ) -> Tensor:
        """Estimate the variance of Rician noise at each voxel, (C, D, H, W), in units of sigma².

        Dark magnitudes vary less than sigma. The mean magnitude comes from a pilot.
        """
        unit, shift = self.units(channels, scaled)
        mean = classic_pilot(scaled + shift / unit, relative, options, part(progress, 0.0, 0.5))
        variance = rician_deviation(mean / relative, self.facts.noise.coils).square()
        progress(1.0)
        return variance

    @property
    def has_few_photons(self) -> bool:
        """Whether the noise of an image may be less than 1 once it is stabilised, and the method subtracts it."""
        return self.facts.noise.kind == "poisson" and self.choices.method.shrinks and 1 in self.layout.shape

    def level_of_few_photons(self, noisy: Tensor) -> Tensor:
        """Return the level of the stabilised noise of an image of counts, (D, H, W), from means over 5 × 5 pixels.

        Few photons vary less than the transform promises: taken for 1, their noise costs faint structure. The level is
        rather too high than too low, as noise that is left costs more.
        """
        means = [neighbour_mean(neighbour_mean(arrays.without_nan(channel))) for channel in noisy]
        deviations = [poisson.deviation_of_stabilised(mean, *self.facts.noise.detector) for mean in means]
        level = torch.stack(deviations).square().mean(0).sqrt()
        return level.mul_(LEVEL_OF_COUNTS).clamp_(LEAST_LEVEL_OF_COUNTS, 1.0).float()


def chosen(volumes: Tensor, numbers: Sequence[int]) -> Tensor:
    """Return some volumes of (C, D, H, W), by their numbers, which rise; the same tensor if these are all."""
    return volumes if len(numbers) == len(volumes) else volumes[list(numbers)]


LEVEL_OF_COUNTS, LEAST_LEVEL_OF_COUNTS = 1.1, 0.2
"""Factor on the deviation of few photons, as it is found, and the least level that is told to a method."""

LEAST_RELATIVE_SIGMA = 1e-4
"""Lower limit of sigma relative to the largest value of the map. Smaller noise is far below the rounding of float32."""

FAR_BELOW = 10.0
"""Photons, or read noises, below the offset of a detector that chance does not lead to."""
