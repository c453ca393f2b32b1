"""The noise of a volume: as the settings state it, and where they do not, as it is found in the volume."""

from __future__ import annotations

import dataclasses
import logging
import math
from typing import NamedTuple, NoReturn

import numpy as np
import torch

from nlmeans.core import arrays, checks
from nlmeans.core.layout import Layout
from nlmeans.engine.pieces import pieces_to_read
from nlmeans.engine.series import MEASURED, autocovariance_of_series, measured_patches, read_volumes, series_pieces
from nlmeans.engine.settings import Settings, is_auto
from nlmeans.noise.kinds import FOLLOWING, MAGNITUDES, kinds_of
from nlmeans.noise.model import NoiseModel, checked_correlation
from nlmeans.noise.search.acquired import zero_filling
from nlmeans.noise.search.correlation import deviation_of_finest
from nlmeans.noise.search.curve import magnitudes_of_series
from nlmeans.noise.search.estimate import (
    sampled_channels,
    sampled_places,
    sigma_levels,
    sigma_maps,
    sigma_of_volume,
)
from nlmeans.noise.search.found import kind_of_one, model_of_volume
from nlmeans.noise.search.uneven import model_of_sample
from nlmeans.noise.search.usable import range_without_ends
from nlmeans.patches.low_rank.measured import sigma_everywhere

log = logging.getLogger("nlmeans")


class Noise(NamedTuple):
    """Noise of one volume, given or estimated."""

    model: NoiseModel
    """For Poisson noise, its sigma is the read noise of the detector."""
    sigma: tuple[float, ...]
    """Standard deviation in each channel; with a map, its largest value."""
    map: arrays.Source | None
    """Sigma at every voxel, if it varies in space."""


def noise_of(
    volume: arrays.Source,
    index: int,
    layout: Layout,
    settings: Settings,
    mask: arrays.Source | None,
    sigma_map: arrays.Source | None,
    joint: bool = False,
) -> Noise:
    """Find the noise of one volume: as the settings give it, or estimated.

    Args:
        volume: the array, with all volumes of the series.
        index: number of the volume.
        layout: what the axes of `volume` are.
        settings: how to denoise.
        mask: which voxels to estimate sigma from.
        sigma_map: sigma at every voxel, if it was given.
        joint: whether the channels are the volumes of a series, whose noise is what they do not have in common.

    Raises:
        ValueError: sigma does not fit the volume or the kind of noise.
    """
    stated, channels = settings.stated, layout.channel_count
    if settings.noise in FOLLOWING:
        if sigma_map is not None:
            refuse_map(settings.noise)
        if settings.finds_noise:
            return found_following(volume, index, layout, settings, mask)
        model = stated
        if settings.noise == "poisson":
            model = dataclasses.replace(stated, sigma=read_noise_of(index, layout, settings))
        if tuple(volume.shape) == layout.array_shape:  # a graph of dask is built before anything is read
            warn_of_units(volume, index, layout, settings, mask, model)
        return Noise(model, (1.0,) * channels, None)
    if sigma_map is not None:
        layout.spatial(sigma_map, "sigma")
        own = Layout.of(sigma_map, None, None, "sigma")
        limits = [
            arrays.value_range(arrays.fetch(sigma_map, own.index(0, box)), "sigma")
            for box in pieces_to_read(sigma_map, own, settings, own.everywhere)
        ]
        checks.not_negative("sigma", min(low for low, _ in limits))
        return Noise(stated, (max(high for _, high in limits),) * channels, sigma_map)
    if settings.sigma in (None, "map") and not settings.finds_noise and stated.correlation is not None:
        raise ValueError(
            f"correlation is given, but sigma={settings.sigma!r} would be estimated from differences of "
            "neighbours, which correlated noise makes too small; give sigma, or the model of nlmeans.estimate_noise"
        )
    if joint and settings.sigma in (None, "map"):
        return noise_of_series(volume, layout, settings, mask)
    if settings.sigma == "map":
        return estimated_map(volume, index, layout, settings, mask)
    if settings.finds_noise:
        return found_noise(volume, index, layout, settings, mask)
    if settings.sigma is None:
        found = sigma_levels(volume, index, layout, stated.kind, mask, settings.memory, settings.despeckle)
        log.info("estimated sigma %s", found)
        return Noise(dataclasses.replace(stated, sigma=found[0]), found, None)
    levels = given_sigma(settings.sigma, index, layout)
    return Noise(dataclasses.replace(stated, sigma=levels[0]), levels, None)


