"""Estimate noise that varies in space: a smooth map of its standard deviation."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d, pad

from nlmeans.core import arrays
from nlmeans.core.layout import Layout
from nlmeans.core.modes import outside_autocast
from nlmeans.core.tiles import Piece, piece
from nlmeans.noise.kinds import possible_kind
from nlmeans.noise.rician import RAYLEIGH_MEAN, STRONG_SIGNAL, look_up, rician_moments
from nlmeans.noise.search.finest import (
    DEVIATION_WITHIN_THREE,
    box_sums,
    box_voxels,
    finest_detail,
    ring_means,
    robust_deviation,
)

KNOT_DISTANCE, SEGMENTS = 4, 4
"""Least distance of the spline's knots in voxels, and largest number of segments between them per axis."""

MOST_CELLS = 24
"""Largest number of cells per axis. The map is fitted to sums over the voxels of a cell."""

BLOCK_EDGE, LEAST_BLOCKS = 16, 3
"""Largest edge, in voxels, of the blocks that each contribute their flattest voxels, and least number of blocks along
an axis: with one, all would be where the noise is weakest."""

FLATTEST_OF_BLOCK = 0.3
"""Share of a block's voxels that sigma is measured in."""

OUTER_FOR_NOISE = 5
"""Outer radius of the ring that the finest detail is averaged over: 11 × 11 × 11 voxels without the inner 5 × 5 × 5."""

TOLERATED = 0.3
"""Excess of the detail around a voxel over that of noise, as a share of the latter, that halves the voxel's weight."""

FIT_ROUNDS, NEWTON_STEPS = 4, 4
"""Number of times that voxels are chosen, and steps of Newton's method after each choice."""

LEAST_PENALTY = 0.1
"""Lower limit of the roughness penalties. At 0.1, the logarithm of sigma still bends by 3 from knot to knot at little
cost."""

MAP_VOXELS = 2**21
"""Voxels that suffice to fit the map. Of larger volumes, every second, third, … voxel is taken."""

MAP_SLAB_VOXELS = 2**22
"""Voxels measured at once."""

LEAST_IN_MASK = 64
"""Least number of usable voxels in a mask. With fewer, the whole volume is measured."""

VOXELS_PER_INDEPENDENT = 1.94
"""Voxels per independent measurement, per axis. Second differences are correlated: 1 + 2·(4/6)² + 2·(1/6)² is the sum
of their squared correlations."""

LARGEST_PENALTY = 1e6
"""Upper limit of the roughness penalties."""

LEAST_EXPECTED = 1e-30
"""Lower limit of the expected detail, a divisor."""

PULL_TO_LEVEL = 0.1
"""Weight, in voxels, of a pull towards the same sigma everywhere. It decides only where nothing was measured."""


def sigma_map_of_volume(volume: Tensor, noise: str = "gaussian", inside: Tensor | None = None) -> Tensor:
    """Estimate sigma of every voxel of one volume, in image units.

    The logarithm of sigma is a spline, with a penalty for its bends along each axis. It is fitted by maximum likelihood
    to the finest detail of voxels with little other detail around them. Where there are only edges, the spline bridges
    the gap. The volume is measured slab by slab, and of a large one only some voxels are kept, so that the working
    memory is bounded.

    Args:
        volume: (D, H, W), on any device.
        noise: ``"gaussian"`` or ``"rician"``.
        inside: (D, H, W), which voxels to measure; the map extends to the others. None for all but exact zeros.

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
    measured = measure_volume(volume, peak, inside)
    start = robust_deviation(measured.finest) if len(measured.finest) else 0.0
    if start == 0:
        return torch.zeros(shape, dtype=torch.float32, device=volume.device)
    spline = Spline((d, h, w), voxel_stride(shape))
    coefficients = fit_spline(spline, measured, start, possible_kind(noise, float(volume.min())) == "rician")
    low, high = torch.aminmax(spline.in_cells(coefficients)[torch.unique(measured.cell)])
    along = [spline_basis(n, torch.arange(n)).to(volume.device, torch.float32) for n in shape]
    logarithm = torch.einsum("abc,da,hb,wc->dhw", coefficients.to(volume.device, torch.float32), *along)
    return logarithm.clamp_(float(low), float(high)).exp_().mul_(peak)


class Measurements(NamedTuple):
    """Measurements at the voxels that the map is fitted to: one number per voxel, on the CPU, in units of the peak."""

    finest: Tensor
    """Second differences along all axes."""
    mean: Tensor
    """Mean of the neighbourhood."""
    detail: Tensor
    """Mean square of the detail around the voxel, without the finest. On pure noise it is sigma²."""
    noise: Tensor
    """Mean square of the finest detail around the voxel: also sigma², less exact, but with less structure in it."""
    cell: Tensor
    """Flat index of the voxel's cell."""
    block: Tensor
    """Flat index of the voxel's block."""

    def subset(self, chosen: Tensor) -> Measurements:
        """Keep some of the voxels."""
        return Measurements(*(values[chosen] for values in self))


