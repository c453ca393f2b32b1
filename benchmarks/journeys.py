"""Compare what a person gets who only says what the image is with the best settings for that image.

python benchmarks/journeys.py

The default with the choice "Image is" of napari (`modality` elsewhere) stands against all methods, kinds of noise and
strengths of the table below, on the samples that come with the package.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

import nlmeans
from nlmeans import samples
from nlmeans.core.metrics import psnr
from nlmeans.files.formats import nifti

MODALITIES = {"head": "MR", "ct": "CT", "confocal": "GM", "pet": "PT"}
METHODS = ("bayes", "best")
STRENGTHS = (0.7, 1.0, 1.4)
MOST_LOST = 0.3
"""Decibels that the default may lose to the best settings."""


def loaded(name: str) -> np.ndarray[Any, Any]:
    """A sample as it is stored."""
    return np.asarray(nifti.read_nifti(samples.path(name)).data)


def stated_noise(truth: dict[str, Any]) -> list[dict[str, Any]]:
    """The ways to state the noise: found, or of a kind, for counts with the true gain, offset and read noise."""
    ways: list[dict[str, Any]] = [{"noise": "auto"}, {"noise": "gaussian"}, {"noise": "rician"}]
    counts: dict[str, Any] = {"noise": "poisson", "gain": "auto"}
    if truth["noise"] == "poisson":
        counts = {"noise": "poisson", **{name: truth[name] for name in ("gain", "offset", "sigma")}}
    return [*ways, counts]


def score(noisy: np.ndarray[Any, Any], clean: np.ndarray[Any, Any], settings: dict[str, Any]) -> float | None:
    """PSNR relative to the range of the truth, in dB; None if the engine refuses the settings for this image."""
    try:
        result = nlmeans.denoise(noisy, **settings)
    except ValueError:
        return None
    return psnr(clean, result, peak=float(np.ptp(clean)))


def in_words(settings: dict[str, Any]) -> str:
    """Settings as they are called.

    >>> in_words({"method": "best", "strength": 1.4})
    'method=best, strength=1.4'
    """
    return ", ".join(f"{name}={value}" for name, value in settings.items())


def journey(name: str) -> tuple[float, float, dict[str, tuple[float, dict[str, Any]]]]:
    """PSNR of a sample as it is, by the default with its modality alone, and by the best settings of each method.

    Args:
        name: of the sample.
    """
    truth = samples.truth()[f"{name}.nii.gz"]
    noisy, clean = loaded(name), loaded(truth["clean"])
    size = {"spacing": nifti.read_nifti(samples.path(name)).spacing}
    default = score(noisy, clean, {"modality": MODALITIES[name], **size})
    assert default is not None
    best = dict.fromkeys(METHODS, (-math.inf, dict[str, Any]()))
    for method, noise, strength in itertools.product(METHODS, stated_noise(truth), STRENGTHS):
        settings = {**noise, "strength": strength}
        known = {"modality": MODALITIES[name]} if noise["noise"] == "auto" else {}
        found = score(noisy, clean, {"method": method, **settings, **known, **size})
        if found is not None and found > best[method][0]:
            best[method] = found, settings
    return psnr(clean, noisy, peak=float(np.ptp(clean))), default, best


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).parent / "results" / "journeys.md")
def main(out: Path) -> None:
    torch.set_grad_enabled(False)
    titles = [title for method in METHODS for title in (f"`{method}` at its best", "lost", "with")]
    lines = [
        "# What the default loses",
        "",
        f"`python benchmarks/journeys.py`, nlmeans {nlmeans.__version__}. PSNR in dB against the truth, relative to "
        "its range, over all voxels. The default knows what made the image, "
        "and, as all of them, the voxel size. The best settings are "
        "those of the noise auto, gaussian, rician or poisson (counts with the true gain, offset and read noise), and "
        f"the strengths {', '.join(map(str, STRENGTHS))} that come closest to the truth, of each method. More than "
        f"{MOST_LOST} dB lost is marked by (!).",
        "",
        "| sample | modality | noisy | default | " + " | ".join(titles) + " |",
        "|---|---|--:|--:|" + "--:|--:|---|" * len(METHODS),
    ]
    for name, modality in MODALITIES.items():
        noisy, default, best = journey(name)
        row = [name, modality, f"{noisy:.2f}", f"{default:.2f}"]
        for reached, settings in best.values():
            lost = f"{reached - default:.2f}" + ("" if reached - default <= MOST_LOST else " (!)")
            row += [f"{reached:.2f}", lost, in_words(settings)]
        lines.append("| " + " | ".join(row) + " |")
        print(lines[-1], flush=True)
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
