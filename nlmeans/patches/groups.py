"""Groups of similar patches: find them, and put them back where they came from after something filtered them.

For every reference patch of a regular grid the most similar patches nearby are found on a guide, such as a first
estimate. Each group is filtered as a whole (group_filters.py), and its patches are averaged where they overlap,
weighted by how little noise each group still has. Noise has a standard deviation of 1, or of a (D, H, W) map.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from nlmeans.core.axes import Axes
from nlmeans.core.progress import Report
from nlmeans.kernels.dispatch import kernel_for
from nlmeans.patches import groups_cpu, groups_gpu
from nlmeans.patches.grid import MatchLines, covered, golden_stride, offsets, patch_size, patch_sums, window

LEAST_VARIANCE = 0.01
"""Least variance of the noise that the weight of a group counts: below a tenth of sigma there is next to none."""

SLAB_VOXELS = 300_000
"""Voxels under the reference patches that are matched at once."""

SLAB_VOXELS_GPU = 10_000_000
"""Likewise by the kernel of a GPU, which keeps no distances."""

BATCH_GROUPS = 128
"""Groups filtered at once: a few megabytes, so that they stay in the cache of a core."""

BATCH_GROUPS_GPU = 8192

KAISER_BETA = 3.0
"""Patches count less towards their borders, by a Kaiser window of this shape along each axis."""


class Filtered(NamedTuple):
    """Filtered patches, (groups, K, patch voxels), and the weight of each group."""

    patches: Tensor
    weight: Tensor


GroupFilter = Callable[[Tensor, Tensor, Tensor], Filtered]
"""Of the noisy and the guide's patches, both (groups, K, patch voxels), and the noise variance per group."""


