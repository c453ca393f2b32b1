"""Draw the figure of quality.py: what each method removed, which should be nothing but noise."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from PIL import Image
from quality_methods import Contestant
from quality_volumes import Case, Noise, Scan, Volume, case
from scipy.ndimage import uniform_filter

from nlmeans.core.metrics import psnr

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
"""Removed noise shown as black (negative) and white (positive), in standard deviations of the added noise."""
WIDTH = 3
"""Voxels along each axis of the local means, in which noise cancels and anatomy does not."""
GREYS = 40


def write_figure(scan: Scan, contestants: Mapping[str, Contestant], path: Path, percent: float = 7) -> None:
    given = case(scan, Noise("gaussian", percent))
    results = {"no noise": scan.clean}
    results |= {name: np.asarray(contestants[name].run(given), np.float32) for name in SHOWN if name in contestants}
    draw(given, results, path)


def draw(given: Case, results: Mapping[str, Volume], path: Path) -> None:
    """Draw a slice of each result, the method noise (Buades, Coll and Morel 2005: noisy − denoised) and its means."""
    rows = -(-len(results) // COLUMNS)
    figure, grid = plt.subplots(
        3 * rows, COLUMNS, figsize=(1.75 * COLUMNS, 5.1 * rows + 0.6), layout="constrained", squeeze=False
    )
    for axes in grid.flat:
        axes.set_axis_off()
    for number, (name, result) in enumerate(results.items()):
        row, column = 3 * (number // COLUMNS), number % COLUMNS
        draw_one(given, name, result, [grid[row + k, column] for k in range(3)])
    what = f"{given.scan.name}, {given.noise} Gaussian noise"
    figure.suptitle(
        f"{what}: denoised; what was removed (black −{LIMIT} σ, white +{LIMIT} σ); "
        f"its means over {WIDTH}³ voxels,\nin which noise cancels and lost anatomy shows (black and white at "
        f"∓{LIMIT} σ/√27; std in units of σ/√27: 1 for noise alone)",
        fontsize="small",
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=105, format="png")
    plt.close(figure)
    Image.open(buffer).convert("L").quantize(GREYS).save(path, optimize=True)


def draw_one(given: Case, name: str, result: Volume, axes: list[Axes]) -> None:
    scan, sigma, sigma_of_means = given.scan, given.sigma, given.sigma / np.sqrt(WIDTH**3)
    removed = given.noisy - result
    means = uniform_filter(removed, WIDTH)
    quality = "" if result is scan.clean else f"{psnr(scan.clean, result, peak=1, mask=scan.mask):.2f} dB"
    show(axes[0], result, (0, 1), f"{name}\n{quality}")
    show(axes[1], removed, (-LIMIT * sigma, LIMIT * sigma), f"std {removed[scan.mask].std() / sigma:.2f} σ")
    limit = LIMIT * sigma_of_means
    show(axes[2], means, (-limit, limit), f"means: std {means[scan.mask].std() / sigma_of_means:.2f}")


def show(axes: Axes, volume: Volume, limits: tuple[float, float], title: str) -> None:
    middle = volume[..., volume.shape[-1] // 2] if volume.ndim == 3 else volume
    axes.imshow(middle, cmap="gray", vmin=limits[0], vmax=limits[1], interpolation="nearest")
    axes.set_title(title, fontsize="small", pad=3)
