"""Make the icon of the napari plugin: a head, noisy at the left and denoised at the right.

python docs/icon.py
"""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

import nlmeans
from nlmeans import samples

FILE = Path(__file__).parents[1] / "napari_nlm" / "icon.png"
STEP = 2
"""Of the sample's 256 × 256 pixels, one in two along each axis."""
BRIGHTEST = 99.5
"""Percentile that is white."""


def main() -> None:
    noisy = np.asarray(nibabel.load(samples.path("slice")).dataobj, np.float32).squeeze()
    denoised = nlmeans.denoise(noisy, modality="MR")
    half = len(noisy) // 2
    both = np.concatenate([noisy[:half], denoised[half:]])[::STEP, ::STEP].T[::-1]
    grey = (255 * both / np.percentile(both, BRIGHTEST)).clip(0, 255).astype(np.uint8)
    Image.fromarray(grey).save(FILE, optimize=True)
    print(f"{FILE.name}: {grey.shape[1]} × {grey.shape[0]}, {FILE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
