"""Estimate the standard deviation of the noise from the image itself."""

from __future__ import annotations

import math
from typing import Literal, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nlmeans import arrays, checks
from nlmeans.backends.request import Axes
from nlmeans.estimate_map import sigma_map_of_volume
from nlmeans.finest import finest_detail, robust_deviation
from nlmeans.layout import Layout
from nlmeans.noise import rician_moments
from nlmeans.tiles import Piece, piece

FLATTEST = 0.04
"""Share of the object, the part with the least detail around it, that the noise is read from."""

WANTED = 4000
"""Voxels to read it from, of small images up to half the object."""

FOLLOWED, GROUPS = 0.3, 12
"""Share of the object, in groups from flat to less flat, that tells how much of the finest detail is structure."""

ENOUGH = 64
"""Voxels that a median needs to mean something."""


Map = npt.NDArray[np.float32]


@overload
def estimate_sigma(
    volume: arrays.Array,
    *,
    noise: str = ...,
    mask: arrays.Array | None = ...,
    map: Literal[False] = ...,
    channels: None = ...,
    series: None = ...,
) -> float: ...
@overload
def estimate_sigma(
    volume: arrays.Array,
    *,
    noise: str = ...,
    mask: arrays.Array | None = ...,
    map: Literal[False] = ...,
    channels: int | None = ...,
    series: int | None = ...,
) -> float | npt.NDArray[np.float64]: ...
@overload
def estimate_sigma(
    volume: arrays.Array,
    *,
    noise: str = ...,
    mask: arrays.Array | None = ...,
    map: Literal[True],
    channels: int | None = ...,
    series: int | None = ...,
) -> Map: ...
def estimate_sigma(
    volume: arrays.Array,
    *,
    noise: str = "gaussian",
    mask: arrays.Array | None = None,
    map: bool = False,
    channels: int | None = None,
    series: int | None = None,
) -> float | npt.NDArray[np.float64] | Map:
    """Estimate the standard deviation of the noise, in image units.

    The deviation of the finest detail (second differences along all axes) over the flattest voxels of the object,
    which is what lies above Otsu's threshold or inside `mask`. Voxels beside exact zeros, such as a removed
    background, are left out. Interpolated, zero-filled or smoothed scans have correlated noise, which is
    underestimated: pass sigma yourself there.

    Args:
        volume: (H, W) or (D, H, W), plus the axes that `channels` and `series` name.
        noise: ``"gaussian"``, or ``"rician"`` for magnitude images, where the noise of dark voxels looks weaker.
        mask: where to look, of the spatial shape; replaces Otsu's threshold.
        map: True for noise that varies in space, as after parallel imaging: sigma of every voxel. It is read from
            the air too, unless that is exactly zero or left out by `mask`.
        channels: axis of channels, each with its own sigma.
        series: axis of volumes, each with its own sigma.

    Returns:
        A float; with `series` an array (T,), with `channels` (C,), with both (T, C). With `map` a float32 array of
        the volume's shape, smooth. 0 where there is no noise.

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
    pieces = [layout.everywhere] if map else sample(layout.shape)
    inside = (
        None
        if mask is None
        else read_pieces(mask, layout.spatial(mask, "mask"), 0, pieces, arrays.device_of(volume))[0] != 0
    )
    if map:
        return sigma_maps(volume, layout, noise, inside)
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


def sigma_maps(volume: arrays.Array, layout: Layout, noise: str, inside: Tensor | None) -> Map:
    """The map of every volume and channel, of the array's shape."""
    result = np.empty(layout.array_shape, np.float32)
    for index in range(layout.volumes):
        for place in layout.channel_pieces(index, layout.everywhere):
            values = arrays.read(volume, place, arrays.precise_dtype(volume), arrays.device_of(volume))
            spatial = values.reshape(layout.shape)
            result[place] = sigma_map_of_volume(spatial, noise, inside).cpu().numpy().reshape(values.shape)
    return result


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
    if peak == 0 or max(volume.shape) < 3:
        return 0.0
    around = finest_detail(volume / peak, inside)
    within = around.inside
    if within is None:
        within = around.brightness > otsu_threshold(around.brightness[around.usable])
    choices = (within & around.usable, around.usable)
    candidates = next((c for c in choices if int(c.sum()) >= ENOUGH), torch.ones_like(around.usable))
    detail, order = around.detail[candidates].sort()
    finest = around.finest[candidates][order]
    wanted = math.ceil(max(FLATTEST * len(detail), min(WANTED, len(detail) / 2)))
    followed = max(math.ceil(FOLLOWED * len(detail)), wanted)
    variance, flat = robust_deviation(finest[:wanted]) ** 2, float(detail[:wanted].double().mean())
    slope = slope_of_structure(detail[:followed], finest[:followed])
    sigma = math.sqrt(max(variance - slope * flat, 0) / (1 - slope))
    if noise == "rician":
        sigma = koay(float(around.brightness[candidates][order[:wanted]].double().mean()), sigma)
    return sigma * peak


def slope_of_structure(detail: Tensor, finest: Tensor) -> float:
    """How much structure adds to the variance of the finest detail, beside what it adds to the detail around.

    Both are sigma² where there is nothing but noise. The slope of a line through groups of voxels, from flat to less
    flat, leads back to there. Below the flattest group the true curve bends away from the line, by how much is not
    known: between the line and no slope at all, which errs on the other side, the middle is taken.
    """
    groups = max(1, min(GROUPS, len(detail) // ENOUGH))
    details = np.array([float(part.double().mean()) for part in detail.chunk(groups)])
    variances = np.array([robust_deviation(part) ** 2 for part in finest.chunk(groups)])
    spread = details - details.mean()
    slope = float(spread @ variances / (spread @ spread)) if spread.any() else 0.0
    return min(max(slope, 0.0), LARGEST_SLOPE) / 2


LARGEST_SLOPE = 0.9


def otsu_threshold(values: Tensor) -> float:
    """The threshold that separates dark from bright with the smallest variance within both (Otsu 1979)."""
    if values.numel() == 0:
        return -math.inf
    numbers = values.double().cpu().numpy()
    low = numbers.min()
    span = (numbers.max() - low) or 1.0
    counts, edges = np.histogram((numbers - low) / span, bins=256)  # however far from zero, and however small
    middles = (edges[:-1] + edges[1:]) / 2
    below, above = counts.cumsum(), counts[::-1].cumsum()[::-1]
    mean_below = (counts * middles).cumsum() / np.maximum(below, 1)
    mean_above = (counts * middles)[::-1].cumsum()[::-1] / np.maximum(above, 1)
    between = below[:-1] * above[1:] * (mean_below[:-1] - mean_above[1:]) ** 2
    return float(low + span * edges[1 + between.argmax()])


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
