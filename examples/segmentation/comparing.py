"""Say how much one result is better than another, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from testing import Scores


class Gain(NamedTuple):
    """Mean difference and its 95 % interval; the ends are NaN where there are too few values."""

    mean: float
    low: float
    high: float

    @property
    def sure(self) -> bool:
        """Whether the interval is on one side of 0, and the mean is not 0 in the digits shown."""
        return (self.low > 0 or self.high < 0) and abs(self.mean) >= 0.0005

    def __str__(self) -> str:
        interval = "" if np.isnan(self.low) else f" ({self.low:+.3f} to {self.high:+.3f})"
        return f"{self.mean:+.3f}{interval}"


def gain_over_runs(differences: ArrayLike) -> Gain:
    """Student's interval for independent runs, one difference for each seed: it holds for another seed, too.

    >>> print(gain_over_runs([0.1, 0.2, 0.3]))
    +0.200 (-0.048 to +0.448)
    """
    values = np.asarray(differences, float)
    mean, count = values.mean(), len(values)
    if count < 2:
        return Gain(mean, np.nan, np.nan)
    half = stats.t.ppf(0.975, count - 1) * values.std(ddof=1) / np.sqrt(count)
    return Gain(mean, mean - half, mean + half)


def gain_over_images(differences: ArrayLike) -> Gain:
    """Paired bootstrap over the images of one run: it holds for other images, but not for another training.

    >>> print(gain_over_images([0.1, 0.2, 0.3, 0.2]))
    +0.200 (+0.125 to +0.275)
    """
    values = np.asarray(differences, float)
    if len(values) < 3:
        return Gain(values.mean(), np.nan, np.nan)
    drawn = np.random.default_rng(0).choice(values, (10_000, len(values))).mean(1)
    return Gain(values.mean(), *np.quantile(drawn, [0.025, 0.975]))


def table(results: dict[str, Scores], structures: Sequence[str], unit: str) -> str:
    """Table of Dice for each structure and their mean, and of the distance: mean ± standard deviation over images."""
    head = ["denoising", *structures, "mean", f"HD95 ({unit})"]
    rows = [head, ["-" * len(word) for word in head]]
    for denoise, scores in results.items():
        rows.append([denoise, *map(spread, [*scores.dice.T, means(scores.dice)]), spread_of_distances(scores.distance)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    )


def means(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the structures that each image has; NaN for an image that has none."""
    return np.array([known(image).mean() if known(image).size else np.nan for image in scores])


def known(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Drop undefined values: images without the structure."""
    return scores[~np.isnan(scores)]


def spread(scores: NDArray[np.float64], digits: int = 3) -> str:
    there = known(scores)
    return f"{there.mean():.{digits}f} ± {there.std():.{digits}f}" if there.size else "–"


def spread_of_distances(distances: NDArray[np.float64]) -> str:
    """Format the distances of the structures that were found, and how many were not."""
    there = known(distances)
    missed = int(np.isinf(there).sum())
    return spread(there[np.isfinite(there)], 1) + (f", {missed} not found" if missed else "")


def verdict(results: dict[str, Scores], one_network: bool) -> str:
    """Say in sentences what a table means, compared with its row ``none``, and how sure that is.

    Args:
        results: scores on the same images.
        one_network: whether all rows are of one network, so that they differ by the denoising alone.
    """
    if "none" not in results or len(results) < 2:
        return "To see what denoising does, compare it with --denoise none."
    plain = means(results["none"].dice)
    if not any(np.nansum(scores.dice) for scores in results.values()):
        return "Nothing was found in any image: train for more epochs, or with a smaller --learning-rate."
    lines = []
    for denoise, scores in results.items():
        differences = known(means(scores.dice) - plain)
        if denoise != "none" and len(differences):
            gain = gain_over_images(differences)
            found = f"{'helps' if gain.mean > 0 else 'harms'} here" if gain.sure else "makes no difference that is sure"
            lines.append(f"{denoise} {found}: it changes Dice by {gain}.")
    count = len(known(plain))
    if count < 3:
        lines.append(f"With {count} test images nobody can say more; take more.")
    else:
        lines.append(f"In brackets: 95 % interval, from a paired bootstrap over the {count} test images.")
    lines.append(
        "All rows are of the same network: another training can give another gain."
        if one_network
        else "Each row is a training of its own: repeat with other --seed before you believe a difference."
    )
    return "\n".join(lines)
