"""Complex volumes: their phase is taken off, both parts are denoised together, and the phase is put back."""

from __future__ import annotations

import dataclasses
import logging
import math
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from nlmeans.core import arrays
from nlmeans.core.layout import Layout
from nlmeans.core.progress import Report, part
from nlmeans.engine.choices import Choices
from nlmeans.engine.maps import as_tensor, noise_map
from nlmeans.engine.plan import Plan
from nlmeans.engine.run import denoise_array
from nlmeans.engine.settings import Settings
from nlmeans.noise.search.estimate import sigma_of_volume

log = logging.getLogger("nlmeans")


class DenoisedComplex(NamedTuple):
    """A denoised complex volume, and what was found."""

    volume: Tensor
    """Of the shape of the volume, complex64 or complex128."""
    phase: Tensor
    """The phase that was taken off, as complex numbers of length 1. The real part of volume × its conjugate is the
    signal without the bias of magnitudes: about 0 in air."""
    noise_map: Tensor
    """Sigma of each part at every voxel, float32: of the spatial shape for volumes that were denoised together,
    otherwise of the shape of the volume."""
    rank: Tensor | None
    """Components kept around every voxel, of the spatial shape; None for volumes that were not denoised together."""
    plans: list[Plan]
    """Plans of the last pass: one for each volume, or one for all that were denoised together."""

    @property
    def real(self) -> Tensor:
        """The signal without the bias of magnitudes."""
        return (self.volume * self.phase.conj()).real


def denoise_complex(
    volume: arrays.Array,
    settings: Settings,
    *,
    mask: arrays.Readable | None = None,
    sigma_map: arrays.Readable | None = None,
    progress: Report,
    noise_mask: arrays.Readable | None = None,
) -> DenoisedComplex:
    """Denoise a complex volume or series.

    Signal with a phase is harder to tell from noise than signal without. A first pass takes off the phase of a smooth
    copy. Its result shows the phase of the signal itself, which a second pass takes off. Both parts of what is left are
    denoised, so that no signal is lost where the phase is not known.

    Args:
        volume: complex numpy array or tensor, in memory.
        settings: how to denoise, and which axis is which. Sigma is that of the real part and of the imaginary part.
        mask: voxels where it is zero come back unchanged.
        sigma_map: sigma at every voxel.
        progress: called with the fraction done.
        noise_mask: where to look for the noise; None for `mask`.

    Raises:
        ValueError: the settings do not fit complex data, whose noise is Gaussian.
        TypeError, Cancelled: as for `nlmeans.denoise`.
    """
    check_settings(settings)
    values = as_complex(volume)
    layout = Layout.of(values, settings.channels, settings.series)
    for numbers in (values.real, values.imag):
        arrays.known_range(numbers, "volume")
    given, missing = values, arrays.is_nan(values)
    if missing is not None:
        log.warning("%d voxels are NaN: they count as outside, and stay as they are", int(missing.sum()))
        values = values.masked_fill(missing, 0)
    level = stated_level(values, layout, settings, sigma_map)
    slow = slow_phase(values, layout, level)
    straight = values * slow.conj()
    parts = Parts.of(straight, layout, settings)
    begun: list[Plan] = []
    search = mask if noise_mask is None else noise_mask
    pilot = parts.at_full_strength.denoised(straight, None, search, sigma_map, part(progress, 0.0, 0.5), begun)
    del straight
    if parts.joint:
        parts, sigma_map = parts.stating(begun[0]), begun[0].sigma_map
        level = begun[0].facts.sigma[0] if sigma_map is None else stated_level(values, layout, settings, sigma_map)
    phase = direction(pilot, SURE * level) * slow
    plans: list[Plan] = []
    rank = torch.zeros(layout.shape)
    denoised = parts.denoised(values * phase.conj(), mask, search, sigma_map, part(progress, 0.5, 1.0), plans, rank)
    result = denoised * phase
    if mask is not None:
        inside = arrays.read(arrays.readable(mask, "mask"), (), torch.float32, values.device) != 0
        result = torch.where(broadcast(inside, layout), result, values)
    if missing is not None:
        result = torch.where(missing, given, result)
    kept = layout.spatial_alone.from_engine(rank[None]) if parts.joint else None
    return DenoisedComplex(result, phase, parts.noise_map(plans, denoised), kept, plans)


