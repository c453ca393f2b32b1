"""Components of a series: what the signals of all voxels have in common, and what only a few voxels show.

A signal has one number for each volume. Signals of noise alone point everywhere; those of tissue span few dimensions.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from nlmeans.core.axes import Axes
from nlmeans.core.lags import whitening
from nlmeans.core.progress import silent
from nlmeans.patches.grid import patch_size
from nlmeans.patches.groups import Grid
from nlmeans.patches.low_rank.series import PatchBatch, batches_of_patches, each_batch
from nlmeans.patches.low_rank.spectrum import (
    edge_of_noise,
    leading_eigenpairs,
    shrunk_gain,
    surely_signal,
    variance_of_rest,
)

SURELY_ABOVE = 1.02
"""How far above the edge of noise the energy of a component of all voxels must be at least, in units of that edge."""

LOCAL_PATCH, LOCAL_STEP = 5, 3
"""Edge of the patches that are searched for components of their own, and distance between them, in voxels."""

LOCAL_ABOVE = 1.06
"""How far above the edge of noise the energy of a component of one patch must be at least, in units of that edge."""

CHANCE = 0.02
"""Number of components of noise that may be taken for signal in a whole series: each costs a little."""

MOST_LOCAL = 4
"""Components of one patch to look at."""


class Common(NamedTuple):
    """What the signals of all voxels have in common."""

    basis: Tensor
    """(V, K), orthonormal, float64."""
    variance: float
    """Variance of the rest, in units of sigma²."""

    @property
    def left(self) -> int:
        """In how many dimensions there is noise alone."""
        return len(self.basis) - self.basis.shape[1]


def products_of(signals: Tensor) -> tuple[Tensor, int]:
    """Return the sum of the products of each signal with itself, (V, V), float64, and the number of signals."""
    products = signals.new_zeros(len(signals), len(signals), dtype=torch.float64)
    for plane in signals.unbind(1):  # one by one, so that no second copy of all is made
        flat = plane.double().flatten(1).contiguous()  # the same bits on any axis
        products.addmm_(flat, flat.mT)
    return products.cpu(), math.prod(signals.shape[1:])


MOST_OF_NOISE = 1.25
"""Largest variance of noise in units of sigma², which may be a tenth too low."""


def common_components(products: Tensor, voxels: int, most: float = math.inf) -> Common:
    """Return the components that stand out of the noise over many voxels.

    There is at least one. They are all V if there are too few voxels to tell, or if the weakest is signal as well: of
    a single dimension, only sigma says whether it is noise.

    Args:
        products: the sum of the products of each signal with itself, in units of sigma², (V, V), float64.
        voxels: how many independent signals there were.
        most: largest variance of noise, in the same units, if sigma is known.

    Example:
        >>> signals = torch.outer(torch.tensor([3.0, 4.0, 0.0]), torch.linspace(-10, 10, 1000)).double()
        >>> common_components(signals @ signals.mT, 1000).basis.abs().mT
        tensor([[0.6000, 0.8000, 0.0000]], dtype=torch.float64)
    """
    vectors: Tensor
    energies, vectors = torch.linalg.eigh(products)
    count = len(products)
    if count == 0 or voxels < 2 * count:
        return Common(vectors, 1.0)
    variance = variance_of_rest(energies[None], products.trace()[None], count, voxels)
    edge = float(variance) * surely_signal(count, voxels, CHANCE)
    least = max(edge, SURELY_ABOVE * float(edge_of_noise(variance, count, voxels)))
    found = int((energies > least).sum())
    if found == count - 1 and float(energies[0]) > most * surely_signal(1, voxels, CHANCE):
        return Common(vectors, 1.0)
    return Common(vectors[:, -max(found, 1) :], float(variance))


def components_of_patches(rest: Tensor, dimensions: int, autocovariance: Tensor | None, least: float) -> Tensor:
    """Find the components that stand out of the noise of single patches.

    Args:
        rest: signals without the components that are known already, in units of sigma, (V, D, H, W).
        dimensions: in how many of V dimensions there is noise.
        autocovariance: of the noise within a volume, in units of sigma², with lag 0 in the middle; None for white.
        least: energy from which a component counts, see `least_energy`.

    Returns:
        The leading components of each patch where there is one, each as long as its singular value in units of the
        noise, (patches, components, V). The noise of a patch is measured where it is more than sigma, so that a level
        that is a little too low does not make components of noise.
    """
    fitted = fitted_to_patches(rest)
    shape = (fitted.shape[1], fitted.shape[2], fitted.shape[3])
    grid = Grid.of(shape, LOCAL_PATCH, LOCAL_STEP, 1, (0, 0, 0))
    noise = None if autocovariance is None else whitening(autocovariance, grid.size)
    values = fitted.movedim(0, -1).contiguous()

    def work(batch: PatchBatch) -> Tensor:
        patches = batch.read(values, grid)
        if noise is not None:
            patches = noise.whiten.to(rest) @ patches
        energies, components, total = leading_components(patches)
        level = variance_of_rest(energies, total, patches.shape[1], dimensions).clamp_min(1)
        chosen = energies[:, -1] > least * level
        return components[chosen] / level[chosen, None, None].sqrt()

    turns = batches_of_patches(grid, len(rest), rest.device)
    batches = [list(itertools.chain.from_iterable(turns))]  # nothing is written to them
    return torch.cat(each_batch(work, batches, rest.device, silent))


def leading_components(patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find the components of patches, (patches, voxels, V), that have the most energy.

    Returns:
        Their squared singular values, rising; their right singular vectors, each as long as its singular value,
        (patches, components, V); and the sum of all squared singular values, (patches,).
    """
    wide = patches.shape[2] > patches.shape[1]
    gram = patches @ patches.mT if wide else patches.mT @ patches
    energies, vectors = leading_eigenpairs(gram, MOST_LOCAL)
    components = patches.mT @ vectors if wide else vectors * energies[:, None].clamp_min(0).sqrt()
    total = gram.diagonal(dim1=1, dim2=2).sum(1)
    return energies[:, -MOST_LOCAL:], components[..., -MOST_LOCAL:].mT, total


