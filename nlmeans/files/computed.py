"""Denoise the voxels of a scan, real or complex, with the maps that can be written beside the result."""

from __future__ import annotations

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
from nlmeans.files.maps import Maps
from nlmeans.files.phase import ComplexScan


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