def check_settings(settings: Settings) -> None:
    """Raise ``ValueError`` if settings do not fit complex data."""
    if settings.kind not in ("auto", "gaussian"):
        raise ValueError(
            f"noise={settings.kind!r} does not fit a complex volume, whose two parts have Gaussian noise; leave it "
            "out, or give the magnitude"
        )
    if settings.dtype is not None:
        raise ValueError(f"dtype={settings.dtype!r} does not fit a complex volume; leave it out and convert the result")


def as_complex(volume: arrays.Array) -> Tensor:
    """Return a complex array as a tensor in complex64 or complex128."""
    if isinstance(volume, Tensor):
        return volume.detach().to(torch.complex128 if volume.dtype == torch.complex128 else torch.complex64)
    wide = volume.dtype.itemsize > 8
    return torch.from_numpy(np.ascontiguousarray(volume, np.complex128 if wide else np.complex64))


def like_complex(values: Tensor, volume: arrays.Array) -> arrays.Array:
    """Return complex values as the same kind of array as a volume, of its dtype and on its device."""
    if isinstance(volume, Tensor):
        return values.to(volume.device, volume.dtype)
    return values.cpu().numpy().astype(volume.dtype, copy=False)


# ---------------------------------------------------------------- the phase


WIDTH = 5
"""Wavelength in voxels below which `slow_phase` follows no phase."""

SURE_OF_SLOW, SURE = 3.0, 0.5
"""Signal below which its phase is not believed: of a smooth copy, in units of the noise that it has left, and of a
denoised volume, in units of sigma. Air then has no phase; with the phase of its own noise, it would have a signal."""


def slow_phase(values: Tensor, layout: Layout, level: float | Tensor) -> Tensor:
    """Return the phase of a smooth copy, as complex numbers of length 1.

    The copy holds the low frequencies of each slice, weighted by Hann's window. From one slice to the next, phases may
    jump.

    Args:
        values: a complex volume or series.
        layout: what its axes are.
        level: sigma of each part, a number or an array that broadcasts to `values`.
    """
    axes = plane_axes(values, layout)
    window = torch.ones((), dtype=torch.float64)
    for axis in axes:
        frequency = torch.fft.fftfreq(values.shape[axis], dtype=torch.float64).abs() * WIDTH
        along = torch.where(frequency < 1, 0.5 + 0.5 * (math.pi * frequency).cos(), 0)
        window = window * broadcast_axis(along, axis, values.ndim)
    left = float(window.square().mean().sqrt())
    smooth = torch.fft.ifftn(torch.fft.fftn(values, dim=axes) * window.to(values.device, values.real.dtype), dim=axes)
    return direction(smooth, SURE_OF_SLOW * left * level)


def direction(values: Tensor, sure: float | Tensor) -> Tensor:
    """Return where complex values point, as numbers of length 1: more and more along the real axis if they are small.

    >>> direction(torch.tensor([3j, 0.5j]), 1.0)
    tensor([0.3511+0.9363j, 1.0000+0.0000j])
    """
    length = values.abs()
    kept = (1 - (sure / length.clamp_min(torch.finfo(length.dtype).tiny)) ** 2).clamp_min(0)
    pointing = values * kept + sure
    size = pointing.abs()
    return torch.where(size > 0, pointing / size, 1)


def plane_axes(values: Tensor, layout: Layout) -> tuple[int, int]:
    """Return the two axes along which the phase is smooth: all but the one along which it changes most."""
    axes = layout.spatial_axes
    if len(axes) == 3:
        coherence = {}
        for axis in axes:
            pairs = (
                values.narrow(axis, 1, values.shape[axis] - 1) * values.narrow(axis, 0, values.shape[axis] - 1).conj()
            )
            total = float(pairs.abs().sum())
            coherence[axis] = float(pairs.sum(axes).abs().sum()) / total if total else 0.0
        axes = tuple(axis for axis in axes if axis != min(coherence, key=lambda axis: coherence[axis]))
    return axes[0], axes[1]


def stated_level(
    values: Tensor, layout: Layout, settings: Settings, sigma_map: arrays.Readable | None
) -> float | Tensor:
    """Return sigma of each part as it is given, or a first guess from the real part of some volumes."""
    if sigma_map is not None:
        source = arrays.readable(sigma_map, "sigma")
        layout.spatial(source, "sigma")
        return broadcast(arrays.read(source, (), values.real.dtype, values.device), layout)
    if isinstance(settings.sigma, float):
        return settings.sigma
    if isinstance(settings.sigma, tuple):
        return max(settings.sigma)
    every = math.ceil(layout.volumes / GUESSED_FROM)
    guesses = [
        sigma_of_volume(layout.to_engine(values.real[layout.index(index, layout.everywhere)])[0], "gaussian", None)
        for index in range(0, layout.volumes, every)
    ]
    return float(np.median(guesses))


