"""Measure how long `bayes` takes for real scans as they are, compared with white noise, on a quiet and a busy machine.

Usage: python benchmarks/real_scans.py [SCAN.nii.gz ...] [--rounds 5] [--out benchmarks/results]
"""

from __future__ import annotations

import contextlib
import datetime
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
import psutil
import torch
from quality_volumes import EVERYTHING, Carried, Volume, carried_path, read
from speed import processor
from speed_report import table

import nlmeans
from nlmeans.files import samples

LARGEST = 96
"""Voxels per axis, cut from the middle of a volume."""

MOST_GREY = 255
"""Largest value of the 8-bit copies."""

SCANS = {
    "brain T1, large voxels": Carried("nibabel", "tests/data/anatomical.nii"),
    "brain EPI": Carried("nibabel", "tests/data/example4d.nii.gz", (EVERYTHING, EVERYTHING, EVERYTHING, 0)),
    "diffusion b0": Carried("dipy", "data/files/S0_10slices.nii.gz", (EVERYTHING, EVERYTHING, EVERYTHING, 0)),
    "T1 template": Carried("nilearn", "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"),
    "chest CT, one slice": Carried("pydicom", "data/test_files/CT_small.dcm"),
    "MR, one slice": Carried("pydicom", "data/test_files/MR_small.dcm"),
}

BUSY = "while True: pass"
"""What each of the other processes does on a busy machine."""


def volumes(given: tuple[Path, ...]) -> dict[str, Volume]:
    """Collect white noise, the scans that packages carry, and the files given; and copies of them with 8 bits."""
    head = middle(read(Path(samples.path("head_clean")))[0])
    random = np.random.default_rng(0)
    found = {"white noise, 5 %": head + 0.05 * head.max() * random.standard_normal(head.shape, dtype=np.float32)}
    scans = {name: middle(read(path)[0][c.crop]) for name, c in SCANS.items() if (path := carried_path(c)) is not None}
    scans |= {path.name: middle(read(path)[0]) for path in given}
    for name, scan in scans.items():
        low, high = float(scan.min()), float(scan.max())
        found[name] = scan
        found[f"{name}, 8 bits"] = np.round((scan - low) / (high - low) * MOST_GREY).astype(np.float32)
    return found


def middle(values: Volume) -> Volume:
    cut = tuple(slice(max(0, n - LARGEST) // 2, max(0, n - LARGEST) // 2 + LARGEST) for n in values.shape[:3])
    return np.ascontiguousarray(values[cut])


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep that many cores busy."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(processes)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def measure(scans: dict[str, Volume], sigmas: dict[str, float], rounds: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Denoise all scans in turn; return seconds per voxel, (rounds, scans), without a first round."""
    seconds = np.empty((rounds + 1, len(scans)))
    for number in range(rounds + 1):
        for index, (name, scan) in enumerate(scans.items()):
            start = time.perf_counter()
            nlmeans.denoise(scan, sigmas[name], method="bayes", noise="gaussian")
            seconds[number, index] = (time.perf_counter() - start) / scan.size
    return seconds[1:]


@click.command()
@click.argument("given", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--rounds", default=5, show_default=True, help="Times that each scan is denoised.")
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).parent / "results", show_default=True)
def main(given: tuple[Path, ...], rounds: int, out: Path) -> None:
    """Time `bayes` on real scans and write real-scans.md."""
    load, scans = psutil.getloadavg()[0], volumes(given)
    found = {name: nlmeans.estimate_noise(scan).sigma or 0.0 for name, scan in scans.items()}
    scans = {name: scan for name, scan in scans.items() if found[name] > 0}
    cores = psutil.cpu_count() or 1
    quiet = measure(scans, found, rounds)
    with busy(cores):
        crowded = measure(scans, found, rounds)
    rows = [
        [
            name,
            "×".join(map(str, scan.shape)),
            f"{found[name]:.3g}",
            f"{float(np.ptp(scan)) / found[name]:.0f}",
            f"{median(quiet[:, index]) * 1e6:.2f}",
            f"{median(quiet[:, index] / quiet[:, 0]):.2f}",
            f"{median(crowded[:, index]) * 1e6:.2f}",
            f"{median(crowded[:, index] / crowded[:, 0]):.2f}",
            f"{median(crowded[:, index]) / median(quiet[:, index]):.2f}",
        ]
        for index, (name, scan) in enumerate(scans.items())
    ]
    head = ["scan as it is", "voxels", "sigma found", "range / sigma"]
    head += ["quiet: µs per voxel", "times white noise", "busy: µs per voxel", "times white noise", "busy / quiet"]
    versions = ", ".join(f"{name} {version(name)}" for name in ("nlmeans", "torch", "numba"))
    text = (
        "# Real scans as they are\n\nMade by `python benchmarks/real_scans.py`: `bayes` with the sigma that was found, "
        f"median of {rounds} rounds after a first one, with {torch.get_num_threads()} threads. Scans take turns. On "
        f"the busy machine, {cores} other processes keep all cores busy, so twice the time is in "
        "proportion. Copies with 8 bits have less noise than a grey step, as scans often have. One slice has larger "
        "patches than a volume.\n\n"
        f"{processor()}, {cores} cores; {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}; {versions}; "
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC, load {load:.1f} before.\n\n{table(head, rows)}\n"
    )
    (out / "real-scans.md").write_text(text, encoding="utf-8")
    click.echo(text)


if __name__ == "__main__":
    main()
