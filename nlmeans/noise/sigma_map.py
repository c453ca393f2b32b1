"""Estimate noise that varies in space: a smooth map of its standard deviation."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nlmeans.noise.finest import (
    DEVIATION_WITHIN_THREE,
    box_sums,
    box_voxels,
    finest_detail,
    ring_means,
    robust_deviation,
)
from nlmeans.noise.rician import RAYLEIGH_MEAN, STRONG, rician_moments

KNOT_DISTANCE, SEGMENTS = 8, 4
"""The logarithm of sigma is cubic between knots: about so many voxels apart, at most so many segments per axis."""

CELLS = 24
"""Per axis, at most, in which voxels are summed before the map is fitted to them."""

BLOCK = 16
"""Voxels per axis of the blocks that each give a share of their flattest voxels."""

FLATTEST = 0.3
"""Share of a block that is looked at."""

WIDE = 5
"""The finest detail around a voxel is that of 11 × 11 × 11 voxels without the 5 × 5 × 5 in the middle."""

TOLERATED = 0.3
"""Detail around a voxel beyond what noise leaves there, beside it, that halves the voxel's weight."""

ROUNDS, STEPS = 4, 6
"""Choices of voxels, and steps of Newton's method after each."""

LEAST_PENALTY = 4.0
"""However rough the data want the map to be. At 4, sigma bends by a factor of 1.6 from knot to knot without effort."""

ENOUGH_VOXELS = 2**21
"""To read the map from; of larger volumes only every second, third … voxel counts."""

SLAB_VOXELS = 2**22

ENOUGH = 64
"""Voxels inside a mask; with fewer, all of the volume is read."""

VOXELS_PER_INDEPENDENT = 1.94
"""Per axis, as second differences are correlated: 1 + 2·(4/6)² + 2·(1/6)², the sum of squared correlations."""

LARGEST_PENALTY = 1e6

TINY = 1e-30

PULL = 0.1
"""Towards the same sigma everywhere, in voxels: all that decides where there is nothing to read from."""


def sigma_map_of_volume(volume: Tensor, noise: str = "gaussian", inside: Tensor | None = None) -> Tensor:
    """Sigma of every voxel of one volume, in image units.

    The logarithm of sigma is a penalised spline, fitted by maximum likelihood to the finest detail of voxels with
    little other detail around them; where there are only edges it is bridged from the neighbourhood. The volume is
    looked at slab by slab; of a large one only some voxels are kept, so that the working memory is bounded.

    Args:
        volume: (D, H, W), on any device.
        noise: ``"gaussian"`` or ``"rician"``.
        inside: (D, H, W), where to look; the map is extended beyond. None for all but exact zeros.

    Returns:
        (D, H, W), float32, on the volume's device. 0 everywhere if there is no noise.

    References:
        P. H. C. Eilers, B. D. Marx, "Flexible smoothing with B-splines and penalties", Stat. Sci. 1996,
        doi:10.1214/ss/1038425655. S. N. Wood, M. Fasiolo, "A generalized Fellner-Schall method for smoothing
        parameter optimization with application to Tweedie location, scale and shape models", Biometrics 2017,
        doi:10.1111/biom.12666.
    """
    d, h, w = shape = tuple(volume.shape)
    peak = float(volume.abs().max())
    if peak == 0 or max(shape) < 3:
        return torch.zeros(shape, dtype=torch.float32, device=volume.device)
    voxels = voxels_of(volume, peak, inside)
    start = robust_deviation(voxels.finest) if len(voxels.finest) else 0.0
    if start == 0:
        return torch.zeros(shape, dtype=torch.float32, device=volume.device)
    spline = Spline((d, h, w))
    coefficients = fitted(spline, voxels, start, noise == "rician")
    low, high = torch.aminmax(spline.in_cells(coefficients)[torch.unique(voxels.cell)])
    along = [basis(n, torch.arange(n)).to(volume.device, torch.float32) for n in shape]
    logarithm = torch.einsum("abc,da,hb,wc->dhw", coefficients.to(volume.device, torch.float32), *along)
    return logarithm.clamp_(float(low), float(high)).exp_().mul_(peak)


class Voxels(NamedTuple):
    """What the map is read from, one number per voxel, on the CPU, in units of the volume's peak."""

    finest: Tensor
    mean: Tensor
    detail: Tensor
    """Mean square around, without the finest: sigma² where there is nothing but noise."""
    noise: Tensor
    """Mean square of the finest detail around, which is less exact and counts less structure."""
    cell: Tensor
    block: Tensor

    def of(self, chosen: Tensor) -> Voxels:
        return Voxels(*(values[chosen] for values in self))


