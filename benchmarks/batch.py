"""Compare the throughput of two worker processes with that of one, over the same scans, with one thread in each.

Usage: python benchmarks/batch.py [--scans 16] [--size 64] [--rounds 3] [--out benchmarks/results]
"""

from __future__ import annotations

import datetime
import platform
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import click
import nibabel as nib
import numpy as np
import psutil
import torch
from contenders import noisy
from speed import processor
from speed_report import table

import nlmeans
from nlmeans.files import batch

OPTIONS: dict[str, Any] = {"device": "cpu", "memory": "1GB"}


def write_scans(folder: Path, count: int, size: int) -> list[Path]:
    """Write copies of the noisy head phantom as float32; all have the same voxels and so take the same time."""
    image: Any = nib.Nifti1Image(noisy((size,) * 3), np.diag([2.0, 2, 2, 1]))
    paths = [folder / f"scan{number:03}.nii.gz" for number in range(count)]
    for path in paths:
        image.to_filename(path)
    return paths


def run(scans: Sequence[Path], workers: int, out: Path) -> tuple[float, float]:
    """Measure scans per minute: over the whole run including process start, and after each worker's first scan."""
    jobs = batch.jobs_of_files(scans, out, "auto", OPTIONS)
    ends: list[float] = []
    start = time.perf_counter()
    outcomes = batch.run_jobs(jobs, workers, 1, lambda _: ends.append(time.perf_counter()))
    if any(outcome.state != "denoised" for outcome in outcomes):
        raise RuntimeError(f"not all scans were denoised: {outcomes}")
    return 60 * len(jobs) / (ends[-1] - start), 60 * (len(jobs) - workers) / (ends[-1] - ends[workers - 1])


def measure(count: int, size: int, rounds: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Measure scans per minute, (rounds, one and two workers, whole run and steady state), taking turns."""
    found = np.empty((rounds, 2, 2))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        scans = write_scans(folder / "in", count, size)
        run(scans[:2], 1, folder / "compiled")
        for number in range(rounds):
            for index, workers in enumerate((1, 2)):
                found[number, index] = run(scans, workers, folder / f"out-{number}-{workers}")
    return found


def report(found: np.ndarray[Any, np.dtype[np.float64]], count: int, size: int, load: float) -> str:
    rows = []
    for name, column in (("whole run, including process start", 0), ("after each worker's first scan", 1)):
        one, two = found[:, 0, column], found[:, 1, column]
        ratios = two / one
        rows.append(
            [
                name,
                f"{median(one):.1f} ({min(one):.1f}–{max(one):.1f})",
                f"{median(two):.1f} ({min(two):.1f}–{max(two):.1f})",
                f"{median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})",
            ]
        )
    head = [f"{count} scans of {size}³", "one worker, scans / min", "two workers, scans / min", "ratio"]
    return (
        "# Throughput of nlmeans batch\n\nMade by `python benchmarks/batch.py`: "
        f"{len(found)} rounds, each with one worker and with two, one thread per worker. Method auto; scans are read "
        "from and written to .nii.gz, with record and picture. Median (min–max).\n\n"
        f"{processor()}, {psutil.cpu_count()} cores; {platform.system()} {platform.machine()}, Python "
        f"{platform.python_version()}; nlmeans {nlmeans.__version__}, torch {torch.__version__}; "
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC, load {load:.1f} before.\n\n{table(head, rows)}\n"
    )


@click.command()
@click.option("--scans", default=16, show_default=True, help="Number of scans.")
@click.option("--size", default=64, show_default=True, help="Edge of each scan in voxels.")
@click.option("--rounds", default=3, show_default=True, help="Runs with each number of workers.")
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).parent / "results", show_default=True)
def main(scans: int, size: int, rounds: int, out: Path) -> None:
    """Time one worker and two and write batch.md."""
    load = psutil.getloadavg()[0]
    text = report(measure(scans, size, rounds), scans, size, load)
    (out / "batch.md").write_text(text, encoding="utf-8")
    click.echo(text)


if __name__ == "__main__":
    main()
