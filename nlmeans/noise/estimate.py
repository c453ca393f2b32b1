"""Estimate the standard deviation of the noise from the image itself."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nlmeans.core import arrays
from nlmeans.core.axes import Axes
from nlmeans.core.layout import Layout
from nlmeans.core.memory import allowed
from nlmeans.core.tiles import Piece, piece
from nlmeans.noise.finest import finest_detail_by_slabs, robust_deviation
from nlmeans.noise.outliers import deviation, without_outliers
from nlmeans.noise.rician import rician_moments
from nlmeans.noise.sigma_map import sigma_map_of_volume

FLATTEST = 0.04
"""Share of the object, the part with the least detail around it, that the noise is read from."""

WANTED = 4000
"""Voxels to read it from, of small images up to half the object."""

FOLLOWED, GROUPS = 0.3, 12
"""Share of the object, in groups from flat to less flat, that tells how much of the finest detail is structure."""

ENOUGH = 64
"""Voxels that a median needs to mean something."""


Map = npt.NDArray[np.float32]


def sigma_levels(
    volume: arrays.Source,
    index: int,
    layout: Layout,
    noise: str,
    mask: arrays.Source | None,
    memory: int | None = None,
    despeckled: bool = False,
) -> tuple[float, ...]:
    """Sigma of each channel of one volume of a series, without its outliers if they are to be removed.

    A volume that is not in memory is read from as many parts as `memory` allows to be looked at.
    """
    pieces = sample(layout.shape, affordable(volume, memory))
    inside = within(mask, layout, pieces, arrays.device_of(volume))
    found = []
    for places in zip(*(layout.channel_pieces(index, p) for p in pieces), strict=True):
        values = read_together(volume, layout, list(places), arrays.device_of(volume))
        arrays.value_range(values, "volume")
        if despeckled:
            values = without_outliers(values, deviation(values))
        found.append(sigma_of_volume(values, noise, inside))
    return tuple(found)


def affordable(volume: arrays.Source, memory: int | None) -> int:
    """How many voxels can be looked at."""
    if arrays.in_memory(volume):
        return SAMPLE
    size = arrays.precise_dtype(volume).itemsize / 4
    return min(SAMPLE, int(allowed(torch.device("cpu"), memory) / (SAMPLE_BYTES * size)))


def sigma_maps(
    volume: arrays.Source, index: int, layout: Layout, noise: str, mask: arrays.Source | None, despeckled: bool = False
) -> Map:
    """The map of every channel of one volume of a series, whose axis has length 1."""
    if not arrays.in_memory(volume):
        raise ValueError(
            "a map of sigma is estimated from all of a volume at once, but this one is read by slicing; "
            "give it as a numpy array, or a map that was estimated in another way as sigma"
        )
    inside = within(mask, layout, [layout.everywhere], arrays.device_of(volume))
    maps = []
    for place in layout.channel_pieces(index, layout.everywhere):
        values = read_together(volume, layout, [place], arrays.device_of(volume))
        low, high = arrays.value_range(values, "volume")
        if max(-low, high) > LARGEST_OF_MAP or 0 < max(-low, high) < 1 / LARGEST_OF_MAP:
            raise ValueError(
                f"volume goes from {low:.6g} to {high:.6g}, for which a map in float32 has no numbers; scale it"
            )
        if despeckled:
            values = without_outliers(values, deviation(values))
        maps.append(sigma_map_of_volume(values, noise, inside))
    return layout.from_engine(torch.stack(maps)).cpu().numpy()


LARGEST_OF_MAP = 1e35
"""float32 ends at 3e38 and 1e-38, and noise is less than the largest value."""


def within(mask: arrays.Source | None, layout: Layout, pieces: list[Piece], device: torch.device) -> Tensor | None:
    """Where a mask is not zero in some pieces of its volume, together as they are read."""
    if mask is None:
        return None
    beside = layout.spatial(mask, "mask")
    values = read_together(mask, beside, [beside.index(0, place) for place in pieces], device)
    return arrays.finite(values, "mask") != 0


SAMPLE = 2**24
"""Voxels that are enough to estimate from; of larger volumes, evenly spaced parts are read."""

SAMPLE_BYTES = 48
"""For each of them, in float32."""

SLAB = 16

FEWEST = 4
"""Slabs across a volume. Where so many would be too large, boxes are read: at least twice as many."""


def sample(shape: Axes, voxels: int) -> list[Piece]:
    """The whole volume; or slabs of it across the first axis that has any length; or boxes, about evenly spaced."""
    axis = 0 if shape[0] > 1 else 1
    count = voxels // (SLAB * math.prod(shape) // shape[axis])
    whole = [slice(0, n) for n in shape]
    if shape[axis] <= SLAB * count or math.prod(shape) <= SLAB**3:
        return [piece(whole)]
    if count >= FEWEST:
        starts = np.linspace(0, shape[axis] - SLAB, count).astype(int)
        return [piece([*whole[:axis], slice(start, start + SLAB), *whole[axis + 1 :]]) for start in starts.tolist()]
    box = [min(n, size) for n, size in zip(shape, (SLAB, 256, 256), strict=True)]
    while 2 * FEWEST * math.prod(box) > voxels and max(box) > SLAB:
        box[box.index(max(box))] //= 2
    shares = np.modf(np.arange(max(voxels // math.prod(box), FEWEST))[:, None] * EVEN_STEPS)[0]
    shares[:, axis] = np.linspace(0, 1, len(shares))
    starts = (shares * (np.array(shape) - box)).astype(int).tolist()
    return [piece([slice(start, start + size) for start, size in zip(corner, box, strict=True)]) for corner in starts]


EVEN_STEPS = 0.0, 0.7548776662466927, 0.5698402909980532
"""Of an axis, modulo 1, so that points fill a plane evenly: powers of the inverse of the plastic number."""


def read_together(array: arrays.Source, layout: Layout, places: list[arrays.Slices], device: torch.device) -> Tensor:
    """Pieces of one channel as one (D, H, W); where they meet the gradient is large, so nothing is read there."""
    dtype = arrays.precise_dtype(array)
    read = [layout.to_engine(arrays.read(array, place, dtype, device))[0] for place in places]
    return torch.cat(read, dim=0 if layout.shape[0] > 1 else 1)


def sigma_of_volume(volume: Tensor, noise: str, inside: Tensor | None) -> float:
    """Sigma of one volume (D, H, W)."""
    peak = float(volume.abs().max())
    if peak == 0 or max(volume.shape) < 3:
        return 0.0
    around = finest_detail_by_slabs(volume, peak, inside)
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
    with np.errstate(over="ignore"):  # which NumPy 1 says, in vain, of the least spans
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