def fitted_to_patches(volumes: Tensor) -> Tensor:
    """Cut off what patches inside (V, D, H, W) do not reach, as much at both ends of an axis."""
    for axis, length in enumerate(volumes.shape[1:], start=1):
        first, stop = ends_of_patches(length)
        volumes = volumes.narrow(axis, first, stop - first)
    return volumes


def ends_of_patches(length: int) -> tuple[int, int]:
    """Return the first voxel along an axis that patches reach, and the voxel after the last.

    >>> ends_of_patches(10), ends_of_patches(11), ends_of_patches(3)
    ((1, 9), (0, 11), (0, 3))
    """
    left = max(length - LOCAL_PATCH, 0) % LOCAL_STEP
    return left // 2, length - (left - left // 2)


def least_energy(shape: Axes, dimensions: int) -> float:
    """Return the energy above which a component of a patch is signal, in units of sigma².

    Args:
        shape: (D, H, W) of the series, which says how many patches there are.
        dimensions: in how many of V dimensions there is noise.
    """
    rows = math.prod(patch_size(LOCAL_PATCH, shape))
    patches = math.prod(max(1, 1 + (n - LOCAL_PATCH) // LOCAL_STEP) for n in shape)
    edge = float(edge_of_noise(torch.ones(()), rows, dimensions))
    return max(LOCAL_ABOVE * edge, surely_signal(rows, dimensions, CHANCE / patches))


def distinct_components(found: Tensor, shape: Axes, dimensions: int) -> Tensor:
    """Join the components of patches: those that many patches show are one.

    The component that most patches show, each counting by what of it is not noise, is taken off all of them, until
    nothing stands out.

    Args:
        found: as `components_of_patches` returns them.
        shape: (D, H, W) of the series.
        dimensions: in how many of V dimensions there is noise.

    Returns:
        (V, components), unit vectors, float64.
    """
    if not len(found):
        return found.new_zeros(found.shape[-1], 0, dtype=torch.float64)
    least, rows = least_energy(shape, dimensions), math.prod(patch_size(LOCAL_PATCH, shape))
    rest, distinct = found.double(), list[Tensor]()
    while len(rest) and len(distinct) < dimensions:
        energies, sides = torch.linalg.eigh(rest @ rest.mT)
        stands_out = energies[:, -1] > least
        rest, energy, side = rest[stands_out], energies[stands_out, -1:], sides[stands_out, :, -1:]
        if not len(rest):
            break
        vectors = (rest.mT @ side)[..., 0] / energy.sqrt()
        shares = shrunk_gain(energy, rows, dimensions).square() * energy
        strongest = torch.linalg.eigh(vectors.mT @ (shares * vectors))[1][:, -1]
        distinct.append(strongest)
        rest = rest - (rest @ strongest)[..., None] * strongest
    return torch.stack(distinct, 1) if distinct else rest.new_zeros(found.shape[-1], 0)
