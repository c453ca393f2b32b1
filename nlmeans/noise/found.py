"""The noise model of a volume, found from the volume itself: its level, and whether neighbouring voxels share noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nlmeans.noise.correlation import CorrelatedNoise, estimate_correlated_noise
from nlmeans.noise.estimate import otsu_threshold, sigma_of_volume
from nlmeans.noise.model import NoiseModel, checked_correlation

WHITE_RATIO = 0.75
"""Standard deviation of the finest detail, relative to that of the noise, below which the noise is correlated. Both the
finest detail of the volume and the autocovariance found must say so."""

RAYLEIGH_RATIO = (1.6, 2.2)
"""Mean over standard deviation of the air around an object in a magnitude image: 1.91, with room for errors."""


def model_of_volume(volume: Tensor, kind: str = "gaussian", inside: Tensor | None = None) -> NoiseModel:
    """Find the noise model of one volume.

    Args:
        volume: (D, H, W), floating point; a depth of 1 is an image.
        kind: ``"gaussian"`` or ``"rician"``.
        inside: where to look, (D, H, W); None for everywhere.
    """
    fine = sigma_of_volume(volume, kind, inside)
    found, where = flat_blocks(volume, kind, inside)
    if found is None:
        reason = "there are too few blocks to see a correlation, so the noise counts as white"
        return NoiseModel(kind=kind, sigma=fine, evidence=(reason,))
    expected = response_of_finest(found.autocovariance)
    seen = fine / found.sigma if found.sigma > 0 else 1.0
    evidence = (
        f"{found.blocks} flat blocks {where} have a standard deviation of {found.sigma:.4g}",
        f"the finest detail has {fine:.4g}, {seen:.0%} of that; white noise would have all of it",
    )
    if seen > WHITE_RATIO or expected > WHITE_RATIO:
        return NoiseModel(kind=kind, sigma=fine, evidence=(*evidence, "so the noise is white"))
    return NoiseModel(
        kind=kind,
        sigma=found.sigma,
        correlation=checked_correlation(found.autocovariance),
        evidence=(*evidence, "so the noise of neighbours is correlated"),
    )


def flat_blocks(volume: Tensor, kind: str, inside: Tensor | None) -> tuple[CorrelatedNoise | None, str]:
    """Level and correlation from flat blocks, and where they are.

    Air counts too, as long as its noise is that of the object. In a magnitude image it is weaker.
    """
    if inside is not None:
        return estimate_correlated_noise(volume, inside), "in the mask"
    bright = volume > otsu_threshold(volume)
    if kind == "rician" or is_magnitude_air(volume, ~bright):
        found = estimate_correlated_noise(volume, bright)
        if found is not None:
            return found, "in the object"
    return estimate_correlated_noise(volume), "anywhere"


def is_magnitude_air(volume: Tensor, dark: Tensor) -> bool:
    """Whether the dark part of a volume looks like the air in a magnitude image: Rayleigh noise around no signal."""
    air = None if bool((volume < 0).any()) else estimate_correlated_noise(volume, dark)
    if air is None or air.sigma == 0:
        return False
    low, high = RAYLEIGH_RATIO
    return low < float(volume[dark].median()) / air.sigma < high


def response_of_finest(autocovariance: Tensor) -> float:
    """Standard deviation of second differences along all axes, normalised to 1 for white noise.

    >>> response_of_finest(torch.tensor([[[0.0, 1.0, 0.0]]], dtype=torch.float64))
    1.0
    """
    taps = torch.tensor([1.0, -4.0, 6.0, -4.0, 1.0], dtype=torch.float64) / 6  # of the squared filter
    values = autocovariance.double()
    for axis, lags in enumerate(autocovariance.shape):
        if lags > 1:
            reach, kept = lags // 2, min(2, lags // 2)
            near = values.narrow(axis, reach - kept, 2 * kept + 1)
            shape = [1] * 3
            shape[axis] = -1
            values = (near * taps[2 - kept : 3 + kept].view(shape)).sum(axis, keepdim=True)
    return math.sqrt(max(float(values), 0.0))
