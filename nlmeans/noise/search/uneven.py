"""Noise that is stronger in some places than in others, as parallel imaging makes it: how it varies, if it does."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nlmeans.core.axes import Axes
from nlmeans.core.lags import covariance_over, lags_between
from nlmeans.core.modes import in_one_thread
from nlmeans.core.tiles import Piece
from nlmeans.noise.kinds import FOLLOWING, MAGNITUDES, NOISES
from nlmeans.noise.model import NoiseModel, limits_in_words
from nlmeans.noise.search.air import without_border
from nlmeans.noise.search.correlation import Samples, all_blocks, without_planes
from nlmeans.noise.search.curve import flattest_parts
from nlmeans.noise.search.estimate import LEAST_FOR_MEDIAN
from nlmeans.noise.search.finest import finest_detail_by_slabs, robust_deviation
from nlmeans.noise.search.found import model_of_volume, usable_of
from nlmeans.noise.search.sigma_map import (
    LEAST_EXPECTED,
    Measurements,
    Spline,
    at_positions,
    fit_spline,
    flattest_of_blocks,
    measure_slab,
    spline_basis,
)
from nlmeans.noise.search.usable import measured_voxels, object_threshold
from nlmeans.noise.variation import Levels, checked_variation, variation_at

FITTED_VOXELS = 2**17
"""Voxels that suffice to tell how the noise varies."""

LEAST_FITTED = 5000
"""Voxels below which nothing can be told."""

UNEVEN_RATIO = 1.5
"""Ratio of the levels that 95 and 5 % of the voxels are below, from which the noise counts as uneven. Even noise among
structure has up to 1.3."""

TOO_UNEVEN = 12.0
"""The same ratio from which it is not coils that make the difference, but parts that a scanner filtered."""


@in_one_thread
def model_of_sample(
    values: Tensor,
    inside: Tensor | None,
    shape: Axes,
    places: Sequence[Piece],
    kind: str = "auto",
    possible: Collection[str] = NOISES,
    coils: float | None = None,
    likely: str | None = None,
    varies: bool = True,
) -> NoiseModel:
    """Find the noise model of a volume in pieces of it, and how the noise varies in space.

    Noise that varies looks like structure where one level is looked for. So the volume is divided by the variation, and
    what is then even is looked at again.

    Args:
        values: the pieces, joined along their first axis longer than 1, floating point.
        inside: where to look, of the same shape; None for everywhere.
        shape: that of the whole volume.
        places: the box of each piece.
        kind: as for `model_of_volume`, and so are the others.
        possible: kinds that are possible besides Gaussian noise.
        coils: number of coils for ``"chi"``.
        likely: what the noise is where the volume does not speak against it.
        varies: whether the noise may vary in space.
    """
    model = model_of_volume(values, kind, inside, possible, coils, likely)
    if kind == "auto" and model.kind == "curve":
        others = [one for one in possible if one != "curve"]
        other = model_of_sample(values, inside, shape, places, kind, others, coils, likely, varies)
        return model if is_surely_a_curve(model, other, values, inside, shape, places) else other
    if not varies or model.follows_intensity or not model.sigma:
        return model
    possible = [one for one in possible if one not in FOLLOWING]
    if model.correlation is not None:
        if model.kind != "gaussian":
            return model
        variation = variation_of(values, inside, shape, places, False, model.correlation)
        if variation is None:
            return model
        even = model_of_volume(evened(values, variation, shape, places), model.kind, inside, possible, coils, likely)
        return model if even.correlation is None else with_variation(model, even, variation)
    for magnitudes in (False, True)[model.kind in MAGNITUDES :]:
        variation = variation_of(values, inside, shape, places, magnitudes)
        if variation is None:
            return model
        even = model_of_volume(evened(values, variation, shape, places), kind, inside, possible, coils, likely)
        if (even.kind in MAGNITUDES) == magnitudes:
            break
    else:
        return model
    return model if even.correlation is not None else with_variation(model, even, variation)


def with_variation(model: NoiseModel, even: NoiseModel, variation: Levels) -> NoiseModel:
    """Add the variation to the model of the volume that was divided by it; `model` where that is in doubt."""
    if even.doubts or not even.sigma:  # the noise is not the same everywhere even so
        return model
    levels = limits_in_words(variation, even.sigma)
    said = f"the noise is not equally strong everywhere: its standard deviation goes from {levels}"
    return dataclasses.replace(even, variation=variation, evidence=(*even.evidence, said))


def is_surely_a_curve(
    model: NoiseModel, other: NoiseModel, values: Tensor, inside: Tensor | None, shape: Axes, places: Sequence[Piece]
) -> bool:
    """Whether noise is a curve over intensity, and not what may look like one.

    Noise that is stronger in some places, correlated noise, and magnitudes in a scan that was made evenly bright do.
    `other` is what the noise is if it is no curve.
    """
    if other.kind in MAGNITUDES or model.correlation is not None or other.correlation is not None:
        return False
    if variation_of(model.stabilise(values.double()), inside, shape, places, False) is not None:
        return False
    return other.variation is None or explains_more(model, other, values, inside, shape, places)


def explains_more(
    model: NoiseModel, other: NoiseModel, values: Tensor, inside: Tensor | None, shape: Axes, places: Sequence[Piece]
) -> bool:
    """Whether a curve makes the finest detail of flat parts likelier than a level that varies in space does."""
    peak = float(values.abs().max())
    around = finest_detail_by_slabs(values, peak, inside, measured_voxels(values))
    usable = usable_of(around)
    brightness, finest, detail = (values.double() for values in around.at(usable))
    in_space = levels_in_pieces(checked_variation(other.variation), shape, places, values.device)
    levels = (
        model.sigma_at(brightness * peak) / peak,
        (other.sigma or 0.0) / peak * without_border(in_space)[usable].double(),
    )
    flat = torch.cat(flattest_parts(brightness, detail / (levels[0] * levels[1])))
    curve, varying = (unlikeliness(finest[flat], level[flat]) for level in levels)
    return curve < varying - LIKELIER


LIKELIER = 0.012
"""Mean logarithm of the likelihood of a voxel by which a curve must be better."""


def variation_of(
    values: Tensor,
    inside: Tensor | None,
    shape: Axes,
    places: Sequence[Piece],
    magnitudes: bool,
    correlation: npt.ArrayLike | None = None,
) -> Levels | None:
    """Find how the noise varies in space.

    Args:
        values: the pieces of a volume, joined along their first axis longer than 1, floating point.
        inside: where to look, of the same shape; None for all but exact zeros.
        shape: that of the whole volume.
        places: the box of each piece.
        magnitudes: whether the noise is that of magnitudes, which is weaker in the dark.
        correlation: autocovariance of the noise in units of its variance; None for white noise.

    Returns:
        The level at the points of an even grid over the whole volume, with a root mean square of 1 over the object;
        None if it varies too little to tell it from an even level.
    """
    if max(shape) < 3 or not values.any():
        return None
    every = math.ceil(values.numel() / FITTED_VOXELS)
    spline, fewest, coefficients_each = Spline(shape, every), LEAST_FITTED / every, 0
    if correlation is None:
        measured = measured_in_pieces(values, inside, shape, places, every)
    else:
        measured, coefficients_each, spline.independent = blocks_in_pieces(values, inside, shape, places, correlation)
    start = robust_deviation(measured.finest) if len(measured.finest) >= fewest else 0.0
    if start == 0:
        return None
    coefficients = fit_spline(spline, measured, start, magnitudes)
    bright = measured.mean > object_threshold(measured.mean)
    if not magnitudes:
        levels = spline.in_cells(coefficients)[measured.cell]
        brighter = (measured.mean > limit for limit in limits_of_air(measured.mean))
        outside_air = next((one for one in brighter if is_filtered_in_the_dark(measured, levels, one)), None)
        if outside_air is not None and int(outside_air.sum()) >= fewest:
            measured, bright = measured.subset(outside_air), bright[outside_air]
            coefficients = fit_spline(spline, measured, start, magnitudes)
    if int(bright.sum()) < fewest:
        bright = torch.ones_like(bright)
    levels = spline.in_cells(coefficients)[measured.cell]
    ordered = levels.sort().values
    lowest, low, high, highest = (float(ordered[int(share * (len(ordered) - 1))]) for share in (0.01, 0.05, 0.95, 0.99))
    if not math.log(UNEVEN_RATIO) < high - low < math.log(TOO_UNEVEN):
        return None
    if correlation is not None and not is_surely_noise(measured, levels, coefficients_each):
        return None
    middle = 0.5 * (float((2 * levels[bright]).logsumexp(0)) - math.log(int(bright.sum())))
    relative = (at_points(spline, coefficients, shape).clamp(lowest, highest) - middle).exp()
    return checked_variation(relative.clamp_min(LEAST_RELATIVE).numpy().round(4))


LEAST_RELATIVE = 1e-3
"""Least level relative to that of the object."""


def measured_in_pieces(
    values: Tensor, inside: Tensor | None, shape: Axes, places: Sequence[Piece], every: int
) -> Measurements:
    """Measure one in `every` usable voxels of joined pieces; arguments as for `variation_of`."""
    pieces = [
        measure_slab(part, where, shape, [side.start for side in place], place, every, usable)
        for part, usable, where, place in in_pieces(values, inside, shape, places)
    ]
    return Measurements(*(torch.cat(found) for found in zip(*pieces, strict=True)))


def in_pieces(
    values: Tensor, inside: Tensor | None, shape: Axes, places: Sequence[Piece]
) -> Iterator[tuple[Tensor, Tensor, Tensor | None, Piece]]:
    """Take joined pieces apart: each in units of the largest absolute value of all, which of its voxels hold a
    measurement, its mask, and its place."""
    axis = 0 if shape[0] > 1 else 1
    lengths = [place[axis].stop - place[axis].start for place in places]
    parts, known = (
        torch.split(joined, lengths, axis) for joined in (values / float(values.abs().max()), measured_voxels(values))
    )
    masks = [None] * len(places) if inside is None else torch.split(inside, lengths, axis)
    return zip(parts, known, masks, places, strict=True)


def blocks_in_pieces(
    values: Tensor, inside: Tensor | None, shape: Axes, places: Sequence[Piece], correlation: npt.ArrayLike
) -> tuple[Measurements, int, float]:
    """Measure correlated noise in evenly spaced blocks of joined pieces; arguments as for `variation_of`.

    The finest detail holds little of correlated noise, and mostly structure. So each block is described by coefficients
    that are independent and equally strong on noise of this correlation. The half along which there is least structure
    is measured, and the other half shows where structure is.

    Returns:
        One row per coefficient that is measured, in units of the largest absolute value; how many of them a block
        has; and how many independent measurements each is worth.
    """
    d, h, w = (min(NOISE_EDGE[2 if 1 in shape else 3], n) for n in shape)
    size = (d, h, w)
    stride = max(2, math.ceil((values.numel() / FITTED_BLOCKS) ** (1 / sum(n > 1 for n in shape))))
    along = coefficients_of_blocks(torch.from_numpy(np.array(correlation)), size)
    half = along.shape[1] // 2
    rows, positions = [], []
    for part, usable, mask, place in in_pieces(values, inside, shape, places):
        if min(n - edge for n, edge in zip(part.shape, size, strict=True)) < 0:
            continue
        where = all_blocks(usable if mask is None else usable & mask, size, stride).all(3)
        blocks = all_blocks(part, size, stride)[where].double().cpu().numpy()
        mean, found = blocks.mean(1), torch.from_numpy((blocks - blocks.mean(1, keepdims=True)) @ along)
        noise, detail = (half_of_all.square().mean(1) for half_of_all in (found[:, :half], found[:, half:]))
        each = (one[:, None].expand(-1, half) for one in (torch.from_numpy(mean), detail, noise))
        rows.append(torch.stack([found[:, :half], *each], 2).view(-1, 4))
        middle = torch.tensor([side.start + (edge - 1) // 2 for side, edge in zip(place, size, strict=True)])
        positions.append((where.nonzero().cpu() * stride + middle).repeat_interleave(half, 0))
    independent = OF_A_COEFFICIENT * math.prod(min(1.0, stride / edge) for edge in size)
    nothing, nowhere = torch.zeros(0, 4, dtype=torch.float64), torch.zeros(0, 3, dtype=torch.int64)
    finest, mean_of_block, detail, noise = torch.cat([nothing, *rows]).unbind(1)
    position = torch.cat([nowhere, *positions])
    return at_positions((finest, mean_of_block, detail, noise), position, shape), half, independent


NOISE_EDGE = {2: 8, 3: 4}
"""Edge in voxels of a block that correlated noise is measured in, for images and volumes."""

FITTED_BLOCKS = 20_000
"""Blocks that suffice to tell how correlated noise varies."""

OF_A_COEFFICIENT = 0.4
"""Independent measurements that a coefficient of a block is worth, if blocks do not overlap. The correlation is not
known exactly, so it is not 1."""


def coefficients_of_blocks(autocovariance: Tensor, size: Axes) -> Samples:
    """Return directions along which the noise of a block is independent and has a variance of 1, (voxels, directions).

    They begin with the one along which there is least structure relative to noise, and leave out the planes, and
    directions along which there is hardly any noise.
    """
    structure = np.exp(-lags_between(size).double().norm(dim=2).numpy() / REACH_OF_STRUCTURE)
    noise = without_planes(covariance_over(autocovariance.double(), size).numpy(), size)
    variances, vectors = np.linalg.eigh(without_planes(noise.T, size))
    strong = variances > LEAST_NOISE * variances[-1]
    white = vectors[:, strong] / np.sqrt(variances[strong])
    found: Samples = white @ np.linalg.eigh(white.T @ structure @ white).eigenvectors
    return found


REACH_OF_STRUCTURE = 4.0
"""Distance in voxels at which structure correlates by 1/e."""

LEAST_NOISE = 0.05
"""Variance of noise along a direction, relative to the largest, below which it says nothing."""


def is_surely_noise(measured: Measurements, levels: Tensor, coefficients: int) -> bool:
    """Whether noise and nothing else makes the flattest blocks louder where the level is highest.

    What is no noise but structure everywhere is strong in some blocks and weak in others. Noise is about equally strong
    in all, given the number of coefficients of a block.
    """
    if coefficients < FEWEST_COEFFICIENTS:
        return False
    expected = (measured.noise * (2 * levels).exp()).sqrt().clamp_min(LEAST_EXPECTED)
    flat = flattest_of_blocks(measured.detail / expected, measured.block)
    energy, level = (measured.noise[flat].log() - 2 * levels[flat]), levels[flat]
    loud = level >= level.sort().values[3 * len(level) // 4]
    alone = torch.special.polygamma(1, torch.tensor(coefficients / 2, dtype=torch.float64)).sqrt()
    return float(energy[loud].std()) < MOST_SPREAD * float(alone)


FEWEST_COEFFICIENTS = 13
"""Coefficients of a block that tell noise from structure. Noise that waves over more voxels than a block has fewer."""

MOST_SPREAD = 1.4
"""Spread of the logarithm of a block's noise, relative to that of noise alone, up to which it is noise."""


