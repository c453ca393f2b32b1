"""Components of a series that a few places show, each too weakly to stand out alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nlmeans.core.axes import Axes
from nlmeans.patches.low_rank.spectrum import surely_signal_of_any

TAPS, PLACE_REACH = (1.0, 2.0, 2.0, 2.0, 1.0), 2
"""Weights along each axis by which neighbours are averaged, and how far they reach. Of blocks of 3 to 6 voxels, and of
smooth spots as large, the average keeps half the energy or more, and has the noise of a single voxel."""

MOST_PLACES = 256
"""Places to look at: those with the most energy, of which none shares a voxel with another."""

SET_SIZES = (1, 2, 4, 8)
"""How many places to look at together."""

CHANCE_OF_ANY = 0.02
"""Number of components of noise that may be taken for signal in a whole series."""

SHOWN = 3.0
"""How strong a component must be at a place, in units of the noise, for the place to tell more about it."""


class Places(NamedTuple):
    """Neighbourhoods in some planes of a series, averaged so that each has the noise of a single voxel."""

    first: int
    """Number of the first plane."""
    energies: Tensor
    """Squared length of the averaged signal around each voxel, in units of sigma², (planes, H, W)."""
    positions: Tensor
    """Voxels that have the most, (places, 3)."""
    signals: Tensor
    """The averaged signals there, (places, V)."""
    apart: int
    """Distance from which two places share no noise, in voxels."""


def places_of(rest: Tensor, dimensions: int, autocovariance: Tensor | None, inner: slice, first: int) -> Places:
    """Find the places of a slab that show most.

    The noise around a voxel is measured where it is more than sigma.

    Args:
        rest: signals without the components that are known already, in units of sigma, (V, D, H, W).
        dimensions: in how many of V dimensions there is noise.
        autocovariance: of the noise within a volume, with lag 0 in the middle; None for white.
        inner: planes of the slab that lie far enough inside it.
        first: number of the first plane of the slab in the series.
    """
    inside = averaged_around(rest.new_ones(1, *rest.shape[1:]), squared=True)  # less than 1 near the ends of an axis
    level = averaged_around(rest.square().sum(0, keepdim=True), squared=True) / dimensions
    signals = averaged_around(rest).div_(torch.maximum(level, inside).sqrt_())[:, inner]
    energies = signals.square().sum(0)
    highest, where = torch.nn.functional.max_pool2d(energies[:, None], 3, 3, ceil_mode=True, return_indices=True)
    plane = torch.arange(len(energies), device=rest.device)[:, None].expand(-1, where[0].numel()).flatten()
    chosen = highest.flatten().topk(min(4 * MOST_PLACES, highest.numel())).indices
    plane, within = plane[chosen], where.flatten()[chosen]
    row, column = within // rest.shape[3], within % rest.shape[3]
    positions = torch.stack([plane + first + inner.start, row, column], 1)
    apart = len(TAPS) if autocovariance is None else len(TAPS) + max(autocovariance.shape) // 2
    return Places(first + inner.start, energies.cpu(), positions.cpu(), signals[:, plane, row, column].mT.cpu(), apart)


def averaged_around(volumes: Tensor, squared: bool = False) -> Tensor:
    """Average the neighbours of each voxel of (C, D, H, W) by `TAPS`, or their variances by the squares of these."""
    norm = math.sqrt(sum(tap * tap for tap in TAPS))
    taps = [(tap / norm) ** 2 if squared else tap / norm for tap in TAPS]
    for axis, n in enumerate(volumes.shape[1:], start=1):
        if n == 1:
            continue
        total = volumes * taps[PLACE_REACH]
        for away in range(1, min(PLACE_REACH, n - 1) + 1):
            total.narrow(axis, away, n - away).add_(volumes.narrow(axis, 0, n - away), alpha=taps[PLACE_REACH - away])
            total.narrow(axis, 0, n - away).add_(volumes.narrow(axis, away, n - away), alpha=taps[PLACE_REACH + away])
        volumes = total
    return volumes


def components_of_places(found: Sequence[Places], shape: Axes, dimensions: int) -> Tensor:
    """Find the components that stand out of the noise of one place, or of a few places together.

    A set of places has a component if its largest singular value is one that hardly any set of so many places would
    have by chance. From each place, sets grow by those most like it. A component is taken off all places, until nothing
    stands out.

    Args:
        found: the places of all slabs, the first ones first.
        shape: (D, H, W) of the series.
        dimensions: in how many of V dimensions there is noise.

    Returns:
        (V, components), unit vectors, float64.
    """
    distinct, voxels, signals = list[Tensor](), math.prod(shape), places_apart(found, dimensions)
    while len(signals) and len(distinct) < dimensions - 1:
        left = dimensions - len(distinct)
        products = signals @ signals.mT
        order = products.abs().fill_diagonal_(math.inf).argsort(1, descending=True)
        sets = [
            strongest_set(products, order[:, :size], surely_signal_of_any(size, left, voxels, CHANCE_OF_ANY))
            for size in SET_SIZES
            if size <= len(signals)
        ]
        above, members = max(sets, key=lambda one: one[0])
        if above <= 1:
            break
        component = leading_vector(signals[members])
        for _ in range(2):
            shown = (signals @ component).abs() > SHOWN
            shown[members] = True
            component = leading_vector(signals[shown])
        distinct.append(component)
        signals = signals - (signals @ component)[:, None] * component
    return torch.stack(distinct, 1) if distinct else signals.new_zeros(signals.shape[1], 0)


def strongest_set(products: Tensor, members: Tensor, least: float) -> tuple[float, Tensor]:
    """Return the energy of the strongest component of any set, relative to the least that counts, and that set.

    Args:
        products: of each signal with each other one, (places, places).
        members: the places of each set, (sets, size).
        least: energy from which a component counts.
    """
    energies = torch.linalg.eigvalsh(products[members[:, :, None], members[:, None]])[:, -1]
    return float(energies.max()) / least, members[energies.argmax()]


def leading_vector(signals: Tensor) -> Tensor:
    """Return the unit vector that (places, V) have the most energy along."""
    vectors: Tensor = torch.linalg.svd(signals, full_matrices=False)[2]
    return vectors[0]


def places_apart(found: Sequence[Places], dimensions: int) -> Tensor:
    """Return the signals of the strongest places that share no noise, (places, V), float64.

    They are in units of the noise, as most places have it: averages of noise that is correlated have more of it.
    """
    ends = [places.first for places in found[1:]]  # the end of a volume may lie in two slabs
    energies = [places.energies[: end - places.first] for places, end in zip(found[:-1], ends, strict=True)]
    typical = float(torch.cat([some.flatten() for some in (*energies, found[-1].energies)]).median())
    positions = torch.cat([places.positions for places in found])
    signals = torch.cat([places.signals for places in found]).double()
    order = signals.square().sum(1).argsort(descending=True)[: 4 * MOST_PLACES]
    apart, kept = max(places.apart for places in found), list[int]()
    for one in order.tolist():
        if len(kept) < MOST_PLACES and bool(((positions[kept] - positions[one]).abs().amax(1) >= apart).all()):
            kept.append(one)
    noise: float = max(typical / dimensions, 1.0) ** 0.5
    return signals[kept] / noise
