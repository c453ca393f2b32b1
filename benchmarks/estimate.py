"""Measure the error of the estimates of sigma, as one number and as a map.

python benchmarks/estimate.py                        # the samples and the volumes of installed packages
python benchmarks/estimate.py --volume scan.nii.gz   # these and any clean volume
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
from quality_volumes import DARK, Volume, scans

import nlmeans
from nlmeans.core.metrics import psnr
from nlmeans.files import samples

PERCENT = (1, 3, 5, 9)
NOISES = ("gaussian", "rician")
Map = npt.NDArray[np.float64]


def with_noise(clean: Volume, sigma: float | Map, noise: str, seed: int) -> Volume:
    random = np.random.default_rng(seed)
    noisy = clean + sigma * random.standard_normal(clean.shape)
    if noise == "rician":
        noisy = np.hypot(noisy, sigma * random.standard_normal(clean.shape))
    return noisy.astype(np.float32)


def ramp(shape: tuple[int, ...], axis: int) -> Map:
    along = np.linspace(0.02, 0.08, shape[axis])
    return np.broadcast_to(along.reshape([-1 if a == axis else 1 for a in range(len(shape))]), shape)


def true_maps(shape: tuple[int, ...]) -> Iterator[tuple[str, Map]]:
    """Yield constant noise, ramps along the axes, and noise that doubles in the middle, as in parallel imaging."""
    yield "5 %", np.full(shape, 0.05)
    yield from ((f"2–8 %, axis {axis}", ramp(shape, axis)) for axis in range(len(shape)))
    from_middle = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    yield "3–6 %, bump", 0.03 * (1 + np.exp(-sum(p**2 for p in from_middle) / (2 * 0.4**2)))


MAPS = [name for name, _ in true_maps((3, 3, 3))]


def numbers(clean: Volume, noise: str, seeds: int) -> Iterator[str]:
    """Yield the median and worst error of the one number at each level."""
    for percent in PERCENT:
        sigma = percent / 100
        errors = [
            nlmeans.estimate_sigma(with_noise(clean, sigma, noise, seed), noise=noise) / sigma - 1
            for seed in range(seeds)
        ]
        yield f"{100 * np.median(errors):+.1f} / {100 * max(errors, key=abs):+.1f}"


def maps(clean: Volume, noise: str) -> Iterator[str]:
    """Yield the mean absolute error and the mean error over the object, for each map."""
    sigmas = dict(true_maps(clean.shape))
    for name in MAPS:
        if name not in sigmas:
            yield "–"
            continue
        sigma = sigmas[name]
        errors = nlmeans.estimate_sigma(with_noise(clean, sigma, noise, 0), noise=noise, map=True) / sigma - 1
        errors = errors[clean > DARK]
        yield f"{100 * np.abs(errors).mean():.1f} ({100 * errors.mean():+.1f})"


def denoised(clean: Volume, method: str) -> Iterator[str]:
    """Yield the PSNR over the object with each sigma, on the ramp along the first axis."""
    sigma = ramp(clean.shape, 0)
    noisy = with_noise(clean, sigma, "gaussian", 0)
    estimated = nlmeans.estimate_sigma(noisy, map=True)
    rms = float(np.sqrt(np.square(sigma).mean()))
    for given in (sigma, estimated, rms, nlmeans.estimate_sigma(noisy)):
        result = nlmeans.denoise(noisy, given, method=method)
        yield f"{psnr(clean, result, peak=1, mask=clean > DARK):.2f}"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(row) + " |" for row in [head, *rows]]
    return [lines[0], "|---" * len(head) + "|", *lines[1:], ""]


@click.command()
@click.option(
    "--volume", "extra", multiple=True, type=click.Path(path_type=Path), help="Add a clean volume; repeatable."
)
@click.option("--seeds", default=5, show_default=True, help="Noise realisations for the one number.")
@click.option("--method", "methods", multiple=True, help="Also denoise the ramp by this method; repeatable.")
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).parent / "results" / "estimate.md")
def main(extra: tuple[Path, ...], seeds: int, methods: tuple[str, ...], out: Path) -> None:
    given = scans([Path(samples.path("slice_clean")), *extra]).values()
    found = {scan.name: scan.clean for scan in given if scan.clean.ndim < 4}
    lines = ["# Estimates of sigma", "", f"`python benchmarks/estimate.py`, nlmeans {nlmeans.__version__}.", ""]
    for noise in NOISES:
        lines += [f"## One number, {noise} noise: error in % of the truth, median / worst of {seeds} seeds", ""]
        rows = [[name, *numbers(clean, noise, seeds)] for name, clean in found.items()]
        lines += table(["volume", *(f"{p} %" for p in PERCENT)], rows)
        lines += [f"## Map, {noise} noise: mean absolute error over the object in % of the truth (mean error)", ""]
        rows = [[name, *maps(clean, noise)] for name, clean in found.items()]
        lines += table(["volume", *MAPS], rows)
    for method in methods:
        lines += [f"## PSNR over the object after {method}, noise of 2–8 % along the first axis", ""]
        rows = [[name, *denoised(clean, method)] for name, clean in found.items()]
        lines += table(["volume", "true map", "estimated map", "true rms", "estimated number"], rows)
    out.write_text("\n".join(lines), encoding="utf-8")
    click.echo("\n".join(lines))


if __name__ == "__main__":
    main()
