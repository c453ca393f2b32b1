"""Denoise dask arrays chunk by chunk, on threads, processes or a cluster.

A first pass reads every chunk once and collects the facts of each volume. Then one task per chunk reads the chunk with
its halo and runs the plan on it, as on a window of the whole volume.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import operator
import sys
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import torch
from dask.base import compute, tokenize
from dask.delayed import Delayed
from dask.graph_manipulation import clone
from dask.highlevelgraph import HighLevelGraph
from dask.system import CPU_COUNT
from torch import Tensor

from nlmeans.core import arrays, checks
from nlmeans.core.layout import Layout
from nlmeans.core.memory import available
from nlmeans.core.modes import shared_among
from nlmeans.core.tiles import Piece, Tile, piece
from nlmeans.engine.basis import (
    MOST_BYTES,
    Local,
    common_of,
    local_components,
    planes_of_slab,
    slabs,
    slabs_of_patches,
    with_local,
)
from nlmeans.engine.choices import Choices
from nlmeans.engine.noise import Noise, noise_of, refuse_map
from nlmeans.engine.plan import Plan
from nlmeans.engine.run import readable_spatial
from nlmeans.engine.settings import MINIMUM_MEMORY, Settings
from nlmeans.engine.survey import Facts, Seen, facts_of, look_at, merge_seen, say_missing, why_gaussian
from nlmeans.noise.kinds import FOLLOWING
from nlmeans.noise.search import estimate
from nlmeans.patches.low_rank.components import Common, products_of

log = logging.getLogger("nlmeans")

Graph = dict[Any, Any]
Key = tuple[Any, ...]
NumpyArray = npt.NDArray[Any]


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


@dataclass(frozen=True)
class Opaque:
    """Wrapper that keeps dask from searching a value for keys."""

    value: Any


@dataclass(frozen=True)
class Glance:
    """Arguments of the survey of one chunk; see `look_at`."""

    place: Piece
    layout: Layout
    strided: bool


@dataclass(frozen=True)
class Slab:
    """Part of a series that is searched for what its volumes have in common."""

    box: Piece
    layout: Layout
    choices: Choices

    def signals(self, values: NumpyArray, sigma: NumpyArray | None, facts: Facts) -> Tensor:
        """Return the signals of the slab; see `Plan.signals`."""
        window = Window.on(values, self.layout, self.box)
        level = None if sigma is None else Window.on(sigma, self.layout.spatial_alone, self.box)
        return Plan(window, 0, self.layout, self.choices, facts, None, level).signals(self.box)


@dataclass(frozen=True)
class ResultBlock:
    """One chunk of the result: where it lies, which voxels it depends on, and how it is denoised."""

    box: arrays.Slices
    tile: Tile
    volumes: int
    """Number of volumes of the series in the chunk."""
    layout: Layout
    choices: Choices
    dtype: np.dtype[Any]


class Window(arrays.Sliced):
    """Part of an array that can be sliced with the indices of the whole array."""

    def __init__(self, values: NumpyArray, shape: tuple[int, ...], origin: tuple[int, ...]) -> None:
        self.values, self.origin = values, origin
        self.shape, self.ndim, self.dtype, self.chunks = shape, len(shape), values.dtype, None

    @classmethod
    def on(cls, values: NumpyArray, layout: Layout, box: Piece) -> Window:
        """Return what was read of a box of an array with these axes."""
        return cls(values, layout.array_shape, tuple(side.start or 0 for side in layout.index(0, box)))

    def __getitem__(self, key: arrays.Slices) -> NumpyArray:
        sides = [range(n)[side] for n, side in zip(self.shape, key, strict=True)]
        local = tuple(slice(s.start - first, s.stop - first) for s, first in zip(sides, self.origin, strict=True))
        return self.values[local]


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


# ---------------------------------------------------------------- the functions that tasks call


def assemble(parts: list[NumpyArray], plan: Opaque) -> NumpyArray:
    """Assemble a box from parts of chunks."""
    shape, places = plan.value
    if len(parts) == 1:
        return parts[0]
    values = np.empty(shape, parts[0].dtype)
    for part, place in zip(parts, places, strict=True):
        values[place] = part
    return values


def look_at_chunk(values: NumpyArray, glance: Glance) -> list[Seen]:
    """Survey one chunk of a volume."""
    with naming(glance.place), own_threads():
        return look_at(values, glance.place, glance.layout, glance.layout.everywhere, glance.strided)


def map_range(values: NumpyArray, place: Piece) -> tuple[float, float]:
    """Find the smallest and largest value in one chunk of the map of sigma."""
    with naming(place), own_threads():
        return arrays.value_range(values, "sigma")


def noise_of_pieces(
    values: list[NumpyArray], inside: list[NumpyArray], layout: Layout, settings: Settings, joint: bool
) -> Noise:
    """Find the noise of one volume, or of a series, in pieces of it. It has one level for all chunks."""
    axis = layout.spatial_axes[0]
    together = np.concatenate(values, axis=axis)
    where = np.concatenate(inside, axis=0) if inside else None
    sampled = Layout(together.shape, layout.channels, layout.series)
    with own_threads():
        found = noise_of(together, 0, sampled, settings, where, None, joint)
    if joint and found.map is not None:
        return Noise(found.model, (found.model.sigma or 0.0,) * sampled.channel_count, None)
    return found._replace(model=found.model.without_variation()) if settings.finds_noise else found


def join_facts(
    looks: list[list[Seen]],
    noise: Opaque | Noise | None,
    ranges: list[tuple[float, float]],
    settings: Settings,
    channels: int,
) -> Facts:
    """Compute the facts of one volume from what was seen in all chunks."""
    if isinstance(noise, Opaque):
        known: Noise = noise.value
    elif noise is not None:
        known = noise
    else:
        checks.not_negative("sigma", min(low for low, _ in ranges))
        known = Noise(settings.stated, (max(high for _, high in ranges),) * channels, None)
    seen = merge_seen(looks)
    say_missing(seen)
    facts = facts_of(seen, settings, known)
    if text := why_gaussian(settings, known.model, facts.noise):
        log.warning("%s", text)
    return facts


def products_of_slab(values: NumpyArray, sigma: NumpyArray | None, slab: Slab, facts: Facts) -> tuple[Tensor, int]:
    """Sum the products of the signals of one slab."""
    with naming(slab.box), own_threads():
        return products_of(slab.signals(values, sigma, facts))


def join_products(seen: list[tuple[Tensor, int]], facts: Facts) -> Common:
    """Find the components of all signals."""
    with own_threads():
        return common_of(seen, facts.autocovariance)


def components_of_slab(values: NumpyArray, sigma: NumpyArray | None, slab: Slab, facts: Facts, common: Common) -> Local:
    """Find the components of the patches and places of one slab."""
    with naming(slab.box), own_threads():
        signals = slab.signals(values, sigma, facts)
        return local_components(signals, common, facts.autocovariance, slab.layout.shape, slab.box[0])


def join_components(common: Common, found: list[Local], shape: Opaque) -> Tensor:
    """Join the components of all signals and those of patches and places."""
    with own_threads():
        return with_local(common, found, shape.value)


def denoise_block(
    values: NumpyArray,
    inside: NumpyArray | None,
    sigma: NumpyArray | None,
    facts: list[Facts],
    basis: Tensor | None,
    block: ResultBlock,
) -> NumpyArray:
    """Denoise one chunk of the result.

    Args:
        values: the chunk with its halo.
        inside: the same voxels of the mask.
        sigma: the same voxels of the map of sigma.
        facts: those of each volume in the chunk.
        basis: what the volumes have in common, if they are denoised together.
        block: where the chunk lies, and how it is denoised.
    """
    layout, outer = block.layout, block.tile.outer
    shape = list(layout.array_shape)
    if layout.series is not None:
        shape[layout.series] = block.volumes
    here = Layout(tuple(shape), layout.channels, layout.series)
    window = Window.on(values, here, outer)
    mask, sigma_map = (None if a is None else Window.on(a, layout.spatial_alone, outer) for a in (inside, sigma))
    result = np.empty(here.array_shape_of(block.tile.inner), block.dtype)
    with naming(block.tile.inner), own_threads():
        choices = dataclasses.replace(block.choices, settings=on_this_worker(block.choices.settings))
        for index, known in enumerate(facts):
            plan = Plan(window, index, here, choices, known, mask, sigma_map)
            if basis is not None:
                plan = dataclasses.replace(plan, basis=plan.for_all_volumes(basis))
            plan.run(block.tile.inner, into=result)
    return result


@contextlib.contextmanager
def naming(place: Piece) -> Iterator[None]:
    """Name the block of voxels in the message of any error."""
    try:
        yield
    except Exception as error:
        kind = ValueError if isinstance(error, ValueError) else RuntimeError
        voxels = ", ".join(f"{side.start}:{side.stop}" for side in place)
        raise kind(f"{error} (in the block of voxels [{voxels}])") from error


def own_threads() -> contextlib.AbstractContextManager[None]:
    """Limit the threads of this task to its share of the cores."""
    return shared_among(tasks_here())


def tasks_here() -> int:
    """Return how many tasks run in this process at the same time."""
    worker = this_worker()
    if worker is not None:
        return int(worker.state.nthreads)
    return 1 if threading.current_thread() is threading.main_thread() else CPU_COUNT


def this_worker() -> Any:
    """Return the worker of a cluster that runs this task, or None."""
    if "distributed" not in sys.modules:
        return None
    try:
        return sys.modules["distributed"].get_worker()
    except ValueError:
        return None


def on_this_worker(settings: Settings) -> Settings:
    """Complete the settings with the memory that one task may use here, and with one of several GPUs."""
    worker = this_worker()
    if settings.device is not None and torch.device(settings.device).type == "cuda":
        count = torch.cuda.device_count()
        if worker is None or count < 2 or torch.device(settings.device).index is not None:
            return settings
        name = str(worker.name)
        number = int(name) if name.isdecimal() else zlib.crc32(name.encode())
        return dataclasses.replace(settings, device=f"cuda:{number % count}")
    if settings.memory is not None:
        return settings
    whole = available(torch.device("cpu"))
    limit = None if worker is None else worker.memory_manager.memory_limit
    share = min(whole, limit // 2 if limit else whole) // tasks_here()
    return dataclasses.replace(settings, memory=max(share, MINIMUM_MEMORY))
