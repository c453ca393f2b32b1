"""Pyramid of a new OME-Zarr image: shapes of its levels, their arrays, and their metadata."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import zarr

from nlmeans.core import arrays
from nlmeans.core.progress import Report
from nlmeans.files.zarr.ngff import ZarrImage

ArrayBox = tuple[slice, ...]
"""A slice per axis of the array."""


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
    group = zarr.open_group(folder, mode="a", zarr_format=image.array.metadata.zarr_format)
    for number, level in enumerate(levels):
        create_level(group, number, level, image.array, dtype)


def create_level(
    group: zarr.Group, number: int, level: PyramidLevel, source: zarr.Array[Any], dtype: npt.DTypeLike
) -> zarr.Array[Any]:
    """Create the array of a level, stored like another array, without values."""
    version = source.metadata.zarr_format
    same_type = np.dtype(dtype) == source.dtype
    encoding: Any = getattr(source.metadata, "chunk_key_encoding", None)
    if version == 2:
        encoding = {"name": "v2", "separator": source.metadata.dimension_separator}  # type: ignore[union-attr]
    return group.create_array(
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


def add_coarser_levels(folder: Path, image: ZarrImage, record: Mapping[str, Any], progress: Report) -> int:
    """Add a pyramid to a group that has the finest level alone, and complete its metadata.

    Args:
        folder: the group.
        image: the same, as it was read.
        record: how it was made.
        progress: called with the fraction done.

    Returns:
        the number of levels.
    """
    levels, group = pyramid_levels(image), zarr.open_group(folder, mode="r+", use_consolidated=False)
    finer = image.array
    for number, level in enumerate(levels[1:], 1):
        coarser = create_level(group, number, level, image.array, image.array.dtype)
        boxes = list(grid_boxes(level.shape, image.unit))
        for count, box in enumerate(boxes, 1):
            coarser[box] = halved_box(finer, level, box, image.unit, image.array.dtype)
            progress((number - 1 + count / len(boxes)) / (len(levels) - 1))
        finer = coarser
    write_metadata(folder, image, levels, record)
    return len(levels)


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


def grid_boxes(shape: Sequence[int], block: Sequence[int]) -> Iterator[ArrayBox]:
    """Cover an array with blocks, in the order of its axes. Blocks at the end may be smaller."""
    cuts = [[slice(start, min(start + b, n)) for start in range(0, n, b)] for n, b in zip(shape, block, strict=True)]
    return itertools.product(*cuts)


def halved_box(
    finer: zarr.Array[Any], level: PyramidLevel, box: ArrayBox, unit: Sequence[int], dtype: np.dtype[Any]
) -> npt.NDArray[Any]:
    """Compute a box of a level from the level before, one chunk or shard of that at a time.

    Args:
        finer: the level before.
        level: the level.
        box: where in the level.
        unit: shape of the chunks or shards.
        dtype: of the result; integers are rounded.
    """
    result = np.empty([side.stop - side.start for side in box], dtype)
    step = [max(1, u // 2) if axis in level.halved_axes else u for axis, u in enumerate(unit)]
    for piece in grid_boxes(result.shape, step):
        covered = []
        for axis, (side, inside, n) in enumerate(zip(box, piece, finer.shape, strict=True)):
            factor = 2 if axis in level.halved_axes else 1
            start, stop = (factor * (side.start + end) for end in (inside.start, inside.stop))
            covered.append(slice(start, min(stop, n)))
        means = halved(np.asarray(finer[tuple(covered)]), level.halved_axes)
        arrays.write(result, piece, torch.from_numpy(means))
    return result


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