def measure_volume(volume: Tensor, peak: float, inside: Tensor | None) -> Measurements:
    """Measure the usable voxels inside the mask, or all usable ones if hardly any are inside."""
    longest = max(range(3), key=lambda axis: volume.shape[axis])
    length = volume.shape[longest]
    thickness = max(1, MAP_SLAB_VOXELS * length // volume.numel())
    halo, every = OUTER_FOR_NOISE + 1, voxel_stride(volume.shape)
    slabs = []
    for start in range(0, length, thickness):
        first, last = max(start - halo, 0), min(start + thickness + halo, length)
        slab = volume.narrow(longest, first, last - first) / peak
        where = None if inside is None else inside.narrow(longest, first, last - first) != 0
        core = [slice(0, n) for n in volume.shape]
        core[longest] = slice(start, start + thickness)
        origin = [first if axis == longest else 0 for axis in range(3)]
        slabs.append(measure_slab(slab, where, tuple(volume.shape), origin, piece(core), every))
    measured = Measurements(*(torch.cat(values) for values in zip(*slabs, strict=True)))
    return measured if inside is None or len(measured.finest) >= LEAST_IN_MASK else measure_volume(volume, peak, None)


def measure_slab(
    slab: Tensor,
    inside: Tensor | None,
    shape: tuple[int, ...],
    origin: Sequence[int],
    core: Piece,
    every: int,
    measured: Tensor | None = None,
) -> Measurements:
    """Measure the usable voxels in the core of a slab.

    Args:
        slab: part of a volume, with a halo.
        inside: mask of the slab.
        shape: of the whole volume.
        origin: first voxel of the slab.
        core: which voxels of the volume to measure.
        every: how many of these voxels stand for one that is measured.
        measured: which voxels of the slab hold a measurement; None for all but exact zeros.
    """
    around = finest_detail(slab, inside, measured)
    noise = ring_means(around.finest.square(), OUTER_FOR_NOISE)
    mean = box_sums(around.brightness, 1) / box_voxels(around.brightness, 1)
    wanted = around.usable if around.inside is None else around.usable & around.inside
    place = wanted.nonzero().cpu()
    position = place + torch.tensor([first + int(n >= 3) for first, n in zip(origin, slab.shape, strict=True)])
    starts, stops = (torch.tensor(ends) for ends in zip(*((side.start, side.stop) for side in core), strict=True))
    chosen = (position.sum(1) % every == 0) & ((position >= starts) & (position < stops)).all(1)
    place, position = place[chosen], position[chosen]
    d, h, w = place.to(slab.device).unbind(1)
    finest, mean, detail, noise = (
        values[d, h, w].double().cpu() for values in (around.finest, mean, around.detail, noise)
    )
    return at_positions((finest, mean, detail, noise), position, shape)


def at_positions(
    measures: tuple[Tensor, Tensor, Tensor, Tensor], position: Tensor, shape: Sequence[int]
) -> Measurements:
    """Join finest detail, mean, detail and noise at voxels, (n, 3), with the cells and blocks that these are in."""
    sizes, counts = zip(*(cells_along(n) for n in shape), strict=True)
    cell = flat_index(position // torch.tensor(sizes), counts)
    edges = [min(BLOCK_EDGE, math.ceil(n / LEAST_BLOCKS)) for n in shape]
    blocks = [math.ceil(n / edge) for n, edge in zip(shape, edges, strict=True)]
    block = flat_index(position // torch.tensor(edges), blocks)
    return Measurements(*measures, cell, block)


def voxel_stride(shape: Sequence[int]) -> int:
    """Return n such that every n-th voxel is enough."""
    return math.ceil(math.prod(shape) / MAP_VOXELS)


def flat_index(place: Tensor, shape: Sequence[int]) -> Tensor:
    """Turn (n, 3) indices into an array of `shape` into flat ones."""
    d, h, w = place.unbind(1)
    return (d * shape[1] + h) * shape[2] + w


def cells_along(length: int) -> tuple[int, int]:
    """Return the voxels per cell and the number of cells along an axis."""
    size = math.ceil(length / MOST_CELLS)
    return size, math.ceil(length / size)


def spline_basis(length: int, positions: Tensor) -> Tensor:
    """Evaluate cubic B-splines at voxels of an axis, (positions, coefficients).

    An axis of less than three voxels has a single, constant function.
    """
    if length < 3:
        return torch.ones(len(positions), 1, dtype=torch.float64)
    segments = min(max(length // KNOT_DISTANCE, 1), SEGMENTS)
    distance = ((positions.double()[:, None] + 0.5) * segments / length - torch.arange(-1, segments + 2)).abs()
    return torch.where(distance < 1, 4 - 6 * distance**2 + 3 * distance**3, (2 - distance).clamp_min(0) ** 3) / 6


class Spline:
    """Spline for the logarithm of sigma over a volume: products of B-splines along the axes."""

    def __init__(self, shape: Sequence[int], every: int) -> None:
        """`every` is how many voxels stand for one that was measured."""
        sizes, counts = zip(*(cells_along(n) for n in shape), strict=True)
        self.cells: tuple[int, ...] = counts
        self.along = [
            spline_basis(n, (torch.arange(count) * size + (size - 1) / 2).clamp_max(n - 1))
            for n, size, count in zip(shape, sizes, counts, strict=True)
        ]
        self.shape = tuple(b.shape[1] for b in self.along)
        self.roughness, self.bends = roughness_forms(self.shape)
        self.independent = min(1.0, every / VOXELS_PER_INDEPENDENT ** sum(n >= 3 for n in shape))

    def in_cells(self, coefficients: Tensor) -> Tensor:
        """Evaluate the spline in the middle of each cell."""
        return torch.einsum("abc,da,hb,wc->dhw", coefficients, *self.along).flatten()

    def gradient(self, scores: Tensor) -> Tensor:
        """Sum scores times B-splines over the cells."""
        return torch.einsum("dhw,da,hb,wc->abc", scores.view(self.cells), *self.along).flatten()

    def information(self, weights: Tensor) -> Tensor:
        """Sum weights times products of two B-splines over the cells, without building the matrix of all B-splines.

        I. D. Currie, M. Durbán, P. H. C. Eilers, J. R. Stat. Soc. B 2006, doi:10.1111/j.1467-9868.2006.00543.x.
        """
        pairs = [b for b in self.along for _ in range(2)]
        size = math.prod(self.shape)
        sums = torch.einsum("dhw,da,di,hb,hj,wc,wk->abcijk", weights.view(self.cells), *pairs)
        return sums.reshape(size, size)


def roughness_forms(shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Build, for each axis, the quadratic form that sums the squared second differences of the coefficients along it.

    Also returns the eigenvalues of each form. All have the same eigenvectors, and these are in the same order.
    """
    forms, eigenvalues = [], []
    for axis, length in enumerate(shape):
        parts, along = [torch.eye(n, dtype=torch.float64) for n in shape], torch.zeros(length, dtype=torch.float64)
        differences = parts[axis].diff(n=2, dim=0) if length >= 3 else torch.zeros(1, length, dtype=torch.float64)
        parts[axis] = differences.T @ differences
        along[2:] = torch.from_numpy(np.linalg.eigvalsh(parts[axis].numpy())[2:])  # 0 for constants and lines
        forms.append(torch.kron(torch.kron(parts[0], parts[1]), parts[2]))
        eigenvalues.append(along.view([-1 if n == axis else 1 for n in range(3)]).expand(*shape).flatten())
    return torch.stack(forms), torch.stack(eigenvalues)


def fit_spline(spline: Spline, measured: Measurements, start: float, rician: bool) -> Tensor:
    """Fit the coefficients in rounds: choose the flattest voxels, then fit sigma to them.

    A voxel is flat if the detail around it is hardly more than noise alone would leave. This expected detail is the
    geometric mean of two estimates. The finest detail around the voxel is too high where there is structure. The fit so
    far would confirm itself, if it alone decided, even at a level far too low.
    """
    level = math.log(start)
    coefficients = torch.full((math.prod(spline.shape),), level, dtype=torch.float64)
    identity = torch.eye(len(coefficients), dtype=torch.float64)
    penalties, count = torch.full((3,), LEAST_PENALTY, dtype=torch.float64), math.prod(spline.cells)
    expected = measured.noise
    for _ in range(FIT_ROUNDS):
        ratio = measured.detail / expected.clamp_min(LEAST_EXPECTED)
        chosen = flattest_of_blocks(ratio, measured.block)
        flat = measured.subset(chosen)
        weight = spline.independent / (1 + ((ratio[chosen] - 1).clamp_min(0) / TOLERATED) ** 2)
        for _ in range(NEWTON_STEPS):
            energy = flat.finest.square() / expected_variance(spline, coefficients, flat, rician)
            kept = torch.where(energy < 9, weight, 0)
            scores = kept * (energy / DEVIATION_WITHIN_THREE**2 - 1)
            information = spline.information(2 * torch.bincount(flat.cell, kept, count))
            roughness = (penalties.view(3, 1, 1) * spline.roughness).sum(0)
            pulls = roughness @ coefficients + PULL_TO_LEVEL * (coefficients - level)
            slope = spline.gradient(torch.bincount(flat.cell, scores, count)) - pulls
            curvature = information + roughness + PULL_TO_LEVEL * identity
            inverse = torch.cholesky_inverse(torch.linalg.cholesky(curvature))
            coefficients = coefficients + (inverse @ slope).clamp(-1, 1)
            penalties = next_penalties(spline, coefficients, inverse, penalties)
        expected = (measured.noise * expected_variance(spline, coefficients, measured, rician)).sqrt()
    return coefficients.view(spline.shape)


def next_penalties(spline: Spline, coefficients: Tensor, inverse: Tensor, penalties: Tensor) -> Tensor:
    """Take one step towards the most likely penalty of each axis (Wood and Fasiolo 2017), given the inverse of the
    curvature."""
    total = (penalties[:, None] * spline.bends).sum(0)
    stiff = total > 0
    free = (spline.bends[:, stiff] / total[stiff]).sum(1) - (inverse * spline.roughness).sum((1, 2))
    rough = (coefficients * (spline.roughness @ coefficients)).sum(1)
    return (penalties * free / rough.clamp_min(1e-12)).clamp(LEAST_PENALTY, LARGEST_PENALTY)


def flattest_of_blocks(detail: Tensor, block: Tensor) -> Tensor:
    """Mark the share `FLATTEST_OF_BLOCK` of each block's voxels with the least detail around them."""
    order = torch.from_numpy(detail.numpy().argsort())  # in a sixth of torch's time
    order = order[block[order].argsort(stable=True)]
    counts = block.bincount()
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order)) - (counts.cumsum(0) - counts)[block[order]]
    return place < (FLATTEST_OF_BLOCK * counts[block]).ceil()


def expected_variance(spline: Spline, coefficients: Tensor, measured: Measurements, rician: bool) -> Tensor:
    """Return the variance of the noise at each voxel according to the spline."""
    sigma = spline.in_cells(coefficients.view(spline.shape))[measured.cell].exp()
    return sigma.square() * (variance_of_magnitude(measured.mean / sigma) if rician else 1)


def variance_of_magnitude(mean: Tensor) -> Tensor:
    """Return the variance of a Rician magnitude with this mean, in units of sigma (Koay and Basser 2006)."""
    table = variance_table()
    root = (mean - RAYLEIGH_MEAN).clamp(0, STRONG_SIGNAL).sqrt()
    return look_up(table, root * ((len(table) - 1) / math.sqrt(STRONG_SIGNAL)))


@functools.cache
def variance_table() -> Tensor:
    """Tabulate the variance over evenly spaced √(mean − Rayleigh mean), in which it is smooth."""
    signal = torch.linspace(0, 2 * STRONG_SIGNAL, 200_001, dtype=torch.float64)
    mean, variance = rician_moments(signal)
    even = torch.linspace(0, math.sqrt(STRONG_SIGNAL), 4096, dtype=torch.float64).square() + RAYLEIGH_MEAN
    after = torch.searchsorted(mean, even).clamp(1, len(mean) - 1)
    share = (even - mean[after - 1]) / (mean[after] - mean[after - 1])
    return torch.lerp(variance[after - 1], variance[after], share.clamp(0, 1))


# ---------------------------------------------------------------- from volumes of noise alone


BOX_EDGE = 7
"""Edge in voxels of the box that sigma is averaged over: 343 voxels of each volume give it within 3 %."""


@outside_autocast
def sigma_of_noise_volumes(noise: arrays.Array, series: int = -1) -> npt.NDArray[np.float32]:
    """Measure sigma at every voxel in volumes that hold noise alone.

    Many protocols record a few volumes without excitation at the end of a series. They show how strong the noise is at
    every voxel, also where parallel imaging makes it uneven. Values without a sign are taken for the magnitudes of one
    coil: the mean of their squares is 2 sigma².

    Args:
        noise: (D, H, W) and an axis of volumes, in memory; real or complex.
        series: the axis of volumes.

    Returns:
        Sigma of the real part, which that of the imaginary part equals: float32, of the spatial shape, in image units.

    Raises:
        ValueError, TypeError: there are not finite numbers, or they have the wrong number of axes.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> magnitudes = abs(rng.standard_normal((16, 16, 16, 4)) + 1j * rng.standard_normal((16, 16, 16, 4)))
        >>> sigma = sigma_of_noise_volumes(5 * magnitudes)
        >>> sigma.shape, round(float(sigma.mean()), 1)
        ((16, 16, 16), 5.0)
    """
    values: Any = noise if arrays.is_complex(noise) else arrays.check_array(noise, "noise")
    layout = Layout.of(values, None, series, "noise")
    parts = (values.real, values.imag) if arrays.is_complex(values) else (values,)
    for part in parts:
        arrays.value_range(part, "noise")
    both = len(parts) == 2 or bool((values >= 0).all())
    total = sum(torch.as_tensor(np.asarray(part)).double().square() for part in parts)
    mean = torch.as_tensor(total).movedim(series, 0).mean(0) / (2 if both else 1)
    return mean_of_box(mean.reshape(layout.shape)).sqrt().reshape(layout.spatial_shape).float().numpy()


def mean_of_box(values: Tensor) -> Tensor:
    """Average each voxel, (D, H, W), over the box around it, or over what of it lies in the volume."""
    margins = [side for n in reversed(values.shape) for side in (min(BOX_EDGE // 2, n - 1),) * 2]
    kernel = [2 * margins[-1 - 2 * axis] + 1 for axis in range(3)]
    padded, ones = pad(values, margins), pad(torch.ones_like(values), margins)
    sums, counts = (avg_pool3d(x[None, None], kernel, 1)[0, 0] for x in (padded, ones))
    return sums / counts
