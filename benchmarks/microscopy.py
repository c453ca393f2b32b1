"""Denoise pairs of real microscope images, with nothing told, and compare with the mean of many exposures.

python benchmarks/microscopy.py FOLDER   # with NAME_raw1.png, NAME_raw2.png … and NAME_mean.png, as 8-bit images

The fluorescence microscopy denoising dataset (Y. Zhang et al. 2019, doi:10.1109/CVPR.2019.01198) has such images.
"""

from __future__ import annotations

import re
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image

import nlmeans
from nlmeans.core.metrics import psnr

PEAK = 255
COLUMNS = (
    "image",
    "noisy",
    "taken for gaussian, white",
    "default",
    "method best",
    "default, brightness fitted",
    "noise found",
)


def pixels(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.asarray(Image.open(path), np.float32)


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
        "leads to the mean.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|---|" + "--:|" * (len(COLUMNS) - 2) + "---|",
    ]
    scores = []
    for raw in sorted(folder.glob("*_raw*.png")):
        noisy, clean = pixels(raw), pixels(Path(re.sub(r"_raw\d+", "_mean", str(raw))))
        found = nlmeans.estimate_noise(noisy)
        results = [
            noisy,
            nlmeans.denoise(noisy, noise="gaussian", correlation=None),
            nlmeans.denoise(noisy),
            nlmeans.denoise(noisy, method="best"),
        ]
        default = results[2]
        results.append(np.polyval(np.polyfit(default.ravel(), clean.ravel(), 1), default))
        scores.append([psnr(clean, result, peak=PEAK) for result in results])
        numbers = " | ".join(f"{score:.2f}" for score in scores[-1])
        lines.append(f"| {raw.stem} | {numbers} | {found} |")
        click.echo(lines[-1])
    lines.append("| mean | " + " | ".join(f"{score:.2f}" for score in np.mean(scores, axis=0)) + " | |")
    click.echo(lines[-1])
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
