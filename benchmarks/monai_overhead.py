"""Measure how much time a MONAI transform adds to the engine call that it makes.

Usage: python benchmarks/monai_overhead.py [--size 96] [--rounds 40] [--out benchmarks/results]
"""

from __future__ import annotations

import datetime
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
import psutil
import torch
from contenders import NOISE, noisy
from monai.data import MetaTensor
from speed import processor
from speed_report import table

import nlmeans
from monai_transforms import NonLocalMeans, NonLocalMeansd

SPACING = 2.0  # mm, the same along all axes, so that the search window stays the same
WAYS = (
    "nlmeans.denoise(tensor, sigma)",
    "NonLocalMeans(sigma)(tensor)",
    "NonLocalMeans(sigma)(MetaTensor)",
    'NonLocalMeansd("image", sigma, spacing="affine")({"image": MetaTensor})',
)


def calls(volume: torch.Tensor) -> list[Callable[[], Any]]:
    """Calls in the order of `WAYS`, with the cheapest method: it shows the overhead most clearly."""
    image = MetaTensor(volume[None].clone(), affine=torch.diag(torch.tensor([SPACING, SPACING, SPACING, 1.0])))
    plain = NonLocalMeans(sigma=NOISE, method="classic")
    twin = NonLocalMeansd("image", sigma=NOISE, method="classic", spacing="affine")
    return [
        lambda: nlmeans.denoise(volume, NOISE, method="classic"),
        lambda: plain(volume[None]),
        lambda: plain(image),
        lambda: twin({"image": image}),
    ]


def measure(size: int, rounds: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Measure seconds, (rounds, ways). Every round runs each way once and starts with a different one."""
    ways = calls(torch.from_numpy(noisy((size,) * 3)))
    for call in ways:
        call()
    seconds = np.empty((rounds, len(ways)))
    for number in range(rounds):
        for turn in range(len(ways)):
            way = (number + turn) % len(ways)
            start = time.perf_counter()
            ways[way]()
            seconds[number, way] = time.perf_counter() - start
    return seconds


def report(seconds: np.ndarray[Any, np.dtype[np.float64]], size: int, load: float) -> str:
    bare = seconds[:, 0]
    rows = [
        [
            f"`{code}`",
            f"{1e3 * median(own):.1f} ({1e3 * min(own):.1f}–{1e3 * max(own):.1f})",
            f"{1e3 * median(own - bare):+.2f}" if way else "",
            f"{100 * median(own / bare - 1):+.1f} %" if way else "",
        ]
        for way, (code, own) in enumerate(zip(WAYS, seconds.T, strict=True))
    ]
    head = [f'{size}³, `method="classic"`', "ms: median (min–max)", "ms more", "overhead"]
    versions = ", ".join(f"{name} {version(name)}" for name in ("nlmeans", "monai", "torch", "numba"))
    return (
        "# Overhead of the MONAI transforms\n\nMade by `python benchmarks/monai_overhead.py`: "
        f"{len(seconds)} rounds that run each call once, sigma given. 'ms more' is the median of the differences "
        f"within a round, 'overhead' that of the ratios.\n\n{processor()}, {torch.get_num_threads()} threads; "
        f"{platform.system()} {platform.machine()}, Python {platform.python_version()}; {versions}; "
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC, load {load:.1f} before, "
        f"{psutil.getloadavg()[0]:.1f} after.\n\n{table(head, rows)}\n"
    )


@click.command()
@click.option("--size", default=96, show_default=True, help="Edge of the volume in voxels.")
@click.option("--rounds", default=40, show_default=True, help="Times that each call runs.")
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).parent / "results", show_default=True)
def main(size: int, rounds: int, out: Path) -> None:
    """Compare the time of the transforms with that of the engine and write monai.md."""
    load = psutil.getloadavg()[0]
    text = report(measure(size, rounds), size, load)
    (out / "monai.md").write_text(text, encoding="utf-8")
    click.echo(text)


if __name__ == "__main__":
    main()
