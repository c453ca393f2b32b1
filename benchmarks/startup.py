"""Measure how long imports and short commands take in a fresh process, compared with `import torch`.

Usage: python benchmarks/startup.py [--rounds 7] [--out benchmarks/results]
"""

from __future__ import annotations

import datetime
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
import psutil
from speed import processor
from speed_report import table

ROOT = Path(__file__).parents[1]

IMPORTS = (
    "import torch",
    "import torch, numba",
    "import nlmeans",
    "from nlmeans import denoise",
)

COMMANDS = (
    "nlmeans --help",
    "nlmeans --version",
    "nlmeans denoise --help",
    "nlmeans denoise in.nii out.nii --method magic",
    "nlmeans denoise no_such_file.nii out.nii",
    "nlmeans info",
    "nlmeans demo",
)


def program(line: str, demo: str) -> list[str]:
    """Words that run a line of Python, or a command whose results go to the folder `demo`."""
    if line in IMPORTS:
        return [sys.executable, "-c", line]
    words = line.split()[1:]
    return [sys.executable, "-m", "nlmeans.cli", *words, *(["--out", demo] if words == ["demo"] else [])]


def computed() -> float:
    """Seconds that processors have worked for processes that this one started and that have ended."""
    times = psutil.Process().cpu_times()
    return float(times.children_user + times.children_system)


def measure(rounds: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Measure `IMPORTS` and `COMMANDS`, which take turns after a first round.

    Returns:
        Seconds that passed and seconds of processors, (2, rounds, lines).
    """
    lines = (*IMPORTS, *COMMANDS)
    seconds = np.empty((2, rounds + 1, len(lines)))
    with tempfile.TemporaryDirectory() as demo:
        for number in range(rounds + 1):
            for index, line in enumerate(lines):
                start, before = time.perf_counter(), computed()
                subprocess.run(program(line, demo), cwd=ROOT, capture_output=True, check=False)
                seconds[:, number, index] = time.perf_counter() - start, computed() - before
    return seconds[:, 1:]


def report(seconds: np.ndarray[Any, np.dtype[np.float64]], load: float) -> str:
    passed, worked = seconds
    rows = [
        [
            f"`{line}`",
            f"{median(own):.2f} ({min(own):.2f}–{max(own):.2f})",
            f"{median(work):.2f}",
            f"{median(work / worked[:, 0]):.2f}",
        ]
        for line, own, work in zip((*IMPORTS, *COMMANDS), passed.T, worked.T, strict=True)
    ]
    head = ["in a fresh process", "seconds: median (min–max)", "seconds of processors", "times `import torch`"]
    versions = ", ".join(f"{name} {version(name)}" for name in ("nlmeans", "torch", "numba"))
    return (
        f"# Start-up\n\nMade by `python benchmarks/startup.py`: {len(passed)} rounds after a first one, each with one "
        "process per line. Files are in the cache of the system, and kernels are compiled. The last column is the "
        "median of the ratios within a round, of seconds of processors, which depend less on what else runs.\n\n"
        f"{processor()}, {psutil.cpu_count()} cores; {platform.system()} "
        f"{platform.machine()}, Python {platform.python_version()}; {versions}; "
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC, load {load:.1f} before, "
        f"{psutil.getloadavg()[0]:.1f} after.\n\n{table(head, rows)}\n"
    )


@click.command()
@click.option("--rounds", default=7, show_default=True, help="Times that each line runs.")
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).parent / "results", show_default=True)
def main(rounds: int, out: Path) -> None:
    """Time imports and commands and write startup.md."""
    load = psutil.getloadavg()[0]
    text = report(measure(rounds), load)
    (out / "startup.md").write_text(text, encoding="utf-8")
    click.echo(text)


if __name__ == "__main__":
    main()
