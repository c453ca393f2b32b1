"""Write the tables of quality.py from its results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from quality_methods import Contestant
from quality_volumes import GIVEN, KINDS, NOISES, Noise

import nlmeans

MEASURES = ("mask_psnr", "psnr", "ssim")
OTHER_DIMENSIONS = ("CT slice", "diffusion series")
"""Not 3D: not every method takes them, so the means over volumes leave them out."""


@dataclass(frozen=True)
class Cell:
    volume: str
    noise: Noise
    method: str
    version: str
    score: dict[str, Any]

    @property
    def values(self) -> tuple[float, ...]:
        return tuple(self.score[measure] for measure in MEASURES)


class Scores:
    """Lookup of the stored scores."""

    def __init__(self, stored: Mapping[str, dict[str, Any]], order: Sequence[str]) -> None:
        self.cells: dict[tuple[str, Noise, str], Cell] = {}
        for key, score in stored.items():
            volume, kind, level, method, version = key.split(" | ")
            noise = Noise(kind, float(level))
            self.cells[volume, noise, method] = Cell(volume, noise, method, version, score)
        found = {cell.method for cell in self.cells.values()}
        self.methods = [name for name in order if name in found] + sorted(found - set(order))

    def get(self, volume: str, noise: Noise, method: str) -> Cell | None:
        return self.cells.get((volume, noise, method))

    def volumes(self, kind: str) -> list[str]:
        return list(dict.fromkeys(cell.volume for cell in self.cells.values() if cell.noise.kind == kind))

    def levels(self, kind: str) -> list[Noise]:
        found = {cell.noise for cell in self.cells.values() if cell.noise.kind == kind}
        return [noise for noise in NOISES if noise in found]

    def mean(self, volumes: Sequence[str], noise: Noise, method: str) -> tuple[float, ...] | None:
        """Mean of each measure over the volumes, if the method was measured on all of them."""
        found = [cell for volume in volumes if (cell := self.get(volume, noise, method))]
        if not found or len(found) < len(volumes):
            return None
        return tuple(fmean(column) for column in zip(*(cell.values for cell in found), strict=True))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def shown(values: Sequence[float] | None, best: Sequence[float] = ()) -> str:
    """Format mask PSNR / PSNR everywhere, SSIM; the best of a column is bold."""
    if values is None:
        return "–"
    texts = [f"{values[0]:.2f}", f"{values[1]:.2f}", f"{values[2]:.4f}"]
    bold = [
        f"**{text}**" if best and round(value, digits) >= round(most, digits) else text
        for text, value, most, digits in zip(texts, values, best or values, (2, 2, 4), strict=True)
    ]
    return f"{bold[0]} / {bold[1]}, {bold[2]}"


def difference(values: Sequence[float]) -> str:
    return f"{values[0]:+.2f} / {values[1]:+.2f}, {values[2]:+.4f}"


def methods_table(
    scores: Scores, kind: str, seconds: Mapping[str, float], values: Callable[[Noise, str], Sequence[float] | None]
) -> str:
    """Table with a row per method and a column per level."""
    levels = scores.levels(kind)
    rows = {method: [values(noise, method) for noise in levels] for method in scores.methods}
    rows = {method: row for method, row in rows.items() if any(cell is not None for cell in row)}
    best = [
        [max(column) for column in zip(*(row[k] for row in rows.values() if row[k]), strict=True)]
        for k in range(len(levels))
    ]
    body = [
        [
            method,
            *(shown(cell, most) for cell, most in zip(row, best, strict=True)),
            f"{seconds[method]:.2f}" if method in seconds else "",
        ]
        for method, row in rows.items()
    ]
    return table(["method", *map(str, levels), "s"], body)


def section(scores: Scores, kind: str, seconds: Mapping[str, float], about: Mapping[str, Mapping[str, str]]) -> str:
    shared = [volume for volume in about if about[volume]["about"] != GIVEN and volume not in OTHER_DIMENSIONS]
    volumes = [volume for volume in scores.volumes(kind) if volume in shared]
    parts = [
        f"## {KINDS[kind]}",
        f"Mean over {', '.join(volumes)}. A dash means that not all of them were measured.",
        methods_table(scores, kind, seconds, lambda noise, method: scores.mean(volumes, noise, method)),
    ]
    for volume in scores.volumes(kind):

        def values(noise: Noise, method: str, volume: str = volume) -> Sequence[float] | None:
            cell = scores.get(volume, noise, method)
            return cell.values if cell else None

        one = methods_table(scores, kind, {}, values)
        parts.append(f"<details><summary>{volume}</summary>\n\n{one}\n\n</details>")
    return "\n\n".join(parts)


def beside_bm4d(scores: Scores, method: str, kind: str) -> str:
    """Table of differences by volume and level, with their mean and the least of each measure."""
    rival = "BM4D, bias removed" if kind == "rician" else "BM4D"
    levels, body = scores.levels(kind), []
    columns: list[list[tuple[float, ...]]] = [[] for _ in levels]
    for volume in scores.volumes(kind):
        row = [volume]
        for noise, column in zip(levels, columns, strict=True):
            ours, theirs = scores.get(volume, noise, method), scores.get(volume, noise, rival)
            if ours and theirs:
                column.append(tuple(a - b for a, b in zip(ours.values, theirs.values, strict=True)))
            row.append(difference(column[-1]) if ours and theirs else "–")
        if set(row[1:]) != {"–"}:
            body.append(row)
    every = [values for column in columns for values in column]
    if not every:
        return "BM4D was not measured."
    for name, function in (("**mean**", fmean), ("**least**", min)):
        body.append([name, *(difference(each(function, column)) if column else "–" for column in columns)])
    total = f"All {len(every)} cases: mean {difference(each(fmean, every))}, least {difference(each(min, every))}."
    return table([f"`{method}`", *map(str, levels)], body) + "\n\n" + total


BESIDE_BM4D = ("bayes", "best", "default, nothing told")
"""What is compared with BM4D, which is told sigma."""


def each(function: Callable[[list[float]], float], rows: list[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(function(list(column)) for column in zip(*rows, strict=True))


def auto_beside_best(scores: Scores) -> str:
    """Table of `auto` minus the best single method by mask PSNR, and of the methods that it picked."""
    body = []
    for noise in (noise for kind in KINDS for noise in scores.levels(kind)):
        gaps: dict[str, float] = {}
        picked: dict[str, int] = {}
        for volume in scores.volumes(noise.kind):
            auto = scores.get(volume, noise, "auto")
            singles = [cell for name in nlmeans.METHODS if (cell := scores.get(volume, noise, name))]
            if auto and singles:
                best = max(singles, key=lambda cell: float(cell.score["mask_psnr"]))
                gaps[f"{volume} ({best.method})"] = auto.score["mask_psnr"] - best.score["mask_psnr"]
                name = auto.score.get("picked", "?")
                picked[name] = picked.get(name, 0) + 1
        if gaps:
            worst = min(gaps, key=lambda name: gaps[name])
            body.append(
                [
                    f"{noise.kind} {noise}",
                    f"{fmean(gaps.values()):+.2f}",
                    f"{gaps[worst]:+.2f}: {worst}",
                    ", ".join(f"{name} × {count}" for name, count in picked.items()),
                ]
            )
    return table(["noise", "mean, dB", "least: volume (best single method there)", "auto picked"], body)


COMPARISONS = {
    "Poisson peak 10, exact minus algebraic inverse": (Noise("poisson", 10), "", ", algebraic inverse"),
    "Poisson peak 100, exact minus algebraic inverse": (Noise("poisson", 100), "", ", algebraic inverse"),
    "ramp, map of sigma minus one sigma": (Noise("ramp", 5), "", ", one sigma"),
    "ramp, estimated map minus one sigma": (Noise("ramp", 5), ", estimated map", ", one sigma"),
    "impulses, despeckled minus left in": (Noise("impulses", 3), "", ", impulses left in"),
    **{
        f"{kind} {level} %, estimated sigma minus true": (Noise(kind, level), ", estimated sigma", "")
        for kind in ("gaussian", "rician")
        for level in (1, 3, 9)
    },
}


def noise_models(scores: Scores) -> str:
    """Table of the gain by each part of a noise model: mask PSNR / PSNR everywhere, by volume."""
    volumes = list(dict.fromkeys(volume for kind in KINDS for volume in scores.volumes(kind)))
    body = []
    for title, (noise, with_it, without) in COMPARISONS.items():
        for method in ("classic", "bayes"):
            row = []
            for volume in volumes:
                a = scores.get(volume, noise, method + with_it)
                b = scores.get(volume, noise, method + without)
                row.append(f"{a.values[0] - b.values[0]:+.2f} / {a.values[1] - b.values[1]:+.2f}" if a and b else "")
            if any(row):
                body.append([title, f"`{method}`", *row])
    return table(["", "", *volumes], body)


def contents(about: Mapping[str, Mapping[str, str]]) -> str:
    return table(
        ["volume", "voxels", "what it is"], [[name, one["voxels"], one["about"]] for name, one in about.items()]
    )


def peers_table(scores: Scores, contestants: Mapping[str, Contestant]) -> str:
    versions = {cell.method: cell.version for cell in scores.cells.values()}
    body = [
        [
            name,
            f"{contestants[name].distribution} {versions[name]}" if name in contestants else versions[name],
            contestants[name].settings if name in contestants else "",
        ]
        for name in scores.methods
        if name not in contestants or contestants[name].distribution != "nlmeans"
    ]
    return table(["peer", "package", "settings"], body)


def markdown(results: Mapping[str, Any], contestants: Mapping[str, Contestant]) -> str:
    scores, seconds, timing = Scores(results["scores"], list(contestants)), results["seconds"], results["timing"]
    timed = f"Seconds: {timing['volume']}, {timing['machine']}, load {timing['load']}." if timing else ""
    parts = [
        "# Quality",
        "Made by `python benchmarks/quality.py`. How it is measured: [README](../README.md). A cell gives PSNR in the "
        f"mask / everywhere (dB) and SSIM in the mask; the best of a column is bold. nlmeans {nlmeans.__version__}. "
        + timed,
        "![What each method removed](removed-noise.png)",
        "## Difference from BM4D, Gaussian noise",
        *(beside_bm4d(scores, method, "gaussian") for method in BESIDE_BM4D),
        "## Difference from BM4D, Rician noise",
        "BM4D assumes Gaussian noise, so our inverse removes the bias of magnitudes from its results here. Without "
        "this correction it leaves the background bright (see below).",
        *(beside_bm4d(scores, method, "rician") for method in BESIDE_BM4D),
        "## `auto` less the best single method",
        "Differences in mask PSNR, over the volumes.",
        auto_beside_best(scores),
        "## What the noise models are worth",
        "Differences in mask PSNR / PSNR everywhere, dB. If a scan has noise of its own or few voxels, the estimate of "
        "sigma is higher than the added noise.",
        noise_models(scores),
        "## Volumes and peers",
        contents(results["volumes"]),
        peers_table(scores, contestants),
        *(section(scores, kind, seconds, results["volumes"]) for kind in KINDS if scores.volumes(kind)),
    ]
    return "\n\n".join(parts) + "\n"


def write_report(results: Mapping[str, Any], contestants: Mapping[str, Contestant], path: Path) -> None:
    path.write_text(markdown(results, contestants), encoding="utf-8")
