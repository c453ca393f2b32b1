"""One OME-Zarr image on its way into another, block by block, with a journal of what is finished."""

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
from nlmeans.core.memory import allowed, readable
from nlmeans.core.progress import Report, part
from nlmeans.engine.choices import Choices
from nlmeans.engine.plan import Plan
from nlmeans.engine.settings import MINIMUM_MEMORY, Settings, device_or_gpu
from nlmeans.engine.survey import Facts
from nlmeans.files.atomic import clear, put_in_place, sync
from nlmeans.files.zarr import ngff
from nlmeans.files.zarr.journal import NAME as JOURNAL
from nlmeans.files.zarr.journal import Journal
from nlmeans.files.zarr.ngff import ZarrImage, one_line
from nlmeans.files.zarr.pyramid import Level, create, describe, halved, levels_of

Box = tuple[slice, ...]
"""A slice per axis of the array."""


def partial(target: Path) -> Path:
    """Where a result lies until it is whole."""
    return target.with_name(f".{target.name}.partial")


# ---------------------------------------------------------------- to begin, or to go on


WITHOUT_INFLUENCE = ("device", "memory")
"""Settings that change how a result is computed, and the result by no more than rounding."""

BLOCK_SHARE, ENGINE_SHARE = 1 / 4, 1 / 2
"""Of the memory allowed: for the block that is computed, and for the engine. The rest is for reading and writing."""


@dataclass(frozen=True)
class ZarrRequest:
    """What is to be denoised, into what, and how."""

    image: ZarrImage
    target: Path
    settings: Settings
    mask: ZarrImage | None
    sigma_map: ZarrImage | None

    def to_dict(self) -> dict[str, Any]:
        """All that decides the result, as JSON has it."""
        settings = {name: v for name, v in self.settings.to_dict().items() if name not in WITHOUT_INFLUENCE}
        found = {
            "input": ngff.fingerprint(self.image),
            "mask": self.mask and ngff.fingerprint(self.mask),
            "sigma_map": self.sigma_map and ngff.fingerprint(self.sigma_map),
            "settings": settings,
            "nlmeans": version("nlmeans"),
        }
        plain: dict[str, Any] = json.loads(json.dumps(found))
        return plain


def started(request: ZarrRequest, overwrite: bool) -> ZarrRun:
    """A new run, or the one that was interrupted.

    The blocks and the method are those that it began with, so that its blocks and those still to come fit together.
    """
    asked, levels = request.to_dict(), levels_of(request.image)
    journal = interrupted(request.target, asked, overwrite)
    plan = None if journal is None else journal.entries[0]["plan"]
    settings, image = request.settings, request.image
    memory = settings.memory or (plan["memory"] if plan else allowed(torch.device("cpu"), None))
    device = device_or_gpu(settings.device)
    on_gpu = device != "cpu" and settings.memory is None  # which then has a memory of its own
    settings = dataclasses.replace(
        settings,
        sigma=None,
        device=device,
        memory=None if on_gpu else max(int(memory * ENGINE_SHARE), MINIMUM_MEMORY),
        method=plan["method"] if plan else settings.method,
    )
    choices = Choices.of(settings, Layout(image.spatial_shape, None, None))
    dtype = np.dtype(settings.dtype or image.array.dtype)
    if journal is None or plan is None:
        shapes = [block_shape(image, level, dtype, memory) for level in levels]
        plan = {"memory": memory, "method": choices.name, "blocks": shapes}
        journal = Journal.begin(partial(request.target), {"request": asked, "plan": plan})
    largest = math.prod(plan["blocks"][0]) * dtype.itemsize
    if largest > memory * ENGINE_SHARE:
        raise ValueError(
            f"memory={readable(memory)} is too little to go on with, as the blocks of the interrupted run have "
            f"{readable(largest)}; allow {readable(largest / BLOCK_SHARE)}, or start anew with --overwrite"
        )
    return ZarrRun(request, choices, dtype, levels, [tuple(shape) for shape in plan["blocks"]], memory, journal)


def interrupted(target: Path, asked: Mapping[str, Any], overwrite: bool) -> Journal | None:
    """What an earlier run left, if it can be gone on with; what cannot is removed, if it may be or is worth nothing."""
    folder = partial(target)
    if not folder.exists():
        return None
    if not (folder / JOURNAL).is_file() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is in the way, and not what nlmeans leaves; remove it")
    journal = Journal.found(folder) if (folder / JOURNAL).is_file() else None
    if journal is not None and journal.entries:
        different = differences(journal.entries[0].get("request"), asked)
        if not different:
            return journal
        if not overwrite and journal.all("block"):
            raise FileExistsError(
                f"{folder} is what an interrupted run left that differs in {different}; repeat its call to go on with "
                "it, choose another OUT, or add --overwrite to start anew"
            )
    shutil.rmtree(folder)
    return None