def refuse_map(noise: str) -> NoReturn:
    """Raise ``ValueError`` for a map of sigma with noise whose level follows the intensity."""
    if noise == "poisson":
        raise ValueError("with noise='poisson', sigma is the read noise of the detector; give a number, not a map")
    raise ValueError(
        f"a map of sigma does not fit noise={noise!r}, whose level is a curve over intensity; give one of them"
    )


PROBED = 4
"""Most channels of a volume that are searched for a noise model. The others get their own sigma, or share a curve."""


def found_noise(
    volume: arrays.Source,
    index: int,
    layout: Layout,
    settings: Settings,
    mask: arrays.Source | None,
    may_follow: bool = True,
) -> Noise:
    """Find the noise model of one volume, with what is stated left as it is.

    Channels share one model: of the kind that all agree on, and correlated if all are. Each has its own sigma.
    `may_follow` says whether the level may follow the intensity.
    """
    count = layout.channel_count
    possible, likely = kinds_of(settings.modality)
    if count > 1 or not may_follow:  # channels share one model, but not one detector
        possible = tuple(kind for kind in possible if kind not in FOLLOWING)
    models: dict[int, NoiseModel] = {}
    fine, places = [], sampled_places(volume, layout, settings.memory)
    for channel, (values, inside) in enumerate(
        sampled_channels(volume, index, layout, mask, settings.memory, settings.despeckle)
    ):
        if channel % math.ceil(count / PROBED) == 0:
            models[channel] = model_of_sample(
                values,
                inside,
                layout.shape,
                places,
                settings.noise,
                possible,
                settings.coils,
                likely,
                is_auto(settings.variation),
            )
        fine.append(sigma_of_volume(values, "gaussian", inside) if count > 1 else 0.0)
    model = shared_model(list(models.values()))
    if not is_auto(settings.correlation):
        model = dataclasses.replace(model, correlation=settings.stated.correlation)
    log.info("found %s: %s", model, "; ".join(model.evidence))
    if model.follows_intensity:
        return Noise(model, (1.0,) * count, None)
    known = {channel: one.sigma or 0.0 for channel, one in models.items()}
    ratios = [sigma / fine[channel] for channel, sigma in known.items() if fine[channel] > 0]
    ratio = float(np.median(ratios)) if ratios else 1.0
    return Noise(model, tuple(known.get(channel, ratio * fine[channel]) for channel in range(count)), None)


def noise_of_series(volume: arrays.Source, layout: Layout, settings: Settings, mask: arrays.Source | None) -> Noise:
    """Find the noise of a series: its kind in some volumes, its level and correlation in what all do not share.

    The level is one number for all volumes, or a map where it varies in space.
    """
    model = settings.stated
    possible, likely = kinds_of(settings.modality)
    possible = tuple(kind for kind in possible if kind not in FOLLOWING)
    pieces = series_pieces(volume, layout, settings, MEASURED)
    lags = autocovariance_of_series(pieces, settings)
    if settings.noise == "auto" or settings.may_be_correlated:
        every = math.ceil(layout.channel_count / PROBED_OF_SERIES)
        probed = list(sampled_channels(volume, 0, layout, mask, settings.memory, settings.despeckle, every))
        shown = model_of_one_scanner(
            [kind_of_one(values, settings.noise, inside, possible, settings.coils, likely) for values, inside in probed]
        )
        evidence = list(shown.evidence[:1]) if shown.kind != settings.noise else []  # why it is of this kind
        if is_auto(settings.correlation):
            evidence += (
                ["what volumes do not share is white"]
                if lags is None
                else ["what volumes do not share is correlated between neighbours", *zero_filling(probed[0][0])]
            )
        correlation = None if lags is None else checked_correlation(lags)
        model = dataclasses.replace(shown, correlation=correlation, evidence=tuple(evidence))
    seen = measured_patches(pieces, layout, lags)
    sigmas = seen.sigma
    level = float(sigmas.median()) if len(sigmas) else 0.0
    low, high = sigmas.quantile(torch.tensor([0.16, 0.84], dtype=torch.float64)).tolist() if len(sigmas) else (0.0, 0.0)
    uneven = high - low > 2 * UNEVEN * level
    could_be = "rician" in possible and not bool((seen.intensity < 0).any())
    magnitudes = magnitudes_of_series(seen.intensity, seen.variance) if could_be and not uneven else None
    if magnitudes is not None and settings.noise == "auto" and model.kind == "gaussian":
        weaker = "what volumes do not share is weaker in the dark, as in magnitude images"
        model = dataclasses.replace(model, kind="rician", evidence=(weaker, *model.evidence))
    if magnitudes is not None and model.kind == "rician":
        level = magnitudes
    said = f"what {layout.channel_count} volumes do not share has a standard deviation of {level:.4g}"
    model = dataclasses.replace(model, sigma=level, evidence=(*model.evidence, said), doubts=())
    log.info("found %s: %s", model, "; ".join(model.evidence))
    if settings.sigma != "map" and not (uneven and arrays.in_memory(volume)):
        return Noise(model, (level,) * layout.channel_count, None)
    found = sigma_everywhere(read_volumes(volume, layout, layout.everywhere), lags).cpu().numpy() / seen.share
    log.info("the noise varies in space, from %.4g to %.4g", float(found.min()), float(found.max()))
    return Noise(model, (float(found.max()),) * layout.channel_count, found.reshape(layout.spatial_shape))


