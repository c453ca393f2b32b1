"""Estimate the standard deviation of the noise from the image itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import overload

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from nlmeans import arrays, checks
from nlmeans.backends.request import Axes
from nlmeans.layout import Layout
from nlmeans.noise import rician_moments
from nlmeans.padding import reflect
from nlmeans.tiles import Piece, piece

FLATTEST = 0.04
"""Share of the object, the part with the least detail around it, that the noise is read from."""

WANTED = 4000
"""Voxels to read it from, of small images up to half the object."""

OUTER, INNER = 3, 2
"""The detail around a voxel is that of the 7 × 7 × 7 voxels without the 5 × 5 × 5 in the middle. With these, which
overlap the filter, the choice would depend on the very noise to be measured."""

ENOUGH = 64
"""Voxels that a median needs to mean something."""

MEDIAN_OF_ABSOLUTE_NORMAL = 0.6744897501960817
DEVIATION_WITHIN_THREE = 0.9866
"""Standard deviation of a normal variable with sigma 1 that is known to lie within ±3."""


@overload
def estimate_sigma(
    volume: arrays.Array, *, noise: str = ..., mask: arrays.Array | None = ..., channels: None = ..., series: None = ...
) -> float: ...
@overload
def estimate_sigma(
    volume: arrays.Array,
    *,
    noise: str = ...,
    mask: arrays.Array | None = ...,
    channels: int | None = ...,
    series: int | None = ...,
) -> float | npt.NDArray[np.float64]: ...
def estimate_sigma(
    volume: arrays.Array,
    *,
    noise: str = "gaussian",
    mask: arrays.Array | None = None,
    channels: int | None = None,
    series: int | None = None,
) -> float | npt.NDArray[np.float64]:
    """Estimate the standard deviation of the noise, in image units.

    The deviation of the finest detail (second differences along all axes) over the flattest voxels of the object,
    which is what lies above Otsu's threshold or inside `mask`. Voxels beside exact zeros, such as a removed
    background, are left out. Interpolated, zero-filled or smoothed scans have correlated noise, which is
    underestimated: pass sigma yourself there.

    Args:
        volume: (H, W) or (D, H, W), plus the axes that `channels` and `series` name.
        noise: ``"gaussian"``, or ``"rician"`` for magnitude images, where the noise of dark voxels looks weaker.
        mask: where to look, of the spatial shape; replaces Otsu's threshold.
        channels: axis of channels, each with its own sigma.
        series: axis of volumes, each with its own sigma.

    Returns:
        A float; with `series` an array (T,), with `channels` (C,), with both (T, C). 0 where there is no noise.

    References:
        J. Immerkær, "Fast noise variance estimation", Comput. Vis. Image Underst. 1996, doi:10.1006/cviu.1996.0060
        (second differences). C. G. Koay, P. J. Basser, "Analytically exact correction scheme for signal
        extraction from noisy magnitude MR signals", J. Magn. Reson. 2006, doi:10.1016/j.jmr.2006.01.016.

    Example:
        >>> import numpy as np
        >>> noisy = 100 + 5 * np.random.default_rng(0).standard_normal((32, 32, 32))
        >>> round(estimate_sigma(noisy), 1)
        5.0
    """
    checks.choice("noise", noise, ("gaussian", "rician"))
    layout = Layout.of(arrays.checked(volume, "volume"), channels, series)
    arrays.value_range(volume, "volume")
    if mask is not None:
        arrays.checked(mask, "mask")
    pieces = sample(layout.shape)
    inside = (
        None
        if mask is None
        else read_pieces(mask, layout.spatial(mask, "mask"), 0, pieces, arrays.device_of(volume))[0] != 0
    )
    estimates = np.array(
        [
            [sigma_of_volume(channel, noise, inside) for channel in read_pieces(volume, layout, index, pieces)]
            for index in range(layout.volumes)
        ]
    )
    if channels is None and series is None:
        return float(estimates[0, 0])
    return estimates.reshape(
        [n for n, axis in zip(estimates.shape, (series, channels), strict=True) if axis is not None]
    )


SAMPLE = 2**24
"""Voxels that are enough to estimate from; of larger volumes, evenly spaced slabs are read."""

SLAB = 16


def sample(shape: Axes) -> list[Piece]:
    """The whole volume, or slabs of it across the first axis that has any length."""
    axis = 0 if shape[0] > 1 else 1
    count = max(1, SAMPLE // (SLAB * math.prod(shape) // shape[axis]))
    whole = [slice(0, n) for n in shape]
    if shape[axis] <= SLAB * count:
        return [piece(whole)]
    starts = np.linspace(0, shape[axis] - SLAB, count).astype(int)
    return [piece([*whole[:axis], slice(start, start + SLAB), *whole[axis + 1 :]]) for start in starts.tolist()]


def read_pieces(
    array: arrays.Array, layout: Layout, volume: int, pieces: list[Piece], device: torch.device | None = None
) -> Tensor:
    """Slabs of one volume as one (C, D, H, W); where they meet the gradient is large, so nothing is read there."""
    dtype = arrays.precise_dtype(array)
    read = [arrays.read(array, layout.index(volume, p), dtype, device or arrays.device_of(array)) for p in pieces]
    return torch.cat([layout.to_engine(values) for values in read], dim=1 if layout.shape[0] > 1 else 2)


def sigma_of_volume(volume: Tensor, noise: str, inside: Tensor | None) -> float:
    """Sigma of one volume (D, H, W)."""
    peak = float(volume.abs().max())
    axes = [axis for axis, n in enumerate(volume.shape) if n >= 3]
    if peak == 0 or not axes:
        return 0.0
    volume = volume / peak
    finest, middle, brightness = volume, volume, volume
    usable, within = volume != 0, torch.ones_like(volume, dtype=torch.bool) if inside is None else inside
    for axis in axes:  # each value from the 3 × 3 × 3 voxels around it
        finest = combine(finest, axis, lambda before, here, after: (before - 2 * here + after) / math.sqrt(6))
        brightness = combine(brightness, axis, lambda before, here, after: (before + here + after) / 3)
        usable = combine(usable, axis, lambda before, here, after: before & here & after)
        middle, within = (combine(values, axis, lambda _, here, __: here) for values in (middle, within))
    if inside is None:
        within = brightness > otsu_threshold(brightness[usable])
    candidates = next((c for c in (within & usable, usable) if int(c.sum()) >= ENOUGH), torch.ones_like(usable))
    detail = (middle - brightness).square()
    flat = flattest(box_sums(detail, OUTER) - box_sums(detail, INNER), candidates)
    sigma = robust_deviation(finest[flat])
    if noise == "rician":
        sigma = koay(float(brightness[flat].mean()), sigma)
    return sigma * peak


def combine(values: Tensor, axis: int, function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    """Combine each voxel with those before and after it along an axis; the first and the last voxel are lost."""
    length = values.shape[axis] - 2
    before, here, after = (values.narrow(axis, start, length) for start in range(3))
    return function(before, here, after)


def flattest(detail: Tensor, candidates: Tensor) -> Tensor:
    """The share of the candidates with the least detail around them."""
    count = int(candidates.sum())
    wanted = max(FLATTEST * count, min(WANTED, count / 2), 1)
    return candidates & (detail <= detail[candidates].kthvalue(math.ceil(wanted)).values)


def box_sums(values: Tensor, radius: int) -> Tensor:
    """Sums over 2r + 1 voxels along each axis that is longer than one; borders reflect."""
    d, h, w = (radius * (n > 1) for n in values.shape)
    voxels = (2 * d + 1) * (2 * h + 1) * (2 * w + 1)
    return voxels * F.avg_pool3d(reflect(values[None], (d, h, w)), (2 * d + 1, 2 * h + 1, 2 * w + 1), stride=1)[0]


def robust_deviation(values: Tensor) -> float:
    """Standard deviation of normal values around 0: by the median of their sizes, then by those within three of it."""
    sizes = values.abs()
    first = float(sizes.median()) / MEDIAN_OF_ABSOLUTE_NORMAL
    inner = sizes[sizes < 3 * first]
    return float(inner.square().mean().sqrt()) / DEVIATION_WITHIN_THREE if len(inner) else 0.0


def otsu_threshold(values: Tensor) -> float:
    """The threshold that separates dark from bright with the smallest variance within both (Otsu 1979)."""
    if values.numel() == 0:
        return -math.inf
    counts, edges = np.histogram(values.double().cpu().numpy(), bins=256)
    middles = (edges[:-1] + edges[1:]) / 2
    below, above = counts.cumsum(), counts[::-1].cumsum()[::-1]
    mean_below = (counts * middles).cumsum() / np.maximum(below, 1)
    mean_above = (counts * middles)[::-1].cumsum()[::-1] / np.maximum(above, 1)
    between = below[:-1] * above[1:] * (mean_below[:-1] - mean_above[1:]) ** 2
    return float(edges[1 + between.argmax()])


def koay(mean: float, deviation: float) -> float:
    """Sigma of the two Gaussian channels, from mean and standard deviation of a Rician magnitude.

    Fixed point of Koay and Basser (2006): the deviation of a magnitude is sigma·√ξ(θ), where θ = signal / sigma.
    """
    if deviation == 0:
        return 0.0
    theta = mean / deviation
    for _ in range(100):
        _, variance = rician_moments(torch.tensor(theta, dtype=torch.float64))
        theta, last = math.sqrt(max(float(variance) * (1 + (mean / deviation) ** 2) - 2, 0.0)), theta
        if abs(theta - last) < 1e-8:
            break
    return deviation / math.sqrt(float(rician_moments(torch.tensor(theta, dtype=torch.float64))[1]))
