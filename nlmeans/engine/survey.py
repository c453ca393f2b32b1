"""Survey a volume before it is cut into tiles: its noise, and the range of its values, read piece by piece."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from nlmeans.core import arrays
from nlmeans.core.layout import Layout
from nlmeans.core.metrics import Removed
from nlmeans.core.tiles import Piece, common, piece, shifted
from nlmeans.engine.noise import Noise
from nlmeans.engine.pieces import pieces_to_read
from nlmeans.engine.settings import Settings
from nlmeans.noise.kinds import MAGNITUDES, check_counts, kind_in_words, not_magnitudes, possible_kind
from nlmeans.noise.model import NoiseModel, with_next_voxel

log = logging.getLogger("nlmeans")


@dataclass(frozen=True)
class Facts:
    """Facts about one volume, in plain numbers, so that a record can store them for a run that is resumed later."""

    sigma: tuple[float, ...]
    """Standard deviation of the noise in each channel; with a map of sigma, its largest value; where the noise model
    varies, what its variation is relative to. 0 for no noise."""
    shift: tuple[float, ...]
    """Middle of each channel's range, which is subtracted, so that a constant channel comes back exactly."""
    contrast: float
    """Range of the values in units of the largest sigma, averaged over the channels. The default of h depends on it."""
    noise: NoiseModel
    """The noise, as it is stated or found. Where it follows the intensity, `sigma` and `shift` are those of the
    stabilised volume. Its own sigma counts only for Poisson noise, as the read noise of the detector."""

    @property
    def unit(self) -> float:
        """Unit of h: the mean of sigma over the channels that have noise; 1 if none has."""
        noisy = [sigma for sigma in self.sigma if sigma > 0]
        return sum(noisy) / len(noisy) if noisy else 1.0

    @property
    def autocovariance(self) -> Tensor | None:
        """Autocovariance of the noise in units of sigma², with lag 0 in the middle; None for white noise."""
        lags = self.noise.autocovariance
        return None if lags is None else torch.from_numpy(lags)

    def to_dict(self) -> dict[str, Any]:
        """Return the facts by name."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Facts:
        """Make facts from their values by name. Lists, which JSON has instead of tuples, become tuples.

        >>> facts = Facts((8.0,), (127.5,), 31.9, NoiseModel(sigma=8.0))
        >>> Facts.from_dict({**facts.to_dict(), "sigma": [8.0]}) == facts
        True
        """
        arguments: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**{**arguments, "noise": NoiseModel.from_dict(arguments["noise"])})


def settled(settings: Settings, facts: Facts) -> Settings:
    """Return settings that state the noise as it is known for one volume, so that nothing is looked for again."""
    noise = facts.noise
    stated: dict[str, Any] = {"noise": noise.kind, "coils": noise.coils if noise.kind == "chi" else None}
    stated["curve"] = noise.curve
    if settings.sigma == "map":
        return dataclasses.replace(settings, **stated)
    if noise.kind == "poisson":
        stated |= {"gain": noise.gain, "offset": noise.offset}
    sigma = noise.sigma if noise.follows_intensity else facts.sigma if len(set(facts.sigma)) > 1 else facts.sigma[0]
    if settings.sigma is not None:
        sigma = settings.sigma
    stated |= {"correlation": noise.correlation, "variation": noise.variation}
    return dataclasses.replace(settings, sigma=sigma, **stated)


def levels_of(known: Sequence[Facts]) -> tuple[float, ...] | None:
    """Return sigma of each channel of each volume; None for noise that follows the intensity."""
    return None if known[0].noise.follows_intensity else tuple(sigma for facts in known for sigma in facts.sigma)


def noise_in_words(known: Sequence[Facts], sigma: str = "") -> str:
    """Say what the noise of one or several volumes is.

    Args:
        known: the facts of each volume.
        sigma: what is said of sigma if it is not a number.

    >>> facts = [Facts((sigma,), (0.0,), 1.0, NoiseModel(sigma=sigma)) for sigma in (8.0, 12.0)]
    >>> noise_in_words(facts[:1]), noise_in_words(facts)
    ('gaussian noise, sigma 8', 'gaussian noise, sigma 8 to 12 over 2 volumes')
    """
    first, levels = known[0].noise, levels_of(known)
    if sigma:
        return f"{dataclasses.replace(first, sigma=None, variation=None)}, sigma {sigma}"
    if levels is None or (len(known) == 1 and len(set(levels)) == 1):
        return str(first)
    kinds = " or ".join(sorted({kind_in_words(facts.noise.kind) for facts in known}))
    correlated = sum(facts.noise.correlation is not None for facts in known)
    text = f"{kinds} noise, sigma {min(levels):.4g} to {max(levels):.4g} over {len(levels)} volumes"
    return text + (f", correlated in {correlated} of {len(known)}" if correlated else "")


@dataclass(frozen=True)
class Judgement:
    """What was removed says about a result. The one place where results are judged; all doors show these words."""

    share: float
    """Deviation of what was removed, in units of sigma: about 1 if it is all of the noise and nothing else."""
    surplus: float
    """Largest correlation of neighbours in what was removed, beyond that of the noise: about 0 if it is noise alone."""
    enough: bool = True
    """Whether there are enough voxels to judge by."""
    rounded: bool = False
    """Whether the noise is too weak to be seen between whole numbers."""

    @property
    def in_words(self) -> str:
        """A few words, and what to do; empty if there are too few voxels to say anything.

        >>> Judgement(1.0, 0.0).in_words, Judgement(0.4, 0.0).in_words, Judgement(1.1, 0.3).in_words
        ('looks like noise alone', 'noise left: raise the strength', 'structure removed: lower the strength')
        """
        if self.rounded:
            return "noise weaker than a grey step: nothing to do"
        if not self.enough:
            return ""
        if self.surplus > STRUCTURED or self.share > TOO_MUCH_REMOVED:
            return "structure removed: lower the strength"
        return "noise left: raise the strength" if self.share < NOISE_LEFT else "looks like noise alone"

    @property
    def doubt(self) -> str:
        """What speaks against a result at the method's own strength, in one line; empty if nothing does.

        >>> Judgement(0.5, 0.0).doubt
        ''
        """
        if self.enough and self.surplus > STRUCTURED:
            return (
                f"structure may have been removed: neighbours correlate by {self.surplus:.2f} more in what was removed "
                "than in the noise that was found; try a smaller strength, or give sigma"
            )
        if self.enough and self.share < LITTLE_REMOVED:
            return (
                f"hardly any noise was removed: {self.share:.0%} of what there is by the model; look at the noise "
                "that was found, or give sigma"
            )
        return ""


def judgement_of(removed: Removed, noise: NoiseModel, rounded: bool = False) -> Judgement | None:
    """Judge a result by what was removed; None if nothing was denoised.

    >>> judgement_of(Removed(voxels=10_000, squares=100.0), NoiseModel(sigma=5.0))
    Judgement(share=0.1, surplus=0.0, enough=True, rounded=False)
    """
    if not removed.voxels:
        return None
    of_noise = with_next_voxel(noise.correlation)
    surplus = max(found - (usual or 0.0) for found, usual in zip(removed.in_common, of_noise, strict=True))
    return Judgement(removed.deviation, surplus, removed.voxels >= FEWEST_TO_JUDGE, rounded)


FEWEST_TO_JUDGE = 2000
"""Voxels from which a result is judged."""

LITTLE_REMOVED, STRUCTURED = 0.3, 0.1
"""The share of the noise that is little, and the correlation of neighbours, in what was removed, that noise does not
have. Of random compositions of volumes, noise and defects, good results have up to 0.04, bad ones from 0.13
(benchmarks/compositions.py)."""

NOISE_LEFT, TOO_MUCH_REMOVED = 0.6, 1.25
"""Shares of the noise between which a result looks right. Of the sample data, slices have 0.69 to 0.95 by several
methods at their own strength, at most 0.46 at half of it, and correlated noise 1.3 where h is four times too large."""

FEELABLE = 0.35
"""Sigma in steps between whole numbers below which rounding, 0.29 of a step, hides the noise."""

NOTHING_FOUND = "no noise was found, so nothing was changed; if there is noise, give sigma"


def survey_volume(
    volume: arrays.Source, index: int, layout: Layout, settings: Settings, noise: Noise, region: Piece
) -> Facts:
    """Collect the facts of a volume of which only a region will be denoised.

    Raises:
        ValueError: the region holds infinite values.
    """
    if noise.model.kind != "gaussian":  # what such noise cannot be is decided for the whole volume
        region = layout.everywhere
    seen = look_through(volume, index, layout, settings, region)
    if index == 0:
        say_missing(seen)
    return facts_of(seen, settings, noise)


def say_missing(seen: list[Seen]) -> None:
    """Say how many voxels are NaN, if any."""
    missing = sum(channel.missing for channel in seen)
    if missing:
        log.warning("%d voxels are NaN: they count as outside, and stay as they are", missing)


def facts_of(seen: list[Seen], settings: Settings, noise: Noise) -> Facts:
    """Compute the facts of a volume from what was seen of each channel. Magnitudes below 0 count as Gaussian.

    Raises:
        ValueError: the result does not fit its dtype, or the values are too low for photon counts.
    """
    ranges = [channel.range if channel.range[0] <= channel.range[1] else (0.0, 0.0) for channel in seen]
    values = [channel.values for channel in seen]
    if settings.dtype is not None:
        for low, high in ranges:
            arrays.check_holds(settings.dtype, low, high, "volume")
    model, lowest = noise.model, min(low for low, _ in ranges)
    if any(possible_kind(kind, lowest) != kind for kind in (model.kind, settings.kind)):
        model = dataclasses.replace(model, kind="gaussian", coils=1.0, evidence=(not_magnitudes(lowest),))
    if settings.noise == "poisson":
        check_counts(lowest, *model.detector[1:])
    limits = [model.stabilise(torch.tensor(r, dtype=torch.float64)).tolist() for r in ranges]
    ranges = [(low, high) for low, high in limits]
    values = [model.stabilise(some) for some in values]
    peaks = (max(-low, high) for low, high in ranges)
    sigma = tuple(s if 0 < peak * NEGLIGIBLE < s else 0.0 for s, peak in zip(noise.sigma, peaks, strict=True))
    middles = tuple(low / 2 + high / 2 for low, high in ranges)
    most = 1.0 if model.variation is None else float(np.max(model.variation))
    spans = [robust_span(some) / (s * most) for some, s in zip(values, sigma, strict=True) if s > 0 and len(some)]
    return Facts(sigma, middles, sum(spans) / max(len(spans), 1), model)


def why_gaussian(settings: Settings, found: NoiseModel, known: NoiseModel) -> str:
    """Say that magnitudes count as Gaussian, where they were stated or found; nothing otherwise.

    Args:
        settings: as the user gave them.
        found: the noise before the survey of the whole volume.
        known: and after it.
    """
    stated = settings.kind if settings.kind in MAGNITUDES else found.kind
    if stated not in MAGNITUDES or known.kind in MAGNITUDES:
        return ""
    why = known.evidence[0] if known.evidence else "there are negative values"
    return (
        f"noise={stated!r} does not fit: {why}; denoise before intensities are shifted or scaled, set "
        "values that interpolation left below 0 to 0, or give noise='gaussian'"
    )


NEGLIGIBLE = 1e-12
"""Sigma relative to the largest absolute value below which it counts as 0: values / sigma would overflow float32."""


class Seen(NamedTuple):
    """Range and sampled values of one channel."""

    range: tuple[float, float]
    """Smallest and largest value; inf and -inf if nothing was seen."""
    values: Tensor
    """Evenly spaced values, float64. Only the default of h needs them; if h is given, there are none."""
    missing: int = 0
    """Number of voxels that are NaN."""


def look_through(volume: arrays.Source, index: int, layout: Layout, settings: Settings, region: Piece) -> list[Seen]:
    """Find the range of a region, and sample evenly spaced values of the whole volume."""
    seen = []
    for box in pieces_to_read(volume, layout, settings, region if settings.h is not None else layout.everywhere):
        stored = arrays.fetch(volume, layout.index(index, box))
        seen.append(look_at(stored, box, layout, region, settings.h is None))
    return merge_seen(seen)


def look_at(stored: arrays.Array, box: Piece, layout: Layout, region: Piece, strided: bool) -> list[Seen]:
    """Find the range within one box, and sample evenly spaced values of it.

    Args:
        stored: the box of one volume, as it was read.
        box: where it lies in the volume.
        layout: what the axes of the whole array are.
        region: the part of the volume that counts for the range.
        strided: whether to sample values.
    """
    inside = shifted(common(box, region), box)
    ranges, missing = [(math.inf, -math.inf)] * layout.channel_count, [0] * layout.channel_count
    if all(side.start < side.stop for side in inside):
        for number, place in enumerate(layout.channel_pieces(0, inside)):
            channel = arrays.contiguous(stored[place])  # one in which voxels are far apart is read slowly
            ranges[number], holes = arrays.known_range(channel, "volume"), arrays.is_nan(channel)
            missing[number] = 0 if holes is None else int(holes.sum())
    if not strided:
        return [Seen(limits, torch.empty(0), count) for limits, count in zip(ranges, missing, strict=True)]
    lengths = [n for n in layout.shape if n > 1]
    stride = math.ceil((math.prod(lengths) / SPAN_VOXELS) ** (1 / max(len(lengths), 1)))
    every = piece([slice(-side.start % stride, side.stop - side.start, stride) for side in box])
    places = layout.channel_pieces(0, every)
    values = [arrays.read(stored, place, torch.float64, torch.device("cpu")).flatten() for place in places]
    known = [some[~some.isnan()] for some in values]
    return [Seen(*facts) for facts in zip(ranges, known, missing, strict=True)]


def merge_seen(boxes: list[list[Seen]]) -> list[Seen]:
    """Merge what was seen of each channel in several boxes of a volume."""
    together = []
    for channel in zip(*boxes, strict=True):
        lows, highs = zip(*(seen.range for seen in channel), strict=True)
        missing = sum(seen.missing for seen in channel)
        together.append(Seen((min(lows), max(highs)), torch.cat([seen.values for seen in channel]), missing))
    return together


SPAN_VOXELS = 2**17
"""Number of evenly spaced voxels that suffice to know the robust range of a volume."""


def robust_span(values: Tensor) -> float:
    """Return the range of values without the lowest and highest half per cent."""
    low, high = np.quantile(values.numpy(), [0.005, 0.995])  # faster than torch.quantile, which sorts
    return float(high - low)
