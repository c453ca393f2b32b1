"""Where does denoising help a segmentation? Train some networks, and test each on scans of many kinds.

Usage: python examples/segmentation/study.py [--folder runs/study] [--seed 0 --seed 1 ...] [--report-only]

Each seed has its own phantoms, split, weights and augmentation. It trains one network for each recipe: on clean
phantoms, on phantoms with noise as scanners make it, with noise added at random, or with denoising. Each network is
then tested on 16 new phantoms, with noise of several levels and kernels, and with each kind of denoising before the
network. nlmeans finds the noise in each image, or is told of it. A training takes about half a minute, and all of the
study less than an hour on one core. The folder keeps finished results, so that an interrupted study continues where it
stopped, and two studies with different seeds can run at the same time. Writes benchmarks/results/segmentation.md, .json
and .png.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click
import loading
import pairs
import phantoms
import study_report
import testing
import training
from settings import Settings

from nlmeans import NoiseModel
from nlmeans.noise.drawn.fields import scanner_correlation

SEEDS = (0, 1, 2, 3, 4, 5)

COUNT, TESTED = 40, 16
"""Phantoms for training and validation, and others for the test."""

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"

SETTINGS = Settings(values=(0, 1, 2, 3), pixdim=(1.0, 1.0, 1.0))

PERCENT = phantoms.BODY / 100


@dataclasses.dataclass(frozen=True)
class Noise:
    """Rician noise, in per cent of the brightness of the body, white or correlated by a filter of scanners."""

    percent: int
    filter: str | None = None

    def __str__(self) -> str:
        return f"{self.percent} % {self.filter or 'white'}" if self.percent else "no noise"

    def model(self) -> NoiseModel:
        """Return the noise model that a scan of the same kind, or a phantom in the scanner, would have given."""
        correlation = scanner_correlation(self.filter, 3) if self.filter else None
        return NoiseModel(kind="rician", sigma=self.percent * PERCENT, correlation=correlation)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a network is trained: on which noise, and with what else."""

    noise: Noise
    more: dict[str, Any] = dataclasses.field(default_factory=dict)


RECIPES = {
    "clean": Recipe(Noise(0)),
    "white": Recipe(Noise(10)),
    "zero-filled": Recipe(Noise(10, "zero-filled")),
    "clean-added": Recipe(Noise(0), {"match": (0.1 * PERCENT, 30 * PERCENT), "noise": "rician"}),
    "white-added": Recipe(Noise(10), {"match": (10 * PERCENT, 30 * PERCENT), "noise": "rician"}),
    "white-bayes": Recipe(Noise(10), {"denoise": "bayes"}),
}

NOISES = (
    Noise(0),
    Noise(10),
    Noise(20),
    Noise(30),
    Noise(10, "zero-filled"),
    Noise(20, "zero-filled"),
    Noise(20, "apodised"),
)


TOLD = "bayes, told"
"""The method `bayes` with the true noise model instead of what it finds in each image."""


def ways(settings: Settings, noise: Noise) -> tuple[str, ...]:
    """Kinds of denoising to test a network with: all, or that of its training."""
    if settings.denoise != "none":
        return (settings.denoise,)
    return (*loading.DENOISE, TOLD) if noise.percent else loading.DENOISE


class Tests:
    """Test images of a seed, each denoised once for all networks."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.made: dict[tuple[Noise, str], Any] = {}

    def data(self, noise: Noise, denoise: str) -> Any:
        if (noise, denoise) not in self.made:
            place = self.folder / "data" / f"test-{noise.percent}-{noise.filter}-{self.seed}"
            phantoms.write(place, TESTED, noise.percent, self.seed, noise.filter, first=COUNT)
            found, _ = pairs.find(place)
            if denoise == TOLD:
                settings = dataclasses.replace(SETTINGS, denoise="bayes", noise=noise.model())
            else:
                settings = dataclasses.replace(SETTINGS, denoise=denoise)
            self.made[noise, denoise] = loading.evaluation_data(settings, found)
        return self.made[noise, denoise]


def measure(folder: Path, name: str, seed: int, tests: Tests) -> dict[str, Any]:
    """Train a network, unless that is done; return the Dice of each test image and structure in all tests."""
    recipe = RECIPES[name]
    place = folder / "data" / f"train-{recipe.noise.percent}-{recipe.noise.filter}-{seed}"
    phantoms.write(place, COUNT, recipe.noise.percent, seed, recipe.noise.filter)
    found, _ = pairs.find(place)
    settings = dataclasses.replace(SETTINGS, seed=seed, **recipe.more)
    run = training.Run(folder / f"{name}-{seed}", settings, pairs.split(found, seed), resume=True)
    network = run.train()
    results = []
    for noise in NOISES:
        for denoise in ways(settings, noise):
            scores = testing.test(network, settings, tests.data(noise, denoise))
            results.append({"noise": str(noise), "denoise": denoise, "dice": scores.dice.round(4).tolist()})
    return {"recipe": name, "seed": seed, "epochs": len(run.curves), "tests": results}


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("runs/study"), show_default=True)
@click.option("--seed", "seeds", type=int, multiple=True, default=SEEDS, show_default=True, help="Repeatable.")
@click.option("--report-only", is_flag=True, help="Only write the tables of the finished results.")
def main(folder: Path, seeds: tuple[int, ...], report_only: bool) -> None:
    (folder / "results").mkdir(parents=True, exist_ok=True)
    for seed in () if report_only else seeds:
        tests = Tests(folder, seed)
        for name in RECIPES:
            file = folder / "results" / f"{name}-{seed}.json"
            if not file.exists():
                result = measure(folder, name, seed, tests)
                unfinished = file.with_suffix(".part")
                unfinished.write_text(json.dumps(result), encoding="utf-8")
                unfinished.replace(file)
                click.echo(f"seed {seed}, {name}: done, {result['epochs']} epochs")
    if not list((folder / "results").glob("*.json")):
        raise click.ClickException(f"{folder}: no training is finished")
    study_report.write(folder / "results", RESULTS, TESTED, SETTINGS.epochs)


if __name__ == "__main__":
    main()
