"""Denoise arrays in memory, or arrays that are read by slicing, with given settings."""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Sequence
from typing import TypeVar, cast

import torch
from torch import Tensor

from nlmeans.core import arrays
from nlmeans.core.layout import Layout
from nlmeans.core.modes import outside_autocast
from nlmeans.core.progress import Report, part
from nlmeans.core.tiles import Piece
from nlmeans.engine.choices import Choices
from nlmeans.engine.plan import Plan
from nlmeans.engine.settings import Settings

log = logging.getLogger("nlmeans")

VolumeT = TypeVar("VolumeT", bound=arrays.Readable)


@outside_autocast
def denoise_array(
    volume: VolumeT,
    settings: Settings,
    *,
    mask: arrays.Readable | None = None,
    sigma_map: arrays.Readable | None = None,
    out: arrays.Writable | None = None,
    progress: Report,
    region: Piece | None = None,
    noise_mask: arrays.Readable | None = None,
    plans: list[Plan] | None = None,
    rank: Tensor | None = None,
) -> VolumeT:
    """Denoise an array, volume by volume.

    Args:
        volume: image, volume or series.
        settings: how to denoise, and which axis is which.
        mask: array of the spatial shape. Voxels where it is zero stay unchanged.
        sigma_map: standard deviation of the noise at every voxel; replaces ``settings.sigma``.
        out: the array to write to; None for a new one.
        progress: called with the fraction done.
        region: the box of (D, H, W) to compute and return; None for all.
        noise_mask: where to look for the noise; None for `mask`.
        plans: a list to which the plan of each volume is added, or one plan for all that are denoised together.
        rank: where to write how many components a method for series keeps at each voxel of the region, (D, H, W).

    Returns:
        `out`, or the new array.

    Raises:
        ValueError, TypeError, Cancelled: as for `nlmeans.denoise`.
    """
    if isinstance(volume, Tensor) and volume.requires_grad and torch.is_grad_enabled():
        warn_of_lost_gradient()
    source = arrays.readable(volume, "volume")
    layout = Layout.of(source, settings.channels, settings.series)
    where, levels = readable_spatial(mask, "mask", layout), readable_spatial(sigma_map, "sigma", layout)
    search = where if noise_mask is None else readable_spatial(noise_mask, "noise_mask", layout)
    choices = Choices.of(settings, layout, source)
    layout = choices.layout
    region = layout.everywhere if region is None else region
    shape = layout.array_shape_of(region)
    if out is not None:
        arrays.check_out(out, source, shape, settings.dtype)
    result = arrays.empty_like(source, settings.dtype, shape) if out is None else out
    own: list[Plan] = []
    for index in range(layout.volumes):
        plan = Plan.of(source, index, layout, choices, mask=where, sigma_map=levels, region=region, noise_mask=search)
        if plans is not None:
            plans.append(plan)
        plan.run(region, part(progress, index / layout.volumes, (index + 1) / layout.volumes), result, rank)
        own.append(plan)
    if region == layout.everywhere:
        say_doubts(own)
    progress(1.0)
    return cast(VolumeT, result)


def say_doubts(plans: Sequence[Plan]) -> None:
    """Warn of what speaks against the results of plans, in one line for each kind of doubt."""
    found: dict[str, list[str]] = {}
    for doubt in itertools.chain.from_iterable(plan.verdict() for plan in plans):
        found.setdefault(doubt.partition(":")[0], []).append(doubt)
    for doubts in found.values():
        log.warning("%s", doubts[0] if len(plans) == 1 else f"in {len(doubts)} of {len(plans)} volumes, {doubts[0]}")


@functools.cache
def warn_of_lost_gradient() -> None:
    """Log a warning once per process."""
    log.warning(
        "the volume requires a gradient, but the result has none; nlmeans.nonlocal_means and "
        "nlmeans.nn.NonLocalMeansFilter are differentiable, and volume.detach() says that none is wanted"
    )


def readable_spatial(array: arrays.Readable | None, name: str, layout: Layout) -> arrays.Source | None:
    """Check that a mask or map has the spatial shape of the volume, and make it readable by slices."""
    if array is None:
        return None
    source = arrays.readable(array, name)
    layout.spatial(source, name)
    return source
