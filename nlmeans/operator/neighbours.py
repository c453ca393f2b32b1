"""The neighbours with which a voxel is compared: its whole search window, or a random sample of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from nlmeans.core.axes import Axes


class Neighbour(NamedTuple):
    """One of two opposite offsets in the search window; it stands for both."""

    offset: Axes
    factor: float
    """Factor of its weights: one over the probability that it was drawn."""


def half_window(search_radius: Axes) -> Iterator[Axes]:
    """One of each pair of opposite offsets of the search window, without the voxel itself."""
    sz, sy, sx = search_radius
    for z in range(sz + 1):
        for y in range(-sy if z else 0, sy + 1):
            for x in range(-sx if z or y else 1, sx + 1):
                yield z, y, x


def draw(search_radius: Axes, count: int, seed: int) -> tuple[Neighbour, ...] | None:
    """Draw about `count` offsets of the search window without replacement; None if `count` covers the whole window.

    The probability of an offset is inversely proportional to its squared length (and at most 1), because weights fall
    with distance. All voxels share the sample, so it costs as little as a small window. The draw is systematic along
    the length (Horvitz and Thompson 1952): with any seed, each distance gets its share.
    """
    offsets = list(half_window(search_radius))
    pairs = max(count // 2, 1)
    if pairs >= len(offsets):
        return None
    random = np.random.Generator(np.random.PCG64(seed))
    squared = np.square(np.array(offsets)).sum(1)
    order = np.lexsort((random.random(len(offsets)), squared))
    share = probabilities(1 / squared[order], pairs)
    passed = np.floor(share.cumsum() + random.random()).astype(int)
    drawn = [0, *passed[:-1]] < passed
    return tuple(Neighbour(offsets[k], float(1 / p)) for k, p in zip(order[drawn], share[drawn], strict=True))


def probabilities(importance: np.ndarray, count: int) -> np.ndarray:
    """Probabilities proportional to `importance`, at most 1, whose sum is `count`."""
    certain = np.zeros(len(importance), bool)
    while True:  # each round makes at least one more offset certain
        rest = importance * ~certain
        share = np.where(certain, 1.0, rest * ((count - certain.sum()) / rest.sum()))
        if (share <= 1).all():
            return share
        certain |= share >= 1