GUESSED_FROM = 8
"""Most volumes that the first guess of sigma looks at."""


def broadcast(array: Tensor, layout: Layout) -> Tensor:
    """Give an array of the spatial shape axes of length 1 for channels and series."""
    shape = [n if axis in layout.spatial_axes else 1 for axis, n in enumerate(layout.array_shape)]
    return array.reshape(shape)


def broadcast_axis(array: Tensor, axis: int, dimensions: int) -> Tensor:
    """Give an array of one axis the others, of length 1."""
    return array.view([-1 if other == axis else 1 for other in range(dimensions)])


# ---------------------------------------------------------------- the two parts


@dataclass(frozen=True)
class Parts:
    """How the real and the imaginary part of a volume are denoised: side by side along an axis of a real array."""

    settings: Settings
    """Settings for the real array."""
    axis: int
    """The axis along which the parts lie side by side: that of the series, of the channels, or a new last axis."""
    is_new: bool
    joint: bool
    """Whether all volumes of the series are denoised together."""

    @classmethod
    def of(cls, values: Tensor, layout: Layout, settings: Settings) -> Parts:
        """Choose the axis for a complex array without its phase."""
        plain = dataclasses.replace(settings, noise="gaussian", channels=layout.channels, series=layout.series)
        if layout.channels is not None:
            return cls(doubled(plain, values.shape[layout.channels]), layout.channels, False, False)
        choices = Choices.of(plain, layout, values.abs())  # magnitudes show best what volumes have in common
        if choices.method.joint and layout.series is not None:
            together = doubled(plain, values.shape[layout.series])
            return cls(dataclasses.replace(together, method=choices.name), layout.series, False, True)
        alone = dataclasses.replace(plain, channels=values.ndim)
        return cls(alone, values.ndim, True, False)

    @property
    def at_full_strength(self) -> Parts:
        """The same with the noise taken for what it is, for what is not filtered: the phase."""
        return dataclasses.replace(self, settings=dataclasses.replace(self.settings, strength=1.0))

    def side_by_side(self, values: Tensor) -> Tensor:
        """Return a complex array as a real one."""
        values = values.unsqueeze(-1) if self.is_new else values
        return torch.cat([values.real, values.imag], self.axis)

    def together(self, values: Tensor) -> Tensor:
        """Return a real array as a complex one."""
        real, imaginary = values.chunk(2, self.axis)
        result = torch.complex(real.contiguous(), imaginary.contiguous())
        return result.squeeze(-1) if self.is_new else result

    def denoised(
        self,
        values: Tensor,
        mask: arrays.Readable | None,
        noise_mask: arrays.Readable | None,
        sigma_map: arrays.Readable | None,
        progress: Report,
        plans: list[Plan],
        rank: Tensor | None = None,
    ) -> Tensor:
        """Denoise both parts of a complex array without its phase."""
        return self.together(
            denoise_array(
                self.side_by_side(values),
                self.settings,
                mask=mask,
                noise_mask=noise_mask,
                sigma_map=sigma_map,
                progress=progress,
                plans=plans,
                rank=rank,
            )
        )

    def stating(self, plan: Plan) -> Parts:
        """Return the same with the noise as it was found for a series, so that it is not looked for again."""
        sigma = None if plan.sigma_map is not None else plan.facts.sigma[0]
        lags = cast(Any, plan.facts.noise.correlation)
        return dataclasses.replace(self, settings=dataclasses.replace(self.settings, sigma=sigma, correlation=lags))

    def noise_map(self, plans: list[Plan], denoised: Tensor) -> Tensor:
        """Return sigma at every voxel: of each part, or its root mean square over both."""
        found = as_tensor(noise_map(plans, self.side_by_side(denoised)))
        if self.joint:
            return found
        real, imaginary = found.chunk(2, self.axis)
        mean = ((real.square() + imaginary.square()) / 2).sqrt()
        return mean.squeeze(-1) if self.is_new else mean


def doubled(settings: Settings, count: int) -> Settings:
    """Return settings for twice as many volumes or channels: each real part, then each imaginary part."""
    if not (isinstance(settings.sigma, tuple) and len(settings.sigma) == count):
        return settings
    return dataclasses.replace(settings, sigma=settings.sigma * 2)
