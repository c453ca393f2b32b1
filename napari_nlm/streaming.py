"""Runs of layers that are larger than memory: the result goes to an OME-Zarr image, block by block."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import nlmeans
from napari_nlm.denoising import Denoising, parts
from napari_nlm.layer_source import CHANNEL_NAMES, SERIES_NAMES, SPACE_NAMES, LayerSource, VolumeIndex
from napari_nlm.volume_view import LayerArray, shifted_by
from nlmeans.core.arrays import value_range
from nlmeans.core.progress import Report, part, silent
from nlmeans.engine.plan import Plan

if TYPE_CHECKING:
    from nlmeans.files.zarr.ngff import ZarrImage

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
    """Denoise volumes into a new OME-Zarr image; see `new_zarr`.

    Args:
        denoising: how.
        path: the folder of the image; its name ends with ``.zarr``.
        shape: of the image, along all axes of the layer.
        places: for each volume its number, and where it lies along the separate axes of the image.
        report: called with the fraction done.
        finished: called with each volume when it is done, and with the engine's plan of it.

    Returns:
        the levels of the pyramid as dask arrays, the finest first.
    """
    source, axes = denoising.source, denoising.source.axes

    def fill(array: Any) -> dict[str, Any]:
        for (number, place), progress in zip(places, parts(part(report, 0.0, FINEST_SHARE), len(places)), strict=True):
            at: list[int | slice] = [slice(0, n) for n in shape]
            for axis, to in zip(axes.separate, place, strict=True):
                at[axis] = to
            everywhere = source.layout.everywhere
            plan = denoising.plan_for(number, everywhere)
            plan.run(everywhere, progress, VolumeTarget(array, at))
            finished(number, plan)
        return {"settings": denoising.record(number, denoising.survey(number)).to_dict()}

    dtype = np.dtype(denoising.parameters.dtype or source.data.dtype)
    return new_zarr(path, source, shape, dtype, fill, part(report, FINEST_SHARE, 1.0))


def new_zarr(
    path: Path,
    source: LayerSource,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    fill: Callable[[Any], dict[str, Any]],
    report: Report = silent,
) -> list[Any]:
    """Make an OME-Zarr image with a pyramid, which exists only once it is complete.

    If the layer was opened from an OME-Zarr image of this shape, the new one has its version, axes, scales, chunks,
    compression and other metadata. Otherwise it lies where the layer lies.

    Args:
        path: the folder of the image; its name ends with ``.zarr``.
        source: the layer.
        shape: of the image, along all axes of the layer.
        dtype: of the image.
        fill: writes the finest level to the array that it is called with, and returns how it was made.
        report: called with the fraction of the other levels that is done.

    Returns:
        the levels of the pyramid as dask arrays, the finest first.

    Raises:
        ValueError: the layer has colours, or the path does not end with ``.zarr``.
        FileExistsError: there is such a file.
    """
    import dask.array as da

    from nlmeans.files.atomic import written_together
    from nlmeans.files.zarr.pyramid import add_coarser_levels

    if source.layer.rgb:
        raise ValueError(
            f"{source.layer.name} has colours, for which there is no OME-Zarr here; save it as TIFF, or split it into "
            "channels first"
        )
    if path.suffix != ".zarr":
        raise ValueError(f"{path} must end with .zarr, as the result is an OME-Zarr image")
    if path.exists():
        raise FileExistsError(f"{path} exists; choose another name")
    with written_together(path, folders=[path], overwrite=False) as (folder,):
        image = empty_image(folder, source, shape, dtype)
        record = {"version": nlmeans.__version__, **fill(image.array)}
        levels = add_coarser_levels(folder, image, record, report)
    return [da.from_zarr(str(path), component=str(level)) for level in range(levels)]


def empty_image(folder: Path, source: LayerSource, shape: tuple[int, ...], dtype: np.dtype[Any]) -> ZarrImage:
    """Make the finest level of an image, without values; see `new_zarr`."""
    import zarr

    from nlmeans.files.paths import is_zarr
    from nlmeans.files.zarr.ngff import read_image
    from nlmeans.files.zarr.pyramid import create_arrays, pyramid_levels

    if source.path is not None and is_zarr(source.path):
        original = read_image(source.path)
        if original.array.shape == shape:
            create_arrays(folder, original, pyramid_levels(original)[:1], dtype)
            stored_alike: Any = zarr.open_group(folder, mode="r+", use_consolidated=False)["0"]
            return dataclasses.replace(original, array=stored_alike)
    group = zarr.open_group(folder, mode="a", zarr_format=3)
    stored = source.chunks or (CHUNK_EDGE,) * len(shape)
    array = group.create_array(
        "0", shape=shape, dtype=dtype, chunks=tuple(min(a, b) for a, b in zip(stored, shape, strict=True))
    )
    group.update_attributes({"ome": metadata_of(source)})
    made = read_image(folder)  # before the work, in case that the metadata do not fit
    return dataclasses.replace(made, array=array)


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
