"""Chunked and distributed arrays: a dask array is denoised chunk by chunk, wherever dask runs its tasks.

A task reads its chunk and a halo out of the chunks around it, and runs the engine there as on a window of the whole
volume. What must be known of the whole is found in a first pass, which reads every chunk once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
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
from nlmeans.core.threads import shared_among
from nlmeans.core.tiles import Piece, Tile, piece
from nlmeans.engine.choices import Choices
from nlmeans.engine.plan import Plan
from nlmeans.engine.run import readable_beside
from nlmeans.engine.settings import MINIMUM_MEMORY, Settings
from nlmeans.engine.survey import Facts, Noise, Seen, facts_of, look_at, merged, noise_of
from nlmeans.noise import estimate

Graph = dict[Any, Any]
Key = tuple[Any, ...]
Numbers = npt.NDArray[Any]


def denoised_lazily(
    array: da.Array, settings: Settings, mask: arrays.Readable | None, sigma_map: arrays.Readable | None
) -> da.Array:
    """`nlmeans.denoise` for a dask array: nothing is computed before the result is.

    The array is read twice, once to estimate sigma and the range of its values and once to denoise, so that no chunk
    has to wait in memory. Chunks may have any size, also smaller than the halo. None as sigma estimates it when the
    result is computed, once for all of a volume, from evenly spaced parts.

    Each task takes as many threads as there are cores for each of the tasks that run at the same time: one with the
    threaded scheduler, all of them with the synchronous one. With ``device="cuda"`` each worker of a cluster takes
    another GPU, as long as there are enough. ``memory`` limits one task: larger chunks are cut into tiles. None gives
    each thread an equal share of half the worker's or computer's memory. The method that ``"auto"`` stands for is
    picked at once, by the memory of the process that calls this.

    Args:
        array: the volume.
        settings: how to denoise.
        mask: where to denoise; a dask array, or one that gives numpy arrays when sliced.
        sigma_map: standard deviation of the noise at every voxel, likewise.

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
            "sigma='map' is estimated from all of a volume at once, which a dask array may be too large for; give a "
            "number, or an array with sigma of each voxel, estimated in another way"
        )
    if sigma_map is not None and settings.noise == "poisson":
        raise ValueError("with noise='poisson', sigma is the read noise of the detector; give a number, not a map")
    choices = Choices.of(settings, layout)
    names = [getattr(array, "name", array) for array in (mask, sigma_map)]
    builder = GraphBuilder(f"nlmeans-{tokenize(array.name, choices.record, names)}", array, layout, choices)
    builder.mask, builder.sigma_map = builder.beside(mask, "mask"), builder.beside(sigma_map, "sigma")
    return builder.denoised()


def estimated_levels(
    array: da.Array, channels: int | None, series: int | None, noise: str, mask: arrays.Readable | None
) -> list[tuple[float, ...]]:
    """Sigma of each channel of each volume, computed now."""
    layout = layout_of(array, channels, series)
    settings = Settings(noise=noise, method="classic", channels=layout.channels, series=layout.series)
    token = f"nlmeans-{tokenize(array.name, settings, mask)}"
    builder = GraphBuilder(token, array, layout, Choices.of(settings, layout))
    builder.mask = builder.beside(mask, "mask")
    keys = [builder.levels(array, index) for index in range(layout.volumes)]
    graph = builder.with_dependencies("levels")
    return list(compute(*(Delayed(key, graph, layer=builder.name("levels")) for key in keys)))


def layout_of(array: da.Array, channels: int | None, series: int | None) -> Layout:
    if not isinstance(array, da.Array):
        raise TypeError(f"array is a {type(array).__name__}; give a dask array, or call nlmeans.denoise")
    if not isinstance(array._meta, np.ndarray) or array.dtype.kind not in "buif":
        raise TypeError(f"array holds {type(array._meta).__name__} of {array.dtype}; give numpy arrays of real numbers")
    if any(np.isnan(n) for n in array.shape):
        raise ValueError(f"array has the unknown shape {array.shape}; call its compute_chunk_sizes() first")
    arrays.check_numbers(array, "array")
    return Layout.of(array, channels, series)