PROBED_OF_SERIES = 2
"""Volumes of a series that are searched for a noise model: the first, which often has the strongest signal, and one in
the middle."""

UNEVEN = 0.15
"""Relative deviation of sigma in space from which a map is used."""


def model_of_one_scanner(models: list[NoiseModel]) -> NoiseModel:
    """Return one model for volumes of one scanner: of the kind that shows in any of them, as others may hide it."""
    telling = [one for one in models if one.kind != "gaussian"]
    return shared_model(telling if len({one.kind for one in telling}) == 1 else models)


def shared_model(models: list[NoiseModel]) -> NoiseModel:
    """Return one model for several channels: Gaussian if they differ in kind, and correlated only if all are."""
    first = models[0]
    if len(models) == 1:
        return first
    differ = len({one.kind for one in models}) > 1
    lags = [one.autocovariance for one in models if one.autocovariance is not None]
    return dataclasses.replace(
        first,
        kind="gaussian" if differ else first.kind,
        coils=1.0 if differ else float(np.median([one.coils for one in models])),
        correlation=np.mean(lags, axis=0) if len(lags) == len(models) else None,
        variation=None,
        evidence=("the channels speak for different kinds of noise, so it counts as Gaussian",) * differ
        or first.evidence,
    )


def found_following(
    volume: arrays.Source, index: int, layout: Layout, settings: Settings, mask: arrays.Source | None
) -> Noise:
    """Find noise that follows the intensity; a read noise that is stated stays.

    A detector is found in the first channel, and a curve in the one of a few whose intensities reach farthest.
    """
    count = layout.channel_count
    every = math.ceil(count / PROBED) if settings.noise == "curve" else count
    probed = sampled_channels(volume, index, layout, mask, settings.memory, settings.despeckle, every)
    values, inside = max(probed, key=lambda one: np.ptp(range_without_ends(one[0].flatten())))
    model = model_of_volume(values, settings.noise, inside)
    if settings.sigma is not None:
        model = dataclasses.replace(model, sigma=read_noise_of(index, layout, settings))
    if not is_auto(settings.correlation):
        model = dataclasses.replace(model, correlation=settings.stated.correlation)
    log.info("found %s: %s", model, "; ".join(model.evidence))
    return Noise(model, (1.0 if model.follows_intensity else 0.0,) * count, None)


