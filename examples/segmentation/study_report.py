"""Write the tables and the figure of the study."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from comparing import Gain, gain_over_runs
from matplotlib.figure import Figure

Result = dict[str, Any]

Dice = dict[tuple[str, str, str], dict[int, float]]
"""Mean Dice over structures and test images, by recipe, noise and denoising, for each seed."""

TITLES = {
    "clean": "Trained without noise",
    "white": "Trained with 10 % white noise",
    "zero-filled": "Trained with 10 % zero-filled noise",
    "clean-added": "Trained without noise, to which RandMatchNoised adds up to 30 % anew in each epoch",
    "white-added": "Trained with 10 % white noise, which RandMatchNoised raises up to 30 % anew in each epoch",
}

DIFFERENCES = (
    ("bayes before a network trained without noise, instead of nothing", ("clean", "bayes"), ("clean", "none")),
    ("the same, told of the noise", ("clean", "bayes, told"), ("clean", "none")),
    ("noise added in training, instead of nothing", ("clean-added", "none"), ("clean", "none")),
    ("bayes instead of noise added in training", ("clean", "bayes"), ("clean-added", "none")),
    ("10 % white noise in training, instead of bayes in the test", ("white", "none"), ("clean", "bayes")),
    (
        "trained on 10 % white: bayes in training and test, instead of neither",
        ("white-bayes", "bayes"),
        ("white", "none"),
    ),
    ("the same, instead of noise added in training", ("white-bayes", "bayes"), ("white-added", "none")),
)
"""Questions that a table answers: what, and the recipe and denoising of both sides."""


class Count(NamedTuple):
    """How many differences are sure, and how many there are."""

    better: int
    worse: int
    of: int


def dice_of(results: list[Result]) -> Dice:
    found: Dice = {}
    for result in results:
        for test in result["tests"]:
            place = found.setdefault((result["recipe"], test["noise"], test["denoise"]), {})
            place[result["seed"]] = float(np.nanmean(np.nanmean(np.array(test["dice"], float), 1)))
    return found


def gain(found: Dice, ours: tuple[str, str, str], others: tuple[str, str, str]) -> Gain | None:
    """Difference with the same seed, over the seeds that have both."""
    one, other = found.get(ours, {}), found.get(others, {})
    seeds = sorted(one.keys() & other.keys())
    return gain_over_runs([one[seed] - other[seed] for seed in seeds]) if seeds else None


def cell(difference: Gain | None) -> str:
    if difference is None:
        return "–"
    return f"**{difference}**" if difference.sure else str(difference)


def mean(found: Dice, case: tuple[str, str, str]) -> str:
    return f"{np.mean(list(found[case].values())):.3f}" if case in found else "–"


def rows(head: list[str], body: Iterator[list[str]] | list[list[str]]) -> list[str]:
    """Markdown table."""
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *body)]


def methods(found: Dice, recipe: str) -> list[str]:
    """Kinds of denoising that a recipe was tested with, but for none."""
    return list(dict.fromkeys(denoise for name, _, denoise in found if name == recipe and denoise != "none"))


def noises(found: Dice) -> list[str]:
    return list(dict.fromkeys(noise for _, noise, _ in found))


def section(found: Dice, recipe: str) -> list[str]:
    """Dice without denoising in each test, and what each kind of denoising changes."""
    kinds = methods(found, recipe)

    def body() -> Iterator[list[str]]:
        for noise in noises(found):
            none = (recipe, noise, "none")
            yield [noise, mean(found, none), *(cell(gain(found, (recipe, noise, kind), none)) for kind in kinds)]

    return ["", f"## {TITLES[recipe]}", "", *rows(["tested with", "Dice, none", *kinds], body())]


def sure(found: Dice) -> Count:
    """Count the differences from none of all networks that were tested with several kinds of denoising."""
    differences = [
        difference
        for recipe, noise, denoise in found
        if denoise != "none" and (difference := gain(found, (recipe, noise, denoise), (recipe, noise, "none")))
    ]
    return Count(
        sum(one.sure and one.mean > 0 for one in differences),
        sum(one.sure and one.mean < 0 for one in differences),
        len(differences),
    )


def questions(found: Dice) -> list[str]:
    def body() -> Iterator[list[str]]:
        for what, (recipe, denoise), (other, against) in DIFFERENCES:
            pairs = (((recipe, noise, denoise), (other, noise, against)) for noise in noises(found))
            yield [what, *(cell(gain(found, *pair)) for pair in pairs)]

    return rows(["Dice", *noises(found)], body())


def page(results: list[Result], tested: int, most_epochs: int) -> str:
    found = dice_of(results)
    seeds, whole = {one["seed"] for one in results}, sum(one["epochs"] == most_epochs for one in results)
    count = sure(found)
    lines = [
        "# Segmentation with and without denoising",
        "",
        f"Made by `python examples/segmentation/study.py`: {len(results)} trainings of {len({*TITLES, 'white-bayes'})} "
        f"kinds, each with {len(seeds)} seeds, which have their own phantoms and split. {whole} took all {most_epochs} "
        f"epochs, {len(results) - whole} stopped early. Every network is tested on the same {tested} new phantoms of "
        "its seed. Noise is Rician, in per cent of the brightness of the body: white, or correlated as in scans that "
        "are zero-filled or apodised. The methods of nlmeans find it in each image; told, they are given the true "
        "noise model.",
        "",
        "Dice is the mean over three structures, test phantoms and seeds. Changes are from the same network without "
        f"denoising. In brackets: 95 % interval from Student's t over the {len(seeds)} seeds. Bold: the interval "
        f"leaves out 0. Of {count.of} changes, {count.better} are gains and {count.worse} losses in this sense; by "
        f"chance about {count.of / 20:.0f} would be one or the other.",
        "",
        "![Dice over noise](segmentation.png)",
        *(line for recipe in TITLES for line in section(found, recipe)),
        "",
        "## Denoise, or train with noise?",
        "",
        "Differences of Dice between two networks of the same seed, or between two ways with one network.",
        "",
        *questions(found),
    ]
    return "\n".join(lines) + "\n"


def chart(results: list[Result]) -> Figure:
    """Plot Dice of each test, a panel for each kind of training: means and their 95 % intervals over the seeds."""
    found = dice_of(results)
    names = noises(found)
    shown = [recipe for recipe in TITLES if any(key[0] == recipe for key in found)][:4]
    figure = Figure((10, 6.5), layout="constrained")
    panels = figure.subplots(2, 2, sharey=True, sharex=True)
    for axes, recipe in zip(panels.flat, shown, strict=False):
        kinds = ["none", *methods(found, recipe)]
        for number, kind in enumerate(kinds):
            cases = [
                (place, found[recipe, name, kind]) for place, name in enumerate(names) if (recipe, name, kind) in found
            ]
            spreads = [gain_over_runs(list(values.values())) for _, values in cases]
            axes.errorbar(
                [place + 0.15 * (number - len(kinds) / 2) for place, _ in cases],
                [one.mean for one in spreads],
                [one.high - one.mean for one in spreads],
                fmt="o",
                markersize=3,
                label=kind,
            )
        axes.set_title(
            TITLES[recipe].partition(", to")[0] + (", noise added" if "added" in recipe else ""), fontsize=10
        )
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
        axes.set_ylabel("Dice")
    panels.flat[0].legend(title="denoising", fontsize=8)
    return figure


def write(results: Path, out: Path, tested: int, most_epochs: int) -> None:
    """Write the page, the figure and all results, from the files of the trainings that are done."""
    done = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(results.glob("*.json"))]
    (out / "segmentation.json").write_text(json.dumps(done) + "\n", encoding="utf-8")
    (out / "segmentation.md").write_text(page(done, tested, most_epochs), encoding="utf-8")
    chart(done).savefig(out / "segmentation.png", dpi=120)