def differences(one: Any, other: Mapping[str, Any]) -> str:
    """The names of what two requests differ in; empty where they are the same."""
    if not isinstance(one, Mapping):
        return "everything"
    names = [name for name in other if name != "settings" and one.get(name) != other[name]]
    before, now = one.get("settings", {}), other["settings"]
    names += [f"{name} ({before.get(name)}, now {now[name]})" for name in now if before.get(name) != now[name]]
    return ", ".join(names)


# ---------------------------------------------------------------- blocks


def block_shape(image: ZarrImage, level: Level, dtype: np.dtype[Any], memory: int) -> tuple[int, ...]:
    """The shape of the blocks in which a level is written: whole chunks or shards, as many as the memory allows.

    As near to cubes as can be, which need the least around them, and all of about the same size.
    """
    limit = memory * BLOCK_SHARE / dtype.itemsize
    unit = [min(u, n) for u, n in zip(image.unit, level.shape, strict=True)]
    if math.prod(unit) > limit:
        pieces, wanted = "×".join(map(str, image.unit)), math.prod(unit) * dtype.itemsize / BLOCK_SHARE
        raise ValueError(
            f"{image.path} is stored in pieces of {pieces}, which are written as a whole; for them "
            f"memory={readable(memory)} is too little: allow {readable(wanted)}"
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


def boxes(shape: Sequence[int], block: Sequence[int]) -> Iterator[Box]:
    """Cover an array with blocks, in the order of its axes."""
    cuts = [[slice(start, min(start + b, n)) for start in range(0, n, b)] for n, b in zip(shape, block, strict=True)]
    return itertools.product(*cuts)


# ---------------------------------------------------------------- the run


@dataclass(frozen=True)
class ZarrRun:
    """An image on its way into a folder, whose journal says how far it has come."""

    request: ZarrRequest
    choices: Choices
    """For one volume, with the memory that is left to the engine."""
    dtype: np.dtype[Any]
    levels: list[Level]
    blocks: list[tuple[int, ...]]
    """Their shape in each level."""
    memory: int
    journal: Journal

    @property
    def folder(self) -> Path:
        return partial(self.request.target)

    @property
    def finished(self) -> int:
        return len(self.journal.all("block"))

    @property
    def total(self) -> int:
        return sum(
            math.prod(math.ceil(n / b) for n, b in zip(level.shape, block, strict=True))
            for level, block in zip(self.levels, self.blocks, strict=True)
        )

    @property
    def facts(self) -> list[Facts]:
        """Of the volumes that were looked through."""
        return [Facts.from_dict(facts) for facts in self.journal.all("facts")]

    @property
    def how(self) -> str:
        found = [facts.sigma[0] for facts in self.facts]
        noise = self.choices.settings.noise
        if noise == "poisson":
            level = ""
        elif self.request.sigma_map is not None:
            level = ", sigma from a map"
        else:
            several = f"{min(found):.4g} to {max(found):.4g} over {len(found)} volumes"
            level = f", sigma {several if len(found) > 1 else f'{found[0]:.4g}'}"
        return f"{self.choices.name}, {noise} noise{level}"

    def complete(self, report: Report) -> None:
        """Do what is still to do, and give the folder its name."""
        try:
            with zarr.config.set({"async.concurrency": self.at_once}):
                self.prepare()
                plans = self.plans()
                for number, index, box, share in self.left():
                    if number == 0:
                        self.denoise_block(box, plans, part(report, *share))
                    else:
                        self.halve_block(number, box)
                    self.finish(number, index, box)
                    report(share[1])
            describe(self.folder, self.request.image, self.levels, self.record())
        except Exception:
            if not self.finished:
                shutil.rmtree(self.folder, ignore_errors=True)
            raise
        clear(self.request.target)
        put_in_place([self.folder], [self.request.target])
        sync(self.request.target.parent)  # before there is no journal any more
        (self.request.target / JOURNAL).unlink()
        report(1.0)

    @property
    def at_once(self) -> int:
        """Chunks to read or write at the same time: each is there as stored, as read, and as a part of a block."""
        one = 3 * math.prod(self.request.image.unit) * self.request.image.array.dtype.itemsize
        return max(1, min(os.cpu_count() or 1, int(self.memory * (1 - BLOCK_SHARE - ENGINE_SHARE) / one)))

    def prepare(self) -> None:
        """The arrays of all levels, still empty; and no leavings of a write that was cut off."""
        if self.journal.all("created"):
            for leaving in self.folder.rglob("*.partial"):
                leaving.unlink()
            return
        with storing_like(self.request.image):
            create(self.folder, self.request.image, self.levels, self.dtype)
        self.journal.add({"created": True})

    def plans(self) -> list[Plan]:
        """Each volume with what must be known of all of it, which the journal keeps."""
        image, known = self.request.image, self.facts
        layout, plans = Layout(image.spatial_shape, None, None), []
        mask, sigma_map = volume_of(self.request.mask), volume_of(self.request.sigma_map)
        for number, place in enumerate(image.volumes()):
            volume = arrays.readable(image.volume(place), str(image.path))
            sigma = self.request.settings.sigma
            level = sigma[number] if isinstance(sigma, tuple) else sigma
            choices = dataclasses.replace(
                self.choices, settings=dataclasses.replace(self.choices.settings, sigma=level)
            )
            facts = known[number] if number < len(known) else None
            try:
                plan = Plan.of(volume, 0, layout, choices, mask=mask, sigma_map=sigma_map, facts=facts)
            except ValueError as error:
                raise ValueError(f"{image.path} {image.title(place)}: {error}") from error
            if facts is None:
                self.journal.add({"facts": plan.facts.to_dict()})
            plans.append(plan)
        return plans

    def left(self) -> Iterator[tuple[int, int, Box, tuple[float, float]]]:
        """The level, number and box of every unfinished block, with where in the whole work it begins and ends."""
        finished = {tuple(place) for place in self.journal.all("block")}
        whole = sum(math.prod(level.shape) * weight(number) for number, level in enumerate(self.levels))
        done = 0.0
        for number, (level, block) in enumerate(zip(self.levels, self.blocks, strict=True)):
            for index, box in enumerate(boxes(level.shape, block)):
                share = math.prod(side.stop - side.start for side in box) * weight(number) / whole
                if (number, index) not in finished:
                    yield number, index, box, (done, done + share)
                done += share

    def finish(self, number: int, index: int, box: Box) -> None:
        """Note that a block is finished, once it is on the disk."""
        # A chunk of nothing but the fill value has no file.
        files = [file for file in self.stored(number, box) if file.is_file()]
        sync(*files, *{folder for file in files for folder in file.parents if self.folder in folder.parents})
        self.journal.add({"block": [number, index]})

    def stored(self, number: int, box: Box) -> Iterator[Path]:
        """The files that the values in a box are stored in."""
        array = self.array(number)
        unit = array.shards or array.chunks
        chunks = (range(side.start // u, math.ceil(side.stop / u)) for side, u in zip(box, unit, strict=True))
        for place in itertools.product(*chunks):
            yield self.folder / str(number) / array.metadata.encode_chunk_key(place)

    def array(self, number: int) -> zarr.Array[Any]:
        return zarr.open_array(
            self.folder / str(number), mode="r+", zarr_format=self.request.image.array.metadata.zarr_format
        )

    def denoise_block(self, box: Box, plans: Sequence[Plan], report: Report) -> None:
        """Denoise one block, which may have a piece of several volumes."""
        image = self.request.image
        result = np.empty([side.stop - side.start for side in box], self.dtype)
        others = [side for axis, side in enumerate(box) if axis not in image.spatial_axes]
        inside = [n for n, place in enumerate(image.volumes()) if all(map(within, place, others))]
        region = plans[0].layout.piece([box[axis] for axis in image.spatial_axes])
        for count, number in enumerate(inside):
            place = iter(p - side.start for p, side in zip(image.volumes()[number], others, strict=True))
            index = tuple(slice(None) if axis in image.spatial_axes else next(place) for axis in range(result.ndim))
            share = part(report, count / len(inside), (count + 1) / len(inside))
            plans[number].run(region, share, result[index])
        with storing_like(image):
            self.array(0)[box] = result

    def halve_block(self, number: int, box: Box) -> None:
        """A block of a coarser level, as the mean of what it covers in the one before, one piece of that at a time."""
        level, finer, source = self.levels[number], self.levels[number - 1], self.array(number - 1)
        result = np.empty([side.stop - side.start for side in box], self.dtype)
        unit = self.request.image.unit
        step = [max(1, u // 2) if axis in level.halved else u for axis, u in enumerate(unit)]
        for part_of_block in boxes(result.shape, step):
            covered = []
            for axis, (side, inside, n) in enumerate(zip(box, part_of_block, finer.shape, strict=True)):
                factor = 2 if axis in level.halved else 1
                start, stop = (factor * (side.start + end) for end in (inside.start, inside.stop))
                covered.append(slice(start, min(stop, n)))
            means = halved(np.asarray(source[tuple(covered)]), level.halved)
            arrays.write(result, part_of_block, torch.from_numpy(means))
        with storing_like(self.request.image):
            self.array(number)[box] = result

    def record(self) -> dict[str, Any]:
        """How the image was made, for its metadata."""
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
    """Codecs are made of the image's metadata, which may be enough to read it and too little to write."""
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as error:  # whatever codecs meet
        raise ValueError(
            f"{image.path} is stored in a way in which the result cannot be, its metadata may be damaged: "
            f"{one_line(error)}"
        ) from error


def volume_of(image: ZarrImage | None) -> arrays.Source | None:
    """The only volume of a mask or map."""
    return None if image is None else arrays.readable(image.volume(image.volumes()[0]), str(image.path))


def weight(number: int) -> float:
    """The time that a voxel of a level takes, beside one that is denoised."""
    return 1.0 if number == 0 else 0.05


def within(position: int, side: slice) -> bool:
    return position in range(side.start, side.stop)
