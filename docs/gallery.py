"""Make the pictures of the gallery: MR, CT-like and microscopy-like images before, after, and what was removed.

    python docs/gallery.py [--out FOLDER]

The MR head comes from `sample_data`. This script makes the other two from formulas and a seed. It takes about a minute.
"""

from __future__ import annotations

import argparse
import io
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage, special

import nlmeans
from nlmeans.core.metrics import psnr
from nlmeans.files import samples

Volume = npt.NDArray[np.float64]

GREYS = 160
"""Grey levels in a picture: enough for the eye, with a third of the bytes."""


@dataclass(frozen=True)
class Case:
    """A volume with a known truth, its noisy version, and how to denoise and show it."""

    title: str
    clean: Volume
    noisy: Volume
    settings: dict[str, object]
    slice: int
    """Index along the first axis of the slice to show."""
    zoom: tuple[int, int, int, int]
    """First row, last row, first column and last column of the detail."""
    window: tuple[float, float]
    unit: str


def head() -> Case:
    """Load the head phantom, which comes with 6 % Rician noise, as axial slices."""
    clean, noisy = (
        np.asarray(nibabel.load(samples.path(name)).dataobj, float).transpose(2, 1, 0)[:, ::-1]
        for name in ("head_clean", "head")
    )
    zoom = (62, 96, 36, 78)
    return Case("MR magnitude, Rician noise", clean, noisy, {"noise": "rician"}, 42, zoom, (0, 900), "")


def grid(shape: tuple[int, ...]) -> list[Volume]:
    """Return the coordinates of the voxels: 0 in the middle, and −1 to 1 along the longer of the last two axes."""
    half = max(shape[1:]) / 2
    return list(np.meshgrid(*((np.arange(n) - (n - 1) / 2) / half for n in shape), indexing="ij"))


