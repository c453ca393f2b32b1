"""Does denoising improve a segmentation? Measure Dice for each method, at three noise levels, with three seeds.

Usage: python examples/segmentation/study.py [--folder runs/study] [--seed 0 --seed 1 --seed 2] [--report-only]

Each seed has its own 40 phantoms, split, weights and augmentation; only the denoising differs. A second table is for
networks trained on phantoms without noise and without denoising. The folder keeps finished results, so that an
interrupted study continues where it stopped. Two studies with different seeds can run at the same time. Takes about
half an hour on two cores. Writes benchmarks/results/segmentation.md, .json and .png.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import pairs
import phantoms
import pictures
import training
from loading import DENOISE
from matplotlib.figure import Figure
from numpy.typing import NDArray

LEVELS = (10, 20, 30)
"""Standard deviation of the noise, per cent of the brightness of the body."""

SEEDS = (0, 1, 2)

COUNT = 40

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"

SETTINGS = training.Settings(values=(0, 1, 2, 3))


@dataclasses.dataclass(frozen=True)
class Case:
    """Noise levels in training and test, kind of denoising, and seed."""

    trained: int
    tested: int
    denoise: str
    seed: int

    def file(self, folder: Path) -> Path:
        return folder / "results" / f"trained{self.trained}-tested{self.tested}-{self.denoise}-{self.seed}.json"


def cases(seed: int) -> Iterator[Case]:
    """Yield the cases of a seed; those that share one training come first."""
    yield Case(0, 0, "none", seed)
    tests = list(itertools.product(LEVELS, DENOISE))
    yield from (Case(0, level, denoise, seed) for level, denoise in tests)
    yield from (Case(level, level, denoise, seed) for level, denoise in tests)


def data(folder: Path, level: int, seed: int) -> dict[str, list[pairs.Pair]]:
    place = folder / "data" / f"noise{level}-{seed}"
    phantoms.write(place, COUNT, level, seed)
    found, _ = pairs.find(place)
    return pairs.split(found, seed)


def measure(folder: Path, case: Case) -> dict[str, Any]:
    """Train the network if necessary; return the case, Dice of each structure, and the epochs of training."""
    trained_with = case.denoise if case.trained else "none"
    settings = dataclasses.replace(SETTINGS, denoise=trained_with, seed=case.seed)
    place = folder / f"trained{case.trained}-{trained_with}-{case.seed}"
    run = training.Run(place, settings, data(folder, case.trained, case.seed), resume=True)
    network = run.train()
    pictures.learning_curves(run).savefig(place / "curves.png")
    tested = dataclasses.replace(settings, denoise=case.denoise)
    images = training.evaluation_data(tested, data(folder, case.tested, case.seed)["test"])
    dice = np.nanmean(training.test(network, tested, images), 0)
    return {**dataclasses.asdict(case), "dice": dice.tolist(), "epochs": len(run.curves)}


def report(folder: Path) -> None:
    files = sorted((folder / "results").glob("*.json"))
    results = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    (RESULTS / "segmentation.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "segmentation.md").write_text(page(results), encoding="utf-8")
    chart(results).savefig(RESULTS / "segmentation.png", dpi=120)


Dice = dict[int, NDArray[np.float64]]
"""Dice of each structure for each seed, mean over the test images."""


def dice(results: list[dict[str, Any]], trained_on_noise: bool, level: int, denoise: str) -> Dice:
    return {
        result["seed"]: np.array(result["dice"])
        for result in results
        if ((result["trained"] > 0), result["tested"], result["denoise"]) == (trained_on_noise, level, denoise)
    }


def spread(found: Dice) -> str:
    """Format mean ± standard deviation over the seeds of the mean over the structures."""
    means = [each.mean() for each in found.values()]
    if len(means) < 2:
        return f"{means[0]:.3f}" if means else "–"
    return f"{np.mean(means):.3f} ± {np.std(means, ddof=1):.3f}"


def gain(found: Dice, none: Dice) -> str:
    """Format the mean difference from none with the same seed, and the number of seeds with a gain."""
    differences = np.array([found[seed].mean() - none[seed].mean() for seed in sorted(found.keys() & none.keys())])
    return f"{differences.mean():+.3f}, {(differences > 0).sum()} of {len(differences)}" if len(differences) else "–"


def structures(found: Dice) -> str:
    return ", ".join(f"{value:.2f}" for value in np.mean(list(found.values()), 0)) if found else "–"


def rows(kinds: Sequence[str], cell: Callable[[str, int], str]) -> list[str]:
    """Markdown table with a row per kind of denoising and a column per level."""
    head = ["| | " + " | ".join(f"{level} %" for level in LEVELS) + " |", "|---" * (1 + len(LEVELS)) + "|"]
    return head + [f"| {kind} | " + " | ".join(cell(kind, level) for level in LEVELS) + " |" for kind in kinds]


def section(title: str, results: list[dict[str, Any]], trained_on_noise: bool) -> list[str]:
    found = {(kind, level): dice(results, trained_on_noise, level, kind) for kind in DENOISE for level in LEVELS}
    return [
        *("", f"## {title}", ""),
        *rows(DENOISE, lambda kind, level: spread(found[kind, level])),
        *("", "Difference from none with the same seed: mean, and number of seeds with a gain.", ""),
        *rows(DENOISE[1:], lambda kind, level: gain(found[kind, level], found["none", level])),
        *("", f"Each structure ({', '.join(phantoms.STRUCTURES)}), mean over the seeds:", ""),
        *rows(DENOISE, lambda kind, level: structures(found[kind, level])),
    ]


def page(results: list[dict[str, Any]]) -> str:
    seeds = {result["seed"] for result in results}
    epochs = {
        (result["trained"], result["trained"] and result["denoise"], result["seed"]): result["epochs"]
        for result in results
    }
    whole = sum(count == SETTINGS.epochs for count in epochs.values())
    lines = [
        "# Segmentation with and without denoising",
        "",
        "Made by `python examples/segmentation/study.py`. The tables give Dice: the mean over three structures and the "
        f"test phantoms ({COUNT // 10} of {COUNT}) of each seed, then mean ± standard deviation over {len(seeds)} "
        "seeds. Noise is Rician, in per cent of the brightness of the body; its level is estimated from each image. "
        f"Only the denoising differs. Of {len(epochs)} trainings, {whole} took all {SETTINGS.epochs} epochs and "
        f"{len(epochs) - whole} stopped early.",
        "",
        "![Dice over noise](segmentation.png)",
        *section("Trained and tested with noise, with the same denoising", results, True),
        *section("Trained without noise, tested with noise, with denoising only in the test", results, False),
        "",
        f"Trained and tested without noise: {spread(dice(results, False, 0, 'none'))}.",
    ]
    return "\n".join(lines) + "\n"


def chart(results: list[dict[str, Any]]) -> Figure:
    """Plot Dice over noise: lines through the means, a point per seed."""
    figure = Figure((9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    titles = "trained with noise, same denoising", "trained without noise"
    for axes, trained_on_noise, title in zip(panels, (True, False), titles, strict=True):
        for number, kind in enumerate(DENOISE):
            points = [
                (level + 0.8 * (number - 1.5), [each.mean() for each in found.values()])
                for level in LEVELS
                if (found := dice(results, trained_on_noise, level, kind))
            ]
            axes.plot([x for x, _ in points], [np.mean(values) for _, values in points], f"C{number}", label=kind)
            for x, values in points:
                axes.plot([x] * len(values), values, f"C{number}.")
        axes.set(title=title, xlabel="noise in % of the brightness", xticks=LEVELS)
    panels[0].set_ylabel("Dice on the test phantoms")
    panels[0].legend(title="denoising")
    return figure


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("runs/study"), show_default=True)
@click.option("--seed", "seeds", type=int, multiple=True, default=SEEDS, show_default=True, help="Repeatable.")
@click.option("--report-only", is_flag=True, help="Only write the tables of the finished results.")
def main(folder: Path, seeds: tuple[int, ...], report_only: bool) -> None:
    (folder / "results").mkdir(parents=True, exist_ok=True)
    for seed in () if report_only else seeds:
        for case in cases(seed):
            if not case.file(folder).exists():
                result = measure(folder, case)
                click.echo(f"{case}: Dice {np.mean(result['dice']):.3f}")
                unfinished = case.file(folder).with_suffix(".part")
                unfinished.write_text(json.dumps(result), encoding="utf-8")
                unfinished.replace(case.file(folder))
    report(folder)


if __name__ == "__main__":
    main()