def at_points(spline: Spline, coefficients: Tensor, shape: Axes) -> Tensor:
    """Evaluate a spline over a volume at its knots and in the middle between them."""
    counts = (max(1, 2 * (basis.shape[1] - 3) + 1) for basis in spline.along)
    along = (spline_basis(n, torch.linspace(0, n - 1, count)) for n, count in zip(shape, counts, strict=True))
    return torch.einsum("abc,da,hb,wc->dhw", coefficients, *along)


def limits_of_air(mean: Tensor) -> Iterator[float]:
    """Yield intensities up to which voxels may be air: the threshold of the object, then that of what is darker, as
    there may be hardly any air, and dark tissue."""
    for _ in range(SHADES):
        limit = object_threshold(mean)
        yield limit
        mean = mean[mean <= limit]


SHADES = 3
"""Limits of air that are tried."""


def is_filtered_in_the_dark(measured: Measurements, levels: Tensor, bright: Tensor) -> bool:
    """Whether one level in the dark and one in the object explain the noise better than the logarithm of a smooth one.

    Scanners filter the air, or set parts of it to 0. A smooth level then follows a step that it cannot follow.
    """
    flat = flattest_of_blocks(measured.detail / (2 * levels).exp(), measured.block)
    finest, levels, bright = measured.finest[flat], levels[flat], bright[flat]
    steps = [
        robust_deviation(finest[part]) if int(part.sum()) >= LEAST_FOR_MEDIAN else 0.0 for part in (~bright, bright)
    ]
    if min(steps) == 0:
        return False

    dark_and_bright = torch.tensor(steps, dtype=torch.float64)[bright.long()]
    return steps[0] < steps[1] and unlikeliness(finest, dark_and_bright) < unlikeliness(finest, levels.exp())


def unlikeliness(finest: Tensor, level: Tensor) -> float:
    """Return minus the mean logarithm of the likelihood of finest detail with a deviation of `level`, but for a
    constant; what is far off counts as structure."""
    return float((level.log() + ((finest / level).square() / 2).clamp_max(MOST_COST)).mean())


MOST_COST = 4.5
"""Cost of a voxel three deviations off, and of any that is farther off."""


def evened(values: Tensor, variation: Levels, shape: Axes, places: Sequence[Piece]) -> Tensor:
    """Divide the joined pieces of a volume by the level of the noise, which is then the same everywhere."""
    return values / levels_in_pieces(variation, shape, places, values.device)


def levels_in_pieces(variation: Levels, shape: Axes, places: Sequence[Piece], device: torch.device) -> Tensor:
    """Return the level of the noise at each voxel of the joined pieces of a volume."""
    levels = [variation_at(variation, shape, place, device) for place in places]
    return torch.cat(levels, dim=0 if shape[0] > 1 else 1)