def voxels_of(volume: Tensor, peak: float, inside: Tensor | None) -> Voxels:
    """The usable voxels inside, or all usable ones if hardly any of them is inside."""
    longest = max(range(3), key=lambda axis: volume.shape[axis])
    length = volume.shape[longest]
    thickness = max(1, SLAB_VOXELS * length // volume.numel())
    halo = WIDE + 1
    slabs = []
    for start in range(0, length, thickness):
        first, last = max(start - halo, 0), min(start + thickness + halo, length)
        slab = volume.narrow(longest, first, last - first) / peak
        where = None if inside is None else inside.narrow(longest, first, last - first) != 0
        slabs.append(voxels_of_slab(slab, where, tuple(volume.shape), longest, first, range(start, start + thickness)))
    voxels = Voxels(*(torch.cat(values) for values in zip(*slabs, strict=True)))
    return voxels if inside is None or len(voxels.finest) >= ENOUGH else voxels_of(volume, peak, None)


def voxels_of_slab(
    slab: Tensor, inside: Tensor | None, shape: tuple[int, ...], axis: int, first: int, core: range
) -> Voxels:
    """Of a slab that begins at `first` along `axis` of a volume of this shape, those that lie in its core."""
    around = finest_detail(slab, inside)
    noise = ring_means(around.finest.square(), WIDE)
    mean = box_sums(around.brightness, 1) / box_voxels(around.brightness, 1)
    wanted = around.usable if around.inside is None else around.usable & around.inside
    place = wanted.nonzero().cpu()
    origin = torch.tensor([int(n >= 3) for n in shape])
    origin[axis] += first
    position = place + origin
    chosen = (
        (position.sum(1) % every_so_many(shape) == 0)
        & (position[:, axis] >= core.start)
        & (position[:, axis] < core.stop)
    )
    place, position = place[chosen], position[chosen]
    d, h, w = place.to(slab.device).unbind(1)
    finest, mean, detail, noise = (
        values[d, h, w].double().cpu() for values in (around.finest, mean, around.detail, noise)
    )
    sizes, counts = zip(*(cells(n) for n in shape), strict=True)
    cell = flat_index(position // torch.tensor(sizes), counts)
    block = flat_index(position // BLOCK, [math.ceil(n / BLOCK) for n in shape])
    return Voxels(finest, mean, detail, noise, cell, block)


def every_so_many(shape: Sequence[int]) -> int:
    """Which of the voxels count."""
    return math.ceil(math.prod(shape) / ENOUGH_VOXELS)


def flat_index(place: Tensor, shape: Sequence[int]) -> Tensor:
    d, h, w = place.unbind(1)
    return (d * shape[1] + h) * shape[2] + w


def cells(length: int) -> tuple[int, int]:
    """Voxels per cell, and number of cells, along an axis."""
    size = math.ceil(length / CELLS)
    return size, math.ceil(length / size)


def basis(length: int, positions: Tensor) -> Tensor:
    """Cubic B-splines at voxels of an axis, (positions, coefficients); one constant where there are too few voxels."""
    if length < 3:
        return torch.ones(len(positions), 1, dtype=torch.float64)
    segments = min(max(length // KNOT_DISTANCE, 1), SEGMENTS)
    distance = ((positions.double()[:, None] + 0.5) * segments / length - torch.arange(-1, segments + 2)).abs()
    return torch.where(distance < 1, 4 - 6 * distance**2 + 3 * distance**3, (2 - distance).clamp_min(0) ** 3) / 6


class Spline:
    """The logarithm of sigma over a volume: products of B-splines along the axes."""

    def __init__(self, shape: Sequence[int]) -> None:
        sizes, counts = zip(*(cells(n) for n in shape), strict=True)
        self.cells: tuple[int, ...] = counts
        self.along = [
            basis(n, (torch.arange(count) * size + (size - 1) / 2).clamp_max(n - 1))
            for n, size, count in zip(shape, sizes, counts, strict=True)
        ]
        self.shape = tuple(b.shape[1] for b in self.along)
        self.roughness = roughness(self.shape)
        self.independent = min(1.0, every_so_many(shape) / VOXELS_PER_INDEPENDENT ** sum(n >= 3 for n in shape))
        self.rank = int(torch.linalg.matrix_rank(self.roughness)) if self.roughness.any() else 0

    def in_cells(self, coefficients: Tensor) -> Tensor:
        return torch.einsum("abc,da,hb,wc->dhw", coefficients, *self.along).flatten()

    def gradient(self, scores: Tensor) -> Tensor:
        """Sums over the cells of scores times B-splines."""
        return torch.einsum("dhw,da,hb,wc->abc", scores.view(self.cells), *self.along).flatten()

    def information(self, weights: Tensor) -> Tensor:
        """Sums over the cells of weights times products of two B-splines, without their matrix.

        I. D. Currie, M. Durbán, P. H. C. Eilers, J. R. Stat. Soc. B 2006, doi:10.1111/j.1467-9868.2006.00543.x.
        """
        pairs = [b for b in self.along for _ in range(2)]
        size = math.prod(self.shape)
        sums = torch.einsum("dhw,da,di,hb,hj,wc,wk->abcijk", weights.view(self.cells), *pairs)
        return sums.reshape(size, size)


def roughness(shape: Sequence[int]) -> Tensor:
    """The quadratic form of squared second differences of the coefficients along all axes."""
    total = torch.zeros(math.prod(shape), math.prod(shape), dtype=torch.float64)
    for axis, length in enumerate(shape):
        if length >= 3:
            parts = [torch.eye(n, dtype=torch.float64) for n in shape]
            differences = parts[axis].diff(n=2, dim=0)
            parts[axis] = differences.T @ differences
            total += torch.kron(torch.kron(parts[0], parts[1]), parts[2])
    return total


def fitted(spline: Spline, voxels: Voxels, start: float, rician: bool) -> Tensor:
    """The coefficients, found in rounds: choose the flattest voxels, then fit sigma to them.

    What detail noise would leave around a voxel is known from the finest detail there, which structure adds to, and
    from the fit so far, which would never leave a level far too low. It is taken between the two.
    """
    level = math.log(start)
    coefficients = torch.full((math.prod(spline.shape),), level, dtype=torch.float64)
    identity = torch.eye(len(coefficients), dtype=torch.float64)
    penalty, count = LEAST_PENALTY, math.prod(spline.cells)
    expected = voxels.noise
    for _ in range(ROUNDS):
        ratio = voxels.detail / expected.clamp_min(TINY)
        chosen = flattest_of_blocks(ratio, voxels.block)
        flat = voxels.of(chosen)
        weight = spline.independent / (1 + ((ratio[chosen] - 1).clamp_min(0) / TOLERATED) ** 2)
        for _ in range(STEPS):
            energy = flat.finest.square() / expected_variance(spline, coefficients, flat, rician)
            kept = torch.where(energy < 9, weight, 0)
            scores = kept * (energy / DEVIATION_WITHIN_THREE**2 - 1)
            information = spline.information(2 * torch.bincount(flat.cell, kept, count))
            pulls = penalty * (spline.roughness @ coefficients) + PULL * (coefficients - level)
            slope = spline.gradient(torch.bincount(flat.cell, scores, count)) - pulls
            curvature = information + penalty * spline.roughness + PULL * identity
            coefficients = coefficients + torch.linalg.solve(curvature, slope).clamp(-1, 1)
            penalty = next_penalty(spline, coefficients, curvature, penalty)
        expected = (voxels.noise * expected_variance(spline, coefficients, voxels, rician)).sqrt()
    return coefficients.view(spline.shape)


def next_penalty(spline: Spline, coefficients: Tensor, curvature: Tensor, penalty: float) -> float:
    """One step towards the likeliest penalty (Wood and Fasiolo 2017)."""
    left_free = spline.rank - penalty * float(torch.linalg.solve(curvature, spline.roughness).trace())
    rough = float(coefficients @ spline.roughness @ coefficients)
    return min(max(left_free / max(rough, 1e-12), LEAST_PENALTY), LARGEST_PENALTY)


def flattest_of_blocks(detail: Tensor, block: Tensor) -> Tensor:
    """The share of each block's voxels with the least detail around them."""
    order = detail.argsort()
    order = order[block[order].argsort(stable=True)]
    counts = block.bincount()
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order)) - (counts.cumsum(0) - counts)[block[order]]
    return place < (FLATTEST * counts[block]).ceil()


def expected_variance(spline: Spline, coefficients: Tensor, voxels: Voxels, rician: bool) -> Tensor:
    """Of the noise in the image around each voxel."""
    sigma = spline.in_cells(coefficients.view(spline.shape))[voxels.cell].exp()
    return sigma.square() * (variance_of_magnitude(voxels.mean / sigma) if rician else 1)


def variance_of_magnitude(mean: Tensor) -> Tensor:
    """Variance of a Rician magnitude with this mean, in units of sigma (Koay and Basser 2006)."""
    table = variance_table()
    position = (mean - RAYLEIGH_MEAN).clamp(0, STRONG).sqrt() * ((len(table) - 1) / math.sqrt(STRONG))
    before = position.long().clamp_max(len(table) - 2)
    return torch.lerp(table[before], table[before + 1], position - before)


@functools.cache
def variance_table() -> Tensor:
    """The variance for evenly spaced √(mean − Rayleigh mean), in which it is smooth."""
    signal = torch.linspace(0, 2 * STRONG, 200_001, dtype=torch.float64)
    mean, variance = rician_moments(signal)
    even = torch.linspace(0, math.sqrt(STRONG), 4096, dtype=torch.float64).square() + RAYLEIGH_MEAN
    after = torch.searchsorted(mean, even).clamp(1, len(mean) - 1)
    share = (even - mean[after - 1]) / (mean[after] - mean[after - 1])
    return torch.lerp(variance[after - 1], variance[after], share.clamp(0, 1))