def warn_of_units(
    volume: arrays.Source,
    index: int,
    layout: Layout,
    settings: Settings,
    mask: arrays.Source | None,
    model: NoiseModel,
) -> None:
    """Warn if values vary much more or less than a detector or a curve as it is stated says: they have other units."""
    values, inside = next(sampled_channels(volume, index, layout, mask, settings.memory, settings.despeckle))
    found = sigma_of_volume(model.stabilise(values.double()), "gaussian", inside)
    lags = None if model.autocovariance is None else torch.from_numpy(model.autocovariance)
    varies = deviation_of_finest(found, lags)
    if varies is None or varies == 0 or 1 / OTHER_UNITS <= varies <= OTHER_UNITS:
        return
    if model.kind == "curve":
        log.warning(
            "noise varies %.2g times as much as the curve says: the values have other units, or the curve is that of "
            "other images; leave curve out, to find it in the volume",
            varies,
        )
    else:
        log.warning(
            "noise varies %.2g times as much as counts with gain=%g, offset=%g and a read noise of %g do: the values "
            "have other units; give gain='auto', which finds all three in the volume",
            varies, *model.detector,
        )  # fmt: skip


OTHER_UNITS = 2.0
"""Deviation of stabilised counts, which is 1 if the detector is right, from which it is not."""


def given_sigma(sigma: float | tuple[float, ...], index: int, layout: Layout) -> tuple[float, ...]:
    """Return sigma of each channel of one volume, from one number or several."""
    channels = layout.channel_count
    if isinstance(sigma, float):
        return (sigma,) * channels
    expected = layout.volumes if layout.series is not None else channels
    if len(sigma) != expected or (layout.series is None and layout.channels is None):
        raise ValueError(
            f"sigma has {len(sigma)} numbers; give one, or one per volume of series= or per channel of channels= "
            f"(here {expected}), or an array of the spatial shape {layout.spatial_shape}"
        )
    return (sigma[index],) * channels if layout.series is not None else sigma


def read_noise_of(index: int, layout: Layout, settings: Settings) -> float:
    """Return the read noise of the detector, which sigma stands for if the noise is Poisson."""
    if settings.sigma is None:
        return 0.0
    if settings.sigma == "map":
        raise ValueError(
            "sigma='map' does not work with noise='poisson', whose strength follows from the counts; "
            "give the read noise of the detector as a number, or None"
        )
    found = given_sigma(settings.sigma, index, layout)
    if len(set(found)) > 1:
        raise ValueError(
            f"sigma={found} has different numbers, but with noise='poisson' it is the read noise of one detector; "
            "give one number for all channels"
        )
    if settings.gain != "auto" and found[0] > MOST_READ_NOISE * settings.gain:
        raise ValueError(
            f"sigma={found[0]:g}, the read noise of the detector, is more than {MOST_READ_NOISE:g} times "
            f"gain={settings.gain:g}, so that counts make no difference; correct one of them, or use noise='gaussian'"
        )
    return found[0]


MOST_READ_NOISE = 1e4
"""Largest read noise in units of the gain. With more, stabilised counts would be lost in the rounding of float32."""


def estimated_map(
    volume: arrays.Source, index: int, layout: Layout, settings: Settings, mask: arrays.Source | None
) -> Noise:
    """Estimate the map of sigma of one volume, and its largest value in each channel.

    All channels share one map: the mean of their own maps, each relative to its largest value, scaled to the first
    channel.
    """
    model, scale = settings.stated, 1.0
    if settings.noise == "auto" or is_auto(settings.correlation):
        alone = dataclasses.replace(settings, sigma=None, noise=settings.noise)
        if alone.finds_noise:
            model = found_noise(volume, index, layout, alone, mask, may_follow=False).model
        model = dataclasses.replace(model, variation=None, doubts=())  # which are of one level for all places
    kind = "rician" if model.kind in MAGNITUDES else "gaussian"
    if model.correlation is not None and model.sigma:
        fine = sigma_levels(volume, index, layout, kind, mask, settings.memory, settings.despeckle)[0]
        scale = model.sigma / fine if fine > 0 else 1.0
    found = sigma_maps(volume, index, layout, kind, mask, settings.despeckle) * scale
    maps = [found[place].reshape(layout.spatial_shape) for place in layout.channel_pieces(0, layout.everywhere)]
    sigma = tuple(float(values.max()) for values in maps)
    log.info("estimated a map of sigma with the largest values %s", sigma)
    relative = [values / max(s, LEAST_SIGMA) for values, s in zip(maps, sigma, strict=True)]
    return Noise(model, sigma, np.mean(relative, axis=0) * max(sigma[0], LEAST_SIGMA))


LEAST_SIGMA = 1e-38
"""Lower limit of sigma as a divisor."""
