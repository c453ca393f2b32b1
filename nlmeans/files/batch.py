"""Cohorts: denoise many scans in several processes, go on where one fails, and skip what is finished."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import multiprocessing
import os
import queue
import shutil
import signal
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from nlmeans.core import memory
from nlmeans.core.progress import Report
from nlmeans.engine.settings import Settings
from nlmeans.files import atomic, bids, nifti
from nlmeans.files.denoise import denoise_file

log = logging.getLogger("nlmeans")

WITHOUT_INFLUENCE = ("device", "memory")
"""Options that change how a result is computed, and the result by no more than rounding."""


@dataclass(frozen=True)
class Job:
    """One scan of a cohort: where from, where to, and how."""

    name: str
    source: Path
    target: Path
    picture: Path
    options: Mapping[str, Any]
    image: bids.Image | None = None
    """The same as an image of a BIDS dataset, if it is one."""
    copies: tuple[tuple[Path, Path], ...] = ()
    """Files that belong to the result as they are, such as directions and weights of diffusion: from, to."""

    @property
    def record(self) -> Path:
        return self.target.with_name(self.target.name.removesuffix(".nii.gz") + ".json")

    @property
    def request(self) -> dict[str, Any]:
        """What was asked for, as far as it decides the result."""
        asked = {name: value for name, value in self.options.items() if name not in WITHOUT_INFLUENCE}
        plain: dict[str, Any] = json.loads(json.dumps(asked))  # as the record will have it
        return plain | {"version": version("nlmeans")}

    def check(self) -> None:
        """Refuse pipes, devices and links to nowhere, of which reading would not end or not begin."""
        for path in (self.source, *(source for source, _ in self.copies)):
            if not path.is_file() and not (path == self.source and path.is_dir()):
                raise ValueError(f"{path} is no regular file; remove it or put the right one there")

    def finished(self) -> bool:
        """Whether the result is there as it was written, of this source and of these settings."""
        if not (self.target.is_file() and self.picture.is_file()):
            return False
        if not all(copy.is_file() and nifti.sha256(copy) == nifti.sha256(source) for source, copy in self.copies):
            return False
        try:
            record = bids.read_object(self.record)
        except (ValueError, TypeError):
            return False
        return (
            record.get("request") == self.request
            and record.get("input_sha256") == nifti.sha256(self.source)
            and record.get("output_sha256") == nifti.sha256(self.target)
        )

    def run(self) -> str:
        for path in (self.target, self.picture):
            path.parent.mkdir(parents=True, exist_ok=True)
        for source, copy in self.copies:
            with atomic.written_together(copy) as (temporary,):
                shutil.copyfile(source, temporary)
        return denoise_file(
            self.source,
            self.target,
            picture=self.picture,
            overwrite=True,
            about={**(self.image.about_derivative if self.image else {}), "request": self.request},
            **self.options,
        )


@dataclass(frozen=True)
class Outcome:
    """What became of a scan: ``denoised``, ``finished before`` or ``failed``."""

    job: Job
    state: str
    reason: str = ""

    @property
    def record(self) -> dict[str, Any]:
        return {} if self.state == "failed" else bids.read_object(self.job.record)


# ---------------------------------------------------------------- which scans


def jobs_of_dataset(images: Sequence[bids.Image], out: Path, noise: str, options: Mapping[str, Any]) -> list[Job]:
    """A job for each image of a BIDS dataset, named as its derivatives are."""
    jobs = []
    for image in images:
        target = out / image.derivative
        copies = []
        for ending in (".bval", ".bvec"):
            if image.suffix == "dwi" and image.beside(ending):
                copies.append((image.beside(ending)[-1], target.with_name(bids.stem(target) + ending)))
        settings = {**options, "noise": image.noise if noise == "auto" else noise}
        picture = out / "figures" / f"{bids.stem(target)}.png"
        jobs.append(Job(image.relative.as_posix(), image.path, target, picture, settings, image, tuple(copies)))
    return jobs


def jobs_of_files(sources: Sequence[Path], out: Path, noise: str, options: Mapping[str, Any]) -> list[Job]:
    """A job for each file or folder of DICOM, under the folders below the one that they all share."""
    places = [Path(os.path.normpath(source.absolute())) for source in sources]
    shared = Path(os.path.commonpath([place.parent for place in places]))
    settings = {**options, "noise": "gaussian" if noise == "auto" else noise}
    jobs = []
    for source, place in zip(sources, places, strict=True):
        below = place.relative_to(shared)
        name = below.name if source.is_dir() else below.name.removesuffix(".gz").removesuffix(".nii")
        target = out / below.with_name(f"{name}_denoised.nii.gz")
        picture = out / "figures" / below.with_name(f"{name}.png")
        jobs.append(Job(below.as_posix(), source, target, picture, settings))
    return jobs


def expanded(sources: Sequence[str], out: Path) -> list[Path]:
    """The files, the files that patterns match, and of folders the images in them, or the folder itself for DICOM.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: a BIDS dataset among other things.
    """
    found: list[Path] = []
    for source in sources:
        paths = [Path(source)] if Path(source).exists() else matching(source)
        if not paths:
            raise FileNotFoundError(f"{source}: no such file, folder or match")
        for path in sorted(paths):
            if not path.is_dir():
                found.append(path)
                continue
            if bids.is_dataset(path):
                raise ValueError(f"{path} is a BIDS dataset; give it alone")
            inside = sorted(file for ending in nifti.ENDINGS for file in path.rglob(f"*{ending}"))
            found += inside or [path]
    there = nifti.real(out)
    return [path for path in dict.fromkeys(found) if there not in nifti.real(path).parents]


def matching(pattern: str) -> list[Path]:
    """What a pattern such as ``scans/**/*.nii.gz`` matches."""
    path = Path(pattern)
    return list(Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))))


def checked(jobs: Sequence[Job], out: Path) -> None:
    """Refuse names that lead out of the output folder, over a source, or that two scans share."""
    root = nifti.real(out)
    taken: dict[Path, str] = {}
    sources = {nifti.real(job.source) for job in jobs}
    for job in jobs:
        for path in (job.target, job.record, job.picture, *(copy for _, copy in job.copies)):
            real = nifti.real(path)
            if root not in real.parents:
                raise ValueError(f"{path} leads out of {out}, to {real}; choose another --out or remove the link")
            if real in sources:
                raise ValueError(f"{path} is one of the scans; choose another --out")
            if taken.setdefault(real, job.name) != job.name:
                raise ValueError(f"{job.name} and {taken[real]} would both become {path}; denoise them apart")


# ---------------------------------------------------------------- the work


def run_all(jobs: Sequence[Job], workers: int, threads: int, progress: Report) -> list[Outcome]:
    """Run the jobs, each in one of `workers` processes with its own `threads`; with one worker in this process.

    Each process has a queue of its own, so that one that dies, for instance for want of memory, takes no other scan
    with it. `progress` is told the share of scans that is done, from this thread.
    """
    if workers == 1:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            outcomes = []
            for job in jobs:
                outcomes.append(run_one(job))
                progress(len(outcomes) / len(jobs))
        finally:
            torch.set_num_threads(before)
        return outcomes
    done: queue.Queue[Outcome] = queue.Queue()
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    stop = threading.Event()

    def serve(index: int) -> None:
        with contextlib.closing(Worker(index, threads)) as worker:
            while not stop.is_set():
                try:
                    job = waiting.get_nowait()
                except queue.Empty:
                    return
                done.put(worker.run(job))

    found: dict[str, Outcome] = {}
    with ThreadPoolExecutor(workers) as pool:
        served = [pool.submit(serve, index) for index in range(min(workers, len(jobs)))]
        try:
            while len(found) < len(jobs):
                with contextlib.suppress(queue.Empty):
                    outcome = done.get(timeout=0.2)
                    found[outcome.job.name] = outcome
                    progress(len(found) / len(jobs))
                    continue
                if all(future.done() for future in served) and done.empty():
                    raise_first(served)
        finally:
            stop.set()
    return [found[job.name] for job in jobs]


def raise_first(futures: Sequence[Future[None]]) -> None:
    """What ended the threads before their work was done."""
    for future in futures:
        future.result()
    raise RuntimeError("the workers ended before their work was done")


class Worker:
    """One process, replaced by a new one when it dies."""

    def __init__(self, index: int, threads: int) -> None:
        self.index, self.threads = index, threads
        self.process = self.started()

    def started(self) -> ProcessPoolExecutor:
        # Threads and CUDA do not survive a fork.
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(1, context, initializer=prepare, initargs=(self.index, self.threads))

    def run(self, job: Job) -> Outcome:
        # A process inherits this from the thread, and is not interrupted while it begins. Not done earlier, because
        # what keeps track of the processes undoes it when it is started, together with the queues.
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return self.process.submit(run_interruptibly, job).result()
        except BrokenProcessPool:
            self.close()
            self.process = self.started()
            return Outcome(job, "failed", "the process died, perhaps killed for want of memory; take fewer --workers")

    def close(self) -> None:
        self.process.shutdown(wait=True, cancel_futures=True)


def prepare(index: int, threads: int) -> None:
    """In a new process: its threads, its GPU if there are several, and an end when the one that started it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    torch.set_num_threads(threads)
    if torch.cuda.device_count() > 1:
        torch.cuda.set_device(index % torch.cuda.device_count())
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=end_with, args=(parent,), daemon=True).start()


