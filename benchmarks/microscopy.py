"""Denoise pairs of real microscope images, with nothing told, and compare with the mean of many exposures.

python benchmarks/microscopy.py FOLDER   # with NAME_raw1.png, NAME_raw2.png … and NAME_mean.png, as 8-bit images

The fluorescence microscopy denoising dataset (Y. Zhang et al. 2019, doi:10.1109/CVPR.2019.01198) has such images.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path

import click
import numpy as np
import torch
from correlated import give_trapz
from PIL import Image

import nlmeans
from nlmeans.core.metrics import psnr

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.float32]]

PEAK = 255
COLUMNS = (
    "image",
    "noisy",
    "taken for gaussian, white",
    "default",
    "method best",
    "BM3D",
    "default, brightness fitted",
    "noise found",
)


def pixels(path: Path) -> Pixels:
    return np.asarray(Image.open(path), np.float32)


def bm3d_told(noisy: Pixels, found: nlmeans.NoiseModel) -> Pixels:
    """Run BM3D on the image whose noise is stabilised, with sigma or the power spectral density as it was found."""
    give_trapz()
    from bm3d import bm3d

    stabilised = found.stabilise(torch.from_numpy(noisy).double())
    sigma = 1.0 if found.follows_intensity else found.sigma or 0.0
    level: float | Pixels = sigma
    if found.autocovariance is not None:
        lags, shifts = found.autocovariance[0], [n // 2 for n in found.autocovariance.shape[1:]]
        around = np.zeros(noisy.shape)
        around[: lags.shape[0], : lags.shape[1]] = lags
        power = np.fft.fft2(np.roll(around, [-shift for shift in shifts], (0, 1))).real
        level = sigma**2 * np.maximum(power, LEAST_POWER) * noisy.size
    return found.restore(torch.from_numpy(bm3d(stabilised.numpy(), level))).float().numpy()


LEAST_POWER = 1e-3
"""Lower limit of a power spectral density that is relative to its mean: that of few lags may be below 0."""


def numbers(scores: Iterable[float]) -> str:
    return " | ".join("–" if np.isnan(score) else f"{score:.2f}" for score in scores)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).parent / "results" / "microscopy.md")
def main(folder: Path, out: Path) -> None:
    torch.set_grad_enabled(False)
    lines = [
        "# Fluorescence microscopy",
        "",
        f"`python benchmarks/microscopy.py FOLDER`, nlmeans {nlmeans.__version__}. PSNR in dB against the mean of "
        "fifty exposures, peak 255; real raw images, nothing told. Some exposures are up to a quarter darker or "
        "brighter than the mean, which no denoiser can know: `brightness fitted` is the default after the line that "
        "leads to the mean. `BM3D` (4.0.3) is told the noise that we found: it gets the image after the same "
        "transform of Poisson noise, with sigma 1, or with the power spectral density if the noise is correlated, and "
        "its result is transformed back as ours is.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|---|" + "--:|" * (len(COLUMNS) - 2) + "---|",
    ]
    scores = []
    for raw in sorted(folder.glob("*_raw*.png")):
        noisy, clean = pixels(raw), pixels(Path(re.sub(r"_raw\d+", "_mean", str(raw))))
        found, default = nlmeans.estimate_noise(noisy), nlmeans.denoise(noisy)
        results: list[Pixels | None] = [
            noisy,
            nlmeans.denoise(noisy, noise="gaussian", correlation=None),
            default,
            nlmeans.denoise(noisy, method="best"),
        ]
        results.append(bm3d_told(noisy, found) if importlib.util.find_spec("bm3d") else None)
        results.append(np.polyval(np.polyfit(default.ravel(), clean.ravel(), 1), default))
        scores.append([np.nan if result is None else psnr(clean, result, peak=PEAK) for result in results])
        lines.append(f"| {raw.stem} | {numbers(scores[-1])} | {found} |")
        click.echo(lines[-1])
    lines.append(f"| mean | {numbers(np.mean(scores, axis=0))} | |")
    click.echo(lines[-1])
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