def tissue(shape: tuple[int, ...], size: float, seed: int) -> Volume:
    """Return a random field with mean 0, standard deviation 1, and structures that are `size` voxels wide."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), size)
    return (field - field.mean()) / field.std()


def abdomen() -> Case:
    """Make a CT-like body in Hounsfield units: fat, muscle, liver with lesions, vessels with contrast, spine."""
    shape = (28, 192, 256)
    z, y, x = grid(shape)
    body = (x / 0.92) ** 2 + (y / 0.66) ** 2
    volume = np.full(shape, -1000.0)
    volume[body < 1] = -100 + 6 * tissue(shape, 3, 1)[body < 1]
    inside = (x / 0.80) ** 2 + (y / 0.54) ** 2
    muscle = (inside < 1) & (inside > 0.8)
    volume[muscle] = 55 + 8 * tissue(shape, 2, 2)[muscle]
    volume[inside <= 0.8] = -90 + 8 * tissue(shape, 3, 3)[inside <= 0.8]
    liver = ((x + 0.36) / 0.34) ** 2 + ((y + 0.06) / 0.36) ** 2 + 0.08 * tissue(shape, 14, 4)
    volume[liver < 1] = 105 + 5 * tissue(shape, 6, 5)[liver < 1]
    for cx, cy, radius, level in ((-0.50, -0.16, 0.055, 60), (-0.28, 0.08, 0.035, 62), (-0.38, -0.24, 0.022, 150)):
        volume[(x - cx) ** 2 + (y - cy) ** 2 + z**2 < radius**2] = level
    spleen = ((x - 0.52) / 0.16) ** 2 + ((y - 0.02) / 0.26) ** 2
    volume[spleen < 1] = 120 + 5 * tissue(shape, 5, 6)[spleen < 1]
    for cx, cy, radius in ((0.20, 0.12, 0.13), (-0.06, 0.22, 0.09)):  # kidneys with a brighter rind
        kidney = ((x - cx) / radius) ** 2 + ((y - cy) / (1.3 * radius)) ** 2
        volume[kidney < 1] = 190
        volume[kidney < 0.45] = 140
    trees = np.abs(tissue(shape, 7, 7)) < 0.09
    volume[(liver < 0.9) & trees & (tissue(shape, 10, 8) > 0.3)] = 170
    aorta = (x - 0.06) ** 2 + (y - 0.24) ** 2
    volume[aorta < 0.055**2] = 280
    spine = (x / 0.13) ** 2 + ((y - 0.42) / 0.11) ** 2
    volume[spine < 1] = 220 + 70 * tissue(shape, 1.5, 9)[spine < 1]
    volume[(spine < 1) & (spine > 0.78)] = 750
    gas = ((x - 0.22) / 0.15) ** 2 + ((y + 0.28) / 0.08) ** 2
    volume[gas < 1.5] = 40
    volume[gas < 1] = -980
    clean = ndimage.gaussian_filter(volume, (0.5, 0.7, 0.7))
    noisy = np.rint(clean + 30 * np.random.default_rng(20).standard_normal(shape))
    zoom = (52, 120, 50, 134)
    return Case("CT-like, Gaussian noise of 30 HU", clean, noisy, {}, 14, zoom, (-160, 240), "HU")


def cells() -> Case:
    """Make microscopy-like counts: nuclei, filaments and points, read by a camera with gain, offset and read noise."""
    shape, rng = (24, 224, 224), np.random.default_rng(5)
    photons = np.full(shape, 2.0)
    z, y, x = np.meshgrid(*(np.arange(n, dtype=float) for n in shape), indexing="ij")
    chromatin = tissue(shape, 2.5, 31)
    for cy, cx in ((40, 50), (58, 150), (112, 96), (120, 192), (178, 40), (186, 140)):
        ry, rx = rng.uniform(15, 24, 2)
        turn = rng.uniform(0, np.pi)
        a, b = (y - cy) * np.cos(turn) + (x - cx) * np.sin(turn), (x - cx) * np.cos(turn) - (y - cy) * np.sin(turn)
        nucleus = (a / ry) ** 2 + (b / rx) ** 2 + ((z - rng.uniform(9, 15)) / 8) ** 2
        photons += special.expit(12 * (1 - nucleus)) * (15 + 5 * chromatin) * rng.uniform(0.7, 1.3)
    filaments = np.exp(-((tissue(shape, 9, 32) / 0.055) ** 2)) + np.exp(-((tissue(shape, 8, 33) / 0.05) ** 2))
    photons += 14 * filaments * np.exp(-((z - 12) ** 2) / 60)
    points = np.zeros(shape)
    points[tuple(rng.integers((6, 0, 0), (18, 224, 224), (150, 3)).T)] = 900
    photons += ndimage.gaussian_filter(points, 1.1)
    clean = ndimage.gaussian_filter(photons.clip(0.5), (0.7, 0.6, 0.6))
    gain, offset, read = 2.2, 100.0, 3.0
    noisy = gain * rng.poisson(clean) + offset + read * rng.standard_normal(shape)
    settings = {"noise": "poisson", "gain": gain, "offset": offset, "sigma": read}
    zoom = (74, 144, 66, 150)
    clean = gain * clean + offset
    return Case("Microscopy-like, Poisson noise", clean, np.rint(noisy), settings, 12, zoom, (98, 170), "")


def draw(case: Case, denoised: Volume) -> Figure:
    """Draw a row with the whole slice and a row with a detail; the columns are truth, noisy, denoised, and removed."""
    inside = case.clean > np.percentile(case.clean, 30)
    removed = case.noisy - denoised
    reach = 3 * float(removed.std())
    level = [f"{psnr(case.clean, volume, mask=inside):.1f} dB" for volume in (case.noisy, denoised)]
    columns = (
        ("truth", case.clean, case.window),
        (f"noisy, {level[0]}", case.noisy, case.window),
        (f"denoised, {level[1]}", denoised, case.window),
        (f"removed, ± {reach:.0f} {case.unit}", removed, (-reach, reach)),
    )
    whole = (0, case.clean.shape[1], 0, case.clean.shape[2])
    boxes = (whole, case.zoom)
    heights = [(box[1] - box[0]) / (box[3] - box[2]) for box in boxes]
    drawing = Figure(figsize=(11, 0.45 + 2.75 * sum(heights)), layout="constrained")
    FigureCanvasAgg(drawing)
    axes = drawing.subplots(2, 4, height_ratios=heights)
    for column, (name, volume, (low, high)) in enumerate(columns):
        for row, (top, bottom, left, right) in enumerate(boxes):
            axis = axes[row, column]
            axis.imshow(volume[case.slice, top:bottom, left:right], cmap="gray", vmin=low, vmax=high)
            axis.set_axis_off()
        axes[0, column].set_title(name, fontsize=11)
    return drawing


def save(drawing: Figure, path: Path) -> None:
    """Save a drawing as a PNG with few grey levels."""
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", dpi=100)
    picture = Image.open(buffer).convert("L").quantize(GREYS, dither=Image.Dither.NONE)
    picture.save(path, optimize=True)
    print(f"{path}: {picture.size[0]} × {picture.size[1]}, {path.stat().st_size / 1000:.0f} kB")


CASES = {"mr": head, "ct": abdomen, "microscopy": cells}


def ramp() -> tuple[Volume, Volume, Volume]:
    """Return truth, noisy volume and sigma of the head; Gaussian noise rises from 2 to 8 % from left to right."""
    clean = head().clean
    sigma = np.broadcast_to(np.linspace(20.0, 80.0, clean.shape[2]), clean.shape)
    return clean, clean + sigma * np.random.default_rng(3).standard_normal(clean.shape), sigma


def wrong_and_right() -> Figure:
    """Draw the result minus the truth, with the wrong and with the right noise model."""
    mr, counts = head(), cells()
    clean, noisy, sigma = ramp()
    middle = mr.slice
    columns = (
        (
            ("Rician noise", "taken for Gaussian", 'noise="rician"'),
            (
                nlmeans.denoise(mr.noisy, noise="gaussian") - mr.clean,
                nlmeans.denoise(mr.noisy, **mr.settings) - mr.clean,
            ),  # type: ignore[arg-type]
            (middle, 100.0),
        ),
        (
            ("counts", "taken for Gaussian", 'noise="poisson"'),
            (
                nlmeans.denoise(counts.noisy, noise="gaussian") - counts.clean,
                nlmeans.denoise(counts.noisy, **counts.settings) - counts.clean,  # type: ignore[arg-type]
            ),
            (counts.slice, 20.0),
        ),
        (
            ("noise rises to the right", "one sigma for all", 'sigma="map"'),
            (nlmeans.denoise(noisy, float(np.sqrt((sigma**2).mean()))) - clean, nlmeans.denoise(noisy, "map") - clean),
            (middle, 100.0),
        ),
    )
    drawing = Figure(figsize=(9, 6.6), layout="constrained")
    FigureCanvasAgg(drawing)
    axes = drawing.subplots(2, 3)
    for column, ((title, *names), errors, (index, reach)) in enumerate(columns):
        for row, error in enumerate(errors):
            axis = axes[row, column]
            axis.imshow(error[index], cmap="gray", vmin=-reach, vmax=reach)
            axis.set_axis_off()
            axis.set_title((f"{title},\n" if row == 0 else "") + names[row], fontsize=11)
    return drawing


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the pictures of the gallery.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "gallery", help="folder to fill")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, make in CASES.items():
        case = make()
        denoised = nlmeans.denoise(case.noisy, **case.settings)  # type: ignore[arg-type]
        save(draw(case, denoised), out / f"{name}.png")
    save(wrong_and_right(), out / "noise.png")


if __name__ == "__main__":
    main()
