"""The operator in float64, written directly from its formula. All backends are compared with it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

Volume = npt.NDArray[np.float64]
"""(C, D, H, W) for images and guides, (D, H, W) for maps."""

Axes = tuple[int, int, int]

LEAST_EXPONENT = -64.0
LEAST_OWN_WEIGHT = math.exp(-32.0)


def nonlocal_means(
    image: Volume,
    h: float | Volume,
    *,
    sigma: float | Volume = 0.0,
    patch_radius: Axes = (1, 1, 1),
    search_radius: Axes = (1, 1, 1),
    guide: Volume | None = None,
    guide_scale: Sequence[float] | None = None,
    center: str | float = "one",
    factors: dict[Axes, float] | None = None,
    voxels: Iterable[Axes] | None = None,
) -> Volume:
    """Compute the weighted mean of the search window of each voxel.

    With `factors`, only the offsets that have a factor count. With `voxels`, the other voxels are NaN.
    """
    guide = image if guide is None else guide
    scale = np.array([1 / len(guide)] * len(guide) if guide_scale is None else guide_scale)
    shape = image.shape[1:]
    h, sigma = np.broadcast_to(h, shape), np.broadcast_to(sigma, shape)
    values, features = reflected(image, search_radius), reflected(guide, add(search_radius, patch_radius))
    result = np.full_like(image, np.nan)
    for voxel in np.ndindex(*shape) if voxels is None else voxels:
        middle = add(voxel, search_radius)
        own_patch = box(features, middle, patch_radius)
        weighted, total, largest = np.zeros(len(image)), 0.0, 0.0
        for neighbour in window(middle, search_radius):
            offset = add(neighbour, tuple(-m for m in middle))
            factor = 1.0 if factors is None else factors.get(offset, 0.0)
            if neighbour == middle or not factor:
                continue
            difference = own_patch - box(features, neighbour, patch_radius)
            distance = (scale * np.square(difference).mean((1, 2, 3))).sum()
            due_to_noise = 2 * sigma[voxel] ** 2 * scale.sum()
            weight = math.exp(max(-max(distance - due_to_noise, 0) / h[voxel] ** 2, LEAST_EXPONENT))
            weighted += factor * weight * values[:, *neighbour]
            total, largest = total + factor * weight, max(largest, weight)
        own = own_weight(center, largest)
        result[:, *voxel] = (weighted + own * image[:, *voxel]) / (total + own)
    return result


def own_weight(center: str | float, largest: float) -> float:
    """The weight of the voxel itself; under "zero" it is 1 if the window has no other voxel."""
    if center == "one":
        return 1.0
    if center == "zero":
        return float(largest == 0)
    least = LEAST_OWN_WEIGHT if center == "max" else max(float(center), LEAST_OWN_WEIGHT)
    return max(largest, least)


def windowed(
    image: Volume,
    h: float | Volume,
    *,
    patch_radius: Axes = (0, 0, 0),
    search_radius: Axes = (1, 1, 1),
    guide: Volume | None = None,
    guide_scale: Sequence[float] | None = None,
    blend: str = "smooth",
) -> Volume:
    """Compute the softmax-weighted mean of each voxel over each window that contains it, and blend these means."""
    guide = image if guide is None else guide
    scale = np.array([1 / len(guide)] * len(guide) if guide_scale is None else guide_scale)
    shape = image.shape[1:]
    h = np.broadcast_to(h, shape)
    values, features = reflected(image, search_radius), reflected(guide, add(search_radius, patch_radius))
    weighted, total = np.zeros_like(image), np.zeros(shape)
    centres = [sorted({*range(0, n, s + 1), n - 1}) for n, s in zip(shape, search_radius, strict=True)]
    for z, y, x in itertools.product(*centres):
        members = list(window(add((z, y, x), search_radius), search_radius))
        patches = np.stack([box(features, member, patch_radius) for member in members])
        contents = np.stack([values[:, *member] for member in members])
        for member, patch in zip(members, patches, strict=True):
            voxel = tuple(m - s for m, s in zip(member, search_radius, strict=True))
            if any(not 0 <= v < n for v, n in zip(voxel, shape, strict=True)):
                continue
            distances = (scale * np.square(patch - patches).mean((2, 3, 4))).sum(1)
            weights = np.exp(-distances / h[voxel] ** 2)
            places = zip(voxel, (z, y, x), search_radius, strict=True)
            share = math.prod(blending(v - centre, radius, blend) for v, centre, radius in places)
            weighted[:, *voxel] += share * (weights @ contents) / weights.sum()
            total[voxel] += share
    return weighted / total


def blending(offset: int, radius: int, blend: str) -> float:
    """The weight, in the blend, of a window for a voxel at this offset from its middle."""
    return 1.0 if blend == "plain" else math.cos(math.pi * offset / (2 * radius + 2)) ** 2


def reflected(volume: Volume, margin: Axes) -> Volume:
    return np.pad(volume, [(0, 0), *((m, m) for m in margin)], mode="reflect")


def window(middle: Axes, radius: Axes) -> Iterator[Axes]:
    yield from itertools.product(*(range(m - r, m + r + 1) for m, r in zip(middle, radius, strict=True)))


def box(padded: Volume, corner: Axes, radius: Axes) -> Volume:
    """The patch of a voxel, whose index before padding by the radius was `corner`."""
    return padded[:, *(slice(c, c + 2 * r + 1) for c, r in zip(corner, radius, strict=True))]


def add(a: tuple[int, ...], b: tuple[int, ...]) -> Axes:
    z, y, x = (m + n for m, n in zip(a, b, strict=True))
    return z, y, x