class GraphBuilder:
    """Builds the graph of one run."""

    def __init__(self, token: str, array: da.Array, layout: Layout, choices: Choices) -> None:
        self.token, self.array, self.layout, self.choices = token, array, layout, choices
        self.settings = choices.settings
        self.mask: da.Array | None = None
        self.sigma_map: da.Array | None = None
        self.graph: Graph = {}
        self.dependencies: list[Any] = [array]

    def name(self, what: str) -> str:
        return f"{self.token}-{what}"

    def with_dependencies(self, what: str) -> HighLevelGraph:
        return HighLevelGraph.from_collections(self.name(what), self.graph, dependencies=self.dependencies)

    def beside(self, array: arrays.Readable | None, name: str) -> da.Array | None:
        """A mask or map as a dask array with the chunks of the volume."""
        if array is None:
            return None
        chunked = array if isinstance(array, da.Array) else None
        if chunked is None:
            readable_beside(array, name, self.layout)
            chunks = tuple(self.array.chunks[axis] for axis in self.layout.spatial_axes)
            numbers = array.detach().cpu().numpy() if isinstance(array, Tensor) else array
            chunked = da.from_array(numbers, chunks=chunks)
        self.layout.spatial(chunked, name)
        self.dependencies.append(chunked)
        return chunked

    def denoised(self) -> da.Array:
        layout, choices = self.layout, self.choices
        apart = clone(self.array, seed=self.token)  # or its chunks would wait in memory for the survey to end
        self.dependencies.append(apart)
        facts = [self.facts(apart, index) for index in range(layout.volumes)]
        chunks = list(self.array.chunks)
        if layout.channels is not None:
            chunks[layout.channels] = (layout.channel_count,)
        halo, grain = choices.halo, choices.grain
        dtype = np.dtype(choices.settings.dtype or self.array.dtype)
        name = self.name("denoise")
        for number, box in boxes(tuple(chunks)):
            tile = Tile.around(spatial(box, layout), layout.shape, halo, grain)
            volumes = range(layout.volumes) if layout.series is None else range(layout.volumes)[box[layout.series]]
            window = list(layout.index(0, tile.outer))
            if layout.series is not None:
                window[layout.series] = box[layout.series]
            beside = Layout(layout.spatial_shape, None, None).index(0, tile.outer)
            inputs = [
                self.cut(self.array, tuple(window)),
                None if self.mask is None else self.cut(self.mask, beside),
                None if self.sigma_map is None else self.cut(self.sigma_map, beside),
            ]
            block = Block(box, tile, len(volumes), layout, choices, dtype)
            self.graph[(name, *number)] = (denoise_block, *inputs, [facts[index] for index in volumes], block)
        result: da.Array = da.Array(self.with_dependencies("denoise"), name, tuple(chunks), dtype=dtype)
        same_chunks: da.Array = result.rechunk(self.array.chunks)
        return same_chunks

    def facts(self, array: da.Array, index: int) -> Key:
        """The key of what is known of one volume."""
        layout, looks, ranges = self.layout, [], []
        spatial_chunks = tuple(array.chunks[axis] for axis in layout.spatial_axes)
        beside = Layout(layout.spatial_shape, None, None)
        for number, box in boxes(spatial_chunks):
            place = spatial(box, beside)
            looks.append((self.name("look"), index, *number))
            glance = Glance(place, layout, self.settings.h is None)
            self.graph[looks[-1]] = (look, self.cut(array, layout.index(index, place)), glance)
            if self.sigma_map is not None:
                ranges.append((self.name("range"), *number))
                self.graph[ranges[-1]] = (map_range, self.cut(self.sigma_map, box), place)
        noise: Noise | Key | None = None
        if self.sigma_map is None and self.settings.sigma is None and self.settings.noise != "poisson":
            noise = self.levels(array, index)
        elif self.sigma_map is None:
            noise = noise_of(arrays.Sliced(np.empty(1)), index, layout, self.settings, None, None)
        key = (self.name("facts"), index)
        known = Opaque(noise) if isinstance(noise, Noise) else noise
        self.graph[key] = (facts_together, looks, known, ranges, self.settings, layout.channel_count)
        return key

    def levels(self, array: da.Array, index: int) -> Key:
        """The key of sigma of each channel of one volume."""
        voxels = estimate.SAMPLE
        if self.settings.memory is not None:
            voxels = min(voxels, self.settings.memory // estimate.SAMPLE_BYTES)
        places = estimate.sample(self.layout.shape, voxels)
        beside = Layout(self.layout.spatial_shape, None, None)
        values = [self.cut(array, self.layout.index(index, place)) for place in places]
        inside = [] if self.mask is None else [self.cut(self.mask, beside.index(0, place)) for place in places]
        key = (self.name("levels"), index)
        self.graph[key] = (levels_of, values, inside, self.layout, self.settings)
        return key

    def cut(self, array: da.Array, box: arrays.Slices) -> Key:
        """The key of the values in a box, put together from the parts of the chunks that it touches."""
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
        self.graph[key] = (put_together, parts, Opaque((shape, places)))
        return key


@dataclass(frozen=True)
class Opaque:
    """Something that dask is not to look for keys in."""

    value: Any


@dataclass(frozen=True)
class Glance:
    """Where to look, and what for."""

    place: Piece
    layout: Layout
    strided: bool


@dataclass(frozen=True)
class Block:
    """One chunk of the result: where it lies, what is read for it, and how it is denoised."""

    box: arrays.Slices
    tile: Tile
    volumes: int
    layout: Layout
    choices: Choices
    dtype: np.dtype[Any]


class Window(arrays.Sliced):
    """Part of an array, sliced as if it were the whole."""

    def __init__(self, values: Numbers, shape: tuple[int, ...], origin: tuple[int, ...]) -> None:
        self.values, self.origin = values, origin
        self.shape, self.ndim, self.dtype, self.chunks = shape, len(shape), values.dtype, None

    def __getitem__(self, key: arrays.Slices) -> Numbers:
        sides = [range(n)[side] for n, side in zip(self.shape, key, strict=True)]
        local = tuple(slice(s.start - first, s.stop - first) for s, first in zip(sides, self.origin, strict=True))
        return self.values[local]


def boxes(chunks: tuple[tuple[int, ...], ...]) -> Iterator[tuple[tuple[int, ...], arrays.Slices]]:
    """The number of each chunk along each axis, and where it lies."""
    sides = []
    for sizes in chunks:
        stops = itertools.accumulate(sizes)
        places = (slice(stop - size, stop) for size, stop in zip(sizes, stops, strict=True))
        sides.append(list(enumerate(places)))
    for crossed in itertools.product(*sides):
        numbers, box = zip(*crossed, strict=True)
        yield numbers, box


def overlaps(sizes: tuple[int, ...], wanted: range) -> list[tuple[int, slice, slice]]:
    """Chunks along one axis that overlap with what is wanted: number, where within the chunk, and within the wanted."""
    found = []
    for number, stop in enumerate(itertools.accumulate(sizes)):
        start = stop - sizes[number]
        first, last = max(start, wanted.start), min(stop, wanted.stop)
        if first < last:
            within = slice(first - wanted.start, last - wanted.start)
            found.append((number, slice(first - start, last - start), within))
    return found


def spatial(box: arrays.Slices, layout: Layout) -> Piece:
    sides = [box[axis] for axis in layout.spatial_axes]
    return piece([slice(0, 1)] * (3 - len(sides)) + sides)


# ---------------------------------------------------------------- what the tasks do


def put_together(parts: list[Numbers], plan: Opaque) -> Numbers:
    shape, places = plan.value
    if len(parts) == 1:
        return parts[0]
    values = np.empty(shape, parts[0].dtype)
    for part, place in zip(parts, places, strict=True):
        values[place] = part
    return values


def look(values: Numbers, glance: Glance) -> list[Seen]:
    with naming(glance.place), own_threads():
        return look_at(values, glance.place, glance.layout, glance.layout.everywhere, glance.strided)


def map_range(values: Numbers, place: Piece) -> tuple[float, float]:
    with naming(place), own_threads():
        return arrays.value_range(values, "sigma")


def levels_of(values: list[Numbers], inside: list[Numbers], layout: Layout, settings: Settings) -> tuple[float, ...]:
    """Sigma of each channel, from pieces of one volume."""
    axis = layout.spatial_axes[0]
    together = np.concatenate(values, axis=axis)
    where = np.concatenate(inside, axis=0) if inside else None
    sampled = Layout(together.shape, layout.channels, layout.series)
    with own_threads():
        return estimate.sigma_levels(together, 0, sampled, settings.noise, where, despeckled=settings.despeckle)


def facts_together(
    looks: list[list[Seen]],
    noise: Opaque | tuple[float, ...] | None,
    ranges: list[tuple[float, float]],
    settings: Settings,
    channels: int,
) -> Facts:
    if isinstance(noise, Opaque):
        known: Noise = noise.value
    elif noise is not None:
        known = Noise(noise, 0.0, None)
    else:
        checks.not_negative("sigma", min(low for low, _ in ranges))
        known = Noise((max(high for _, high in ranges),) * channels, 0.0, None)
    return facts_of(merged(looks), settings, known)


def denoise_block(
    values: Numbers, inside: Numbers | None, sigma: Numbers | None, facts: list[Facts], block: Block
) -> Numbers:
    layout, outer = block.layout, block.tile.outer
    shape = list(layout.array_shape)
    if layout.series is not None:
        shape[layout.series] = block.volumes
    here = Layout(tuple(shape), layout.channels, layout.series)
    origin = [0] * len(shape)
    for axis, side in zip(layout.spatial_axes, outer[-len(layout.spatial_axes) :], strict=True):
        origin[axis] = side.start
    first = tuple(origin[axis] for axis in layout.spatial_axes)
    window = Window(values, here.array_shape, tuple(origin))
    mask, sigma_map = (None if a is None else Window(a, layout.spatial_shape, first) for a in (inside, sigma))
    result = np.empty(here.array_shape_of(block.tile.inner), block.dtype)
    with naming(block.tile.inner), own_threads():
        choices = dataclasses.replace(block.choices, settings=on_this_worker(block.choices.settings))
        for index, known in enumerate(facts):
            Plan(window, index, here, choices, known, mask, sigma_map).run(block.tile.inner, into=result)
    return result


@contextlib.contextmanager
def naming(place: Piece) -> Iterator[None]:
    """What goes wrong, as an error that says in which block."""
    try:
        yield
    except Exception as error:
        kind = ValueError if isinstance(error, ValueError) else RuntimeError
        voxels = ", ".join(f"{side.start}:{side.stop}" for side in place)
        raise kind(f"{error} (in the block of voxels [{voxels}])") from error


def own_threads() -> contextlib.AbstractContextManager[None]:
    """As many threads for this task as there are cores for each of those that run beside it."""
    return shared_among(tasks_here())


def tasks_here() -> int:
    """How many tasks run in this process at a time."""
    worker = this_worker()
    if worker is not None:
        return int(worker.state.nthreads)
    return 1 if threading.current_thread() is threading.main_thread() else CPU_COUNT


def this_worker() -> Any:
    """The worker of a cluster that runs this task, if one does."""
    if "distributed" not in sys.modules:
        return None
    try:
        return sys.modules["distributed"].get_worker()
    except ValueError:
        return None


def on_this_worker(settings: Settings) -> Settings:
    """The settings with the memory that one task may use here, and one of several GPUs."""
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
