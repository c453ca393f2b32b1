"""The tasks of a dask graph: what each computes, of which part of a volume, with which share of the machine."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import sys
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from dask.system import CPU_COUNT
from torch import Tensor

from nlmeans.core import arrays, checks
from nlmeans.core.layout import Layout
from nlmeans.core.memory import available
from nlmeans.core.modes import shared_among
from nlmeans.core.tiles import Piece, Tile
from nlmeans.engine.basis import Local, common_of, local_components, with_local
from nlmeans.engine.choices import Choices
from nlmeans.engine.noise import Noise, noise_of
from nlmeans.engine.plan import Plan
from nlmeans.engine.scaled import ScaledVolume
from nlmeans.engine.settings import MINIMUM_MEMORY, Settings
from nlmeans.engine.survey import Facts, Seen, facts_of, look_at, merge_seen, say_missing, why_gaussian
from nlmeans.patches.low_rank.components import Common, products_of

log = logging.getLogger("nlmeans")

NumpyArray = npt.NDArray[Any]


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
        """Return the signals of the slab; see `ScaledVolume.signals`."""
        window = Window.on(values, self.layout, self.box)
        level = None if sigma is None else Window.on(sigma, self.layout.spatial_alone, self.box)
        return ScaledVolume(window, 0, self.layout, self.choices, facts, None, level).signals(self.box)


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
