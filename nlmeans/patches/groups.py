"""Find groups of similar patches, filter them, and average them where they overlap.

For each reference patch of a regular grid, the most similar patches nearby are found on a guide, such as a first
estimate. A filter (bayes/nl_bayes.py, low_rank/similar.py) treats each group as a whole. The average weights each group
in inverse proportion to the noise that it has left.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from nlmeans.core.axes import Axes
from nlmeans.core.progress import Report
from nlmeans.kernels.dispatch import kernel_for
from nlmeans.patches import groups_cpu, groups_gpu
from nlmeans.patches.grid import MatchLines, covered, golden_stride, grid_view, offsets, patch_size, patch_sums

LEAST_VARIANCE = 0.01
"""Lower limit of the noise variance in the weight of a group: a tenth of sigma, below which noise is negligible."""

MATCH_SLAB_VOXELS = 300_000
"""Voxels whose reference patches are matched at once."""

MATCH_SLAB_VOXELS_GPU = 2_000_000
"""Voxels whose reference patches the GPU kernel matches at once. It stores no distances, but the corners of 64 patches
at every second voxel along each axis are 128 MB."""

BATCH_GROUPS = 128
"""Groups filtered at once on a CPU: a few megabytes, which fit the cache of a core."""

BATCH_GROUPS_GPU = 8192
"""Groups filtered at once on a GPU, over all channels."""

KAISER_BETA = 3.0
"""Shape of the Kaiser window that weights a patch along each axis, less towards its borders."""


class Filtered(NamedTuple):
    """Groups after filtering."""

    patches: Tensor
    """(groups, K, patch voxels)."""
    weight: Tensor
    """Weight of each group, (groups,)."""


GroupFilter = Callable[[Tensor, Tensor, Tensor], Filtered]
"""A function of the noisy patches and the guide's patches, both (groups, K, patch voxels), and of the noise variance of
each group, (groups,)."""

ChannelsFilter = Callable[[Iterator[Tensor], Iterator[Tensor], Tensor], Iterable[Filtered]]
"""The same for all channels: it takes the patches of one channel after the other, and yields them filtered."""


def channels_alone(filter_group: GroupFilter) -> ChannelsFilter:
    """Let a filter of one channel filter all, each alone."""

    def filter_channels(noisy: Iterator[Tensor], guide: Iterator[Tensor], variance: Tensor) -> Iterator[Filtered]:
        return (filter_group(patches, first, variance) for patches, first in zip(noisy, guide, strict=True))

    return filter_channels


@dataclass(frozen=True)
class Grid:
    """Positions of the reference patches, and the search window for patches similar to them."""

    shape: Axes
    """Shape of the volume, extended so that the reference patches cover it exactly."""
    size: Axes
    """Size of a patch."""
    step: Axes
    """Distance between reference patches."""
    radius: Axes
    """Radius of the search window in voxels. Candidates lie inside the volume."""
    count: int
    """K, the number of patches in a group; at most the number of candidates in a corner of the volume."""

    @classmethod
    def of(cls, shape: Axes, patch: int | Axes, step: int | Axes, count: int, search_radius: Axes) -> Grid:
        """Fit patches, steps and search window to a volume of this shape."""
        size = patch_size(patch, shape)
        steps = patch_size(step, size)
        d, h, w = (n + -(n - p) % s for n, p, s in zip(shape, size, steps, strict=True))
        z, y, x = (min(r, n - p) for r, n, p in zip(search_radius, (d, h, w), size, strict=True))
        return cls((d, h, w), size, steps, (z, y, x), min(count, (z + 1) * (y + 1) * (x + 1)))

    @property
    def references(self) -> Axes:
        """Number of reference patches along each axis."""
        d, h, w = (1 + (n - p) // s for n, p, s in zip(self.shape, self.size, self.step, strict=True))
        return d, h, w

    @property
    def where(self) -> tuple[Axes, Axes, Axes, Axes]:
        """References, size, step and radius, in the order of a matcher's arguments."""
        return self.references, self.size, self.step, self.radius

    @property
    def positions(self) -> Axes:
        """Number of patches along each axis, with one at every voxel."""
        d, h, w = (n - p + 1 for n, p in zip(self.shape, self.size, strict=True))
        return d, h, w

    def covered(self, volume: Tensor) -> Tensor:
        """Extend (..., D, H, W) by reflection at the end of each axis until the grid fits exactly."""
        return covered(volume, self.size, self.step, (0, 0, 0)).contiguous()