@dataclass(frozen=True)
class Grid:
    """Where reference patches lie, and where patches like them are sought."""

    shape: Axes
    """Of the volume, extended so that the reference patches cover it exactly."""
    size: Axes
    """Of a patch."""
    step: Axes
    """From one reference patch to the next."""
    radius: Axes
    """Of the search window, in voxels; its candidates lie inside the volume."""
    count: int
    """K, the patches in a group; no more than the window has in a corner of the volume."""

    @classmethod
    def of(cls, shape: Axes, patch: int, step: int, count: int, search_radius: Axes) -> Grid:
        size = patch_size(patch, shape)
        steps = patch_size(step, size)
        d, h, w = (n + -(n - p) % s for n, p, s in zip(shape, size, steps, strict=True))
        z, y, x = (min(r, n - p) for r, n, p in zip(search_radius, (d, h, w), size, strict=True))
        return cls((d, h, w), size, steps, (z, y, x), min(count, (z + 1) * (y + 1) * (x + 1)))

    @property
    def references(self) -> Axes:
        """Reference patches along each axis."""
        d, h, w = (1 + (n - p) // s for n, p, s in zip(self.shape, self.size, self.step, strict=True))
        return d, h, w

    @property
    def where(self) -> tuple[Axes, Axes, Axes, Axes]:
        """References, size, step and radius, as matching takes them."""
        return self.references, self.size, self.step, self.radius

    @property
    def positions(self) -> Axes:
        """Patches along each axis, one at every voxel."""
        d, h, w = (n - p + 1 for n, p in zip(self.shape, self.size, strict=True))
        return d, h, w

    def covered(self, volume: Tensor) -> Tensor:
        """(..., D, H, W) reflected at the end of each axis as far as the grid needs."""
        extended = [covered(v, self.size, self.step, (0, 0, 0)) for v in volume.flatten(0, -4)]
        return torch.stack(extended).contiguous()


def filter_volume(
    noisy: Tensor,
    guide: Tensor,
    sigma: float | Tensor,
    grid: Grid,
    alike: float,
    filter_groups: GroupFilter,
    progress: Report,
) -> Tensor:
    """Group, filter and average the patches of (C, D, H, W)."""
    size, values, guides = grid.size, grid.covered(noisy), grid.covered(guide)
    variance = None if isinstance(sigma, float | int) else patch_means(grid.covered(sigma[None].square())[0], grid)
    average = [Average.of(channel, grid) for channel in values]
    uniform = noisy.new_tensor(sigma if variance is None else 1.0).square()
    for corners, done in find(guides, grid, alike * (uniform if variance is None else variance)):
        batch = BATCH_GROUPS if noisy.device.type == "cpu" else BATCH_GROUPS_GPU
        for start in range(0, len(corners), batch):
            group = corners[start : start + batch]
            level = uniform.expand(len(group)) if variance is None else variance.view(-1)[group].mean(1)
            for channel, (value, first) in enumerate(zip(values, guides, strict=True)):
                filtered = filter_groups(read_patches(value, group, size), read_patches(first, group, size), level)
                average[channel].add(group, filtered)
        progress(done)
    d, h, w = noisy.shape[1:]
    return torch.stack([channel.result()[:d, :h, :w] for channel in average])


def find(guide: Tensor, grid: Grid, floor: Tensor) -> Iterator[tuple[Tensor, float]]:
    """The groups of all reference patches, slab by slab.

    A group has the K patches of the search window with the least mean squared difference to the reference patch, which
    itself belongs to it. Differences below `floor` count as equal; of equal patches those are taken that come first in
    an order that soon has been everywhere in the window.

    Args:
        guide: (C, D, H, W), covered by the grid.
        grid: where to look.
        floor: 0-dimensional, or one number per patch at its corner, (D, H, W).

    Yields:
        Corners, (references, K) flat indices into (D, H, W), and the fraction done.
    """
    depth, rows, columns = grid.references
    matcher = kernel_for([guide], plain=plain_matcher, cpu=groups_cpu.matcher, gpu=groups_gpu.matcher)
    match_lines = matcher(guide, *grid.where, floors(guide, grid, floor), grid.count)
    slab = SLAB_VOXELS_GPU if matcher is groups_gpu.matcher else SLAB_VOXELS
    planes_at_once = max(1, round(slab / (rows * columns * math.prod(grid.step))))
    for start in range(0, depth, planes_at_once):
        stop = min(start + planes_at_once, depth)
        yield match_lines(range(start * rows, stop * rows)), stop / depth


def floors(guide: Tensor, grid: Grid, floor: Tensor) -> Tensor:
    """The least sum of squared differences that counts, one number per reference patch, in order."""
    levels = floor.to(guide) * (guide.shape[0] * math.prod(grid.size))
    if levels.ndim == 0:
        return levels.repeat(math.prod(grid.references))
    return window(levels, (0, 0, 0), grid.step, grid.references).reshape(-1)


def plain_matcher(
    guide: Tensor, references: Axes, size: Axes, step: Axes, radius: Axes, floor: Tensor, count: int
) -> MatchLines:
    """Matching in torch, for any device and precision; it takes the lines of whole planes."""

    def match(lines: range) -> Tensor:
        _, depth, height, width = guide.shape
        here_lines = slice(lines.start * references[2], lines.stop * references[2])
        grid = (len(lines) // references[1], references[1], references[2])
        first = lines.start // references[1] * step[0]
        extent = tuple((n - 1) * s + p for n, s, p in zip(grid, step, size, strict=True))
        here = guide[:, first : first + extent[0], : extent[1], : extent[2]]
        padded = torch.nn.functional.pad(
            guide, [r for radius_of_axis in reversed(radius) for r in (radius_of_axis,) * 2]
        )
        z, y, x = (torch.arange(n, device=guide.device) * s for n, s in zip(grid, step, strict=True))
        z = z + first
        displacements = list(itertools.product(*(range(-r, r + 1) for r in radius)))
        stride = golden_stride(radius)
        order = [displacements[k * stride % len(displacements)] for k in range(len(displacements))]
        distances = guide.new_empty(len(order), math.prod(grid))
        for distance, (dz, dy, dx) in zip(distances, order, strict=True):
            start = (first + radius[0] + dz, radius[1] + dy, radius[2] + dx)
            there = padded[:, *(slice(a, a + n) for a, n in zip(start, extent, strict=True))]
            total = patch_sums((here - there).square().sum(0), size, step, grid)
            valid = [
                (at + d >= 0) & (at + d <= n - p)
                for at, d, n, p in zip((z, y, x), (dz, dy, dx), (depth, height, width), size, strict=True)
            ]
            outside = ~(valid[0][:, None, None] & valid[1][:, None] & valid[2])
            distance.copy_(torch.maximum(total.flatten(), floor[here_lines]).masked_fill_(outside.flatten(), torch.inf))
        distances[order.index((0, 0, 0))] = -1
        nearest = torch.sort(distances, dim=0, stable=True).indices[:count]
        shifts = torch.tensor([(dz * height + dy) * width + dx for dz, dy, dx in order], device=guide.device)
        corner = ((z[:, None] * height + y)[..., None] * width + x).flatten()
        return (corner + shifts[nearest]).T.contiguous()

    return match


def read_patches(volume: Tensor, corners: Tensor, size: Axes) -> Tensor:
    """(*corners.shape, patch voxels): the patches of a (D, H, W) volume at flat `corners`."""
    read = kernel_for([volume], plain=read_plainly, cpu=groups_cpu.read, dtypes=FLOATS)
    return read(volume, corners, size)


FLOATS = (torch.float32, torch.float64)


def read_plainly(volume: Tensor, corners: Tensor, size: Axes) -> Tensor:
    return volume.view(-1)[corners[..., None] + patch_indices(volume, size)]


def patch_indices(volume: Tensor, size: Axes) -> Tensor:
    """Flat indices of the voxels of a patch, beside its corner."""
    _, height, width = volume.shape
    return torch.tensor([(u * height + v) * width + w for u, v, w in offsets(size)], device=volume.device)


def patch_means(volume: Tensor, grid: Grid) -> Tensor:
    """The mean over each patch, at its corner in a (D, H, W) volume; 0 where no patch fits."""
    means = torch.zeros_like(volume)
    window(means, (0, 0, 0), (1, 1, 1), grid.positions).copy_(patch_sums(volume, grid.size) / math.prod(grid.size))
    return means


@dataclass(frozen=True)
class Average:
    """The weighted average of patches where they overlap.

    On a CPU each voxel has its sum taken in a fixed order. Elsewhere additions come in any order, so that sums
    are of integers, which do not depend on it.
    """

    total: Tensor
    weights: Tensor
    """Of the patches, at their corners."""
    taper: Tensor
    """The Kaiser window of a patch, one number per voxel."""
    grid: Grid
    unit: float
    """Of the integers; 1 where sums are of floating-point numbers."""

    @classmethod
    def of(cls, volume: Tensor, grid: Grid, exact: bool | None = None) -> Average:
        """For patches with values like those of `volume`, (D, H, W); `exact` None for integers on all but a CPU."""
        taper = torch.ones(1, dtype=torch.float64)
        for n in grid.size:
            along = torch.kaiser_window(n, periodic=False, beta=KAISER_BETA, dtype=torch.float64)
            taper = torch.kron(taper, along if n > 1 else torch.ones(1, dtype=torch.float64))
        if volume.device.type != "cpu" if exact is None else exact:
            unit = max(1.0, float(volume.abs().max())) * FIXED_POINT_UNIT
            zeros = torch.zeros_like(volume, dtype=torch.int64)
            return cls(zeros, zeros.clone(), taper.to(volume), grid, unit)
        return cls(torch.zeros_like(volume), torch.zeros_like(volume), taper.to(volume), grid, 1.0)

    def add(self, corners: Tensor, filtered: Filtered) -> None:
        """Add patches, (groups, K, patch voxels), at flat `corners`, (groups, K)."""
        weight = filtered.weight[:, None].expand(corners.shape).contiguous()
        if self.total.is_floating_point():
            groups_cpu.add(self.total, self.weights, corners, filtered.patches, weight, self.taper, self.grid.size)
            return
        indices = corners[..., None] + patch_indices(self.total, self.grid.size)
        self.total.view(-1).index_add_(
            0, indices.view(-1), self.integers(filtered.patches * (weight[..., None] * self.taper)).view(-1)
        )
        self.weights.view(-1).index_add_(0, corners.reshape(-1), self.integers(weight).view(-1))

    def integers(self, values: Tensor) -> Tensor:
        return (values.double() / self.unit).round_().long()

    def result(self) -> Tensor:
        """(D, H, W); every voxel has at least one patch."""
        dtype = torch.float64 if self.unit != 1 else self.total.dtype
        weights = self.weights.to(dtype)
        covering = torch.zeros_like(weights)
        corners = window(weights, (0, 0, 0), (1, 1, 1), self.grid.positions)
        for offset, taper in zip(offsets(self.grid.size), self.taper.tolist(), strict=True):
            window(covering, offset, (1, 1, 1), self.grid.positions).add_(corners, alpha=taper)
        return (self.total.to(dtype) / covering).to(self.taper.dtype)


FIXED_POINT_UNIT = 2.0**-33
"""Beside the largest value: 10⁵ patches on one voxel with weights of up to 5·10³ stay below 2⁶³."""
