"""Fit the constants of the methods, and report their loss on volumes that they were not fitted on.

python benchmarks/calibrate.py                      # the phantoms and volumes of installed packages; an hour
python benchmarks/calibrate.py --constant "classic: h" --volume scan.nii.gz
python benchmarks/calibrate.py --report-only

Every constant is in units of sigma. Two rules are fitted: one value for all volumes, and a line in the contrast. The
contrast is the range of the noisy volume (from the 0.5 to the 99.5 percentile) over sigma; it is known before denoising
and does not depend on the units. For each volume, both rules are fitted on the other volumes (leave one out). The loss
is the difference from the volume's own best value at each level.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from quality_report import table
from quality_volumes import Noise, Scan, case, scans
from torch import Tensor

import nlmeans
from nlmeans.core.metrics import psnr
from nlmeans.patches.bayes.nl_bayes import nl_bayes
from nlmeans.patches.dct.sliding import hard_threshold, wiener_filter

LEVELS = (1.0, 3.0, 5.0, 7.0, 9.0)


class Noisy:
    """Scan with Gaussian noise of sigma 1, and the first estimates for the later stages."""

    def __init__(self, scan: Scan, percent: float) -> None:
        given = case(scan, Noise("gaussian", percent))
        self.scan, self.sigma = scan, given.sigma
        self.noisy = torch.from_numpy(given.noisy / given.sigma)[None]

    def psnr(self, estimate: Tensor) -> float:
        return psnr(self.scan.clean, estimate[0].numpy() * self.sigma, peak=1, mask=self.scan.mask)

    @property
    def contrast(self) -> float:
        low, high = np.percentile(self.noisy.numpy(), (0.5, 99.5))
        return float(high - low)

    def method(self, name: str, h: float | None, search_radius: int | None = None) -> Tensor:
        return nlmeans.denoise(self.noisy[0], 1.0, method=name, h=h, search_radius=search_radius)[None]

    def nonlocal_means(self, h: float | None, search_radius: int | None = None) -> Tensor:
        return self.method("classic", h, search_radius)

    @cached_property
    def first(self) -> Tensor:
        return self.nonlocal_means(None)

    def pilot(self, threshold: float = 3.0, h: float | None = None) -> Tensor:
        thresholded = hard_threshold(self.noisy, patch=4, stride=1, threshold=threshold)
        return (thresholded + self.nonlocal_means(h, search_radius=2)) / 2

    def first_stage(self, guide: Tensor, strength: float = 1.0, tolerance: float = 0.2) -> Tensor:
        shape: dict[str, Any] = {"patch": 3, "step": 3, "count": 32}
        return nl_bayes(self.noisy, guide, **shape, across=True, strength=strength, tolerance=tolerance)

    def second_stage(self, guide: Tensor, strength: float = 0.6, tolerance: float = 0.05) -> Tensor:
        shape: dict[str, Any] = {"patch": 4, "step": 4, "count": 64}
        return nl_bayes(self.noisy, guide, **shape, across=True, strength=strength, tolerance=tolerance)

    @cached_property
    def guide(self) -> Tensor:
        """Result of the first stage of `bayes`."""
        return self.first_stage(self.pilot())


@dataclass(frozen=True)
class Constant:
    values: tuple[float, ...]
    used: float | None
    """Value in use in nlmeans; None for h, which nlmeans chooses itself."""
    estimate: Callable[[Noisy, Any], Tensor]


H = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3)
CONSTANTS = {
    "classic: h": Constant(H, None, lambda noisy, value: noisy.nonlocal_means(value)),
    "pri: h": Constant(H, None, lambda noisy, value: noisy.method("pri", value)),
    "dct: threshold": Constant(
        (2.1, 2.4, 2.7, 3.0, 3.3),
        2.7,
        lambda noisy, value: hard_threshold(noisy.noisy, patch=4, stride=1, threshold=value),
    ),
    "wiener: h of its pilot": Constant(
        H,
        None,
        lambda noisy, value: wiener_filter(noisy.noisy, noisy.nonlocal_means(value), patch=4, stride=1),
    ),
    "wiener: power": Constant(
        (0.6, 0.8, 1.0, 1.25, 1.5),
        1.0,
        lambda noisy, value: wiener_filter(noisy.noisy, noisy.first, patch=4, stride=1, power=value),
    ),
    "bayes: threshold of its pilot": Constant(
        (2.4, 2.7, 3.0, 3.3), 3.0, lambda noisy, value: noisy.second_stage(noisy.first_stage(noisy.pilot(value)))
    ),
    "bayes: h of its pilot": Constant(
        (0.6, 0.7, 0.8, 0.9, 1.0, 1.1),
        None,
        lambda noisy, value: noisy.second_stage(noisy.first_stage(noisy.pilot(h=value))),
    ),
    "bayes: strength of the first stage": Constant(
        (0.6, 0.8, 1.0, 1.25, 1.5),
        1.0,
        lambda noisy, value: noisy.second_stage(noisy.first_stage(noisy.pilot(), strength=value)),
    ),
    "bayes: tolerance of the first stage": Constant(
        (0.05, 0.1, 0.2, 0.4),
        0.2,
        lambda noisy, value: noisy.second_stage(noisy.first_stage(noisy.pilot(), tolerance=value)),
    ),
    "bayes: strength of the second stage": Constant(
        (0.4, 0.5, 0.6, 0.7, 0.85), 0.6, lambda noisy, value: noisy.second_stage(noisy.guide, strength=value)
    ),
    "bayes: tolerance of the second stage": Constant(
        (0.01, 0.025, 0.05, 0.1, 0.2), 0.05, lambda noisy, value: noisy.second_stage(noisy.guide, tolerance=value)
    ),
}


@dataclass(frozen=True)
class Curve:
    """Mask PSNR of one volume at one level, as a function of the value of a constant."""

    volume: str
    percent: float
    contrast: float
    values: tuple[float, ...]
    figures: tuple[float, ...]
    used: float
    """Mask PSNR with the value in use."""

    @property
    def best(self) -> float:
        return self.values[int(np.argmax(self.figures))]

    def loss(self, value: Any) -> Any:
        """Loss of one or several values relative to the best, interpolated linearly between measured values."""
        return max(self.figures) - np.interp(value, self.values, self.figures)


Line = tuple[float, float, float, float]
"""a, b, low, high: the value is a + b · contrast, at least low and at most high."""


def on_line(line: Line, contrast: float) -> float:
    a, b, low, high = line
    return float(np.clip(a + b * contrast, low, high))


def one_value(curves: Sequence[Curve]) -> float:
    """Find the value with the least average loss."""
    candidates = np.linspace(curves[0].values[0], curves[0].values[-1], 161)
    return float(candidates[np.argmin(np.mean([curve.loss(candidates) for curve in curves], axis=0))])


def best_line(curves: Sequence[Curve]) -> Line:
    """Find the line with the least average loss, given by its values at a contrast of 10 and of 40."""
    low, high = curves[0].values[0], curves[0].values[-1]
    ends = np.linspace(low, high, 33)
    at_10, at_40 = (grid.ravel() for grid in np.meshgrid(ends, ends))
    slope = (at_40 - at_10) / 30
    total = np.zeros_like(slope)
    for curve in curves:
        here = min(max(curve.contrast, 5), 40)
        total += curve.loss(np.clip(at_10 + slope * (here - 10), low, high))
    k = int(np.argmin(total))
    a, b = at_10[k] - 10 * slope[k], slope[k]
    limits = sorted((float(np.clip(a + 5 * b, low, high)), float(at_40[k])))
    return float(a), float(b), limits[0], limits[1]


def report(name: str, constant: Constant, curves: Sequence[Curve]) -> str:
    """Table of the best values of every volume, and of the loss of values fitted on the other volumes."""
    volumes = list(dict.fromkeys(curve.volume for curve in curves))
    levels = sorted({curve.percent for curve in curves})
    rows, losses = [], []
    for volume in volumes:
        mine = [curve for curve in curves if curve.volume == volume]
        others = [curve for curve in curves if curve.volume != volume]
        value, line = one_value(others), best_line(others)
        lost = [
            np.array([float(curve.loss(choice)) for curve, choice in zip(mine, choices, strict=True)])
            for choices in (
                [value] * len(mine),
                [on_line(line, curve.contrast) for curve in mine],
            )
        ]
        lost.insert(0, np.array([max(0.0, max(curve.figures) - curve.used) for curve in mine]))
        losses.append(lost)
        best = {curve.percent: f"{curve.best:g} ({curve.contrast:.0f})" for curve in mine}
        rows.append(
            [volume, *(best.get(p, "–") for p in levels), *(f"{loss.mean():.3f} ({loss.max():.2f})" for loss in lost)]
        )
    means = [np.concatenate(column) for column in zip(*losses, strict=True)]
    rows.append(["**all**", *[""] * len(levels), *(f"**{loss.mean():.3f}** ({loss.max():.2f})" for loss in means)])
    header = ["volume", *(f"{p:g} %" for p in levels), "loss in use", "one value", "line"]
    a, b, low, high = best_line(curves)
    line = f"{a:.3g} {'+' if b >= 0 else '−'} {abs(b):.2g} · contrast, from {low:.3g} to {high:.3g}"
    fitted = f"Fitted on all: one value {one_value(curves):.3g}; line {line}. " + recommendation(
        constant, curves, *(float(loss.mean()) for loss in means)
    )
    return f"## {name}\n\n{table(header, rows)}\n\n{fitted}"


WORTH = 0.03
"""Average gain in dB on volumes left out that a change must bring."""


def recommendation(constant: Constant, curves: Sequence[Curve], used: float, value: float, line: float) -> str:
    if line < min(used, value) - WORTH:
        return "**Recommended: the line.**"
    if value < used - WORTH:
        return f"**Recommended: {one_value(curves):.2g}.**"
    return "**Recommended: no change.**"


def markdown(stored: Mapping[str, Any]) -> str:
    parts = [
        "# Calibration",
        "Made by `python benchmarks/calibrate.py`. Gaussian noise of known sigma. Each row gives a volume's best value "
        "at each level, with the contrast in parentheses (range of the noisy volume, 0.5 to 99.5 percentile, over "
        "sigma). The last three columns give the loss of mask PSNR relative to these best values in dB, mean (largest) "
        "over the levels: with the value or rule in use, with one value, and with a line in the contrast. The last two "
        "are fitted on the other volumes. "
        f"A change is recommended if it gains {WORTH} dB on average on volumes left out.",
    ]
    for name, constant in CONSTANTS.items():
        curves = [
            Curve(
                cell["volume"],
                cell["percent"],
                cell["contrast"],
                constant.values,
                tuple(cell["psnr"].values()),
                cell["used"],
            )
            for cell in stored.values()
            if cell["constant"] == name and list(map(float, cell["psnr"])) == list(constant.values)
        ]
        if len({curve.volume for curve in curves}) > 1:
            parts.append(report(name, constant, curves))
    return "\n\n".join(parts) + "\n"


@click.command()
@click.option(
    "--volume", "given", multiple=True, type=click.Path(path_type=Path), help="Add a clean volume; repeatable."
)
@click.option("--only", multiple=True, help="Volume to use, by name; repeatable.  [default: all in 3D]")
@click.option(
    "--constant", "names", multiple=True, type=click.Choice(list(CONSTANTS)), help="Repeatable; default: all."
)
@click.option(
    "--level", "levels", multiple=True, type=float, help="Per cent of the maximum; repeatable; default: 1, 3, 5, 7, 9."
)
@click.option("--again", is_flag=True, help="Measure existing results again.")
@click.option("--report-only", is_flag=True, help="Only write the tables from existing results.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path(__file__).parent / "results", help="Folder for the results."
)
def main(
    given: tuple[Path, ...],
    only: tuple[str, ...],
    names: tuple[str, ...],
    levels: tuple[float, ...],
    again: bool,
    report_only: bool,
    out: Path,
) -> None:
    """Measure every constant on every volume and level, and write calibration.md."""
    path = out / "calibration.json"
    out.mkdir(parents=True, exist_ok=True)
    stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    volumes = [scan for scan in scans(list(given)).values() if scan.clean.ndim == 3 and (not only or scan.name in only)]
    for name, scan, percent in [] if report_only else itertools.product(names or CONSTANTS, volumes, levels or LEVELS):
        cell, constant = f"{name} | {scan.name} | {percent:g}", CONSTANTS[name]
        if cell in stored and not again:
            continue
        noisy = Noisy(scan, percent)
        figures = {f"{value:g}": round(noisy.psnr(constant.estimate(noisy, value)), 4) for value in constant.values}
        used = None if constant.used is None else figures[f"{constant.used:g}"]
        stored[cell] = {
            "constant": name,
            "volume": scan.name,
            "percent": percent,
            "contrast": round(noisy.contrast, 2),
            "psnr": figures,
            "used": round(noisy.psnr(constant.estimate(noisy, None)), 4) if used is None else used,
        }
        path.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
        click.echo(f"{cell:60} {figures}")
    (out / "calibration.md").write_text(markdown(stored), encoding="utf-8")


if __name__ == "__main__":
    main()
