"""Denoise many scans in several processes. A failed scan does not stop the others, and finished scans are skipped."""

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
from dataclasses import dataclass, field
from importlib.metadata import version
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal, Unpack

import torch

from nlmeans.core import memory
from nlmeans.core.progress import Report
from nlmeans.engine.arguments import FilterArguments
from nlmeans.engine.settings import HARDWARE_SETTINGS, Settings
from nlmeans.files import atomic, bids
from nlmeans.files.denoise import denoise_file
from nlmeans.files.formats import registry
from nlmeans.files.paths import existing, one_line, real_path, sha256
from nlmeans.files.phase import phase_beside

log = logging.getLogger("nlmeans")


@dataclass(frozen=True)
class Job:
    """One scan to denoise: its source, its outputs, and the options."""

    name: str
    source: Path
    target: Path
    picture: Path
    options: Mapping[str, Any]
    """Keyword arguments of `denoise_file`."""
    image: bids.BidsImage | None = None
    """The image in its BIDS dataset, if it comes from one."""
    copies: tuple[tuple[Path, Path], ...] = ()
    """Files to copy next to the result, as (source, copy): for diffusion, the directions and weights."""
    maps: Mapping[str, Path] = field(default_factory=dict)
    """Where to write maps, by the names that `denoise_file` has for them."""

    @property
    def record(self) -> Path:
        """The file with the record of the run."""
        return self.target.with_name(registry.without_ending(self.target.name) + ".json")

    @property
    def noise_picture(self) -> Path:
        """The picture of the noise that was found."""
        return self.picture.with_name(f"{self.picture.stem}_noise.png")

    @property
    def request(self) -> dict[str, Any]:
        """The options that decide the result, and the version."""
        asked = {name: value for name, value in self.options.items() if name not in (*HARDWARE_SETTINGS, "progress")}
        plain: dict[str, Any] = json.loads(json.dumps(asked))  # what the record holds once it is read back
        return plain | {"version": version("nlmeans")} | ({"maps": sorted(self.maps)} if self.maps else {})

    def check(self) -> None:
        """Raise ``ValueError`` if an input is a pipe, a device or a broken link: reading those may never end."""
        for path in (self.source, *(source for source, _ in self.copies)):
            if not path.is_file() and not (path == self.source and path.is_dir()):
                raise ValueError(f"{path} is not a regular file; replace it by one or remove it")

    def finished(self) -> bool:
        """Whether the result exists, was not changed since, and was made from this source with these options."""
        images = [file for path in (self.target, *self.maps.values()) for file in registry.files_of(path)]
        outputs = [*images, self.picture, self.noise_picture]
        if not all(path.is_file() for path in outputs):
            return False
        if not all(copy.is_file() and sha256(copy) == sha256(source) for source, copy in self.copies):
            return False
        try:
            record = bids.read_json(self.record)
        except (ValueError, TypeError):
            return False
        phase = phase_beside(self.source, self.options.get("noise", "auto"))
        return (
            record.get("request") == self.request
            and record.get("input_sha256") == registry.hash_of(self.source)
            and record.get("phase_sha256") == (phase and sha256(phase))
            and record.get("output_sha256") == registry.hash_of(self.target)
        )

    def run(self) -> str:
        """Denoise the scan. Returns a line that says what was done."""
        for path in (self.target, self.picture):
            path.parent.mkdir(parents=True, exist_ok=True)
        for source, copy in self.copies:
            with atomic.written_together(copy) as (temporary,):
                shutil.copyfile(source, temporary)
        said = denoise_file(
            self.source,
            self.target,
            picture=self.picture,
            noise_picture=self.noise_picture,
            overwrite=True,
            about={**(self.image.about_derivative if self.image else {}), "request": self.request},
            **{**self.maps, **self.options},
        )
        if self.image is not None:
            for kind, path in self.maps.items():
                about = {"Description": DESCRIPTIONS[kind], "Sources": [f"bids:raw:{self.image.relative.as_posix()}"]}
                with atomic.written_together(path.with_name(bids.stem(path) + ".json")) as (temporary,):
                    temporary.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        return said


