"""The figure of quality.py: what each method took away, which should be noise and nothing else."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import numpy as np
from matplotlib import pyplot as plt
from PIL import Image
from quality_methods import Contestant
from quality_volumes import Noise, Scan, Volume, case

from nlmeans.metrics import psnr

SHOWN = (
    "classic",
    "wiener",
    "bayes",
    "best",
    "BM4D",
    "DIPY classic",
    "ANTs",
    "scikit-image NLM",
    "scikit-image TV",
    "scikit-image wavelet",
    "SimpleITK diffusion",
)
COLUMNS = 6
LIMIT = 2.5
"""Grey values of the removed noise, in sigma, from black to white."""


def write_figure(scan: Scan, contestants: Mapping[str, Contestant], path: Path, percent: float = 7) -> None:
    """Denoised slices, and beneath each what was removed, noisy less denoised (Buades, Coll and Morel 2005)."""
    given = case(scan, Noise("gaussian", percent))
    results = {name: np.asarray(contestants[name].run(given), np.float32) for name in SHOWN if name in contestants}
    pairs = {"the truth": (scan.clean, given.noisy - scan.clean)}
    pairs |= {name: (result, given.noisy - result) for name, result in results.items()}
    rows = -(-len(pairs) // COLUMNS)
    index = scan.clean.shape[-1] // 2
    figure, axes = plt.subplots(
        2 * rows, COLUMNS, figsize=(1.9 * COLUMNS, 3.55 * rows + 0.5), layout="constrained", squeeze=False
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for number, (name, (image, removed)) in enumerate(pairs.items()):
        row, column = 2 * (number // COLUMNS), number % COLUMNS
        above, below = axes[row, column], axes[row + 1, column]
        above.imshow(slice_of(image, index), cmap="gray", vmin=0, vmax=1)
        quality = "" if image is scan.clean else f"{psnr(scan.clean, image, peak=1, mask=scan.mask):.2f} dB"
        above.set_title(f"{name}\n{quality}", fontsize="small")
        limit = LIMIT * given.sigma
        below.imshow(slice_of(removed, index), cmap="gray", vmin=-limit, vmax=limit)
        below.set_title(f"std {removed[scan.mask].std() / given.sigma:.2f} σ", fontsize="small")
    figure.suptitle(
        f"{scan.name}, {percent:g} % Gaussian noise: denoised, and beneath it what was removed "
        f"(black −{LIMIT} σ, white +{LIMIT} σ). The noise has std 1 σ; anatomy in it is anatomy lost.",
        fontsize="small",
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png")
    plt.close(figure)
    Image.open(buffer).convert("L").quantize(64).save(path, optimize=True)


def slice_of(volume: Volume, index: int) -> Volume:
    middle: Volume = volume[..., index] if volume.ndim == 3 else volume
    return middle
