"""A zarr volume that is larger than the memory allowed: peak memory, the result, and what a killed run leaves.

Usage: python benchmarks/out_of_core.py [--size 8GB] [--memory 1GB] [--folder FOLDER] [--out benchmarks/results]

Needs about three times the size on the disk. Runs `nlmeans denoise` in processes of its own, whose memory is sampled
from outside; all of it counts, Python and torch included.
"""

from __future__ import annotations

import contextlib
import datetime
import math
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import psutil
import torch
import zarr
from speed import processor
from speed_report import table

import nlmeans
from nlmeans import ngff
from nlmeans.journal import NAME as JOURNAL
from nlmeans.layout import Layout
from nlmeans.memory import parse_bytes, readable
from nlmeans.methods import METHODS
from nlmeans.progress import silent
from nlmeans.settings import Settings
from nlmeans.survey import Facts
from nlmeans.task import Task, halo_of
from nlmeans.tiles import Tile, piece, shifted
from nlmeans.zarr_run import partial

CHUNK, SIGMA, CROP, GRAIN = 128, 8.0, 96, 16


def generate(path: Path, size: int) -> tuple[int, ...]:
    """Write balls of about 20 to 200 with Gaussian noise as OME-Zarr, float32, one row of chunks after another."""
    edge = round((size / 4) ** (1 / 3))
    shape = (math.ceil(size / 4 / edge**2), edge, edge)
    group = zarr.open_group(path, mode="w")
    array = group.create_array("0", shape=shape, chunks=(CHUNK,) * 3, dtype="f4", dimension_names=["z", "y", "x"])
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    scale = {"type": "scale", "scale": [1.0, 1.0, 1.0]}
    datasets = [{"path": "0", "coordinateTransformations": [scale]}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    for number, corner in enumerate(np.ndindex(*(math.ceil(n / CHUNK) for n in shape))):
        box = tuple(slice(CHUNK * c, min(CHUNK * c + CHUNK, n)) for c, n in zip(corner, shape, strict=True))
        z, y, x = np.meshgrid(*(np.arange(s.start, s.stop, dtype=np.float32) for s in box), indexing="ij", sparse=True)
        waves = np.sin(z / 17) + np.sin(y / 13) + np.sin(x / 11)
        clean = 20 + 60 * (waves > 0.4) + 120 * (waves > 1.4)
        noise = np.random.default_rng(number).standard_normal(clean.shape, dtype=np.float32)
        array[box] = (clean + SIGMA * noise).astype(np.float32)
    return shape


@dataclass
class Outcome:
    """Of one process."""

    seconds: float
    peak: int
    """Bytes of resident memory."""
    said: str


def run(source: Path, target: Path, *options: str, until: int | None = None) -> Outcome:
    """Run the command; kill it once so many blocks are finished, if any number is given."""
    command = [sys.executable, "-m", "nlmeans.cli", "denoise", str(source), str(target), *options]
    start, peak = time.perf_counter(), 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                peak = max(peak, watched.memory_info().rss)
            if until is not None and len(blocks(target)) >= until:
                process.send_signal(signal.SIGKILL)
                until = None
            time.sleep(0.02)
        said = process.stdout.read().strip() if process.stdout else ""
    if process.returncode not in (0, -signal.SIGKILL):
        raise click.ClickException(f"{' '.join(command)} failed with {process.returncode}")
    return Outcome(time.perf_counter() - start, peak, said)


def blocks(target: Path) -> list[str]:
    """What the journal of an unfinished run has as finished of the finest level."""
    with contextlib.suppress(FileNotFoundError):
        return [line for line in (partial(target) / JOURNAL).read_text().splitlines() if '"block": [0, ' in line]
    return []


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    files = (file for file in (folder / "0").rglob("*") if file.is_file() and not file.name.endswith(".partial"))
    return {str(file.relative_to(folder)): (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


def same(one: Path, other: Path) -> bool:
    """Whether every file of two images has the same bytes."""

    def names(folder: Path) -> set[str]:
        return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}

    return names(one) == names(other) and all(
        (one / name).read_bytes() == (other / name).read_bytes() for name in names(one)
    )


def crops(source: Path, target: Path) -> Iterator[tuple[tuple[int, ...], float, float]]:
    """Corner, largest difference to the result in memory, and the range of values, of three random crops.

    A crop is denoised with what it depends on around it as an array in memory, with the settings and facts of the run.
    """
    image, result = ngff.read(source), ngff.read(target)
    made: Any = result.attributes["nlmeans"]
    settings = Settings.from_dict({**made["settings"], "memory": None})
    facts = Facts.from_dict(made["volumes"][0])
    rng = np.random.default_rng(0)
    grain = max(METHODS[settings.method].grain, GRAIN)
    for _ in range(3):
        corner = [int(rng.integers(0, max(n - CROP, 1))) for n in image.array.shape]
        inner = piece([slice(c, min(c + CROP, n)) for c, n in zip(corner, image.array.shape, strict=True)])
        tile = Tile.around(inner, image.array.shape, halo_of(settings), grain)
        noisy: npt.NDArray[np.float32] = np.asarray(image.array[tile.outer])
        task = Task(noisy, 0, Layout.of(noisy, None, None), settings, facts, None, None)
        expected = np.empty([side.stop - side.start for side in inner], np.float32)
        task.run(expected, shifted(inner, tile.outer), silent)
        found = np.asarray(result.array[inner])
        yield tuple(corner), float(np.abs(found - expected).max()), float(np.ptp(noisy))


def measure(folder: Path, size: int, memory: str, method: str) -> str:
    source, whole, again = folder / "in.ome.zarr", folder / "whole.ome.zarr", folder / "again.ome.zarr"
    shape = generate(source, size)
    options = ("--memory", memory, "--method", method, "--device", "cpu")
    straight = run(source, whole, *options)
    made: Any = ngff.read(whole).attributes["nlmeans"]
    total = math.prod(math.ceil(n / b) for n, b in zip(shape, made["block"], strict=True))
    killed = run(source, again, *options, until=max(1, total // 2))
    finished, before = len(blocks(again)), stamps(partial(again))
    resumed = run(source, again, *options)
    after = stamps(again)
    kept = sum(after.get(name) == stamp for name, stamp in before.items())
    found = list(crops(source, whole))
    rows = [
        [name, f"{outcome.seconds:.0f} s", readable(outcome.peak), text]
        for name, outcome, text in (
            ("uninterrupted", straight, straight.said.partition(": ")[2]),
            ("killed half-way", killed, f"{finished} of {total} blocks finished"),
            ("started again", resumed, resumed.said.partition(": ")[2]),
        )
    ]
    peak = max(outcome.peak for outcome in (straight, killed, resumed))
    limit = parse_bytes(memory) + parse_bytes("1GB")  # for Python, torch and compiled kernels
    allowed = f"{readable(peak)}, {'under' if peak < limit else 'NOT under'} {readable(limit)}"
    equal = "equal, every byte of every file" if same(whole, again) else "NOT equal"
    differences = "; ".join(
        f"{difference:.2g} at {corner}, {difference / span:.1g} of the range" for corner, difference, span in found
    )
    return (
        "# Larger than memory\n\nMade by `python benchmarks/out_of_core.py`: "
        f"`nlmeans denoise in.ome.zarr out.ome.zarr --memory {memory} --method {method}` of a float32 volume of "
        f"{'×'.join(map(str, shape))} voxels, {readable(4 * math.prod(shape))}, in chunks of {CHUNK}³. Peak memory is "
        "the resident memory of the whole process, sampled from outside every 20 ms.\n\n"
        f"{table(['run', 'time', 'peak memory', ''], rows)}\n\n"
        f"- Peak memory: {allowed}.\n"
        f"- Killed with SIGKILL and started again, beside the uninterrupted result: {equal}. Of {len(before)} files "
        f"that were there when it was killed, {kept} were left as they were; only those of an unfinished block are "
        "written again.\n"
        f"- Largest difference to the same denoised in memory, three random crops of {CROP}³: {differences}.\n\n"
        f"{processor()}, {psutil.cpu_count()} cores, {readable(psutil.virtual_memory().total)}; {platform.system()} "
        f"{platform.machine()}, Python {platform.python_version()}; nlmeans {nlmeans.__version__}, torch "
        f"{torch.__version__}, zarr {zarr.__version__}; {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC.\n"
    )


@click.command()
@click.option("--size", default="8GB", show_default=True, help="Of the volume.")
@click.option("--memory", default="1GB", show_default=True, help="As for nlmeans denoise.")
@click.option("--method", default="auto", show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where to work; a temporary one if not given.")
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).parent / "results", show_default=True)
def main(size: str, memory: str, method: str, folder: Path | None, out: Path) -> None:
    """Denoise a large volume in little memory, kill it and go on, and write out-of-core.md."""
    with contextlib.ExitStack() as cleanup:
        name = cleanup.enter_context(tempfile.TemporaryDirectory(dir=folder))
        text = measure(Path(name), parse_bytes(size), memory, method)
    (out / "out-of-core.md").write_text(text, encoding="utf-8")
    click.echo(text)


if __name__ == "__main__":
    main()