DESCRIPTIONS = {
    "noise_map": "Standard deviation of the noise at every voxel, in the units of the image",
    "residual": "What denoising removed: the image minus the denoised image",
}
"""What the maps are, for their sidecars."""

MAP_LABELS = {"noise_map": "noisemap", "residual": "residual"}
"""What the names of maps have instead of ``denoised``."""


def map_paths(target: Path, wanted: bool) -> dict[str, Path]:
    """Where the maps of a result lie.

    >>> map_paths(Path("sub-01_desc-denoised_T1w.nii.gz"), True)["residual"].name
    'sub-01_desc-residual_T1w.nii.gz'
    """
    before, _, after = target.name.rpartition("denoised")
    return {kind: target.with_name(before + label + after) for kind, label in MAP_LABELS.items()} if wanted else {}


@dataclass(frozen=True)
class Outcome:
    """What happened to a scan."""

    job: Job
    state: Literal["denoised", "finished before", "failed"]
    reason: str = ""
    """Why the scan failed."""

    @property
    def record(self) -> dict[str, Any]:
        """The record of the run; empty if the scan failed."""
        return {} if self.state == "failed" else bids.read_json(self.job.record)


# ---------------------------------------------------------------- which scans


def jobs_of_dataset(
    images: Sequence[bids.BidsImage], out: Path, options: Mapping[str, Any], maps: bool = False
) -> list[Job]:
    """Make a job for each image of a BIDS dataset. Outputs have the names of BIDS derivatives."""
    jobs = []
    for image in images:
        target = out / image.derivative
        copies = []
        for ending in (".bval", ".bvec"):
            if image.suffix == "dwi" and image.associated(ending):
                copies.append((image.associated(ending)[-1], target.with_name(bids.stem(target) + ending)))
        settings = {**options, "modality": options.get("modality") or image.modality}
        picture = out / "figures" / f"{bids.stem(target)}.png"
        name, written = image.relative.as_posix(), map_paths(target, maps)
        jobs.append(Job(name, image.path, target, picture, settings, image, tuple(copies), written))
    return jobs


def jobs_of_files(sources: Sequence[Path], out: Path, options: Mapping[str, Any], maps: bool = False) -> list[Job]:
    """Make a job for each file or DICOM folder.

    Outputs lie in the same subfolders of `out` as the scans in the folder that all scans share.
    """
    places = [Path(os.path.normpath(source.absolute())) for source in sources]
    shared = Path(os.path.commonpath([place.parent for place in places]))
    jobs = []
    for source, place in zip(sources, places, strict=True):
        below = place.relative_to(shared)
        name = below.name if source.is_dir() else registry.without_ending(below.name).removesuffix(".dcm")
        target = out / below.with_name(f"{name}_denoised{result_ending(source)}")
        picture = out / "figures" / below.with_name(f"{name}.png")
        jobs.append(Job(below.as_posix(), source, target, picture, dict(options), maps=map_paths(target, maps)))
    return jobs


def result_ending(source: Path) -> str:
    """The ending of a result: that of its scan, or .nii.gz for folders, NIfTI, and what is only read.

    >>> result_ending(Path("scan.nrrd")), result_ending(Path("scan.nii")), result_ending(Path("scan.mnc"))
    ('.nrrd', '.nii.gz', '.nii.gz')
    """
    known = registry.format_of(source)
    if source.is_dir() or known is None or known.home == registry.NIFTI.home:
        return ".nii.gz"
    return registry.ending_of(source, registry.WRITTEN) or ".nii.gz"


