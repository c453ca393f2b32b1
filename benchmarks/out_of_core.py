"""Denoise a zarr volume larger than the allowed memory: check peak memory, the result, and resuming a killed run.

Usage: python benchmarks/out_of_core.py [--size 8GB] [--memory 1GB] [--folder FOLDER] [--out benchmarks/results]

Needs disk space of about three times the size. Runs `nlmeans denoise` in separate processes and samples their memory
from outside; it includes Python and torch.
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
from nlmeans.core.layout import Layout
from nlmeans.core.memory import parse_bytes, size_text
from nlmeans.core.tiles import Tile, piece, shifted
from nlmeans.engine.choices import Choices
from nlmeans.engine.plan import Plan
from nlmeans.engine.settings import Settings
from nlmeans.engine.survey import Facts
from nlmeans.files.zarr import ngff
from nlmeans.files.zarr.journal import JOURNAL as JOURNAL
from nlmeans.files.zarr.run import partial_folder
from nlmeans.methods.registry import METHODS

CHUNK, SIGMA, CROP, GRAIN = 128, 8.0, 96, 16


def generate(path: Path, size: int) -> tuple[int, ...]:
    """Write balls with values of about 20 to 200 and Gaussian noise as float32 OME-Zarr, chunk by chunk."""
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
    """Duration, peak memory and output of one process."""

    seconds: float
    peak: int
    """Bytes of resident memory."""
    said: str


def run(source: Path, target: Path, *options: str, until: int | None = None) -> Outcome:
    """Run the command; kill it when `until` blocks are finished, if given."""
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
    """Blocks of the finest level that the journal of an unfinished run lists as finished."""
    with contextlib.suppress(FileNotFoundError):
        return [line for line in (partial_folder(target) / JOURNAL).read_text().splitlines() if '"block": [0, ' in line]
    return []


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    files = (file for file in (folder / "0").rglob("*") if file.is_file() and not file.name.endswith(".partial"))
    return {str(file.relative_to(folder)): (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


def same(one: Path, other: Path) -> bool:
    """Check whether every file of two images has the same bytes."""

    def names(folder: Path) -> set[str]:
        return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}

    return names(one) == names(other) and all(
        (one / name).read_bytes() == (other / name).read_bytes() for name in names(one)
    )


def crops(source: Path, target: Path) -> Iterator[tuple[tuple[int, ...], float, float]]:
    """Yield corner, largest difference from denoising in memory, and range of values, for three random crops.

    Each crop is denoised as an array in memory, with the voxels around it that it depends on and with the settings and
    facts of the run.
    """
    image, result = ngff.read_image(source), ngff.read_image(target)
    made: Any = result.attributes["nlmeans"]
    settings = Settings.from_dict({**made["settings"], "memory": None})
    facts = Facts.from_dict(made["volumes"][0])
    rng = np.random.default_rng(0)
    grain = max(METHODS[settings.method].grain, GRAIN)
    for _ in range(3):
        corner = [int(rng.integers(0, max(n - CROP, 1))) for n in image.array.shape]
        inner = piece([slice(c, min(c + CROP, n)) for c, n in zip(corner, image.array.shape, strict=True)])
        choices = Choices.of(settings, Layout(image.spatial_shape, None, None))
        tile = Tile.around(inner, image.array.shape, choices.halo, grain)
        noisy: npt.NDArray[np.float32] = np.asarray(image.array[tile.outer])
        plan = Plan(noisy, 0, Layout.of(noisy, None, None), choices, facts, None, None)
        expected = np.empty([side.stop - side.start for side in inner], np.float32)
        plan.run(shifted(inner, tile.outer), into=expected)
        found = np.asarray(result.array[inner])
        yield tuple(corner), float(np.abs(found - expected).max()), float(np.ptp(noisy))


def measure(folder: Path, size: int, memory: str, method: str) -> str:
    source, whole, again = folder / "in.ome.zarr", folder / "whole.ome.zarr", folder / "again.ome.zarr"
    shape = generate(source, size)
    options = ("--memory", memory, "--method", method, "--device", "cpu")
    straight = run(source, whole, *options)
    made: Any = ngff.read_image(whole).attributes["nlmeans"]
    total = math.prod(math.ceil(n / b) for n, b in zip(shape, made["block"], strict=True))
    killed = run(source, again, *options, until=max(1, total // 2))
    finished, before = len(blocks(again)), stamps(partial_folder(again))
    resumed = run(source, again, *options)
    after = stamps(again)
    kept = sum(after.get(name) == stamp for name, stamp in before.items())
    found = list(crops(source, whole))
    rows = [
        [name, f"{outcome.seconds:.0f} s", size_text(outcome.peak), text]
        for name, outcome, text in (
            ("uninterrupted", straight, straight.said.partition(": ")[2]),
            ("killed half-way", killed, f"{finished} of {total} blocks finished"),
            ("started again", resumed, resumed.said.partition(": ")[2]),
        )
    ]
    peak = max(outcome.peak for outcome in (straight, killed, resumed))
    limit = parse_bytes(memory) + parse_bytes("1GB")  # for Python, torch and compiled kernels
    allowed = f"{size_text(peak)}, {'under' if peak < limit else 'NOT under'} {size_text(limit)}"
    equal = "equal, every byte of every file" if same(whole, again) else "NOT equal"
    differences = "; ".join(
        f"{difference:.2g} at {corner}, {difference / span:.1g} of the range" for corner, difference, span in found
    )
    return (
        "# Larger than memory\n\nMade by `python benchmarks/out_of_core.py`: "
        f"`nlmeans denoise in.ome.zarr out.ome.zarr --memory {memory} --method {method}` on a float32 volume of "
        f"{'×'.join(map(str, shape))} voxels, {size_text(4 * math.prod(shape))}, in chunks of {CHUNK}³. Peak memory is "
        "the resident memory of the whole process, sampled from outside every 20 ms.\n\n"
        f"{table(['run', 'time', 'peak memory', ''], rows)}\n\n"
        f"- Peak memory: {allowed}.\n"
        f"- Result after SIGKILL and a second start, compared with the uninterrupted result: {equal}. {kept} of the "
        f"{len(before)} files present at the kill are unchanged; only files of an unfinished block are written again.\n"
        f"- Largest difference from denoising in memory, in three random crops of {CROP}³: {differences}.\n\n"
        f"{processor()}, {psutil.cpu_count()} cores, {size_text(psutil.virtual_memory().total)}; {platform.system()} "
        f"{platform.machine()}, Python {platform.python_version()}; nlmeans {nlmeans.__version__}, torch "
        f"{torch.__version__}, zarr {zarr.__version__}; {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC.\n"
    )


@click.command()
@click.option("--size", default="8GB", show_default=True, help="Size of the volume.")
@click.option("--memory", default="1GB", show_default=True, help="Memory limit given to nlmeans denoise.")
@click.option("--method", default="auto", show_default=True, help="Method given to nlmeans denoise.")
@click.option("--folder", type=click.Path(path_type=Path), help="Folder for temporary files; default: the system's.")
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).parent / "results", show_default=True)
def main(size: str, memory: str, method: str, folder: Path | None, out: Path) -> None:
    """Denoise a large volume in little memory, kill and resume a second run, and write out-of-core.md."""
    with contextlib.ExitStack() as cleanup:
        name = cleanup.enter_context(tempfile.TemporaryDirectory(dir=folder))
        text = measure(Path(name), parse_bytes(size), memory, method)
    (out / "out-of-core.md").write_text(text, encoding="utf-8")
    click.echo(text)


if __name__ == "__main__":
    main()
