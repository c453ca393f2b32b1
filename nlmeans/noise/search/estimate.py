"""Estimate the standard deviation of the noise from the image itself."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nlmeans.core import arrays
from nlmeans.core.axes import Axes
from nlmeans.core.layout import Layout
from nlmeans.core.memory import allowed
from nlmeans.core.modes import in_one_thread
from nlmeans.core.tiles import Piece, piece
from nlmeans.noise.kinds import possible_kind
from nlmeans.noise.outliers import sigma_between_outliers, without_outliers
from nlmeans.noise.rician import rician_moments
from nlmeans.noise.search.finest import DetailMaps, finest_detail_by_slabs, robust_deviation
from nlmeans.noise.search.sigma_map import sigma_map_of_volume
from nlmeans.noise.search.usable import object_threshold, smallest

FLATTEST_OF_OBJECT = 0.04
"""Share of the object that the noise is measured in: the voxels with the least detail around them."""

LEAST_FLAT_VOXELS = 4000
"""Least number of voxels to measure the noise in. A small object gives up to half of its voxels."""

FOLLOWED, GROUPS = 0.3, 12
"""Share of the object in which structure is told from noise, and the number of groups that it is divided into, from
flat to less flat."""

LEAST_FOR_MEDIAN = 64
"""Least number of voxels for a meaningful median."""

SigmaMap = npt.NDArray[np.float32]

log = logging.getLogger("nlmeans")


def sigma_levels(
    volume: arrays.Source,
    index: int,
    layout: Layout,
    noise: str,
    mask: arrays.Source | None,
    memory: int | None = None,
    despeckled: bool = False,
) -> tuple[float, ...]:
    """Estimate sigma of each channel of one volume of a series.

    Args:
        volume: the array, with all volumes of the series.
        index: number of the volume.
        layout: what the axes of `volume` are.
        noise: ``"gaussian"`` or ``"rician"``.
        mask: which voxels to measure; None for the object, by Otsu's threshold.
        memory: bytes to work in. A volume that is not in memory is sampled as far as they allow.
        despeckled: whether to replace outliers first.
    """
    channels = sampled_channels(volume, index, layout, mask, memory, despeckled)
    return tuple(sigma_of_volume(values, noise, inside) for values, inside in channels)


def sampled_channels(
    volume: arrays.Source,
    index: int,
    layout: Layout,
    mask: arrays.Source | None,
    memory: int | None = None,
    despeckled: bool = False,
    every: int = 1,
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Read each channel of one volume, or one in `every`, (D, H, W), and the mask; of a large volume, evenly spaced
    parts. NaN counts as outside: it becomes 0, and the mask leaves it out.

    Raises:
        ValueError: there are infinite values, or nothing but NaN.
    """
    pieces = sampled_places(volume, layout, memory)
    inside = read_mask(mask, layout, pieces, arrays.device_of(volume))
    if index == 0:
        warn_of_small_mask(inside)
    for places in zip(*(layout.channel_pieces(index, p)[::every] for p in pieces), strict=True):
        values = read_pieces(volume, layout, list(places), arrays.device_of(volume))
        values, known, _ = without_outside(values, inside)
        if despeckled:
            values = without_outliers(values, sigma_between_outliers(values))
        yield values, known


def sampled_places(volume: arrays.Source, layout: Layout, memory: int | None = None) -> list[Piece]:
    """Return the boxes that `sampled_channels` reads of each volume."""
    return sample_pieces(layout.shape, affordable_voxels(volume, memory))


@in_one_thread
def without_outside(values: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor | None, tuple[float, float]]:
    """Return values with 0 in place of NaN, the mask without these voxels, and the range of the others.

    Raises:
        ValueError: there are infinite values, or nothing but NaN.
    """
    low, high = arrays.known_range(values, "volume")
    if low > high:
        raise ValueError("volume is NaN everywhere, so there is nothing to measure; check how it was made")
    missing = arrays.is_nan(values)
    if missing is None:
        return values, inside, (low, high)
    return arrays.without_nan(values), None if inside is None else inside & ~missing, (low, high)


def affordable_voxels(volume: arrays.Source, memory: int | None) -> int:
    """Return how many voxels to sample."""
    if arrays.in_memory(volume):
        return SAMPLE_VOXELS
    size = arrays.precise_dtype(volume).itemsize / 4
    return min(SAMPLE_VOXELS, int(allowed(torch.device("cpu"), memory) / (SAMPLE_BYTES * size)))


