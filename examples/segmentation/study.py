"""Does denoising in front make a segmentation better? Dice for each kind, at three noise levels, with three seeds.

Usage: python examples/segmentation/study.py [--folder runs/study] [--seed 0 --seed 1 --seed 2] [--report-only]

Each seed has its own 40 phantoms, split, weights and augmentation; everything but the denoising is the same. A second
table is of networks that were trained on phantoms without noise, without denoising. What is finished is kept in
the folder, so that the command, started again, goes on where it was; two of them with different seeds run side by side.
Takes about half an hour on two cores. Writes benchmarks/results/segmentation.md, .json and .png.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections.abc import Iterator
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

import nlmeans

LEVELS = (10, 20, 30)
"""Standard deviation of the noise, per cent of the brightness of the body."""

SEEDS = (0, 1, 2)

COUNT = 40

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"

SETTINGS = training.Settings(values=(0, 1, 2, 3))


@dataclasses.dataclass(frozen=True)
class Case:
    """What a network was trained on and what it was tested on."""

    trained: int
    tested: int
    denoise: str
    seed: int

    def file(self, folder: Path) -> Path:
        return folder / "results" / f"trained{self.trained}-tested{self.tested}-{self.denoise}-{self.seed}.json"


def cases(seed: int) -> Iterator[Case]:
    yield Case(0, 0, "none", seed)
    for level in LEVELS:
        for denoise in DENOISE:
            yield Case(level, level, denoise, seed)
            yield Case(0, level, denoise, seed)


def data(folder: Path, level: int, seed: int) -> dict[str, list[pairs.Pair]]:
    place = folder / "data" / f"noise{level}-{seed}"
    phantoms.write(place, COUNT, level, seed)
    found, _ = pairs.find(place)
    return pairs.split(found, seed)


def measure(folder: Path, case: Case) -> dict[str, Any]:
    """The case, Dice of each structure, and the epochs of training; trains the network if that has not been done."""
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


def dice(results: list[dict[str, Any]], trained_on_noise: bool, level: int, denoise: str) -> NDArray[np.float64]:
    """Mean over the test images, (seeds, structures)."""
    return np.array(
        [
            result["dice"]
            for result in sorted(results, key=lambda result: result["seed"])
            if (result["trained"] > 0) == trained_on_noise and (result["tested"], result["denoise"]) == (level, denoise)
        ]
    ).reshape(-1, len(phantoms.STRUCTURES))


def spread(values: NDArray[np.float64]) -> str:
    """Mean and standard deviation over the seeds, of the mean over the structures."""
    if not len(values):
        return "–"
    means = values.mean(1)
    return f"{means.mean():.3f} ± {means.std(ddof=1):.3f}" if len(means) > 1 else f"{means[0]:.3f}"


def page(results: list[dict[str, Any]]) -> str:
    seeds = sorted({result["seed"] for result in results})
    lines = [
        "# Segmentation with and without denoising in front",
        "",
        f"Made by `python examples/segmentation/study.py` with nlmeans {nlmeans.__version__}, {len(seeds)} seeds, on "
        f"{os.cpu_count()} cores, {platform.machine()}. Dice, mean over three structures and the "
        f"{COUNT // 10} test phantoms of each seed, then mean ± standard deviation over the seeds. Noise: Rician, per "
        f"cent of the brightness of the body. At most {SETTINGS.epochs} epochs; everything but the "
        "denoising is the same.",
        "",
        "![Dice over noise](segmentation.png)",
    ]
    for title, noisy in (
        ("Trained and tested on noise, both denoised the same way", True),
        ("Trained without noise, tested on noise; denoising before the test only", False),
    ):
        lines += ["", f"## {title}", "", f"| | {' | '.join(f'{level} %' for level in LEVELS)} |", "|---" * 4 + "|"]
        for denoise in DENOISE:
            cells = [spread(dice(results, noisy, level, denoise)) for level in LEVELS]
            lines.append(f"| {denoise} | {' | '.join(cells)} |")
        lines += ["", "Against none, with the same seed: mean difference, and with how many seeds it is better.", ""]
        lines += [f"| | {' | '.join(f'{level} %' for level in LEVELS)} |", "|---" * 4 + "|"]
        for denoise in DENOISE[1:]:
            cells = []
            for level in LEVELS:
                ours, none = (dice(results, noisy, level, name).mean(1) for name in (denoise, "none"))
                both = len(ours) == len(none) > 0
                cells.append(f"{(ours - none).mean():+.3f}, {(ours > none).sum()} of {len(ours)}" if both else "–")
            lines.append(f"| {denoise} | {' | '.join(cells)} |")
        lines += ["", f"Each structure ({', '.join(phantoms.STRUCTURES)}), mean over the seeds:", ""]
        lines += [f"| | {' | '.join(f'{level} %' for level in LEVELS)} |", "|---" * 4 + "|"]
        for denoise in DENOISE:
            found = [dice(results, noisy, level, denoise) for level in LEVELS]
            cells = [", ".join(f"{value:.2f}" for value in each.mean(0)) if len(each) else "–" for each in found]
            lines.append(f"| {denoise} | {' | '.join(cells)} |")
    clean = dice(results, False, 0, "none")
    lines += ["", f"Trained and tested without noise: {spread(clean)}."]
    return "\n".join(lines) + "\n"


def chart(results: list[dict[str, Any]]) -> Figure:
    figure = Figure((9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, noisy, title in zip(
        panels, (True, False), ("trained on noise, denoised alike", "trained without noise"), strict=True
    ):
        for offset, denoise in enumerate(DENOISE):
            found = [dice(results, noisy, level, denoise).mean(1) for level in LEVELS]
            place = [level + 0.8 * (offset - 1.5) for level in LEVELS]
            shown = [(x, values) for x, values in zip(place, found, strict=True) if len(values)]
            (line,) = axes.plot([x for x, _ in shown], [values.mean() for _, values in shown], label=denoise)
            for x, values in shown:
                axes.plot([x] * len(values), values, ".", color=line.get_color())
        axes.set(title=title, xlabel="noise in % of the brightness", xticks=LEVELS)
    panels[0].set_ylabel("Dice on the test phantoms")
    panels[0].legend(title="denoising")
    return figure


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("runs/study"), show_default=True)
@click.option("--seed", "seeds", type=int, multiple=True, default=SEEDS, show_default=True)
@click.option("--report-only", is_flag=True, help="Write the tables of what is finished.")
def main(folder: Path, seeds: tuple[int, ...], report_only: bool) -> None:
    (folder / "results").mkdir(parents=True, exist_ok=True)
    for seed in () if report_only else seeds:
        for case in cases(seed):
            if not case.file(folder).exists():
                result = measure(folder, case)
                click.echo(f"{case}: Dice {np.mean(result['dice']):.3f}")
                case.file(folder).write_text(json.dumps(result), encoding="utf-8")
    report(folder)


if __name__ == "__main__":
    main()
