"""The grid that a volume was measured on, if it was saved on a finer one: zero-filling leaves frequencies empty."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LEAST_LENGTH = 32
"""Voxels along an axis from which its frequencies can be told apart."""

CLIFF = 1.0
"""Least fall of the mean power, in decades, within `STEP` frequencies. The power of noise and of sharp edges is even or
falls slowly."""

STEEPER = 2.5
"""Least fall at the edge relative to the fall just before it. A filter falls ever more steeply."""

STEP, AVERAGED = 3, 3
"""Frequencies left out around the edge of the band, and averaged on both sides of it."""


def acquired_shares(volume: Tensor) -> dict[int, float]:
    """Find the axes along which a volume was zero-filled, and the share of its voxels that were measured.

    >>> white = torch.randn(8, 48, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> coarse = torch.fft.fft(white, dim=1)
    >>> coarse[:, 13:36] = 0
    >>> {axis: round(share, 1) for axis, share in acquired_shares(torch.fft.ifft(coarse, dim=1).real).items()}
    {1: 0.6}
    """
    found = {}
    for axis, length in enumerate(volume.shape):
        share = acquired_share(volume, axis) if length >= LEAST_LENGTH else None
        if share is not None:
            found[axis] = share
    return found


def zero_filling(volume: Tensor) -> list[str]:
    """Say along which axes of a (D, H, W) volume the scan was saved on a finer grid than it was measured on."""
    first = 1 if volume.shape[0] == 1 else 0  # an image has no axis of depth
    return [
        f"along axis {axis - first}, only about {share:.0%} of the frequencies hold anything: the scan was "
        "zero-filled, that is, saved on a finer grid than it was measured on"
        for axis, share in acquired_shares(volume).items()
    ]


def acquired_share(volume: Tensor, axis: int) -> float | None:
    """Return the share of the frequencies along an axis that hold anything; None if that is all of them."""
    length = volume.shape[axis]
    lines = volume.movedim(axis, -1).reshape(-1, length).double()
    lines = lines[:: math.ceil(len(lines) / MOST_LINES)]
    window = torch.hann_window(length, periodic=False, dtype=torch.float64, device=volume.device)
    power = torch.fft.rfft((lines - lines.mean(1, keepdim=True)) * window).abs().square().mean(0)
    if float(power.max()) == 0:
        return None
    level = (power / power.max()).clamp_min(1e-20).log10()
    means = level.unfold(0, AVERAGED, 1).mean(1)
    distance = AVERAGED + STEP
    falls = means[:-distance] - means[distance:]
    lowest = max(length // 6, distance)  # below, the image itself falls
    if len(falls) <= lowest or float(falls[lowest:].max()) < CLIFF:
        return None
    place = int(falls[lowest:].argmax()) + lowest
    if float(falls[place]) < STEEPER * float(falls[place - distance]):
        return None
    share = (place + AVERAGED + STEP / 2) / (len(power) - 1)
    return share if share < MOST_SHARE else None


MOST_SHARE = 0.8
"""Largest share that is told from the end of the frequencies."""

MOST_LINES = 4096
"""Lines along an axis whose power is averaged."""