FilterVolume = Callable[..., Tensor]
"""A function with the arguments of `filter_volume`, less what it filters groups by."""

AddGroups = Callable[[list["Average"], Tensor, Tensor, Tensor, Tensor], None]
"""A function that filters groups and adds them to the averages. Its arguments are the average of each channel, the
noisy volume and the guide, (C, D, H, W), the corners of the groups, (groups, K), and the variance of the noise: one
number, or one per patch at its corner."""


def filter_volume(
    noisy: Tensor,
    guide: Tensor,
    sigma: float | Tensor,
    grid: Grid,
    tolerance: float,
    filter_channels: ChannelsFilter,
    progress: Report,
    out: Tensor | None = None,
) -> Tensor:
    """Group, filter and average the patches of a volume.

    Args:
        noisy: (C, D, H, W). The patches of a group lie at the same places in all channels.
        guide: finds the groups; of the same shape.
        sigma: standard deviation of the noise, a number or a (D, H, W) map.
        grid: reference patches and search window.
        tolerance: patches count as equally similar if their mean squared difference is below this times sigma².
        filter_channels: filters groups.
        progress: called with the fraction done.
        out: where to write the result, of the same shape; it may be the guide. None for a new tensor.
    """

    def add(averages: list[Average], values: Tensor, guides: Tensor, group: Tensor, variance: Tensor) -> None:
        level = variance.view(-1)[group].mean(1) if variance.ndim else variance.expand(len(group))
        read = partial(read_patches, corners=group, size=grid.size)
        filtered_channels = filter_channels(map(read, values), map(read, guides), level)
        for average, filtered in zip(averages, filtered_channels, strict=True):
            average.add(group, filtered)

    batch = BATCH_GROUPS if noisy.device.type == "cpu" else max(1, BATCH_GROUPS_GPU // len(noisy))
    return sum_groups(noisy, guide, sigma, grid, tolerance, add, batch, progress, out)


def sum_groups(
    noisy: Tensor,
    guide: Tensor,
    sigma: float | Tensor,
    grid: Grid,
    tolerance: float,
    add: AddGroups,
    batch: int,
    progress: Report,
    out: Tensor | None = None,
    exact: bool | None = None,
) -> Tensor:
    """Find the groups of a volume, let `add` filter and sum `batch` of them at once, and average them.

    The other arguments are those of `filter_volume` and of `Average.of`.
    """
    values, guides = grid.covered(noisy), grid.covered(guide)
    variance = patch_variance(noisy, sigma, grid)
    averages = [Average.of(channel, grid, exact) for channel in values]
    before = 0.0
    for corners, done in find_groups(guides, grid, tolerance * variance):
        for start in range(0, len(corners), batch):
            group = corners[start : start + batch]
            add(averages, values, guides, group, variance)
            progress(before + (done - before) * min((start + batch) / len(corners), 1.0))
        before = done
    return averaged(averages, torch.empty_like(noisy) if out is None else out)


def find_groups(guide: Tensor, grid: Grid, floor: Tensor) -> Iterator[tuple[Tensor, float]]:
    """Find the groups of all reference patches, slab by slab.

    A group has the K patches of the search window with the least mean squared difference to the reference patch, which
    is one of them. Differences below `floor` count as equal. Among equally similar patches, a fixed order decides. Its
    first entries are spread over the whole window.

    Args:
        guide: (C, D, H, W), extended to fit the grid.
        grid: reference patches and search window.
        floor: 0-dimensional, or one number per patch at its corner, (D, H, W).

    Yields:
        Corners, (references, K) flat indices into (D, H, W), and the fraction done.
    """
    depth, rows, columns = grid.references
    matcher = kernel_for([guide], plain=plain_matcher, cpu=groups_cpu.matcher, gpu=groups_gpu.matcher)
    match_lines = matcher(guide, *grid.where, distance_floors(guide, grid, floor), grid.count)
    slab = MATCH_SLAB_VOXELS_GPU if matcher is groups_gpu.matcher else MATCH_SLAB_VOXELS
    planes_at_once = max(1, round(slab / (rows * columns * math.prod(grid.step))))
    for start in range(0, depth, planes_at_once):
        stop = min(start + planes_at_once, depth)
        yield match_lines(range(start * rows, stop * rows)), stop / depth


def distance_floors(guide: Tensor, grid: Grid, floor: Tensor) -> Tensor:
    """Return the sum of squared differences below which patches are equally similar, one per reference patch."""
    levels = floor.to(guide) * (guide.shape[0] * math.prod(grid.size))
    if levels.ndim == 0:
        return levels.repeat(math.prod(grid.references))
    return grid_view(levels, (0, 0, 0), grid.step, grid.references).reshape(-1)


def plain_matcher(
    guide: Tensor, references: Axes, size: Axes, step: Axes, radius: Axes, floor: Tensor, count: int
) -> MatchLines:
    """Match patches in torch, for any device and precision. The lines must be those of whole planes."""

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
    """Read the patches of a (D, H, W) volume at flat `corners`: (*corners.shape, patch voxels)."""
    read = kernel_for([volume], plain=index_patches, cpu=groups_cpu.gather_patches, dtypes=COMPILED_FLOATS)
    return read(volume, corners, size)


COMPILED_FLOATS = (torch.float32, torch.float64)
"""Types that the compiled `gather_patches` reads."""


def index_patches(volume: Tensor, corners: Tensor, size: Axes) -> Tensor:
    """Read patches by torch's indexing, for any device and type; see `read_patches`."""
    return volume.view(-1)[corners[..., None] + flat_offsets(volume, size)]


def flat_offsets(volume: Tensor, size: Axes) -> Tensor:
    """Return the flat distance of each voxel of a patch from its corner."""
    _, height, width = volume.shape
    return torch.tensor([(u * height + v) * width + w for u, v, w in offsets(size)], device=volume.device)


def patch_variance(noisy: Tensor, sigma: float | Tensor, grid: Grid) -> Tensor:
    """Return the variance of the noise: one number, or for a map of sigma its mean over each patch, at the corner."""
    if isinstance(sigma, Tensor):
        return patch_means(grid.covered(sigma[None].to(noisy).square())[0], grid)
    return noisy.new_tensor(sigma).square()


def patch_means(volume: Tensor, grid: Grid) -> Tensor:
    """Average over each patch of a (D, H, W) volume. The mean is at the patch's corner; 0 where no patch fits."""
    means = torch.zeros_like(volume)
    grid_view(means, (0, 0, 0), (1, 1, 1), grid.positions).copy_(patch_sums(volume, grid.size) / math.prod(grid.size))
    return means


def taper_of(size: Axes) -> Tensor:
    """Return the Kaiser window of a patch, one number per voxel, float64."""
    return functools.reduce(torch.kron, map(window_of, size))


def window_of(length: int) -> Tensor:
    """Return the Kaiser window along one axis of a patch, float64."""
    if length == 1:
        return torch.ones(1, dtype=torch.float64)
    return torch.kaiser_window(length, periodic=False, beta=KAISER_BETA, dtype=torch.float64)


def covering(weights: Tensor, size: Axes) -> Tensor:
    """Sum at each voxel the weights of the patches that cover it, each times the Kaiser window there.

    The window is a product of one along each axis, so that the sums are taken axis by axis.

    Args:
        weights: of the patches, at their corners, (D, H, W).
        size: of the patches, in voxels.

    Returns:
        Same shape and dtype.
    """
    for axis, (length, voxels) in enumerate(zip(weights.shape, size, strict=True)):
        sums = torch.zeros_like(weights)
        for offset, taper in enumerate(window_of(voxels).tolist()):
            count = length - offset
            sums.narrow(axis, offset, count).add_(weights.narrow(axis, 0, count), alpha=taper)
        weights = sums
    return weights


@dataclass(frozen=True)
class Average:
    """Weighted average of patches where they overlap.

    On a CPU, each voxel is summed in a fixed order. On other devices the order is random, so the sums are of integers,
    which do not depend on it.
    """

    total: Tensor
    """Sum of the weighted patches, (D, H, W)."""
    weights: Tensor
    """Sum of the patches' weights, at their corners, (D, H, W)."""
    taper: Tensor
    """The Kaiser window of a patch, one number per voxel."""
    grid: Grid
    unit: float
    """Value of the integer 1 in `total`, a power of two; 1.0 if the sums are of floating-point numbers.

    In `weights` it is `WEIGHT_UNIT`. Rounded relative to the largest value, weights would be the less exact the larger
    the values.
    """

    @classmethod
    def of(cls, volume: Tensor, grid: Grid, exact: bool | None = None) -> Average:
        """Start an average of patches.

        Args:
            volume: (D, H, W), with values about as large as those of the patches.
            grid: positions of the patches.
            exact: whether to sum integers; None for integers on all devices but a CPU.
        """
        taper = taper_of(grid.size)
        if volume.device.type != "cpu" if exact is None else exact:
            unit = 2.0 ** math.frexp(max(1.0, float(volume.abs().max())))[1] * WEIGHT_UNIT
            zeros = torch.zeros_like(volume, dtype=torch.int64)
            return cls(zeros, zeros.clone(), taper.to(volume), grid, unit)
        return cls(torch.zeros_like(volume), torch.zeros_like(volume), taper.to(volume), grid, 1.0)

    def add(self, corners: Tensor, filtered: Filtered) -> None:
        """Add patches, (groups, K, patch voxels), at flat `corners`, (groups, K)."""
        weight = filtered.weight[:, None].expand(corners.shape).contiguous()
        if self.total.is_floating_point():
            groups_cpu.scatter_patches(
                self.total, self.weights, corners, filtered.patches, weight, self.taper, self.grid.size
            )
            return
        indices = corners[..., None] + flat_offsets(self.total, self.grid.size)
        self.total.view(-1).index_add_(
            0, indices.view(-1), integers(filtered.patches * (weight[..., None] * self.taper), self.unit).view(-1)
        )
        self.weights.view(-1).index_add_(0, corners.reshape(-1), integers(weight, WEIGHT_UNIT).view(-1))

    def result(self) -> Tensor:
        """Return the average, (D, H, W). Every voxel must lie in at least one patch."""
        real = self.total.is_floating_point()
        dtype, scale = (self.total.dtype, 1.0) if real else (torch.float64, self.unit / WEIGHT_UNIT)
        weights = covering(self.weights.to(dtype), self.grid.size)
        return (self.total.to(dtype) / weights).mul_(scale).to(self.taper.dtype)


def integers(values: Tensor, unit: float) -> Tensor:
    """Round values to multiples of the unit."""
    return (values.double() / unit).round_().long()


def averaged(averages: list[Average], result: Tensor) -> Tensor:
    """Write the average of each channel to `result`, (C, D, H, W), and return it; the list is empty then."""
    d, h, w = result.shape[1:]
    for channel in result:
        channel.copy_(averages.pop(0).result()[:d, :h, :w])
    return result


WEIGHT_UNIT = 2.0**-33
"""Unit of integer sums of weights, and of values relative to the largest one. 10⁵ patches on one voxel, with weights up
to 5·10³, stay below 2⁶³."""
