"""Where an image is exactly constant, such as a background that was set to zero, and where a series is."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nlmeans.core.axes import Axes
from nlmeans.core.modes import ALONE_IN_NUMPY

REACH_OF_CONSTANTS = 2
"""Voxels from the middle of an exactly constant neighbourhood to its end along each axis. It has 20 voxels besides its
middle in an image and 80 in a volume, too many for noise to make them equal."""


def constant_voxels(values: Tensor) -> Tensor:
    """Return True where a voxel is part of a neighbourhood in which all voxels are exactly equal.

    A neighbourhood is a block of 3 voxels along each axis, with the next voxel on each side. Beyond the border there
    is nothing that could differ. A result depends on voxels up to 2 × `REACH_OF_CONSTANTS` away.

    Args:
        values: (..., D, H, W).

    Example:
        >>> constant_voxels(torch.tensor([[[0, 0, 0, 0, 0, 0, 5, 5, 7]]]))[0, 0].tolist()
        [True, True, True, True, True, True, False, False, False]
    """
    axes = [axis for axis in range(-3, 0) if values.shape[axis] > 1]
    constant = ~surrounded_by_others(values, (1, 1, 1))
    for axis in axes:
        constant = ~widened(~constant, axis, REACH_OF_CONSTANTS - 1)
    if not bool(constant.any()):
        return constant
    for axis in axes:
        constant = widened(constant, axis, REACH_OF_CONSTANTS - 1)
    for grown in [widened(constant, axis, 1) for axis in axes]:
        constant = constant | grown
    return constant


def surrounded_by_others(values: Tensor, reach: Axes) -> Tensor:
    """Return True where voxels up to `reach` voxels away along each axis are not all exactly equal.

    Only the next voxels along an axis are compared, and each of these with its own, so corners may differ.

    Args:
        values: (..., D, H, W).
        reach: voxels along each axis; 0 for axes that are not looked along.

    Example:
        >>> surrounded_by_others(torch.tensor([[[0, 0, 0, 0, 5, 7]]]), (0, 0, 2))[0, 0].tolist()
        [False, False, True, True, True, True]
    """
    others = torch.zeros_like(values, dtype=torch.bool)
    axes = [(axis, r) for axis, r in zip(range(-3, 0), reach, strict=True) if r and values.shape[axis] > 1]
    for axis, _ in axes:
        rest = values.shape[axis] - 1
        differ = values.narrow(axis, 1, rest) != values.narrow(axis, 0, rest)
        others.narrow(axis, 1, rest).logical_or_(differ)
        others.narrow(axis, 0, rest).logical_or_(differ)
    for axis, r in axes:
        others = widened(others, axis, r - 1)
    return others


def widened(chosen: Tensor, axis: int, reach: int) -> Tensor:
    """Return True where a voxel within `reach` along an axis is True.

    >>> widened(torch.tensor([True, False, False, False]), 0, 2).tolist()
    [True, True, True, False]
    """
    length, done = chosen.shape[axis], 0
    while done < min(reach, length - 1):
        step = min(2 * done + 1, reach - done, length - 1)
        wider, rest = chosen.clone(), length - step
        wider.narrow(axis, step, rest).logical_or_(chosen.narrow(axis, 0, rest))
        wider.narrow(axis, 0, rest).logical_or_(chosen.narrow(axis, step, rest))
        chosen, done = wider, done + step
    return chosen


NOTHING = 1e-13
"""Energy of a direction in which there is nothing but rounding, in units of the largest."""


def independent_directions(products: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find the directions over the volumes of a series in which there is anything, the weakest first.

    Volumes that are constant, equal to another, or a mixture of others leave directions without noise, from which
    nothing can be learnt about it.

    Args:
        products: the sum of the products of each signal with itself, without the mean of each volume, (V, V).

    Returns:
        How much there is in each direction, and the directions, (V, directions), orthonormal.

    Example:
        >>> first, second = np.random.default_rng(0).standard_normal((2, 100))
        >>> series = np.stack([first, second, first, np.zeros(100)])
        >>> independent_directions(series @ series.T)[1].shape
        (4, 2)
    """
    with ALONE_IN_NUMPY:  # several threads on so small a matrix mostly wait for each other
        energies, vectors = np.linalg.eigh(products)
    there = energies > NOTHING * max(energies[-1], 0.0)
    return energies[there], vectors[:, there]
