"""Denoise the voxels of a scan, real or complex, with the maps that can be written beside the result."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from nlmeans.core.layout import Layout
from nlmeans.engine.maps import noise_map, residual_of
from nlmeans.engine.phase import denoise_complex
from nlmeans.engine.plan import Plan
from nlmeans.engine.run import denoise_array
from nlmeans.engine.settings import Settings
from nlmeans.files.formats.nifti import Scan
from nlmeans.files.maps import Maps
from nlmeans.files.phase import ComplexScan
from nlmeans.noise.search.sigma_map import sigma_of_noise_volumes


class Computed(NamedTuple):
    """A denoised scan, before it is written."""

    result: npt.NDArray[Any]
    plans: list[Plan]
    maps: Maps


def denoise_real(noisy: npt.NDArray[Any], settings: Settings, layout: Layout, **how_to: Any) -> Computed:
    """Denoise the voxels of a scan."""
    plans: list[Plan] = []
    rank = torch.zeros(layout.shape)
    result = np.asarray(denoise_array(noisy, settings, plans=plans, rank=rank, **how_to))
    maps = Maps(
        lambda: np.asarray(noise_map(plans, result)), lambda: np.asarray(residual_of(noisy, result)), rank.numpy(), None
    )
    return Computed(result, plans, maps)


def denoise_parts(turned: ComplexScan, settings: Settings, whole: bool, real_part: bool, **how_to: Any) -> Computed:
    """Denoise the voxels of a complex scan.

    Args:
        turned: the scan.
        settings: how to denoise, and which axis is which.
        whole: return complex voxels.
        real_part: return the real part, without the phase of the signal. Otherwise the result is the magnitude.
        how_to: further arguments of `denoise_complex`.
    """
    found = denoise_complex(turned.values, settings, **how_to)
    signal = np.asarray(found.real if real_part else found.volume if whole else found.volume.abs())
    before = turned.values if whole else turned.magnitude.data
    phase = (found.phase if real_part else found.volume).angle()
    maps = Maps(
        lambda: np.asarray(found.noise_map),
        lambda: before - signal,
        None if found.rank is None else np.asarray(found.rank),
        np.asarray(phase),
    )
    return Computed(signal, found.plans, maps)


class Split(NamedTuple):
    """A series without its last volumes, which hold noise alone."""

    noisy: Scan
    turned: ComplexScan | None
    sigma_map: npt.NDArray[np.float32]
    is_magnitude: bool
    """Whether the volumes of noise are magnitudes."""
    end: npt.NDArray[Any]
    """The volumes of noise as they are written."""


def split_noise_volumes(noisy: Scan, turned: ComplexScan | None, count: int, whole: bool) -> Split:
    """Take the last volumes off a series, and measure sigma at every voxel in them.

    Args:
        noisy: the scan, as magnitudes if it is complex.
        turned: its complex voxels.
        count: number of volumes at its end that hold noise alone.
        whole: whether complex voxels are written.

    Raises:
        ValueError: the scan is no series, or has too few volumes.
    """
    if noisy.series is None or not 0 < count < noisy.data.shape[3]:
        raise ValueError(
            f"--noise-volumes {count} must be fewer than the volumes of {noisy.path}, whose shape is {noisy.data.shape}"
        )
    values = noisy.data if turned is None else turned.values
    alone = values[..., -count:]
    shorter = dataclasses.replace(noisy, data=noisy.data[..., :-count])
    parts = None if turned is None else ComplexScan(turned.values[..., :-count], shorter)
    sigma = sigma_of_noise_volumes(alone)
    if not sigma.any():
        raise ValueError(f"--noise-volumes {count}: the last volumes of {noisy.path} are zero, so they hold no noise")
    return Split(
        shorter, parts, sigma, turned is None and bool((alone >= 0).all()), alone if whole else noisy.data[..., -count:]
    )


def with_noise_volumes(done: Computed, rest: npt.NDArray[Any]) -> Computed:
    """Return what was computed for the volumes of a series, and behind it its volumes of noise, as they are.

    Args:
        done: what was computed for all but the last volumes.
        rest: those, as in the file that is written.
    """

    def longer(values: npt.NDArray[Any], end: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.concatenate([values, end.astype(values.dtype)], -1) if values.ndim == 4 else values

    noise, residual, rank, phase = done.maps

    def longer_noise() -> npt.NDArray[Any]:
        one = noise()
        return longer(one, np.repeat(one[..., -1:], rest.shape[-1], -1))

    maps = Maps(
        longer_noise,
        lambda: longer(residual(), np.zeros_like(rest)),
        rank,
        None if phase is None else longer(phase, np.angle(rest)),
    )
    return Computed(longer(done.result, rest), done.plans, maps)
