"""Random Gaussian fields with a given autocovariance, and the autocovariances that scanners and their software make."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nlmeans.core import checks
from nlmeans.core.axes import Axes
from nlmeans.noise.model import Lags, checked_correlation

CORRELATIONS = ("zero-filled", "apodised", "ct")
"""Filters whose correlation `scanner_correlation` knows."""

REACH = {1: 9, 2: 9, 3: 5}
"""Largest lag of their autocovariance in voxels, by the number of axes."""

GRID = 96
"""Voxels along each axis of the grid on which the response of a filter is sampled."""


def scanner_correlation(name: str, spatial_dims: int = 3, share: float = 2 / 3) -> Lags:
    """Return the autocovariance of white noise after a filter of a scanner, for a `nlmeans.NoiseModel`.

    Args:
        name: ``"zero-filled"`` for a scan that was saved on a finer grid, in plane, than it was measured on;
            ``"apodised"`` for Hann's window in k-space; ``"ct"`` for a reconstruction kernel: a ramp in plane with a
            Gaussian end.
        spatial_dims: 2 or 3. The plane is that of the last two axes.
        share: for ``"zero-filled"``, the share of the frequencies along each axis that was measured; for the others,
            the frequency at which the filter ends, relative to the highest one.

    Example:
        >>> torch.tensor(scanner_correlation("zero-filled", 2, 0.5))[0, 9, 8:11].round(decimals=2)
        tensor([0.6500, 1.0000, 0.6500])
    """
    checks.choice("correlation", name, CORRELATIONS)
    if spatial_dims not in (2, 3):
        raise ValueError(f"spatial_dims={spatial_dims!r} must be 2 or 3")
    if not checks.positive("share", share) <= 1:
        raise ValueError(f"share={share} must be at most 1")
    along = torch.fft.fftfreq(GRID, dtype=torch.float64) * 2 / share  # 1 where the filter ends
    depth = along if spatial_dims == 3 else along[:1]
    z, y, x = torch.meshgrid(depth, along, along, indexing="ij")
    in_plane = torch.hypot(y, x)
    if name == "zero-filled":
        power = ((y.abs() < 1) & (x.abs() < 1)).double()
    elif name == "apodised":
        power = torch.stack([torch.where(f.abs() < 1, 0.5 + 0.5 * torch.cos(math.pi * f), 0) for f in (z, y, x)])
        power = power.prod(0).square()
    else:
        power = in_plane * torch.exp(-4 * in_plane.square())
    lags = torch.fft.ifftn(power).real
    reach = [REACH[spatial_dims] if n > 1 else 0 for n in lags.shape]
    lags = lags.roll(reach, (0, 1, 2))[: 2 * reach[0] + 1, : 2 * reach[1] + 1, : 2 * reach[2] + 1]
    lags = lags / lags[*reach]
    lags = (lags + lags.flip(0, 1, 2)) / 2
    return checked_correlation(lags.clamp(-1, 1).numpy())


def gaussian_field(shape: Sequence[int], generator: torch.Generator, correlation: object = None) -> Tensor:
    """Draw a Gaussian field of mean 0 and standard deviation 1.

    Args:
        shape: (H, W) or (D, H, W).
        generator: source of the random numbers, on the CPU.
        correlation: autocovariance with 1 in the middle, as in a `nlmeans.NoiseModel`; None for white noise. Where it
            is none that noise can have, because lags are missing, the nearest is taken.

    Returns:
        float32, on the CPU. Opposite borders are not correlated.

    Example:
        >>> field = gaussian_field((64, 64), torch.Generator().manual_seed(0), [[[0.5, 1.0, 0.5]]])
        >>> round(float((field[:, 1:] * field[:, :-1]).mean()), 1)
        0.5
    """
    d, h, w = size = engine_shape(shape)
    if correlation is None:
        return torch.randn(size, generator=generator).reshape(tuple(shape))
    lags = torch.tensor(checked_correlation(correlation), dtype=torch.float64)
    reach = [n // 2 for n in lags.shape]
    if any(r and n == 1 for r, n in zip(reach, size, strict=True)):
        raise ValueError(f"correlation has {tuple(lags.shape)} lags, but an image of shape {tuple(shape)} has no depth")
    grid = [n + 2 * r for n, r in zip(size, reach, strict=True)]
    periodic = torch.zeros(grid, dtype=torch.float64)
    periodic[: lags.shape[0], : lags.shape[1], : lags.shape[2]] = lags
    spectrum = torch.fft.fftn(periodic.roll([-r for r in reach], (0, 1, 2))).real.clamp_min(0)
    response = (spectrum / spectrum.mean()).sqrt().float()
    white = torch.randn(grid, generator=generator)
    field: Tensor = torch.fft.ifftn(torch.fft.fftn(white) * response).real
    return field[:d, :h, :w].reshape(tuple(shape))


def engine_shape(shape: Sequence[int]) -> Axes:
    """Return the shape as (D, H, W), where an image has depth 1."""
    if len(shape) not in (2, 3):
        raise ValueError(f"shape={tuple(shape)} must have two or three spatial axes")
    d, h, w = (1, *shape) if len(shape) == 2 else shape
    return d, h, w


def smooth_factor(shape: Sequence[int], variation: float, generator: torch.Generator) -> Tensor:
    """Draw a smooth map with a mean of about 1, from 1 − variation to 1 + variation, as a receive coil makes it.

    Args:
        shape: (H, W) or (D, H, W).
        variation: 0 to less than 1.
        generator: source of the random numbers, on the CPU.

    Example:
        >>> found = smooth_factor((32, 32), 0.5, torch.Generator().manual_seed(0))
        >>> bool(found.min() >= 0.5), bool(found.max() <= 1.5)
        (True, True)
    """
    if not 0 <= variation < 1:
        raise ValueError(f"variation={variation} must be from 0 to less than 1")
    direction = torch.randn(len(shape), generator=generator)
    direction = direction / direction.norm()
    places = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in shape), indexing="ij")
    along = sum(float(step) * place for step, place in zip(direction, places, strict=True))
    phase = float(torch.rand((), generator=generator)) * 2 * math.pi
    return 1 + variation * torch.sin(math.pi / 2 * torch.as_tensor(along) + phase)
