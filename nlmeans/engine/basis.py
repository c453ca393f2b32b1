"""What the signals of all voxels of a series have in common."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from nlmeans.core import arrays
from nlmeans.core.layout import Layout
from nlmeans.core.memory import allowed
from nlmeans.core.tiles import Piece
from nlmeans.engine.noise import LEAST_SIGMA
from nlmeans.engine.series import PIECE_BYTES, read_volumes
from nlmeans.engine.settings import Settings
from nlmeans.engine.survey import Facts
from nlmeans.noise.estimate import sample_pieces
from nlmeans.patches.low_rank.spectrum import edge_of_noise, variance_of_rest

SHARED_BY = 2**17
"""Voxels, each with all volumes, that are looked at."""

SURELY_ABOVE = 1.02
"""How far above the edge of noise the variance of a component must be, in units of that edge."""

MOST_SHARED = 0.5
"""Largest share of all components that is worth to be treated by itself."""


def slabs(joined: Layout, settings: Settings) -> Iterator[Piece]:
    """Cut the evenly spaced pieces that are looked at into slabs that fit the memory, which changes nothing else."""
    memory = allowed(torch.device("cpu"), settings.memory)
    for depth, height, width in sample_pieces(joined.shape, SHARED_BY):
        plane = (height.stop - height.start) * (width.stop - width.start)
        planes = max(1, int(memory / (PIECE_BYTES * joined.channel_count * plane)))
        for first in range(depth.start, depth.stop, planes):
            yield slice(first, min(first + planes, depth.stop)), height, width


def shared_basis(
    volume: arrays.Source, joined: Layout, settings: Settings, facts: Facts, sigma_map: arrays.Source | None
) -> Tensor | None:
    """Find the components that stand out of the noise over many voxels of a series.

    A patch has few voxels, so that it shows few components, and these not exactly. Thousands of voxels all over the
    series show many more.

    Args:
        volume: the array.
        joined: its axes, with the volumes as channels.
        settings: how to denoise.
        facts: sigma and the middle of each volume; those without noise do not count.
        sigma_map: sigma at every voxel, if it varies.

    Returns:
        (volumes with noise, components), orthonormal, float64; None if there are too few or too many components.
    """
    present = [channel for channel, sigma in enumerate(facts.sigma) if sigma > 0]
    count = len(present)
    if count < 2:
        return None
    unit = torch.tensor([facts.sigma[c] for c in present], dtype=torch.float64)[:, None]
    shift = torch.tensor([facts.shift[c] for c in present], dtype=torch.float64)[:, None]
    products, voxels = torch.zeros(count, count, dtype=torch.float64), 0
    for place in slabs(joined, settings):
        values = read_volumes(volume, joined, place)
        signals = (values[present].double().cpu().flatten(1) - shift) / unit
        if sigma_map is not None:
            layout = joined.spatial(sigma_map, "sigma")
            level = layout.to_engine(arrays.read(sigma_map, layout.index(0, place), torch.float64, torch.device("cpu")))
            relative = level.flatten() / max(facts.sigma[0], LEAST_SIGMA)
            signals = signals[:, relative > 0] / relative[relative > 0]
        products += signals @ signals.mT
        voxels += signals.shape[1]
    lags = facts.noise.autocovariance
    alike = 1.0 if lags is None else float(torch.as_tensor(lags).square().sum())  # voxels that count as one
    independent = int(voxels / alike)
    if independent < 2 * count:
        return None
    energies, vectors = torch.linalg.eigh(products / alike)
    variance = variance_of_rest(energies[None], products.trace()[None] / alike, count, independent)
    edge = edge_of_noise(variance, count, independent)
    shared = vectors[:, energies > SURELY_ABOVE * edge]
    return shared.contiguous() if 0 < shared.shape[1] <= MOST_SHARED * count else None
