"""Run the denoising of an OME-Zarr image block by block, with a journal of the finished blocks."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr

from nlmeans.core import arrays
from nlmeans.core.layout import Layout
from nlmeans.core.memory import allowed, size_text
from nlmeans.core.progress import Report, part
from nlmeans.engine.choices import Choices
from nlmeans.engine.plan import Plan
from nlmeans.engine.run import say_doubts
from nlmeans.engine.settings import HARDWARE_SETTINGS, MINIMUM_MEMORY, NoiseLevel, Settings, device_or_gpu
from nlmeans.engine.survey import Facts, noise_in_words
from nlmeans.files.atomic import clear_leftovers, put_in_place, sync
from nlmeans.files.paths import one_line
from nlmeans.files.zarr import ngff
from nlmeans.files.zarr.journal import JOURNAL, Journal
from nlmeans.files.zarr.ngff import Place, ZarrImage
from nlmeans.files.zarr.pyramid import (
    ArrayBox,
    PyramidLevel,
    create_arrays,
    grid_boxes,
    halved_box,
    pyramid_levels,
    write_metadata,
)


def partial_folder(target: Path) -> Path:
    """Folder of an unfinished result."""
    return target.with_name(f".{target.name}.partial")


# ---------------------------------------------------------------- starting or resuming


BLOCK_SHARE, ENGINE_SHARE = 1 / 4, 1 / 2
"""Shares of the memory for one block and for the engine. The rest is for reading and writing."""


@dataclass(frozen=True)
class ZarrRequest:
    """What a run was asked to do."""

    image: ZarrImage
    target: Path
    settings: Settings
    mask: ZarrImage | None
    sigma_map: ZarrImage | None

    def to_dict(self) -> dict[str, Any]:
        """Everything that decides the result, in types that JSON keeps."""
        settings = {name: v for name, v in self.settings.to_dict().items() if name not in HARDWARE_SETTINGS}
        found = {
            "input": ngff.image_fingerprint(self.image),
            "mask": self.mask and ngff.image_fingerprint(self.mask),
            "sigma_map": self.sigma_map and ngff.image_fingerprint(self.sigma_map),
            "settings": settings,
            "nlmeans": version("nlmeans"),
        }
        plain: dict[str, Any] = json.loads(json.dumps(found))
        return plain


def start_or_resume(request: ZarrRequest, overwrite: bool) -> ZarrRun:
    """Start a run, or resume an interrupted one.

    A resumed run keeps the method and the shape of the blocks, so that old and new blocks fit together.

    Raises:
        ValueError: the memory is too small for a block.
        FileExistsError: an interrupted run was asked for something else, or the folder is in use for other files.
    """
    asked, levels = request.to_dict(), pyramid_levels(request.image)
    journal = resumable_journal(request.target, asked, overwrite)
    plan = None if journal is None else journal.entries[0]["plan"]
    settings, image = request.settings, request.image
    memory = settings.memory or (plan["memory"] if plan else allowed(torch.device("cpu"), None))
    device = device_or_gpu(settings.device)
    on_gpu = device != "cpu" and settings.memory is None  # the engine then works in the memory of the GPU
    settings = dataclasses.replace(
        settings,
        sigma=None,
        device=device,
        memory=None if on_gpu else max(int(memory * ENGINE_SHARE), MINIMUM_MEMORY),
        method=plan["method"] if plan else settings.method,
    )
    choices = choices_of_image(image, settings)
    dtype = np.dtype(settings.dtype or image.array.dtype)
    if journal is None or plan is None:
        together = image.time_axis if choices.method.joint else None
        shapes = [block_shape(image, level, dtype, memory, None if n else together) for n, level in enumerate(levels)]
        plan = {"memory": memory, "method": choices.name, "blocks": shapes}
        journal = Journal.begin(partial_folder(request.target), {"request": asked, "plan": plan})
    largest = math.prod(plan["blocks"][0]) * dtype.itemsize
    if largest > memory * ENGINE_SHARE:
        raise ValueError(
            f"memory={size_text(memory)} is too little to resume the interrupted run, whose blocks have "
            f"{size_text(largest)}; allow {size_text(largest / BLOCK_SHARE)}, or start again with --overwrite"
        )
    return ZarrRun(request, choices, dtype, levels, [tuple(shape) for shape in plan["blocks"]], memory, journal)


def choices_of_image(image: ZarrImage, settings: Settings) -> Choices:
    """Choose the method: one for series if the volumes over time belong together, see `is_one_series`."""
    if image.time_axis is None:
        return Choices.of(settings, Layout(image.spatial_shape, None, None))
    first = image.at(image.series()[0])
    layout = Layout(first.shape, None, first.axes.index(image.time_axis))
    choices = Choices.of(settings, layout, arrays.readable(first, str(image.path)))
    return choices if choices.method.joint else dataclasses.replace(choices, layout=layout.spatial_alone)


def resumable_journal(target: Path, asked: Mapping[str, Any], overwrite: bool) -> Journal | None:
    """Find the journal of an interrupted run that was asked for the same.

    The partial output of any other run is deleted if `overwrite` is True or no block in it is finished.

    Raises:
        FileExistsError: it may not be deleted, or nlmeans did not make it.
    """
    folder = partial_folder(target)
    if not folder.exists():
        return None
    if not (folder / JOURNAL).is_file() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} exists, and nlmeans did not make it; move or delete it")
    journal = Journal.found(folder) if (folder / JOURNAL).is_file() else None
    if journal is not None and journal.entries:
        different = request_differences(journal.entries[0].get("request"), asked)
        if not different:
            return journal
        if not overwrite and journal.all("block"):
            raise FileExistsError(
                f"{folder} is the unfinished result of another run, which differs in {different}; repeat that run to "
                "resume it, choose another OUT, or add --overwrite to start again"
            )
    shutil.rmtree(folder)
    return None


def request_differences(one: Any, other: Mapping[str, Any]) -> str:
    """Name the differences between two requests; empty if there are none."""
    if not isinstance(one, Mapping):
        return "everything"
    names = [name for name in other if name != "settings" and one.get(name) != other[name]]
    before, now = one.get("settings", {}), other["settings"]
    names += [f"{name} ({before.get(name)}, now {now[name]})" for name in now if before.get(name) != now[name]]
    return ", ".join(names)


# ---------------------------------------------------------------- blocks


def block_shape(
    image: ZarrImage, level: PyramidLevel, dtype: np.dtype[Any], memory: int, whole: int | None = None
) -> tuple[int, ...]:
    """Choose the shape of the blocks in which a level is written.

    A block consists of whole chunks or shards, as many as the memory allows. Blocks are as near to cubes as possible,
    which have the smallest halo, and have about the same size.

    Args:
        image: the image, whose chunks or shards the level has too.
        level: the level.
        dtype: type of the result.
        memory: bytes that the whole run may use.
        whole: an axis along which there is only one block.

    Raises:
        ValueError: the memory is too small for one chunk or shard.
    """
    limit = memory * BLOCK_SHARE / dtype.itemsize
    unit = [n if axis == whole else min(u, n) for axis, (u, n) in enumerate(zip(image.unit, level.shape, strict=True))]
    if math.prod(unit) > limit:
        pieces, wanted = "×".join(map(str, unit)), math.prod(unit) * dtype.itemsize / BLOCK_SHARE
        why = "is stored in" if whole is None else "is denoised as a series, in"
        raise ValueError(
            f"{image.path} {why} pieces of {pieces} voxels, which must be written as a whole; "
            f"memory={size_text(memory)} is too little for that: allow {size_text(wanted)}"
        )
    units = [math.ceil(n / u) for n, u in zip(level.shape, unit, strict=True)]
    counts, growing = [1] * len(unit), list(image.spatial_axes)
    while growing:
        axis = min(growing, key=lambda a: counts[a] * unit[a])
        counts[axis] += 1
        if counts[axis] > units[axis] or math.prod(c * u for c, u in zip(counts, unit, strict=True)) > limit:
            counts[axis] -= 1
            growing.remove(axis)
    even = (math.ceil(n / math.ceil(n / count)) for n, count in zip(units, counts, strict=True))
    return tuple(u * count for u, count in zip(unit, even, strict=True))


# ---------------------------------------------------------------- the run


@dataclass(frozen=True)
class ZarrRun:
    """A run that writes a denoised image into a folder, with a journal of its progress."""

    request: ZarrRequest
    choices: Choices
    """Choices for one volume, or for one series over time, with the engine's share of the memory."""
    dtype: np.dtype[Any]
    levels: list[PyramidLevel]
    blocks: list[tuple[int, ...]]
    """Shape of the blocks of each level."""
    memory: int
    """Bytes that the whole run may use."""
    journal: Journal

    @property
    def folder(self) -> Path:
        return partial_folder(self.request.target)

    @property
    def finished(self) -> int:
        """Number of finished blocks."""
        return len(self.journal.all("block"))

    @property
    def total(self) -> int:
        """Number of blocks."""
        return sum(
            math.prod(math.ceil(n / b) for n, b in zip(level.shape, block, strict=True))
            for level, block in zip(self.levels, self.blocks, strict=True)
        )

    @property
    def facts(self) -> list[Facts]:
        """Facts of the volumes, or series, that were surveyed so far."""
        return [Facts.from_dict(facts) for facts in self.journal.all("facts")]

    @property
    def how(self) -> str:
        """Method, kind of noise and sigma, in words."""
        noise = noise_in_words(self.facts, "from a map" if self.request.sigma_map is not None else "")
        return f"{self.choices.name}, {noise}"

    def complete(self, report: Report) -> None:
        """Compute the blocks that are left, and rename the folder to the target.

        A run that fails before any block is finished deletes the folder.
        """
        try:
            with zarr.config.set({"async.concurrency": self.at_once}):
                self.prepare()
                plans = self.plans()
                for number, index, box, share in self.unfinished():
                    if number == 0:
                        self.denoise_block(box, plans, part(report, *share))
                    else:
                        self.halve_block(number, box)
                    self.finish(number, index, box)
                    report(share[1])
            say_doubts(plans)
            write_metadata(self.folder, self.request.image, self.levels, self.record())
        except Exception:
            if not self.finished:
                shutil.rmtree(self.folder, ignore_errors=True)
            raise
        clear_leftovers(self.request.target)
        put_in_place([self.folder], [self.request.target])
        sync(self.request.target.parent)  # before the journal is deleted, or a crash could lose both
        (self.request.target / JOURNAL).unlink()
        report(1.0)

    @property
    def at_once(self) -> int:
        """Chunks to read or write at the same time. Each takes memory as stored, as read, and as part of the block."""
        one = 3 * math.prod(self.request.image.unit) * self.request.image.array.dtype.itemsize
        return max(1, min(os.cpu_count() or 1, int(self.memory * (1 - BLOCK_SHARE - ENGINE_SHARE) / one)))

    def prepare(self) -> None:
        """Create the arrays of all levels, or delete the incomplete files that an interrupted run left."""
        if self.journal.all("created"):
            for leftover in self.folder.rglob("*.partial"):
                leftover.unlink()
            return
        with storing_like(self.request.image):
            create_arrays(self.folder, self.request.image, self.levels, self.dtype)
        self.journal.add({"created": True})

    @property
    def parts(self) -> Sequence[Place]:
        """Place of each part of the image that has a plan of its own: each volume, or each series over time."""
        return self.request.image.series() if self.choices.method.joint else self.request.image.volumes()

    def plans(self) -> list[Plan]:
        """Plan each part. The journal keeps the facts, so that a resumed run need not survey the parts again."""
        image, known, plans = self.request.image, self.facts, []
        mask, sigma_map = only_volume(self.request.mask), only_volume(self.request.sigma_map)
        for number, place in enumerate(self.parts):
            settings = dataclasses.replace(self.choices.settings, sigma=self.given_sigma(place))
            choices = dataclasses.replace(self.choices, settings=settings)
            facts = known[number] if number < len(known) else None
            try:
                values = arrays.readable(image.at(place), str(image.path))
                plan = Plan.of(values, 0, choices.layout, choices, mask=mask, sigma_map=sigma_map, facts=facts)
            except ValueError as error:
                raise ValueError(f"{image.path} {image.title(place)}: {error}") from error
            if facts is None:
                self.journal.add({"facts": plan.facts.to_dict()})
            plans.append(plan)
        return plans

    def given_sigma(self, place: Place) -> NoiseLevel | None:
        """Return what was given for sigma of one part."""
        sigma, image = self.request.settings.sigma, self.request.image
        if not isinstance(sigma, tuple):
            return sigma
        levels = np.reshape(sigma, [image.array.shape[axis] for axis in image.other_axes])[place]
        return float(levels) if levels.ndim == 0 else tuple(levels.tolist())

    def unfinished(self) -> Iterator[tuple[int, int, ArrayBox, tuple[float, float]]]:
        """List level, number and box of each unfinished block, and at which fractions of the run it begins and ends."""
        finished = {tuple(place) for place in self.journal.all("block")}
        whole = sum(math.prod(level.shape) * voxel_cost(number) for number, level in enumerate(self.levels))
        done = 0.0
        for number, (level, block) in enumerate(zip(self.levels, self.blocks, strict=True)):
            for index, box in enumerate(grid_boxes(level.shape, block)):
                share = math.prod(side.stop - side.start for side in box) * voxel_cost(number) / whole
                if (number, index) not in finished:
                    yield number, index, box, (done, done + share)
                done += share

    def finish(self, number: int, index: int, box: ArrayBox) -> None:
        """Note in the journal that a block is finished, once it is on the disk."""
        # zarr stores no file for a chunk that holds only the fill value
        files = [file for file in self.stored(number, box) if file.is_file()]
        sync(*files, *{folder for file in files for folder in file.parents if self.folder in folder.parents})
        self.journal.add({"block": [number, index]})

    def stored(self, number: int, box: ArrayBox) -> Iterator[Path]:
        """List the files in which the values of a box are stored."""
        array = self.array(number)
        unit = array.shards or array.chunks
        chunks = (range(side.start // u, math.ceil(side.stop / u)) for side, u in zip(box, unit, strict=True))
        for place in itertools.product(*chunks):
            yield self.folder / str(number) / array.metadata.encode_chunk_key(place)

    def array(self, number: int) -> zarr.Array[Any]:
        """Open the array of a level."""
        return zarr.open_array(
            self.folder / str(number), mode="r+", zarr_format=self.request.image.array.metadata.zarr_format
        )

    def denoise_block(self, box: ArrayBox, plans: Sequence[Plan], report: Report) -> None:
        """Denoise a block, which may contain pieces of several volumes or series."""
        image = self.request.image
        result = np.empty([side.stop - side.start for side in box], self.dtype)
        others = [box[axis] for axis in image.other_axes]
        inside = [
            (plan, place)
            for plan, place in zip(plans, self.parts, strict=True)
            if all(isinstance(n, slice) or side.start <= n < side.stop for n, side in zip(place, others, strict=True))
        ]
        region = plans[0].layout.piece([box[axis] for axis in image.spatial_axes])
        for count, (plan, place) in enumerate(inside):
            index: list[int | slice] = [slice(None)] * result.ndim
            for axis, n in zip(image.other_axes, place, strict=True):
                index[axis] = n if isinstance(n, slice) else n - box[axis].start
            share = part(report, count / len(inside), (count + 1) / len(inside))
            plan.run(region, share, result[tuple(index)])
        with storing_like(image):
            self.array(0)[box] = result

    def halve_block(self, number: int, box: ArrayBox) -> None:
        """Compute a block of a coarser level from the level before."""
        result = halved_box(self.array(number - 1), self.levels[number], box, self.request.image.unit, self.dtype)
        with storing_like(self.request.image):
            self.array(number)[box] = result

    def record(self) -> dict[str, Any]:
        """Record how the image was made, for its metadata."""
        image, request = self.request.image, self.journal.entries[0]["request"]
        settings = dataclasses.replace(self.choices.record, sigma=self.request.settings.sigma, memory=self.memory)
        return {
            "version": version("nlmeans"),
            "torch": torch.__version__,
            "input": {"name": image.path.name, "fingerprint": request["input"]},
            "mask": self.request.mask and self.request.mask.path.name,
            "sigma_map": self.request.sigma_map and self.request.sigma_map.path.name,
            "settings": settings.to_dict(),
            "block": self.blocks[0],
            "volumes": [facts.to_dict() for facts in self.facts],
        }


@contextlib.contextmanager
def storing_like(image: ZarrImage) -> Iterator[None]:
    """Explain errors of writing: the result is stored like the image, and its metadata may suffice only for reading."""
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as error:  # codecs raise errors of any type
        raise ValueError(
            f"the result cannot be stored like {image.path}, whose metadata may be damaged: {one_line(error)}"
        ) from error


def only_volume(image: ZarrImage | None) -> arrays.Source | None:
    """Read a mask or map, which has only one volume."""
    return None if image is None else arrays.readable(image.at(image.volumes()[0]), str(image.path))


def voxel_cost(number: int) -> float:
    """Time that a voxel of a level takes, relative to a voxel that is denoised."""
    return 1.0 if number == 0 else 0.05
