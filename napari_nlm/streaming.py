"""Runs of layers that are larger than memory: the result goes to an OME-Zarr image, block by block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import nlmeans
from napari_nlm.denoising import Denoising, parts
from napari_nlm.layer_source import CHANNEL_NAMES, SERIES_NAMES, SPACE_NAMES, LayerSource, VolumeIndex
from napari_nlm.volume_view import LayerArray, shifted_by
from nlmeans.core.arrays import value_range
from nlmeans.core.progress import Report, part
from nlmeans.engine.plan import Plan

LARGEST_IN_MEMORY = 2**28
"""Bytes of a result of a lazy layer up to which it is kept in memory."""

FINEST_SHARE = 0.95
"""Share of the time of a run that its finest level takes."""

CHUNK_EDGE = 64
"""Edge of the chunks of an image whose source has none, in voxels."""


def streams(source: LayerSource, voxels: float, dtype: Any) -> bool:
    """Whether the result of a run should go to a file: the layer is lazy, and the result is large.

    Args:
        source: the layer.
        voxels: how many voxels the result has.
        dtype: their type.
    """
    lazy = not isinstance(source.data, np.ndarray)
    return lazy and voxels * np.dtype(dtype).itemsize > LARGEST_IN_MEMORY


class VolumeTarget:
    """One volume of an array, to write to.

    Args:
        array: the whole array.
        at: one index per axis of the array, as for `VolumeView`.
    """

    def __init__(self, array: Any, at: Sequence[int | slice]) -> None:
        self.array, self.at = array, tuple(at)
        self.dtype = np.dtype(array.dtype)
        self.shape = tuple(side.stop - side.start for side in self.at if isinstance(side, slice))
        self.chunks = tuple(n for n, side in zip(array.chunks, self.at, strict=True) if isinstance(side, slice))

    def __setitem__(self, key: tuple[slice, ...], values: LayerArray) -> None:
        value_range(values, "volume")  # of a lazy layer, nobody has looked at every voxel
        sides = iter(key)
        self.array[tuple(s if isinstance(s, int) else shifted_by(next(sides), s) for s in self.at)] = values


def denoise_to_zarr(
    denoising: Denoising,
    path: Path,
    shape: tuple[int, ...],
    places: Sequence[Any],
    report: Report,
    finished: Callable[[VolumeIndex, Plan], None] = lambda volume, plan: None,
) -> list[Any]:
    """Denoise volumes into a new OME-Zarr image with a pyramid, which exists only once it is complete.

    Args:
        denoising: how.
        path: the folder of the image; its name ends with ``.zarr``.
        shape: of the image, along all axes of the layer.
        places: for each volume its number, and where it lies along the separate axes of the image.
        report: called with the fraction done.
        finished: called with each volume that is done, and its plan.

    Returns:
        The levels of the pyramid as dask arrays, the finest first.

    Raises:
        ValueError: the layer has colours, or the path does not end with ``.zarr``.
        FileExistsError: there is such a file.
    """
    import dask.array as da
    import zarr

    from nlmeans.files.atomic import written_together
    from nlmeans.files.zarr.ngff import read_image
    from nlmeans.files.zarr.pyramid import add_coarser_levels

    source, axes = denoising.source, denoising.source.axes
    if source.layer.rgb:
        raise ValueError(f"{source.layer.name} has colours, which are kept in memory; split it into channels first")
    if path.suffix != ".zarr":
        raise ValueError(f"{path} must end with .zarr, as the result is an OME-Zarr image")
    if path.exists():
        raise FileExistsError(f"{path} exists; choose another name")
    dtype = np.dtype(denoising.parameters.dtype or source.data.dtype)
    with written_together(path, folders=[path], overwrite=False) as (folder,):
        group = zarr.open_group(folder, mode="a", zarr_format=3)
        stored = source.chunks or (CHUNK_EDGE,) * len(shape)
        array: Any = group.create_array(
            "0", shape=shape, dtype=dtype, chunks=tuple(min(a, b) for a, b in zip(stored, shape, strict=True))
        )
        group.update_attributes({"ome": metadata_of(source)})
        image = read_image(folder)  # before the work, in case that the metadata do not fit
        for (number, place), progress in zip(places, parts(part(report, 0.0, FINEST_SHARE), len(places)), strict=True):
            at: list[int | slice] = [slice(0, n) for n in shape]
            for axis, to in zip(axes.separate, place, strict=True):
                at[axis] = to
            everywhere = source.layout.everywhere
            plan = denoising.plan_for(number, everywhere)
            plan.run(everywhere, progress, VolumeTarget(array, at))
            finished(number, plan)
        record = {
            "version": nlmeans.__version__,
            "settings": denoising.record(number, denoising.survey(number)).to_dict(),
        }
        levels = add_coarser_levels(folder, image, record, part(report, FINEST_SHARE, 1.0))
    return [da.from_zarr(str(path), component=str(level)) for level in range(levels)]


def metadata_of(source: LayerSource) -> dict[str, Any]:
    """The OME-Zarr metadata of an image that lies where the layer lies, up to rotations."""
    from nlmeans.files.zarr.ngff import LENGTHS

    layer, spatial = source.layer, source.axes.spatial
    known = all(str(layer.units[axis]) in LENGTHS for axis in spatial)  # else they could not be compared
    axes = []
    for axis, name in enumerate(source.axis_names):
        kind = "time" if name in SERIES_NAMES else "channel" if name in CHANNEL_NAMES else "custom"
        if axis in spatial or (name in SPACE_NAMES and len(spatial) < 3):
            kind = "space"
        axes.append(
            {"name": name, "type": kind} | ({"unit": str(layer.units[axis])} if axis in spatial and known else {})
        )
    place = [
        {"type": "scale", "scale": [abs(float(size)) for size in layer.scale]},
        {"type": "translation", "translation": [float(at) for at in layer.translate]},
    ]
    datasets = [{"path": "0", "coordinateTransformations": place}]
    return {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets, "name": layer.name}]}
