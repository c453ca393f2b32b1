"""Hot voxels of a series: single values of single volumes that stand far out of their neighbours."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from nlmeans.kernels.dispatch import kernel_for
from nlmeans.kernels.turns import in_threads

HOT, HOT_RATIO, HOT_REACH = 10.0, 2.0, 1
"""How far a hot voxel stands out, in units of sigma and of the range of its neighbours; and how far these lie. In high
contrast, voxels stand out of even surroundings, but hardly ever by twice what these differ."""

FEWEST_TOGETHER = 3
"""Volumes from which it shows whether a voxel stands out in one of them or in most. It must be as far from the median
over the volumes as from its neighbours."""


def without_hot_voxels(signals: Tensor, relative: float | Tensor) -> tuple[Tensor, Tensor]:
    """Replace what stands far out of all its neighbours, such as a hot pixel or a spike of one volume.

    One such value is larger than all that the volumes have in common: it would be a component of its own, and what
    others have at the same voxel would follow it.

    Args:
        signals: (V, D, H, W), in units of sigma, without NaN.
        relative: level of the noise at every voxel, in units of sigma, (D, H, W); 1 if it does not vary.

    Returns:
        The signals, with the middle of the neighbours where a voxel is hot; and where these are, (V, D, H, W).

    Example:
        >>> signals = torch.zeros(1, 1, 1, 5)
        >>> signals[..., 2] = 1000
        >>> calm, hot = without_hot_voxels(signals, 1.0)
        >>> calm.flatten().tolist(), hot.flatten().tolist()
        ([0.0, 0.0, 0.0, 0.0, 0.0], [False, False, True, False, False])
    """
    if not len(signals) or signals[0].numel() <= 2:  # no volumes with noise, or no two neighbours that could agree
        return signals, torch.zeros_like(signals, dtype=torch.bool)
    limit = torch.as_tensor(HOT * relative, dtype=signals.dtype, device=signals.device)
    hot = kernel_for([signals], plain=hot_voxels, cpu=compiled_hot_voxels)(signals, limit)
    places = hot.nonzero()
    if len(places) and len(signals) >= FEWEST_TOGETHER:
        volume, *place = places.T
        here = signals[:, *place]
        usual = (here.median(0).values - (-here).median(0).values) / 2  # what most volumes show is part of the object
        differs = (signals[volume, *place] - usual).abs() > limit.expand(signals.shape[1:])[*place]
        hot[tuple(places[~differs].T)] = False
        places = places[differs]
    if not len(places):
        return signals, hot
    calm = signals.clone()
    calm[tuple(places.T)] = middle_of_neighbours(signals, places)
    return calm, hot


def hot_voxels(signals: Tensor, limit: Tensor) -> Tensor:
    """Find hot voxels by torch's operations, for any device and precision.

    Args:
        signals: as for `without_hot_voxels`.
        limit: least distance from the neighbours, one number or (D, H, W).
    """
    hot = torch.zeros_like(signals, dtype=torch.bool)
    for number, signal in enumerate(signals):
        low, high = range_beside(signal)
        far = torch.maximum(HOT_RATIO * (high - low), limit)
        torch.gt(torch.maximum(signal - high, low - signal), far, out=hot[number])
    return hot


def range_beside(signal: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least and the greatest of the neighbours that share a face with each voxel of (D, H, W)."""
    low, high = torch.full_like(signal, math.inf), torch.full_like(signal, -math.inf)
    for axis, n in enumerate(signal.shape):
        for here, there in ((0, 1), (1, 0)) if n > 1 else ():
            beside = signal.narrow(axis, there, n - 1)
            for found, merge in ((high, torch.maximum), (low, torch.minimum)):
                own = found.narrow(axis, here, n - 1)
                own.copy_(merge(own, beside))
    return low, high


def compiled_hot_voxels(signals: Tensor, limit: Tensor) -> Tensor:
    """Find hot voxels by the compiled kernel, on several threads; see `hot_voxels`.

    The volumes lie one after the other, or next to each other in every voxel, as in most arrays of a series.
    """
    from nlmeans.patches.low_rank.hot_kernel import mark_hot_voxels  # imports numba

    together = signals.movedim(0, -1).is_contiguous()
    values, inner = (signals.movedim(0, -1), len(signals)) if together else (signals.contiguous(), 1)
    hot = np.zeros(signals.numel(), np.bool_)  # memory that is not written to costs nothing
    flat, limits = values.reshape(-1).numpy(), limit.reshape(-1).numpy()
    shape = (signals.shape[1], signals.shape[2], signals.shape[3])

    def work(first: int, end: int) -> None:
        mark_hot_voxels(flat, shape, inner, limits, HOT_RATIO, first, end, hot)

    in_threads(work, flat.size // (shape[2] * inner))
    found = torch.from_numpy(hot).view(values.shape)
    return found.movedim(-1, 0) if together else found


def middle_of_neighbours(signals: Tensor, places: Tensor) -> Tensor:
    """Return the middle between the least and the greatest neighbour of some voxels.

    Args:
        signals: (V, D, H, W).
        places: indices into `signals`, (voxels, 4).
    """
    beside = []
    for axis, n in enumerate(signals.shape[1:], start=1):
        for step in (-1, 1) if n > 1 else ():
            index = places.clone()
            index[:, axis] += step
            index[:, axis] = torch.where(index[:, axis] < 0, 1, index[:, axis])  # beyond an end lies what lies before
            index[:, axis] = torch.where(index[:, axis] == n, n - 2, index[:, axis])
            beside.append(signals[tuple(index.T)])
    low, high = torch.stack(beside).aminmax(dim=0)
    return (low + high) / 2