def input_files(sources: Sequence[str], out: Path) -> list[Path]:
    """List the scans to denoise, without those that lie in `out`.

    Args:
        sources: files, patterns, and folders. A folder stands for the image files in it; without any, it is taken as a
            folder of DICOM files.
        out: folder for the results.

    Raises:
        FileNotFoundError: a source does not exist, and matches nothing as a pattern.
        ValueError: a source is a BIDS dataset.
    """
    found: list[Path] = []
    for source in sources:
        for path in sorted(existing(source)):
            if not path.is_dir():
                found.append(path)
                continue
            if bids.is_dataset(path):
                raise ValueError(f"{path} is a BIDS dataset; give it alone")
            inside = sorted(file for file in path.rglob("*") if registry.ending_of(file, registry.LISTED))
            found += inside or [path]
    there = real_path(out)
    return [path for path in dict.fromkeys(found) if there not in real_path(path).parents]


def check_targets(jobs: Sequence[Job], out: Path) -> None:
    """Raise ``ValueError`` if an output leads out of the output folder, is a source, or belongs to two scans."""
    root = real_path(out)
    taken: dict[Path, str] = {}
    sources = {real_path(job.source) for job in jobs}
    for job in jobs:
        for path in (job.target, job.record, job.picture, *(copy for _, copy in job.copies), *job.maps.values()):
            place = real_path(path)
            if root not in place.parents:
                raise ValueError(
                    f"{path} leads out of {out}, to {place}; choose another folder for the results or remove the link"
                )
            if place in sources:
                raise ValueError(f"{path} is one of the scans; choose another folder for the results")
            if taken.setdefault(place, job.name) != job.name:
                raise ValueError(f"{job.name} and {taken[place]} would both become {path}; denoise them separately")


# ---------------------------------------------------------------- the work


def run_jobs(jobs: Sequence[Job], workers: int, threads: int, progress: Report) -> list[Outcome]:
    """Run jobs in worker processes, or in this process if there is one worker.

    Each worker is a pool with one process, so that a process that dies, for instance because memory ran out, does not
    affect the other scans.

    Args:
        jobs: what to run.
        workers: number of processes.
        threads: threads of each process.
        progress: called from this thread with the fraction of scans that are done.

    Returns:
        One outcome per job, in the same order.
    """
    if workers == 1:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            outcomes = []
            for job in jobs:
                outcomes.append(run_job(job))
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
    """Raise the error that ended a worker's thread."""
    for future in futures:
        future.result()
    raise RuntimeError("the workers ended before their work was done")


class Worker:
    """A worker process, which is replaced if it dies."""

    def __init__(self, index: int, threads: int) -> None:
        self.index, self.threads = index, threads
        self.process = self.start()

    def start(self) -> ProcessPoolExecutor:
        """Start a pool with one process."""
        # spawn, because threads and CUDA do not survive a fork
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(1, context, initializer=prepare, initargs=(self.index, self.threads))

    def run(self, job: Job) -> Outcome:
        """Run a job in the worker process."""
        # Block Ctrl-C in this thread, because the new process inherits that and must not be interrupted while it
        # starts. This cannot be done earlier: multiprocessing's resource tracker, started with the queues, unblocks it.
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return self.process.submit(run_interruptibly, job).result()
        except BrokenProcessPool:
            self.close()
            self.process = self.start()
            return Outcome(job, "failed", "the process died, perhaps because memory ran out; use fewer --workers")

    def close(self) -> None:
        self.process.shutdown(wait=True, cancel_futures=True)


def prepare(index: int, threads: int) -> None:
    """Set up a new worker process: set its threads, choose a GPU, and make it end when the main process ends."""
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
    """End this process as soon as its parent has ended."""
    parent.join()
    os._exit(1)