def end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def run_interruptibly(job: Job) -> Outcome:
    """In a worker, which Ctrl-C reaches too: it ends the scan, and its traces are removed."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return run_one(job)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def run_one(job: Job) -> Outcome:
    """Whatever is wrong with a scan is told of it, and stops no other."""
    try:
        job.check()
        if job.finished():
            return Outcome(job, "finished before")
        with memory.shortage():
            log.info(job.run())
    except Exception as error:
        log.info("%s failed", job.name, exc_info=True)
        text = " ".join(str(error).split()).replace(str(job.source), job.source.name)
        foreseen = isinstance(error, ValueError | TypeError | OSError | MemoryError) and text
        kind = "" if foreseen else f"{type(error).__name__}: "
        old = "; what an earlier run made of it is still there" if os.path.lexists(job.target) else ""
        return Outcome(job, "failed", f"{kind}{text}{old}")
    return Outcome(job, "denoised")


# ---------------------------------------------------------------- a whole run


def cohort(
    sources: Sequence[str],
    out: Path | None,
    *,
    noise: str = "auto",
    suffixes: tuple[str, ...] = (),
    participants: tuple[str, ...] = (),
    sessions: tuple[str, ...] = (),
    **options: Any,
) -> tuple[list[Job], Path, dict[str, Any] | None]:
    """The jobs of a run, the folder for their results, and for a BIDS dataset the description of its derivatives."""
    root = Path(sources[0])
    if len(sources) == 1 and bids.is_dataset(root):
        out = root / "derivatives" / "nlmeans" if out is None else out
        images = bids.selected(root, suffixes, participants, sessions)
        jobs, description = jobs_of_dataset(images, out, noise, options), bids.description(root, out)
    else:
        if out is None:
            raise ValueError("--out is needed, the folder for the results; a BIDS dataset alone has one of its own")
        if suffixes or participants or sessions:
            raise ValueError(f"--suffix, --participant and --session choose from a BIDS dataset, which {root} is not")
        files = expanded(sources, out)
        if not files:
            raise ValueError(f"{', '.join(sources)}: no image outside {out}, where the results go")
        jobs, description = jobs_of_files(files, out, noise, options), None
    if bids.is_dataset(out) and "nlmeans" not in makers(out):
        raise ValueError(f"{out} is a dataset that nlmeans did not make; choose another --out")
    checked(jobs, out)
    known = {field.name for field in dataclasses.fields(Settings)}
    for kind in {job.options["noise"] for job in jobs}:  # what is wrong for all is said before any work
        Settings(**{name: value for name, value in options.items() if name in known}, noise=kind)
    return jobs, out, description


def makers(out: Path) -> list[str]:
    made = bids.read_object(out / bids.DESCRIPTION).get("GeneratedBy")
    return [str(maker.get("Name")) for maker in made if isinstance(maker, dict)] if isinstance(made, list) else []
