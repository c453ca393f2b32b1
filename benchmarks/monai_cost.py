"""Measure what each transform costs in a MONAI pipeline, beside GaussianSmoothd, with and without worker processes.

Usage: python benchmarks/monai_cost.py [--quick] [--method bayes ...] [--out benchmarks/results]

A DataLoader of MONAI loads volumes that lie in memory, through one transform. Wall and CPU seconds are for one volume;
those of the workers count, with their start. Run it on a machine that is otherwise idle: some minutes.
"""

from __future__ import annotations

import datetime
import platform
import resource
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import click
import psutil
import torch
from contenders import NOISE, noisy
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import Compose, GaussianSmoothd, RandGaussianSmoothd
from speed import processor
from speed_report import table

from monai_transforms import EstimateNoised, NonLocalMeansd, RandNonLocalMeansd
from nlmeans import METHODS

WORKERS = (0, 2)

PLAIN, AUGMENTED = "GaussianSmoothd", "RandGaussianSmoothd"
"""The cheapest of MONAI's own transforms, with which the others are compared."""


class Volume(NamedTuple):
    """A size, and how many volumes of it one measurement loads."""

    shape: tuple[int, ...]
    count: int

    @property
    def name(self) -> str:
        return "×".join(map(str, self.shape)) if len(set(self.shape)) > 1 else f"{self.shape[0]}³"


VOLUMES = (Volume((96, 96, 96), 16), Volume((256, 256, 160), 4))
QUICK = (Volume((24, 24, 24), 2), Volume((32, 32, 20), 2))


class Cost(NamedTuple):
    """Seconds for one volume."""

    wall: float
    cpu: float


def preprocessing(methods: tuple[str, ...]) -> dict[str, Any]:
    """Transforms that run once for each image, by what a user would write."""
    return {
        PLAIN: GaussianSmoothd("image", sigma=1.0),
        "EstimateNoised": EstimateNoised("image"),
        "EstimateNoised, then classic": Compose(
            [EstimateNoised("image"), NonLocalMeansd("image", method="classic", sigma="meta")]
        ),
        **{f"NonLocalMeansd, {name}": NonLocalMeansd("image", method=name) for name in methods},
    }


def augmentations() -> dict[str, Any]:
    """Transforms that run in each epoch."""
    return {
        AUGMENTED: RandGaussianSmoothd("image", prob=1.0),
        "RandNonLocalMeansd": RandNonLocalMeansd("image", prob=1.0),
        "RandNonLocalMeansd, sigma known": RandNonLocalMeansd("image", prob=1.0, sigma=NOISE),
    }


def used() -> float:
    """CPU seconds of this process and of its workers that have ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def cost(transform: Any, volume: Volume, workers: int) -> Cost:
    """Load all volumes once through the transform."""
    image = MetaTensor(torch.from_numpy(noisy(volume.shape))[None])
    data = Dataset([{"image": image}] * volume.count, transform)
    loader = DataLoader(data, batch_size=1, num_workers=workers)
    wall, cpu = time.perf_counter(), used()
    for _ in loader:
        pass
    return Cost((time.perf_counter() - wall) / volume.count, (used() - cpu) / volume.count)


def measured(transforms: dict[str, Any], volume: Volume, plain: str) -> str:
    """Table of the costs, each in seconds and as a multiple of the CPU seconds of the plain transform."""
    small = {"image": MetaTensor(torch.from_numpy(noisy((24, 24, 24)))[None])}
    rows = []
    for name, transform in transforms.items():
        transform(small)  # compiles
        costs = [cost(transform, volume, workers) for workers in WORKERS]
        if name == plain:
            unit = costs[0].cpu
        cells = [f"{seconds:.3g}" for one in costs for seconds in one]
        rows.append([name, *cells, f"{costs[0].cpu / unit:.1f} ×"])
        click.echo(f"{volume.name}: {' | '.join(rows[-1])}")
    head = [f"{word}, {workers} workers" for workers in WORKERS for word in ("seconds", "CPU seconds")]
    return table([f"{volume.name}, one volume", *head, f"CPU, {plain} = 1"], rows)


def report(tables: list[str], load: float) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("nlmeans", "monai", "torch", "numba"))
    return "\n".join(
        [
            "# What the transforms cost in a MONAI pipeline",
            "",
            "Made by `python benchmarks/monai_cost.py`: a MONAI DataLoader with batches of one float32 volume, which "
            "lies in memory, and one transform. The noise is found in each volume unless it is said to be known. "
            "Workers have one thread each.",
            "",
            f"{processor()}, {torch.get_num_threads()} threads; {platform.system()} {platform.machine()}, "
            f"Python {platform.python_version()}; {versions}; {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} "
            f"UTC, load {load:.1f} before, {psutil.getloadavg()[0]:.1f} after.",
            "",
            "## Preprocessing, once for each image",
            "",
            "\n\n".join(tables[:-1]),
            "",
            "## Augmentation, in each epoch",
            "",
            tables[-1],
            "",
        ]
    )


@click.command(help=__doc__)
@click.option("--quick", is_flag=True, help="Tiny volumes: does everything run?")
@click.option("--method", "methods", multiple=True, type=click.Choice([n for n, m in METHODS.items() if not m.joint]))
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).parent / "results", show_default=True)
def main(quick: bool, methods: tuple[str, ...], out: Path) -> None:
    load = psutil.getloadavg()[0]
    methods = methods or tuple(name for name, method in METHODS.items() if not method.joint)
    volumes = QUICK if quick else VOLUMES
    tables = [measured(preprocessing(methods), volume, PLAIN) for volume in volumes]
    tables.append(measured(augmentations(), volumes[0], AUGMENTED))
    out.mkdir(parents=True, exist_ok=True)
    (out / "monai-cost.md").write_text(report(tables, load), encoding="utf-8")


if __name__ == "__main__":
    main()
