"""Whether the volumes of a series belong together, and how strong the noise is that they do not have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from nlmeans.core import arrays
from nlmeans.core.layout import Layout
from nlmeans.core.memory import allowed
from nlmeans.core.progress import silent
from nlmeans.core.tiles import Piece
from nlmeans.engine.basis import common_of
from nlmeans.engine.settings import Settings, is_auto
from nlmeans.noise.search.correlation import deviation_of_finest
from nlmeans.noise.search.estimate import sample_pieces
from nlmeans.noise.search.found import model_of_volume
from nlmeans.noise.search.unshared import unshared_correlation
from nlmeans.noise.search.usable import object_threshold
from nlmeans.patches.low_rank.components import products_of
from nlmeans.patches.low_rank.measured import measure_patches
from nlmeans.patches.low_rank.series import each_batch

MANY_VOLUMES = 8
"""Least number of volumes that ``"auto"`` denoises together. So many have more in common than similar patches have."""

MOST_COMPONENTS, FEW_COMPONENTS = 1 / 4, 2
"""Components of a patch, as a share of all that it could have, up to which its volumes belong together; and how many
are few in any case."""

MOST_UNSHARED = 2.0
"""Largest deviation of what volumes do not share, in units of the noise that shows in one of them."""

JUDGED, MEASURED = 2**14, 2**15
"""Voxels, each with all volumes, by which a series is judged, and in which its noise is measured."""


def is_one_series(volume: arrays.Source, layout: Layout, settings: Settings) -> bool:
    """Whether the volumes have so much in common that they are better denoised together than one by one.

    Images that merely lie in one array, such as those of several patients, need as many components as there are, or
    differ by far more than the noise that each of them shows.
    """
    if layout.channels is not None or layout.volumes < MANY_VOLUMES or settings.backend == "windowed":
        return False
    joined = layout.joined
    pieces = series_pieces(volume, joined, settings, JUDGED)
    lags = autocovariance_of_series(pieces, settings)
    alone = model_of_volume(pieces[0][layout.volumes // 2], "gaussian")
    shown = deviation_of_finest(alone.sigma or 0.0, lags if alone.autocovariance is None else None)
    seen = measured_patches(pieces, joined, lags)
    if not len(seen.rank) or (shown is not None and float(seen.sigma.median()) > MOST_UNSHARED * shown):
        return False
    return float(seen.rank.quantile(0.75)) <= max(MOST_COMPONENTS * seen.possible, FEW_COMPONENTS)


def autocovariance_of_series(pieces: Sequence[Tensor], settings: Settings) -> Tensor | None:
    """Return the autocovariance of the noise, as stated, or else as it shows in pieces of the series, (V, D, H, W), in
    what the volumes do not share."""
    if not (settings.may_be_correlated and is_auto(settings.correlation)):
        stated = settings.stated.autocovariance
        return None if stated is None else torch.as_tensor(stated)
    return unshared_correlation(pieces)


def series_pieces(volume: arrays.Source, joined: Layout, settings: Settings, voxels: int) -> list[Tensor]:
    """Read evenly spaced pieces of a series, (V, D, H, W), float32 or float64."""
    memory = allowed(torch.device("cpu"), settings.memory)
    affordable = int(memory / (PIECE_BYTES * joined.channel_count))
    places = sample_pieces(joined.shape, min(voxels, max(affordable, 1)))
    return [read_volumes(volume, joined, place) for place in places]


PIECE_BYTES = 24
"""Working memory per voxel and volume of a piece."""


def read_volumes(volume: arrays.Source, joined: Layout, place: Piece) -> Tensor:
    """Read a piece of all volumes, (V, D, H, W), with 0 in place of NaN.

    Raises:
        ValueError: there are infinite values.
    """
    stored = arrays.fetch(volume, joined.index(0, place))
    arrays.known_range(stored, "volume")
    everything = tuple(slice(None) for _ in joined.array_shape)
    values = arrays.read(stored, everything, arrays.precise_dtype(volume), arrays.device_of(volume))
    return joined.to_engine(arrays.without_nan(values))


class MeasuredPatches(NamedTuple):
    """What patches of a series show."""

    sigma: Tensor
    """Standard deviation of what the volumes do not share, around each of many voxels in the brighter part."""
    rank: Tensor
    """Number of components that they share, around the same voxels."""
    possible: int
    """Largest possible number of components."""
    intensity: Tensor
    """Mean of each of many patches of each volume, without what is not shared."""
    variance: Tensor
    """Variance of what is not shared in each of these patches."""
    share: float = 1.0
    """Share of its deviation that patches show, see `share_measured`; `sigma` and `variance` are those of all of it."""


def measured_patches(pieces: Sequence[Tensor], joined: Layout, lags: Tensor | None) -> MeasuredPatches:
    """Measure the noise and the number of components of patches in pieces of a series, (V, D, H, W).

    `lags` is the autocovariance of the noise within a volume, with lag 0 in the middle; None for white noise.
    """
    found = each_batch(partial(measure_patches, autocovariance=lags), [pieces], pieces[0].device, silent)
    sigma, rank, bright, intensity, variance = (
        torch.cat([part.flatten() for part in parts]).double().cpu() for parts in zip(*found, strict=True)
    )
    measured = sigma > 0
    if bool(measured.any()):
        measured &= bright > object_threshold(bright[measured])
    chosen = measured.nonzero()[:: max(1, int(measured.sum()) // MOST_CHOSEN), 0]
    share = 1.0
    if lags is not None:
        share = share_measured(sigma[chosen], [products_of_object(piece) for piece in pieces], lags)
    return MeasuredPatches(
        sigma[chosen] / share, rank[chosen], joined.channel_count, intensity, variance / share**2, share
    )


def products_of_object(piece: Tensor) -> tuple[Tensor, int]:
    """Return what `products_of` does for the brighter voxels of a piece, (V, D, H, W), without their means."""
    mean = piece.mean(0)
    shown = piece[:, mean > object_threshold(mean.flatten())]
    return products_of((shown - shown.mean(1, keepdim=True))[:, None, None])


def share_measured(sigmas: Tensor, seen: Sequence[tuple[Tensor, int]], lags: Tensor) -> float:
    """Return the share of correlated noise that patches show, by what many voxels together do not share.

    Correlated noise has hardly any energy in some directions of a patch. Whitening leaves less there than it should, as
    it amplifies only so far. Over many voxels, noise needs no whitening.

    Args:
        sigmas: what patches show.
        seen: of pieces of the series, what `products_of` returns.
        lags: autocovariance of the noise within a volume, with lag 0 in the middle.
    """
    if not len(sigmas) or not seen:
        return 1.0
    everywhere = common_of(seen, lags, math.inf)  # sigma is not known yet
    if everywhere.left == 0 or everywhere.variance <= 0:
        return 1.0
    return min(1.0, float(sigmas.median()) / math.sqrt(everywhere.variance))


MOST_CHOSEN = 100_000
