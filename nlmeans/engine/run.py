"""Denoise whole arrays, or a region of them, with given settings."""

from __future__ import annotations

from typing import TypeVar, cast

from nlmeans.core import arrays
from nlmeans.core.layout import Layout
from nlmeans.core.progress import Report, part
from nlmeans.core.tiles import Piece
from nlmeans.engine.choices import Choices
from nlmeans.engine.plan import Plan
from nlmeans.engine.settings import Settings

VolumeT = TypeVar("VolumeT", bound=arrays.Readable)


def denoise_array(
    volume: VolumeT,
    settings: Settings,
    *,
    mask: arrays.Readable | None = None,
    sigma_map: arrays.Readable | None = None,
    out: arrays.Writable | None = None,
    progress: Report,
    region: Piece | None = None,
) -> VolumeT:
    """Denoise an array, volume by volume.

    Args:
        volume: image, volume or series.
        settings: how; they say which axis is which.
        mask: where to denoise, of the spatial shape.
        sigma_map: standard deviation of the noise at every voxel, instead of ``settings.sigma``.
        out: where to write the result; None for a new array.
        progress: called with the fraction done.
        region: the box of (D, H, W) to compute and return; None for all.
    """
    source = arrays.readable(volume, "volume")
    layout = Layout.of(source, settings.channels, settings.series)
    where, levels = readable_beside(mask, "mask", layout), readable_beside(sigma_map, "sigma", layout)
    choices = Choices.of(settings, layout)
    region = layout.everywhere if region is None else region
    shape = layout.array_shape_of(region)
    if out is not None:
        arrays.check_out(out, source, shape, settings.dtype)
    result = arrays.empty_like(source, settings.dtype, shape) if out is None else out
    for index in range(layout.volumes):
        plan = Plan.of(source, index, layout, choices, mask=where, sigma_map=levels, region=region)
        plan.run(region, part(progress, index / layout.volumes, (index + 1) / layout.volumes), result)
    progress(1.0)
    return cast(VolumeT, result)


def readable_beside(array: arrays.Readable | None, name: str, layout: Layout) -> arrays.Source | None:
    """A mask or map, if it has the spatial shape."""
    if array is None:
        return None
    source = arrays.readable(array, name)
    layout.spatial(source, name)
    return source