def sigma_maps(
    volume: arrays.Source, index: int, layout: Layout, noise: str, mask: arrays.Source | None, despeckled: bool = False
) -> SigmaMap:
    """Estimate the map of sigma of each channel of one volume, in an array whose series axis has length 1."""
    if not arrays.in_memory(volume):
        raise ValueError(
            "a map of sigma needs the whole volume in memory, but this one is read by slicing; "
            "load it as a numpy array, or pass a map of your own as sigma"
        )
    inside = read_mask(mask, layout, [layout.everywhere], arrays.device_of(volume))
    if index == 0:
        warn_of_small_mask(inside)
    maps = []
    for place in layout.channel_pieces(index, layout.everywhere):
        values = read_pieces(volume, layout, [place], arrays.device_of(volume))
        values, known, (low, high) = without_outside(values, inside)
        if max(-low, high) > LARGEST_FOR_MAP or 0 < max(-low, high) < 1 / LARGEST_FOR_MAP:
            raise ValueError(
                f"volume has values from {low:.6g} to {high:.6g}, too extreme for a map of sigma in float32; scale it"
            )
        if despeckled:
            values = without_outliers(values, sigma_between_outliers(values))
        maps.append(sigma_map_of_volume(values, noise, known))
    return layout.from_engine(torch.stack(maps)).cpu().numpy()


LARGEST_FOR_MAP = 1e35
"""Largest absolute value of a volume whose map of sigma fits float32, which holds 1e-38 to 3e38. Its inverse is the
smallest."""


def read_mask(mask: arrays.Source | None, layout: Layout, pieces: list[Piece], device: torch.device) -> Tensor | None:
    """Read pieces of a mask, joined like those of the volume; True where the mask is not zero."""
    if mask is None:
        return None
    spatial = layout.spatial(mask, "mask")
    values = read_pieces(mask, spatial, [spatial.index(0, place) for place in pieces], device)
    return arrays.check_finite(values, "mask") != 0


def warn_of_small_mask(inside: Tensor | None) -> None:
    """Log a warning if a mask leaves too few voxels to measure noise in, so that all are measured instead."""
    if inside is None:
        return
    count = int(inside.sum())
    if count < min(LEAST_FOR_MEDIAN, inside.numel()):
        log.warning(
            "mask has %d voxels that are not zero, too few to measure the noise in (%d are enough), so it is measured "
            "in the whole volume",
            count,
            LEAST_FOR_MEDIAN,
        )


SAMPLE_VOXELS = 2**21
"""Voxels that suffice for an estimate. Larger volumes are sampled in evenly spaced parts."""

SAMPLE_BYTES = 48
"""Working memory per sampled voxel, in float32."""

SLAB_THICKNESS = 16
"""Thickness of a sampled slab in voxels."""

FEWEST_SLABS = 4
"""Least number of slabs. If so many are too large, at least twice as many boxes are sampled instead."""


