"""CPU kernels of `groups`: find similar patches, read them, and add them back.

The kernels release the GIL and run on threads that live for one call. Each voxel and row is written by one thread, in
an order that does not depend on the number of threads, so a result repeats bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from nlmeans.backends.request import Axes

Floats = NDArray[np.floating[Any]]
Corners = NDArray[np.int64]
Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def compiled(kernel: Kernel) -> Kernel:
    """Compiled when first called; sums may be reordered, but NaN and infinity keep their meaning."""
    decorated: Kernel = njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"})(kernel)
    return decorated


def in_threads(work: Callable[[int, int], object], count: int) -> None:
    """Call ``work(first, last)`` for parts of ``range(count)``, on as many threads as torch uses."""
    parts = max(1, min(torch.get_num_threads(), count))
    if parts == 1:
        work(0, count)
        return
    bounds = [count * k // parts for k in range(parts + 1)]
    with ThreadPoolExecutor(parts) as pool:
        list(pool.map(work, bounds[:-1], bounds[1:]))


def match(guide: Tensor, lines: range, references: Axes, size: Axes, step: Axes, radius: Axes, floor: Tensor,
          count: int) -> Tensor:  # fmt: skip
    """Corners, (references of `lines`, count) flat indices, of the patches most similar to each reference patch.

    See `groups.find`. A line is a row of reference patches along the width; `floor` has one number per reference.
    """
    columns = references[2]
    corners = torch.empty(len(lines) * columns, count, dtype=torch.int64)
    image, levels, found = guide.numpy(), floor.numpy(), corners.numpy()
    stride = golden_stride(radius)

    def work(first: int, last: int) -> None:
        match_lines(image, lines.start, first, last, references, size, step, radius, levels, stride, found)

    in_threads(work, len(lines))
    return corners


def read(volume: Tensor, corners: Tensor, size: Axes) -> Tensor:
    """(*corners.shape, patch voxels): the patches of a (D, H, W) volume at flat `corners`."""
    patches = volume.new_empty(corners.numel(), math.prod(size))
    source, at, target = volume.numpy(), corners.reshape(-1).numpy(), patches.numpy()
    in_threads(lambda first, last: read_patches(source, at, size, first, last, target), len(at))
    return patches.view(*corners.shape, -1)


def add(total: Tensor, weights: Tensor, corners: Tensor, patches: Tensor, weight: Tensor, window: Tensor, size: Axes
        ) -> None:  # fmt: skip
    """Add weight × window × patch to `total`, and the weights at the corners to `weights`; both (D, H, W)."""
    target, corner_target, taper = total.numpy(), weights.numpy(), window.numpy()
    at, values, scale = corners.reshape(-1).numpy(), patches.flatten(0, -2).numpy(), weight.reshape(-1).numpy()

    def work(first: int, last: int) -> None:
        add_planes(target, corner_target, at, values, scale, taper, size, first, last)

    in_threads(work, len(target))


def golden_stride(radius: Axes) -> int:
    """A step through the search window that visits each candidate once and soon has been everywhere."""
    candidates = math.prod(2 * r + 1 for r in radius)
    stride = max(1, round(0.618034 * candidates))
    while math.gcd(stride, candidates) > 1:
        stride += 1
    return stride


@compiled
def match_lines(
    guide: Floats,
    origin: int,
    begin: int,
    end: int,
    references: Axes,
    size: Axes,
    step: Axes,
    radius: Axes,
    floor: Floats,
    stride: int,
    found: Corners,
) -> None:
    """`match` for lines ``origin + begin`` to ``origin + end``; `guide` is (C, D, H, W)."""
    channels, depth, height, width = guide.shape
    _, rows, columns = references
    count = found.shape[1]
    ny, nx = 2 * radius[1] + 1, 2 * radius[2] + 1
    candidates = (2 * radius[0] + 1) * ny * nx
    distance = np.empty((columns, candidates), guide.dtype)
    squares = np.empty(width, guide.dtype)
    scratch = np.empty(candidates, guide.dtype)
    for line in range(begin, end):
        z, y = (origin + line) // rows * step[0], (origin + line) % rows * step[1]
        distance[:] = np.inf
        for dz in range(max(-radius[0], -z), min(radius[0], depth - size[0] - z) + 1):
            for dy in range(max(-radius[1], -y), min(radius[1], height - size[1] - y) + 1):
                for dx in range(-radius[2], radius[2] + 1):
                    low, high = max(0, -dx), min(width, width - dx)
                    squares[:] = 0
                    target = squares[low:high]
                    for c in range(channels):
                        for u in range(size[0]):
                            for v in range(size[1]):
                                here = guide[c, z + u, y + v, low:high]
                                there = guide[c, z + dz + u, y + dy + v, low + dx : high + dx]
                                for x in range(high - low):
                                    difference = here[x] - there[x]
                                    target[x] += difference * difference
                    candidate = ((dz + radius[0]) * ny + dy + radius[1]) * nx + dx + radius[2]
                    first = (low + step[2] - 1) // step[2]
                    for column in range(first, min(columns, (high - size[2]) // step[2] + 1)):
                        total = squares[column * step[2]]
                        for v in range(1, size[2]):
                            total += squares[column * step[2] + v]
                        distance[column, candidate] = max(total, floor[line * columns + column])
        distance[:, candidates // 2] = -1
        for column in range(columns):
            scratch[:] = distance[column]
            limit = smallest(scratch, count)
            ties = count
            for candidate in range(candidates):
                ties -= distance[column, candidate] < limit
            kept = 0
            for k in range(candidates):
                candidate = k * stride % candidates
                value = distance[column, candidate]
                if value < limit or (value == limit and ties > 0):
                    ties -= value == limit
                    there_z = z + candidate // (ny * nx) - radius[0]
                    there_y = y + candidate // nx % ny - radius[1]
                    there_x = column * step[2] + candidate % nx - radius[2]
                    found[line * columns + column, kept] = (there_z * height + there_y) * width + there_x
                    kept += 1


@compiled
def smallest(values: Floats, count: int) -> Any:
    """The `count`-th smallest value, by Hoare's selection; reorders `values`."""
    low, high, k = 0, values.size - 1, count - 1
    while low < high:
        pivot = values[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while pivot < values[j]:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if k <= j:
            high = j
        elif k >= i:
            low = i
        else:
            break
    return values[k]


@compiled
def read_patches(volume: Floats, corners: Corners, size: Axes, first: int, last: int, patches: Floats) -> None:
    """Rows `first` to `last` of `patches`."""
    _, height, width = volume.shape
    flat = volume.reshape(-1)
    for k in range(first, last):
        at = 0
        for u in range(size[0]):
            for v in range(size[1]):
                start = corners[k] + (u * height + v) * width
                for w in range(size[2]):
                    patches[k, at] = flat[start + w]
                    at += 1


@compiled
def add_planes(
    total: Floats,
    weights: Floats,
    corners: Corners,
    patches: Floats,
    weight: Floats,
    window: Floats,
    size: Axes,
    first: int,
    last: int,
) -> None:
    """`add` for planes `first` to `last` of the volumes."""
    _, height, width = total.shape
    flat, flat_weights = total.reshape(-1), weights.reshape(-1)
    for k in range(corners.size):
        z = corners[k] // (height * width)
        if first <= z < last:
            flat_weights[corners[k]] += weight[k]
        for u in range(max(0, first - z), min(size[0], last - z)):
            for v in range(size[1]):
                start = corners[k] + (u * height + v) * width
                at = (u * size[1] + v) * size[2]
                for w in range(size[2]):
                    flat[start + w] += weight[k] * window[at + w] * patches[k, at + w]