def run_interruptibly(job: Job) -> Outcome:
    """Run a job in a worker process so that Ctrl-C, which reaches it too, ends the scan and removes temporary files."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return run_job(job)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def run_job(job: Job) -> Outcome:
    """Run a job. An error becomes the reason of a failed outcome, so that the other scans go on."""
    try:
        job.check()
        if job.finished():
            return Outcome(job, "finished before")
        with memory.shortage():
            log.info(job.run())
    except Exception as error:
        log.info("%s failed", job.name, exc_info=True)
        text = one_line(error).replace(str(job.source), job.source.name)
        expected = isinstance(error, ValueError | TypeError | OSError | MemoryError)
        kind = "" if expected or not str(error) else f"{type(error).__name__}: "
        old = "; the result of an earlier run is still there" if os.path.lexists(job.target) else ""
        return Outcome(job, "failed", f"{kind}{text}{old}")
    return Outcome(job, "denoised")


# ---------------------------------------------------------------- a whole run


def cohort(
    sources: Sequence[str],
    out: Path | None,
    *,
    sigma: float | Literal["map"] | None = None,
    voxel_radii: bool = False,
    as_float: bool = False,
    resample: bool = False,
    maps: bool = False,
    suffixes: tuple[str, ...] = (),
    participants: tuple[str, ...] = (),
    sessions: tuple[str, ...] = (),
    **arguments: Unpack[FilterArguments],
) -> tuple[list[Job], Path, dict[str, Any] | None]:
    """Plan a run over many scans. Nothing is written.

    Args:
        sources: files, patterns, folders, or one BIDS dataset.
        out: folder for the results; None for ``derivatives/nlmeans`` in the BIDS dataset.
        sigma: as for `denoise_file`.
        voxel_radii: as for `denoise_file`.
        as_float: as for `denoise_file`.
        resample: as for `denoise_file`, for the phase that BIDS names beside an image.
        maps: also write the noise map and what was removed.
        suffixes: which images of a BIDS dataset, such as ``bold``; none for the usual ones.
        participants: which participants of a BIDS dataset; none for all.
        sessions: which sessions of a BIDS dataset; none for all.
        arguments: further arguments of `nlmeans.denoise`. The suffix of an image in a BIDS dataset says what made it.

    Returns:
        The jobs, the folder for the results, and for a BIDS dataset the description of its derivatives.

    Raises:
        ValueError, TypeError: an argument is wrong, or an output would lie outside the folder or over another file.
        FileNotFoundError: a source does not exist.
    """
    noise = arguments.get("noise", "auto")
    if not isinstance(noise, str):
        raise TypeError(f"noise={noise} is the model of one scan; give the kind of noise of all scans, or 'auto'")
    options: dict[str, Any] = {"sigma": sigma, "voxel_radii": voxel_radii, "as_float": as_float, **arguments}
    options |= {"resample": True} if resample else {}
    root = Path(sources[0])
    if len(sources) == 1 and bids.is_dataset(root):
        out = root / "derivatives" / "nlmeans" if out is None else out
        images = bids.selected_images(root, suffixes, participants, sessions)
        jobs, description = jobs_of_dataset(images, out, options, maps), bids.derivative_description(root, out)
    else:
        if out is None:
            raise ValueError("--out is missing: name the folder for the results. Only a BIDS dataset has a default")
        if suffixes or participants or sessions:
            raise ValueError(
                f"--suffix, --participant and --session select images of a BIDS dataset, which {root} is not"
            )
        files = input_files(sources, out)
        if not files:
            raise ValueError(f"{', '.join(sources)}: no image outside {out}, the folder for the results")
        jobs, description = jobs_of_files(files, out, options, maps), None
    if bids.is_dataset(out) and "nlmeans" not in makers(out):
        raise ValueError(f"{out} is a dataset that nlmeans did not make; choose another folder for the results")
    check_targets(jobs, out)
    known = {one.name for one in dataclasses.fields(Settings)}
    Settings(**{name: value for name, value in options.items() if name in known})  # a wrong argument, before any work
    return jobs, out, description


def makers(out: Path) -> list[str]:
    """Names of the programs that made a BIDS dataset."""
    made = bids.read_json(out / bids.DESCRIPTION).get("GeneratedBy")
    return [str(maker.get("Name")) for maker in made if isinstance(maker, dict)] if isinstance(made, list) else []
