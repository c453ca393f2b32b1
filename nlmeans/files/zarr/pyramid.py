"""Pyramid of a new OME-Zarr image: shapes of its levels, their arrays, and their metadata."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from nlmeans.core import arrays
from nlmeans.files.zarr.ngff import ZarrImage


@dataclass(frozen=True)
class PyramidLevel:
    """One level of a pyramid."""

    shape: tuple[int, ...]
    halved_axes: tuple[int, ...]
    """Axes along which it has half as many voxels as the level before."""
    factors: tuple[int, ...]
    """Width of a voxel of this level in voxels of the finest level, along each axis."""


COARSEST_SIZE = 256
"""Largest number of voxels along the last two spatial axes of the coarsest level."""


def pyramid_levels(image: ZarrImage) -> list[PyramidLevel]:
    """Choose the levels of the pyramid.

    Each level has half as many voxels as the one before along the last two spatial axes. Along the first of three
    spatial axes it also has half as many, unless voxels are already at least twice as long there. There are at least as
    many levels as in `image`, as long as there are voxels to halve.
    """
    shape, factors, spacing = image.array.shape, [1] * image.array.ndim, image.spacing
    levels = [PyramidLevel(shape, (), tuple(factors))]
    plane = image.spatial_axes[-2:]
    while max(shape[axis] for axis in plane) > COARSEST_SIZE or len(levels) < image.levels:
        sizes = {axis: size * factors[axis] for axis, size in zip(image.spatial_axes, spacing, strict=True)}
        finest = min(sizes[axis] for axis in plane)
        axes = tuple(a for a in image.spatial_axes if shape[a] > 1 and (a in plane or sizes[a] < 2 * finest))
        if not axes:
            break
        shape = tuple(math.ceil(n / 2) if axis in axes else n for axis, n in enumerate(shape))
        factors = [factor * 2 if axis in axes else factor for axis, factor in enumerate(factors)]
        levels.append(PyramidLevel(shape, axes, tuple(factors)))
    return levels


def create_arrays(folder: Path, image: ZarrImage, levels: Sequence[PyramidLevel], dtype: npt.DTypeLike) -> None:
    """Create a group with the arrays of all levels, stored like the image, without values and metadata."""
    source, version = image.array, image.array.metadata.zarr_format
    group = zarr.open_group(folder, mode="a", zarr_format=version)
    same_type = np.dtype(dtype) == source.dtype
    encoding: Any = getattr(source.metadata, "chunk_key_encoding", None)
    if version == 2:
        encoding = {"name": "v2", "separator": source.metadata.dimension_separator}  # type: ignore[union-attr]
    for number, level in enumerate(levels):
        group.create_array(
            str(number),
            shape=level.shape,
            dtype=dtype,
            chunks=source.chunks,
            shards=source.shards,
            filters=(source.filters or None) if same_type else "auto",
            compressors=source.compressors or None,
            serializer=source.serializer if same_type and version == 3 else "auto",  # type: ignore[arg-type]
            fill_value=source.fill_value,
            order=source.order if version == 2 else None,
            chunk_key_encoding=encoding,
            dimension_names=getattr(source.metadata, "dimension_names", None),
            attributes=source.attrs.asdict(),
            overwrite=True,
        )


def write_metadata(folder: Path, image: ZarrImage, levels: Sequence[PyramidLevel], record: Mapping[str, Any]) -> None:
    """Write the metadata of a finished group: those of the image, with the new levels and the record of the run."""
    multiscale = {"axes": list(image.axes), **copy.deepcopy(dict(image.multiscale))}
    multiscale["datasets"] = [
        {"path": str(number), "coordinateTransformations": transformations(image, level)}
        for number, level in enumerate(levels)
    ]
    replaced = {name: multiscale.pop(name) for name in ("type", "metadata") if name in multiscale}
    multiscale |= {"type": "mean", "metadata": {"description": "mean of 2 voxels along each halved axis"}}
    attributes = copy.deepcopy(dict(image.attributes))
    if image.version == "0.5":
        attributes["ome"] = {**attributes.get("ome", {}), "version": "0.5", "multiscales": [multiscale]}
    else:
        attributes["multiscales"] = [{**multiscale, "version": "0.4"}]
    before = attributes.pop("nlmeans", None)
    attributes["nlmeans"] = {**record, "pyramid_of_input": replaced or None, "before": before}
    zarr.open_group(folder, mode="r+", use_consolidated=False).update_attributes(attributes)


def transformations(image: ZarrImage, level: PyramidLevel) -> list[dict[str, Any]]:
    """Scale and translation of a level.

    Its voxels are larger by the factors of the level, so the centre of its first voxel lies farther inside the image.
    """
    scale = [size * factor for size, factor in zip(image.scale, level.factors, strict=True)]
    origin = image.translation or (0.0,) * len(scale)
    moved = [o + s * (f - 1) / 2 for o, s, f in zip(origin, image.scale, level.factors, strict=True)]
    found: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
    if image.translation is not None or any(moved):
        found.append({"type": "translation", "translation": moved})
    return found


def halved(values: npt.NDArray[Any], axes: Sequence[int]) -> npt.NDArray[Any]:
    """Average every two values along the axes. The last value stays as it is if their number is odd.

    >>> halved(np.array([[1.0, 3.0, 7.0], [3.0, 5.0, 9.0]]), (0, 1))
    array([[3., 8.]])
    """
    means: npt.NDArray[Any] = values.astype(np.float64 if arrays.is_wide(values) else np.float32)
    for axis in axes:
        along = np.moveaxis(means, axis, 0)
        kept, others = along[::2].copy(), along[1::2]
        kept[: len(others)] = kept[: len(others)] / 2 + others / 2
        means = np.moveaxis(kept, 0, axis)
    return means
