"""Denoise dask arrays chunk by chunk, on threads, processes or a cluster: the graph of tasks.

A first pass reads every chunk once and collects the facts of each volume. Then one task per chunk reads the chunk with
its halo and runs the plan on it, as on a window of the whole volume.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator
from typing import Any

import dask.array as da
import numpy as np
from dask.base import compute, tokenize
from dask.delayed import Delayed
from dask.graph_manipulation import clone
from dask.highlevelgraph import HighLevelGraph
from torch import Tensor

from nlmeans.core import arrays
from nlmeans.core.layout import Layout
from nlmeans.core.tiles import Piece, Tile, piece
from nlmeans.engine.basis import MOST_BYTES, planes_of_slab, slabs, slabs_of_patches
from nlmeans.engine.choices import Choices
from nlmeans.engine.dask.tasks import (
    Glance,
    Opaque,
    ResultBlock,
    Slab,
    assemble,
    components_of_slab,
    denoise_block,
    join_components,
    join_facts,
    join_products,
    look_at_chunk,
    map_range,
    noise_of_pieces,
    products_of_slab,
)
from nlmeans.engine.noise import Noise, noise_of, refuse_map
from nlmeans.engine.run import readable_spatial
from nlmeans.engine.settings import Settings
from nlmeans.noise.kinds import FOLLOWING
from nlmeans.noise.search import estimate

Graph = dict[Any, Any]
Key = tuple[Any, ...]


def denoised_lazily(
    array: da.Array, settings: Settings, mask: arrays.Readable | None, sigma_map: arrays.Readable | None
) -> da.Array:
    """Denoise a dask array lazily: all computation happens when the result is computed.

    The array is read twice: once to estimate sigma and the range of its values, once to denoise. So no chunk has to
    wait in memory. Chunks may have any size, and may be smaller than the halo. If sigma is None, it is estimated once
    per volume, from evenly spaced parts.

    Tasks that run at the same time share the cores evenly: each has one thread with the threaded scheduler, and all
    cores with the synchronous one. With ``device="cuda"``, the workers of a cluster are spread over the GPUs.
    ``memory`` limits one task, which cuts larger chunks into tiles. None gives each thread an equal share of half the
    memory of the worker or computer. The method for ``"auto"`` is chosen at once, by the memory of the calling process.

    Args:
        array: the volume.
        settings: how to denoise.
        mask: voxels where it is zero stay unchanged; a dask array, or an array that gives numpy arrays when sliced.
        sigma_map: standard deviation of the noise at every voxel; an array as for `mask`.

    Returns:
        A dask array with the same chunks, and dtype unless ``settings.dtype`` is given.

    Raises:
        ValueError, TypeError: as for `nlmeans.denoise`. An error in a task names the voxels of its block.

    Example:
        >>> import dask.array as da
        >>> noisy = 100 + 8 * da.random.default_rng(0).standard_normal((24, 24, 24), chunks=12)
        >>> denoised = denoised_lazily(noisy, Settings(method="classic"), None, None)
        >>> denoised.chunks == noisy.chunks, bool((denoised.std() < 0.3 * noisy.std()).compute())
        (True, True)
    """
    layout = layout_of(array, settings.channels, settings.series)
    if settings.sigma == "map":
        raise ValueError(
            "sigma='map' needs the whole volume in memory, which a dask array may be too large for; "
            "give a number, or a map of your own as an array"
        )
    if sigma_map is not None and settings.noise in FOLLOWING:
        refuse_map(settings.noise)
    choices = Choices.of(settings, layout)
    layout = choices.layout
    names = [getattr(array, "name", array) for array in (mask, sigma_map)]
    builder = GraphBuilder(f"nlmeans-{tokenize(array.name, choices.record, names)}", array, layout, choices)
    builder.mask, builder.sigma_map = builder.chunked(mask, "mask"), builder.chunked(sigma_map, "sigma")
    return builder.denoised()


def estimated_levels(
    array: da.Array, channels: int | None, series: int | None, noise: str, mask: arrays.Readable | None
) -> list[tuple[float, ...]]:
    """Estimate sigma of each channel of each volume. This computes at once."""
    layout = layout_of(array, channels, series)
    settings = Settings(noise=noise, modality="MR", method="classic", channels=layout.channels, series=layout.series)
    token = f"nlmeans-{tokenize(array.name, settings, mask)}"
    builder = GraphBuilder(token, array, layout, Choices.of(settings, layout))
    builder.mask = builder.chunked(mask, "mask")
    keys = [builder.noise(array, index) for index in range(layout.volumes)]
    graph = builder.with_dependencies("noise")
    found = compute(*(Delayed(key, graph, layer=builder.name("noise")) for key in keys))
    return [noise.sigma for noise in found]


def layout_of(array: da.Array, channels: int | None, series: int | None) -> Layout:
    """Check a dask array and return its layout."""
    if not isinstance(array, da.Array):
        raise TypeError(f"array is a {type(array).__name__}; give a dask array, or call nlmeans.denoise")
    if not isinstance(array._meta, np.ndarray) or array.dtype.kind not in "buif":
        raise TypeError(f"array holds {type(array._meta).__name__} of {array.dtype}; give numpy arrays of real numbers")
    if any(np.isnan(n) for n in array.shape):
        raise ValueError(f"array has the unknown shape {array.shape}; call its compute_chunk_sizes() first")
    arrays.check_numbers(array, "array")
    return Layout.of(array, channels, series)


class GraphBuilder:
    """Builder of the task graph of one run."""

    def __init__(self, token: str, array: da.Array, layout: Layout, choices: Choices) -> None:
        self.token, self.array, self.layout, self.choices = token, array, layout, choices
        self.settings = choices.settings
        self.mask: da.Array | None = None
        self.sigma_map: da.Array | None = None
        self.graph: Graph = {}
        self.dependencies: list[Any] = [array]

    def name(self, what: str) -> str:
        """Return the name of the tasks of one kind."""
        return f"{self.token}-{what}"

    def with_dependencies(self, what: str) -> HighLevelGraph:
        """Join the tasks with the graphs of the arrays that they read."""
        return HighLevelGraph.from_collections(self.name(what), self.graph, dependencies=self.dependencies)

    def chunked(self, array: arrays.Readable | None, name: str) -> da.Array | None:
        """Turn a mask or map into a dask array with the chunks of the volume."""
        if array is None:
            return None
        chunked = array if isinstance(array, da.Array) else None
        if chunked is None:
            readable_spatial(array, name, self.layout)
            chunks = tuple(self.array.chunks[axis] for axis in self.layout.spatial_axes)
            numbers = array.detach().cpu().numpy() if isinstance(array, Tensor) else array
            chunked = da.from_array(numbers, chunks=chunks)
        self.layout.spatial(chunked, name)
        self.dependencies.append(chunked)
        return chunked

    def denoised(self) -> da.Array:
        """Add all tasks, and return the result as a dask array."""
        layout, choices = self.layout, self.choices
        apart = clone(self.array, seed=self.token)  # else chunks would wait in memory for the survey of all others
        self.dependencies.append(apart)
        facts = [self.facts(apart, index) for index in range(layout.volumes)]
        basis = self.basis(apart, facts[0]) if choices.method.joint else None
        chunks = list(self.array.chunks)
        if layout.channels is not None:
            chunks[layout.channels] = (layout.channel_count,)
        halo, grain = choices.halo, choices.grain
        dtype = np.dtype(choices.settings.dtype or self.array.dtype)
        name = self.name("denoise")
        for number, box in chunk_boxes(tuple(chunks)):
            tile = Tile.around(spatial(box, layout), layout.shape, halo, grain)
            volumes = range(layout.volumes) if layout.series is None else range(layout.volumes)[box[layout.series]]
            window = list(layout.index(0, tile.outer))
            if layout.series is not None:
                window[layout.series] = box[layout.series]
            read = layout.spatial_alone.index(0, tile.outer)
            inputs = [
                self.cut(self.array, tuple(window)),
                None if self.mask is None else self.cut(self.mask, read),
                None if self.sigma_map is None else self.cut(self.sigma_map, read),
            ]
            block = ResultBlock(box, tile, len(volumes), layout, choices, dtype)
            self.graph[(name, *number)] = (denoise_block, *inputs, [facts[index] for index in volumes], basis, block)
        result: da.Array = da.Array(self.with_dependencies("denoise"), name, tuple(chunks), dtype=dtype)
        same_chunks: da.Array = result.rechunk(self.array.chunks)
        return same_chunks

    def facts(self, array: da.Array, index: int) -> Key:
        """Add the tasks that survey one volume; return the key of its facts."""
        layout, looks, ranges = self.layout, [], []
        spatial_chunks = tuple(array.chunks[axis] for axis in layout.spatial_axes)
        without_channels = layout.spatial_alone
        for number, box in chunk_boxes(spatial_chunks):
            place = spatial(box, without_channels)
            looks.append((self.name("look"), index, *number))
            glance = Glance(place, layout, self.settings.h is None)
            self.graph[looks[-1]] = (look_at_chunk, self.cut(array, layout.index(index, place)), glance)
            if self.sigma_map is not None:
                ranges.append((self.name("range"), *number))
                self.graph[ranges[-1]] = (map_range, self.cut(self.sigma_map, box), place)
        noise: Noise | Key | None = None
        if self.sigma_map is None and (self.settings.finds_noise or self.settings.sigma is None):
            noise = self.noise(array, index)
        elif self.sigma_map is None:
            noise = noise_of(arrays.Sliced(np.empty(1)), index, layout, self.settings, None, None)
        key = (self.name("facts"), index)
        known = Opaque(noise) if isinstance(noise, Noise) else noise
        self.graph[key] = (join_facts, looks, known, ranges, self.settings, layout.channel_count)
        return key

    def basis(self, array: da.Array, facts: Key) -> Key:
        """Add the tasks that find what the volumes of a series have in common; return the key of the basis."""
        shape, layout = self.layout.shape, self.layout
        planes = planes_of_slab(shape, layout.channel_count, self.settings.memory or MOST_BYTES)

        def over(what: str, slabs: Iterator[Piece], work: Any, *known: Key) -> list[Key]:
            keys = []
            for number, box in enumerate(slabs):
                keys.append((self.name(what), number))
                sigma = None
                if self.sigma_map is not None:
                    sigma = self.cut(self.sigma_map, layout.spatial_alone.index(0, box))
                values, slab = self.cut(array, layout.index(0, box)), Slab(box, layout, self.choices)
                self.graph[keys[-1]] = (work, values, sigma, slab, facts, *known)
            return keys

        common, complete = (self.name("common"),), (self.name("basis"),)
        self.graph[common] = (join_products, over("products", slabs(shape, planes), products_of_slab), facts)
        found = over("components", slabs_of_patches(shape, planes), components_of_slab, common)
        self.graph[complete] = (join_components, common, found, Opaque(shape))
        return complete

    def noise(self, array: da.Array, index: int) -> Key:
        """Add the tasks that find the noise of one volume; return the key of the result."""
        voxels = estimate.SAMPLE_VOXELS
        if self.settings.memory is not None:
            voxels = min(voxels, self.settings.memory // estimate.SAMPLE_BYTES)
        places = estimate.sample_pieces(self.layout.shape, voxels)
        without_channels = self.layout.spatial_alone
        values = [self.cut(array, self.layout.index(index, place)) for place in places]
        inside = []
        if self.mask is not None:
            inside = [self.cut(self.mask, without_channels.index(0, place)) for place in places]
        key = (self.name("noise"), index)
        self.graph[key] = (noise_of_pieces, values, inside, self.layout, self.settings, self.choices.method.joint)
        return key

    def cut(self, array: da.Array, box: arrays.Slices) -> Key:
        """Add the tasks that read a box from the chunks that it touches; return the key of its values."""
        along = [overlaps(sizes, range(n)[side]) for sizes, n, side in zip(array.chunks, array.shape, box, strict=True)]
        parts, places = [], []
        for crossed in itertools.product(*along):
            source = (array.name, *(number for number, _, _ in crossed))
            key = (self.name("part"), len(self.graph))
            self.graph[key] = (operator.getitem, source, tuple(local for _, local, _ in crossed))
            parts.append(key)
            places.append(tuple(place for _, _, place in crossed))
        shape = tuple(len(range(n)[side]) for n, side in zip(array.shape, box, strict=True))
        key = (self.name("window"), len(self.graph))
        self.graph[key] = (assemble, parts, Opaque((shape, places)))
        return key


def chunk_boxes(chunks: tuple[tuple[int, ...], ...]) -> Iterator[tuple[tuple[int, ...], arrays.Slices]]:
    """Iterate over all chunks: the number of each along each axis, and where it lies."""
    sides = []
    for sizes in chunks:
        stops = itertools.accumulate(sizes)
        places = (slice(stop - size, stop) for size, stop in zip(sizes, stops, strict=True))
        sides.append(list(enumerate(places)))
    for crossed in itertools.product(*sides):
        numbers, box = zip(*crossed, strict=True)
        yield numbers, box


def overlaps(sizes: tuple[int, ...], wanted: range) -> list[tuple[int, slice, slice]]:
    """Find the chunks along one axis that overlap a range.

    For each, return its number, the overlap relative to the chunk, and the overlap relative to the range.
    """
    found = []
    for number, stop in enumerate(itertools.accumulate(sizes)):
        start = stop - sizes[number]
        first, last = max(start, wanted.start), min(stop, wanted.stop)
        if first < last:
            within = slice(first - wanted.start, last - wanted.start)
            found.append((number, slice(first - start, last - start), within))
    return found


def spatial(box: arrays.Slices, layout: Layout) -> Piece:
    """Return the spatial part of a box as slices of (D, H, W)."""
    sides = [box[axis] for axis in layout.spatial_axes]
    return piece([slice(0, 1)] * (3 - len(sides)) + sides)
