"""The noise model of a volume, found from the volume itself: its kind, its level, and the correlation of neighbours."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from nlmeans.core.modes import in_one_thread
from nlmeans.noise.kinds import MAGNITUDES, NOISES, not_magnitudes, possible_kind
from nlmeans.noise.level_curve import gentle_curve
from nlmeans.noise.model import NoiseModel, checked_correlation
from nlmeans.noise.rician import sigma_of_air
from nlmeans.noise.search.acquired import zero_filling
from nlmeans.noise.search.air import MUCH_AIR, Air, air_of, correlation_in_air, without_border
from nlmeans.noise.search.bounds import follows_a_curve, level_over_intensity, second_opinion, variance_bounds
from nlmeans.noise.search.correlation import (
    CorrelatedNoise,
    estimate_correlated_noise,
    measured_again,
    response_of_finest,
)
from nlmeans.noise.search.curve import (
    CLEARLY,
    FEWEST_BINS,
    LEAST_SPAN,
    Fit,
    VarianceCurve,
    fit_line,
    fit_line_through_zero,
    fit_magnitudes,
    kind_of_noise,
    refined_line,
    variance_curve,
)
from nlmeans.noise.search.doubts import AS_TEXTURE, FEWEST_CHOSEN, doubts_about, largest_with_next
from nlmeans.noise.search.estimate import sigma_of_detail
from nlmeans.noise.search.finest import DetailMaps, finest_detail_by_slabs, grey_step
from nlmeans.noise.search.usable import measured_voxels, object_threshold

WHITE_RATIO = 0.75
"""Standard deviation of the finest detail, relative to that of the noise, below which the noise is correlated. Both the
finest detail of the volume and the autocovariance found must say so."""


SEVERAL_BLOCKS, NEARLY_WHITE = 200, 0.88
"""Flat blocks from which the autocovariance alone shows that the noise is correlated, and the response of the finest
detail to it below which it is."""


class Observed(NamedTuple):
    """A volume, and what was measured at each of its voxels, all in units of its largest absolute value."""

    volume: Tensor
    inside: Tensor | None
    """Where to look, (D, H, W); None for everywhere."""
    measured: Tensor
    """Which voxels hold a measurement, (D, H, W)."""
    peak: float
    """The largest absolute value, in image units."""
    around: DetailMaps
    curve: VarianceCurve
    air: Air


@in_one_thread
def model_of_volume(
    volume: Tensor,
    kind: str = "auto",
    inside: Tensor | None = None,
    possible: Collection[str] = NOISES,
    coils: float | None = None,
    likely: str | None = None,
) -> NoiseModel:
    """Find the noise model of one volume.

    Args:
        volume: (D, H, W), floating point; a depth of 1 is an image.
        kind: kind of the noise; ``"auto"`` finds it. With negative values, magnitudes count as Gaussian.
        inside: where to look, (D, H, W); None for everywhere.
        possible: kinds that are possible besides Gaussian noise, if the kind is to be found.
        coils: number of coils for ``"chi"``; None reads it from the air.
        likely: ``"rician"`` if that is what the noise is where the volume does not speak against it.

    Raises:
        ValueError: the number of coils cannot be read.
    """
    lowest, highest = (float(end) for end in volume.aminmax())
    if shows_nothing(volume, lowest, highest):
        none = "gaussian" if kind in ("auto", "curve") else kind
        return NoiseModel(kind=none, sigma=0.0, evidence=(NOTHING_SEEN,))
    seen = observed(volume, inside, max(-lowest, highest))
    impossible = possible_kind(kind, lowest) != kind
    kind = "gaussian" if impossible else kind
    if kind == "auto":
        fit, reason = kind_of_volume(seen, possible, likely)
        if fit is not None and fit.kind == "poisson":
            model = model_of_counts(seen, fit)
        elif fit is not None and fit.kind == "curve":
            model = model_of_curve(seen)
        elif fit is not None and fit.kind == "chi":
            model = model_of_level(seen, "chi", fit.parameters[1])
        else:
            model = model_of_level(seen, "gaussian" if fit is None else fit.kind)
        return dataclasses.replace(model, evidence=(reason, *model.evidence))
    if kind == "poisson":
        line = (
            simplest_line(seen, fit_line(seen.curve), seen.curve) if len(seen.curve.variance) >= FEWEST_BINS else None
        )
        return model_of_counts(seen, line)
    if kind == "curve":
        return model_of_curve(seen)
    if kind == "chi" and coils is None:
        coils = coils_in_air(seen)
    model = model_of_level(seen, kind, 1.0 if impossible else coils or 1.0)
    return dataclasses.replace(model, evidence=(not_magnitudes(lowest),) * impossible + model.evidence)


@in_one_thread
def kind_of_one(
    volume: Tensor,
    kind: str,
    inside: Tensor | None,
    possible: Collection[str],
    coils: float | None,
    likely: str | None,
) -> NoiseModel:
    """Find the kind of noise of one volume as `model_of_volume` does, but neither its level nor its correlation, which
    take longest: a model without sigma.

    Args:
        volume: as for `model_of_volume`, and so are the others.
        kind: ``"auto"``, or the kind of magnitudes or Gaussian noise.
        inside: where to look.
        possible: kinds that are possible besides Gaussian noise, of which none follows the intensity.
        coils: number of coils for ``"chi"``.
        likely: what the noise is where the volume does not speak against it.

    Raises:
        ValueError: the number of coils cannot be read.
    """
    lowest, highest = (float(end) for end in volume.aminmax())
    if possible_kind(kind, lowest) != kind:
        return NoiseModel(evidence=(not_magnitudes(lowest),))
    if kind != "auto" and not (kind == "chi" and coils is None):
        return NoiseModel(kind=kind, coils=coils or 1.0)
    if shows_nothing(volume, lowest, highest):
        return NoiseModel(kind="gaussian" if kind == "auto" else kind, evidence=(NOTHING_SEEN,))
    if lowest < 0:
        return NoiseModel(evidence=(NEGATIVE,))
    seen = observed(volume, inside, highest)
    if kind == "chi":
        return NoiseModel(kind=kind, coils=coils_in_air(seen))
    fit, reason = kind_of_volume(seen, possible, likely)
    if fit is None:
        return NoiseModel(evidence=(reason,))
    return NoiseModel(kind=fit.kind, coils=fit.parameters[1] if fit.kind == "chi" else 1.0, evidence=(reason,))


def shows_nothing(volume: Tensor, lowest: float, highest: float) -> bool:
    """Whether a volume is constant, or too small to look at."""
    return lowest == highest or max(volume.shape) < 3


def observed(volume: Tensor, inside: Tensor | None, peak: float) -> Observed:
    """Measure what there is at each voxel of a volume whose largest absolute value is `peak`."""
    measured = measured_voxels(volume)
    around = finest_detail_by_slabs(volume, peak, inside, measured)
    usable, scaled = usable_of(around), volume / peak
    return Observed(
        scaled, inside, measured, peak, around, variance_curve(around, usable), air_of(scaled, around, usable)
    )


def coils_in_air(seen: Observed) -> float:
    """Return the number of coils that the air of a volume shows."""
    if seen.air.coils is None:
        raise ValueError("the volume shows no air to read the number of coils from; give coils or noise='rician'")
    return seen.air.coils


def usable_of(around: DetailMaps) -> Tensor:
    """Tell which voxels count: those with measurements all around, in the mask if there is one."""
    return around.usable if around.inside is None else around.usable & around.inside


NOTHING_SEEN = "there is nothing but one value, or too little of it, so there is no noise"


NEGATIVE = "there are negative values, which neither magnitudes nor counts have, so the noise is Gaussian"


# ---------------------------------------------------------------- the kind


def kind_of_volume(seen: Observed, possible: Collection[str], likely: str | None) -> tuple[Fit | None, str]:
    """Find the kind of noise, and say why. None where the volume does not show it, which then counts as Gaussian."""
    curve = seen.curve
    if len(curve.variance) < FEWEST_BINS:
        return None, "there are too few intensities to see a kind of noise, so it counts as Gaussian"
    bounds = variance_bounds(seen.volume, seen.measured, seen.inside)
    if "curve" in possible and follows_a_curve(curve, bounds):
        return Fit("curve", 0.0, ()), "the noise of flat parts is far from one level, magnitudes and photon counts"
    if bool((seen.volume < 0).any()):
        return None, NEGATIVE
    first_fit = kind_of_noise(curve, seen.air, possible)
    fit = second_opinion(first_fit, curve, bounds, possible)
    if fit.kind == "poisson":
        fit = simplest_line(seen, fit, curve if fit is first_fit else bounds)
        no_photon = offset_of(fit) - fit.parameters[0]  # surely none, as brightness is the mean of 27 values
        if share_below(seen.around.brightness[seen.around.usable], no_photon) > MOST_BELOW_OFFSET:
            fit = kind_of_noise(curve, seen.air, set(possible) - {"poisson"})
    if fit.kind == "gaussian" and likely == "rician":
        magnitudes = fit_magnitudes(curve)
        if magnitudes.cost < fit.cost + CLEARLY / 2:
            return magnitudes, "the scan is a magnitude image, and nothing speaks against Rician noise"
    first, last = curve.intensity[[0, -1]] * seen.peak
    lowest, highest = (math.sqrt(curve.variance[end]) * seen.peak for end in (0, -1))
    between = f"from {lowest:.3g} at intensity {first:.3g} to {highest:.3g} at {last:.3g}"
    if fit.kind == "poisson":
        return fit, f"the deviation rises {between}, and its square in a straight line, as that of photon counts does"
    if fit.kind in MAGNITUDES:
        several = "" if fit.kind == "rician" else f" of {fit.parameters[1]:.3g} coils"
        return fit, f"the deviation goes {between}: weaker in the dark, as in magnitude images{several}"
    return fit, f"the deviation goes {between}: no trend that speaks for another kind than Gaussian noise"


def simplest_line(seen: Observed, line: Fit, curve: VarianceCurve) -> Fit:
    """Return the line through zero instead of a line fitted to a curve of variance, if it explains nearly as much.

    An offset above some of the values is less likely, and does more harm, than any other error of the line.
    """
    simple, offset = fit_line_through_zero(curve), offset_of(line)
    below = offset > 0 and share_below(without_border(seen.volume)[seen.around.usable], offset) > MOST_BELOW_OFFSET
    surer = CLEARLY if below else CLEARLY / 4 if offset <= 0 else 0.0
    return simple if simple.cost < line.cost + surer else line


def offset_of(line: Fit) -> float:
    """Return the intensity at which a line of variance against intensity says that there is no photon at all."""
    slope, at_zero = line.parameters
    return -at_zero / slope


def share_below(values: Tensor, limit: float) -> float:
    return float((values < limit).double().mean())


MOST_BELOW_OFFSET = 0.005
"""Share of values, and of the means around voxels, that may be below the offset of a detector."""


# ---------------------------------------------------------------- the level, and the correlation


def model_of_level(seen: Observed, kind: str, coils: float = 1.0) -> NoiseModel:
    """Find level and correlation of noise that is Gaussian, apart from the bias of magnitudes."""
    fine = sigma_of_detail(seen.around, "rician" if kind in MAGNITUDES else kind)
    found, inside, where = flat_blocks(seen, kind, fine)
    if found is not None and found.sigma > 0 and not are_enough(found, fine):
        found = None
    evidence, white, sigma = [], True, fine
    air = 0.0
    if kind in MAGNITUDES and seen.air.coils is not None:
        air = sigma_of_air(seen.air.mean, coils)
    fine_in_air = CLOSE < air / max(fine, LEAST_LEVEL) < 1 / CLOSE
    if found is not None and found.sigma == 0:
        evidence.append("the flattest blocks hold no noise at all")
    elif found is not None:
        ratio = fine / found.sigma
        response = response_of_finest(found.autocovariance)
        surely = found.blocks >= SEVERAL_BLOCKS and response < NEARLY_WHITE
        white = fine_in_air or not (surely or max(ratio, response) <= WHITE_RATIO)
        if not white:
            found = measured_again(found, seen.volume, inside, seen.measured)
        sigma = found.sigma if not white or flat_blocks_are_surer(found, fine, kind, seen) else fine
        evidence.append(
            f"{found.blocks} flat blocks {where} have a standard deviation of {found.sigma * seen.peak:.4g}"
        )
        evidence.append(
            f"the finest detail has {fine * seen.peak:.4g}, {ratio:.0%} of that; white noise would have all of it"
        )
    lags, blocks = (None, None) if found is None or white else (found.autocovariance, found.blocks)
    low, high = AIR_AGREES[white]
    seen_white = found is not None and found.sigma > 0 and white
    if air > high * sigma and seen.air.share > MUCH_AIR and not seen_white:  # no signal, but smoother than white noise
        in_air = correlation_in_air(seen.volume, seen.measured, seen.around, seen.air)
        if in_air is not None and response_of_finest(in_air) < NEARLY_WHITE:
            lags, sigma, blocks = in_air, air, None
            evidence.append("neighbours correlate in the air")
    if low < air / max(sigma, LEAST_LEVEL) < high:
        evidence.append(f"the air has the mean of magnitudes without signal for a sigma of {air * seen.peak:.4g}")
        sigma = air
    if lags is not None:
        evidence += ["so the noise of neighbours is correlated", *zero_filling(seen.volume)]
    elif found is None or found.sigma == 0:
        evidence.append("there are too few flat blocks to see a correlation, so the noise counts as white")
    else:
        evidence.append("so the noise is white")
    step = grey_step(seen.volume)
    if sigma < WEAK * step:
        evidence.append(
            f"the noise is weaker than the step of {step * seen.peak:.4g} between grey values: little can be removed"
        )
    correlation = None if lags is None else checked_correlation(lags)
    model = NoiseModel(
        kind=kind, sigma=sigma * seen.peak, coils=coils, correlation=correlation, evidence=tuple(evidence)
    )
    weakest = math.sqrt(seen.curve.variance.min()) * seen.peak if len(seen.curve.variance) else None
    return dataclasses.replace(model, doubts=doubts_about(model, weakest, blocks))


def are_enough(found: CorrelatedNoise, fine: float) -> bool:
    """Whether flat blocks are believed: many, or a few of very many, whose noise is far above the finest detail, but
    not as smooth as texture."""
    few = found.blocks >= FEWEST_OF_MANY and found.of >= MANY_LOOKED_AT and found.sigma > FAR_ABOVE * fine
    return found.blocks >= FEWEST_CHOSEN or (few and largest_with_next(found.autocovariance.numpy()) <= AS_TEXTURE)


def flat_blocks_are_surer(found: CorrelatedNoise, fine: float, kind: str, seen: Observed) -> bool:
    """Whether white noise is as strong as in the flat blocks, and the finest detail of the object holds structure too.

    The blocks may lie in air, where scanners filter more. So either the two must be close, or tissue somewhere must be
    as flat. Magnitudes are weaker in the air, which says nothing about the object.
    """
    if kind != "gaussian" or found.blocks < MANY_BLOCKS or seen.air.coils is not None or found.sigma >= fine:
        return False
    brighter = seen.curve.variance[2:]
    return found.sigma > CLOSE * fine or bool((brighter < (found.sigma / CLOSE) ** 2).any())


WEAK = 0.5
"""Sigma relative to the step between grey values below which rounding takes most of the noise for itself."""

MANY_BLOCKS = 500
"""Flat blocks that give sigma within 1 %."""

CLOSE = 0.8
"""Ratio of two standard deviations that are taken for the same."""

AIR_AGREES = {True: (0.5, 1.2), False: (0.85, 1.2)}
"""Sigma in the air relative to that in the object between which the air is taken, for white and for correlated noise.
Structure makes the latter too large. Far less noise in the air means that the air was filtered."""

LEAST_LEVEL = 1e-38

FEWEST_OF_MANY, MANY_LOOKED_AT, FAR_ABOVE = 11, 1000, 3.0
"""Flat blocks that are believed, with a doubt, if they are of so many and their noise is so many times the finest
detail: white noise among structure is up to 2.1 times that."""


def flat_blocks(seen: Observed, kind: str, fine: float) -> tuple[CorrelatedNoise | None, Tensor | None, str]:
    """Level and correlation from flat blocks, where these were looked for, and that in words.

    Air counts too, as long as its noise is that of the object. In a magnitude image it is weaker, and a scanner may
    have filtered it. `fine` is the deviation of the finest detail.
    """
    inside, where = seen.inside, "anywhere" if seen.inside is None else "in the mask"
    if inside is None and (kind in MAGNITUDES or seen.air.coils is not None):
        found, bright = flat_blocks_of_object(seen)
        if found is not None:
            return found, bright, "in the object"
    found = estimate_correlated_noise(seen.volume, inside, seen.measured)
    if inside is None and found is not None and is_smooth_and_far_below(found, fine):
        stronger, bright = flat_blocks_of_object(seen)
        if stronger is not None and are_enough(stronger, fine) and was_filtered(found, stronger, fine):
            return stronger, bright, "in the object, as the air was filtered,"
    return found, inside, where


def flat_blocks_of_object(seen: Observed) -> tuple[CorrelatedNoise | None, Tensor]:
    """Level and correlation from flat blocks of the object, and where that is."""
    bright = seen.volume > object_threshold(seen.volume)
    return estimate_correlated_noise(seen.volume, bright, seen.measured), bright


def is_smooth_and_far_below(found: CorrelatedNoise, fine: float) -> bool:
    """Whether correlated noise of flat blocks holds far less of the finest detail than the object does."""
    response = response_of_finest(found.autocovariance)
    return response < NEARLY_WHITE and fine > MORE_DETAIL * response * found.sigma > 0


def was_filtered(air: CorrelatedNoise, tissue: CorrelatedNoise, fine: float) -> bool:
    """Whether the noise of the air is that of the object, but far weaker. Structure is smooth in another way."""
    of_air, of_tissue = (response_of_finest(found.autocovariance) for found in (air, tissue))
    alike = of_tissue < AS_SMOOTH * of_air and of_air < AS_SMOOTH * of_tissue
    return alike and tissue.sigma > FAR_ABOVE * air.sigma and fine > LESS_DETAIL * of_tissue * tissue.sigma


LESS_DETAIL, MORE_DETAIL, AS_SMOOTH = 0.5, 2.5, 1.6
"""Finest detail of the object relative to that of noise: less than the first speaks against noise that was found in the
object; more than the second against noise that may have been found in filtered air. And how far the shares of finest
detail in the noise of both may differ."""


# ---------------------------------------------------------------- counts


def model_of_counts(seen: Observed, line: Fit | None) -> NoiseModel:
    """Find gain, offset, read noise and correlation of photon counts.

    The line gives the variance of the finest detail. What all intensities say together shows once the noise is equally
    strong everywhere: if it is correlated, and how much stronger it is.
    """
    if line is None or line.parameters[0] <= 0:
        reason = "the variance does not rise with intensity, so the values count as photons, without read noise"
        return NoiseModel(kind="poisson", sigma=0.0, evidence=(reason,))
    slope, at_zero = refined_line(line, seen.around, usable_of(seen.around)).parameters
    model = calibrated(
        seen,
        NoiseModel(
            kind="poisson",
            gain=slope,
            offset=max(0.0, -at_zero / slope),  # never -0
            sigma=math.sqrt(max(0.0, at_zero)),
        ),
    )
    gain, offset, read_noise = (seen.peak * value for value in model.detector)
    said = f"the line gives a gain of {gain:.4g}, an offset of {offset:.4g} and a read noise of {read_noise:.4g}"
    return dataclasses.replace(model, sigma=read_noise, gain=gain, offset=offset, evidence=(said, *model.evidence))


def calibrated(seen: Observed, model: NoiseModel) -> NoiseModel:
    """Make noise that follows the intensity as strong as it is once stabilised, and find its correlation there."""
    correlation: npt.ArrayLike | None = None
    evidence: tuple[str, ...] = ("the noise is white",)
    for _ in range(CALIBRATIONS):
        stabilised = model_of_volume(model.stabilise(seen.volume.double()), "gaussian", seen.inside)
        level = stabilised.sigma or 0.0
        if level <= (1.0 if stabilised.correlation is None else 0.0):  # white noise below 1 was found too weak there
            break
        correlation, evidence = stabilised.correlation, stabilised.evidence
        model = model.times(level)
    said = tuple(f"once stabilised, {sentence}" for sentence in evidence)
    return dataclasses.replace(model, correlation=correlation, evidence=said)


CALIBRATIONS = 2
"""The first calibration brings the deviation of the stabilised noise to 1 within a few per cent, the second within
one."""


def model_of_curve(seen: Observed) -> NoiseModel:
    """Find the level of the noise at each intensity; one for all where too few intensities, or no noise, are seen."""
    curve = seen.curve
    if len(curve.variance) < FEWEST_BINS or curve.span < LEAST_SPAN:
        one = model_of_level(seen, "gaussian")
        doubt = (
            "there are too few intensities to see how the noise follows them, so one sigma counts for all: give curve"
        )
        if not one.sigma:
            return one
        ends = (float(end) * seen.peak for end in seen.volume.aminmax())
        level = [(end, one.sigma) for end in ends]
        return dataclasses.replace(one, kind="curve", sigma=None, curve=level, doubts=(doubt,))
    bounds = variance_bounds(seen.volume, seen.measured, seen.inside)
    points = (values.tolist() for values in level_over_intensity(curve, bounds))
    model = calibrated(seen, NoiseModel(kind="curve", curve=gentle_curve(tuple(zip(*points, strict=True)))))
    found = np.array(model.told_curve) * seen.peak
    least, most = (found[number(found[:, 1])] for number in (np.argmin, np.argmax))
    (first, before), (last, after) = sorted((least.tolist(), most.tolist()))
    goes = "rises" if before < after else "falls"
    said = f"in flat parts the deviation {goes} from {before:.3g} at intensity {first:.3g} to {after:.3g} at {last:.3g}"
    return dataclasses.replace(model, curve=found, evidence=(said, *model.evidence))
