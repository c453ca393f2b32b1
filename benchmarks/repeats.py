"""Denoise real scans that were repeated, with nothing told, and compare each with the mean of the other repetitions.

python benchmarks/repeats.py                        # the repeated scans in nibabel: a minute on two cores
python benchmarks/repeats.py --series bold.nii.gz   # these and any 4D image whose volumes show the same

The mean of the other repetitions has noise of its own, which the differences of repetitions tell and which is taken
off: the error of a volume is √(mean (x − mean of the others)² − σ²/(n − 1)). Structure that differs from one repetition
to the next, by motion or by activity, counts as noise here, for every column alike.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import click
import nibabel as nib
import numpy as np
import torch
from quality_volumes import Volume
from series import dwidenoise

import nlmeans
from nlmeans.engine.choices import FEWEST_VOLUMES

CARRIED = ("example4d.nii.gz", "functional.nii")
MOST = 6
"""Repetitions that are denoised."""
COLUMNS = (
    *("volumes", "noise", "sigma found", "error: noisy", "taken for white", "bayes", "default", "as a series"),
    *("dwidenoise", "noise found"),
)


def repetitions(path: Path) -> Volume:
    """Read the volumes of a series, the number of the repetition first, relative to the greatest value."""
    series = np.moveaxis(np.asarray(nib.load(path).dataobj, dtype=np.float32), -1, 0)
    return series / series.max()


def noise_between(series: Volume, inside: Volume) -> float:
    """Return the standard deviation of the noise, from the differences of neighbouring repetitions."""
    differences = np.diff(series, axis=0)[:, inside]
    return float(np.sqrt(np.mean(differences.var(axis=1)) / 2))


def error_against_others(result: Volume, others: Volume, inside: Volume, sigma: float) -> float:
    """Return the root mean square error of a volume, without the noise that the mean of the others has."""
    mean_square = np.mean(np.square(result - others.mean(0))[inside])
    return float(np.sqrt(max(mean_square - sigma**2 / len(others), 0.0)))


def as_series(series: Volume) -> Volume:
    denoised: Volume = nlmeans.denoise(series, method="series", series=0)
    return denoised


def by_dwidenoise(series: Volume) -> Volume:
    return np.moveaxis(dwidenoise(np.moveaxis(series, 0, -1), "gaussian", 0.0).signal, -1, 0)


def together_by() -> list[Callable[[Volume], Volume]]:
    """Return what denoises all volumes at once."""
    return [as_series, *([by_dwidenoise] if shutil.which("dwidenoise") else [])]


@click.command()
@click.option("--series", "extra", multiple=True, type=click.Path(path_type=Path), help="A 4D image; repeatable.")
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).parent / "results" / "repeats.md")
def main(extra: tuple[Path, ...], out: Path) -> None:
    torch.set_grad_enabled(False)
    lines = [
        "# Repeated scans",
        "",
        f"`python benchmarks/repeats.py`, nlmeans {nlmeans.__version__}. Real scans as they are, one volume at a time, "
        "nothing told; per mille of the greatest value, in the object. The error is against the mean of the other "
        "repetitions, without the noise of that mean; `noise` is from their differences. `as a series` and dwidenoise, "
        "where installed, get all volumes at once, where there are four or more; so they have seen the others.",
        "",
        "| scan | " + " | ".join(COLUMNS) + " |",
        "|---|" + "--:|" * (len(COLUMNS) - 1) + "---|",
    ]
    folder = Path(nib.__file__).parent / "tests" / "data"
    for path in (*(folder / name for name in CARRIED), *extra):
        series = repetitions(path)
        inside = series.mean(0) > np.quantile(series.mean(0), 0.99) / 5
        sigma, rows = noise_between(series, inside), []
        together = [run(series) for run in together_by()] if len(series) >= FEWEST_VOLUMES else []
        for index, noisy in enumerate(series[:MOST]):
            found = nlmeans.estimate_noise(noisy)
            results = (
                noisy,
                nlmeans.denoise(noisy, noise="gaussian", correlation=None),
                nlmeans.denoise(noisy, method="bayes"),
                nlmeans.denoise(noisy),
            )
            others = np.delete(series, index, axis=0)
            results += tuple(denoised[index] for denoised in together)
            rows.append([found.sigma or 0.0, *(error_against_others(r, others, inside, sigma) for r in results)])
        numbers = [f"{1000 * value:.1f}" for value in (sigma, *np.mean(rows, axis=0))]
        about = f"{found.kind}, {'white' if found.correlation is None else 'correlated'}"
        numbers += [""] * (len(COLUMNS) - 2 - len(numbers))
        lines.append(f"| {path.name.split('.')[0]} | {len(series)} | " + " | ".join(numbers) + f" | {about} |")
        click.echo(lines[-1])
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