def sample_pieces(shape: Axes, voxels: int) -> list[Piece]:
    """Choose which parts of a volume to sample, `voxels` in all.

    They are the whole volume, or slabs across its first axis longer than 1, or boxes. Slabs and boxes are about evenly
    spaced.
    """
    axis = 0 if shape[0] > 1 else 1
    count = voxels // (SLAB_THICKNESS * math.prod(shape) // shape[axis])
    whole = [slice(0, n) for n in shape]
    if shape[axis] <= SLAB_THICKNESS * count or math.prod(shape) <= SLAB_THICKNESS**3:
        return [piece(whole)]
    if count >= FEWEST_SLABS:
        starts = np.linspace(0, shape[axis] - SLAB_THICKNESS, count).astype(int)
        return [
            piece([*whole[:axis], slice(start, start + SLAB_THICKNESS), *whole[axis + 1 :]])
            for start in starts.tolist()
        ]
    box = [min(n, size) for n, size in zip(shape, (SLAB_THICKNESS, 256, 256), strict=True)]
    while 2 * FEWEST_SLABS * math.prod(box) > voxels and max(box) > SLAB_THICKNESS:
        box[box.index(max(box))] //= 2
    shares = np.modf(np.arange(max(voxels // math.prod(box), FEWEST_SLABS))[:, None] * EVEN_STEPS)[0]
    shares[:, axis] = np.linspace(0, 1, len(shares))
    starts = (shares * (np.array(shape) - box)).astype(int).tolist()
    return [piece([slice(start, start + size) for start, size in zip(corner, box, strict=True)]) for corner in starts]


EVEN_STEPS = 0.0, 0.7548776662466927, 0.5698402909980532
"""Steps along each axis, as a share of it and modulo 1, that fill a plane evenly: powers of the inverse of the plastic
number."""


def read_pieces(array: arrays.Source, layout: Layout, places: list[arrays.Slices], device: torch.device) -> Tensor:
    """Read pieces of one channel and join them to one (D, H, W).

    The seams look like edges, so the estimate leaves them out.
    """
    dtype = arrays.precise_dtype(array)
    pieces = [layout.to_engine(arrays.read(array, place, dtype, device))[0] for place in places]
    return torch.cat(pieces, dim=0 if layout.shape[0] > 1 else 1)


@in_one_thread
def sigma_of_volume(volume: Tensor, noise: str, inside: Tensor | None) -> float:
    """Estimate sigma of one volume, (D, H, W), in image units."""
    peak = float(volume.abs().max())
    if peak == 0 or max(volume.shape) < 3:
        return 0.0
    noise = possible_kind(noise, float(volume.min()))
    return sigma_of_detail(finest_detail_by_slabs(volume, peak, inside), noise) * peak


def sigma_of_detail(around: DetailMaps, noise: str) -> float:
    """Estimate sigma from the finest detail of a volume."""
    object_voxels = around.inside
    if object_voxels is None:
        object_voxels = around.brightness > object_threshold(around.brightness.masked_select(around.usable))
    choices = (object_voxels & around.usable, around.usable)
    candidates = next((c for c in choices if int(c.sum()) >= LEAST_FOR_MEDIAN), torch.ones_like(around.usable))
    brightness, finest, detail = around.at(candidates)
    wanted = math.ceil(max(FLATTEST_OF_OBJECT * len(detail), min(LEAST_FLAT_VOXELS, len(detail) / 2)))
    order = smallest(detail, max(math.ceil(FOLLOWED * len(detail)), wanted))
    detail, finest = detail[order], finest[order]
    variance, flat = robust_deviation(finest[:wanted]) ** 2, float(detail[:wanted].double().mean())
    slope = slope_of_structure(detail, finest)
    sigma = math.sqrt(max(variance - slope * flat, 0) / (1 - slope))
    if noise == "rician":
        sigma = sigma_of_magnitudes(float(brightness[order[:wanted]].double().mean()), sigma)
    return sigma


def slope_of_structure(detail: Tensor, finest: Tensor) -> float:
    """Estimate how much structure adds to the variance of the finest detail, per unit added to the detail around.

    Without structure, both variances are sigma². A line through groups of voxels, from flat to less flat, leads back to
    that point. Below the flattest group, the true curve bends away from the line by an unknown amount. So the result is
    half the slope of the line: the full slope errs on one side, no slope at all on the other. Where the finest detail
    rises nearly as fast as the other, that is no structure but noise that is stronger in some places.
    """
    groups = max(1, min(GROUPS, len(detail) // LEAST_FOR_MEDIAN))
    details = np.array([float(part.double().mean()) for part in detail.chunk(groups)])
    variances = np.array([robust_deviation(part) ** 2 for part in finest.chunk(groups)])
    spread = details - details.mean()
    slope = float(spread @ variances / (spread @ spread)) if spread.any() else 0.0
    if slope > STEEPER_THAN_STRUCTURE and details[-1] > CLEARLY_MORE * details[0]:
        return 0.0
    return min(max(slope, 0.0), LARGEST_SLOPE) / 2


STEEPER_THAN_STRUCTURE, CLEARLY_MORE = 0.25, 1.8
"""Slope from which it is noise that rises and not structure, if the detail rises by such a factor. That of structure
was up to 0.18; with less of a rise, chance makes any slope."""

LARGEST_SLOPE = 0.9
"""Upper limit of the fitted slope."""


def sigma_of_magnitudes(mean: float, deviation: float) -> float:
    """Return sigma of the two Gaussian parts, from mean and standard deviation of Rician magnitudes.

    The fixed point of Koay and Basser (2006, doi:10.1016/j.jmr.2006.01.016): the deviation of a magnitude is
    sigma·√ξ(θ), where θ = signal / sigma.
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
