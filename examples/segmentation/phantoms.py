"""Make a data set of noisy phantoms with three structures, to try and to measure the pipeline.

Each phantom is a bright ellipsoid with a darker, bent cavity, two nuclei of weak contrast and a few small lesions.
Their shapes, positions and brightness vary. The noise is Rician, as in MR magnitude images, and white or correlated by
a filter of scanners.
"""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import torch
from numpy.typing import NDArray

from monai_transforms import RandScannerNoise

SHAPE = (40, 40, 24)

STRUCTURES = ("cavity", "nuclei", "lesions")
"""Labels 1, 2 and 3 of the masks; 0 is the background."""

BODY = 600.0
"""Mean brightness of the ellipsoid; the noise is given in per cent of it."""

CONTRAST = {"cavity": -300.0, "nuclei": 110.0, "lesions": 200.0}

Volume = NDArray[np.float64]


def phantom(rng: np.random.Generator) -> tuple[Volume, NDArray[np.uint8]]:
    """Draw a clean phantom and its labels, both of shape SHAPE; edges are soft over one voxel, like partial volume."""
    middle = (np.array(SHAPE) - 1) / 2
    place = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1) - middle
    place = bent(place, rng)

    def ellipsoid(centre: NDArray[np.float64], radii: NDArray[np.float64]) -> Volume:
        """Approximate depth of each voxel below the surface, in voxels."""
        return (1 - np.linalg.norm((place - centre) / radii, axis=-1)) * radii.min()

    body = ellipsoid(np.zeros(3), np.array([17, 16, 10.5]) * rng.uniform(0.9, 1.05, 3))
    side = np.array([0, rng.uniform(4.5, 7), 0])
    shift = rng.uniform(-1.5, 1.5, 3)
    cavity = ellipsoid(shift - (2, 0, 0), np.array([7, 2.5, 4]) * rng.uniform(0.8, 1.2, 3))
    radii = np.array([4, 3, 3.5]) * rng.uniform(0.8, 1.2, 3)
    nuclei = np.maximum(ellipsoid(shift + side, radii), ellipsoid(shift - side, radii))
    lesions = np.full(SHAPE, -np.inf)
    for _ in range(rng.integers(3, 6)):
        direction = rng.normal(size=3)
        centre = direction / np.linalg.norm(direction) * np.array([12, 11.5, 6.5]) * rng.uniform(0.75, 1)
        lesions = np.maximum(lesions, ellipsoid(centre, rng.uniform(1.8, 3, 3)))

    image = BODY * soft(body)
    labels = np.zeros(SHAPE, np.uint8)
    for label, (name, inside) in enumerate(zip(STRUCTURES, (cavity, nuclei, lesions), strict=True), 1):
        image += CONTRAST[name] * soft(inside)
        labels[inside > 0] = label
    shading = 1 + place @ rng.uniform(-0.006, 0.006, 3)  # as from a receive coil
    return image * shading * rng.uniform(0.85, 1.15), labels


def bent(place: Volume, rng: np.random.Generator) -> Volume:
    """Move the coordinates of each axis by up to about two voxels, by a slow wave in space."""
    waves = rng.uniform(0, 2 * np.pi, 3) + place @ rng.uniform(-0.25, 0.25, (3, 3))
    return place + rng.uniform(0.5, 2, 3) * np.sin(waves)


def soft(inside: Volume) -> Volume:
    return np.clip(inside + 0.5, 0, 1)


def noisy(clean: Volume, percent: float, correlation: str | None, seed: int) -> Volume:
    """Add Rician noise as a scanner makes it.

    Args:
        clean: image without noise.
        percent: standard deviation in per cent of BODY.
        correlation: None for white noise, or a filter that `RandScannerNoise` knows, such as ``"zero-filled"``.
        seed: random seed of the noise.
    """
    if not percent:
        return clean
    add = RandScannerNoise(1.0, "rician", sigma=percent / 100 * BODY, correlation=correlation)
    return add.set_random_state(seed)(torch.from_numpy(clean)[None])[0].numpy()


def write(folder: Path, count: int, noise: float, seed: int, correlation: str | None = None, first: int = 0) -> None:
    """Fill ``folder/frames`` and ``folder/masks``; seed and number determine the anatomy, independently of the noise.

    Args:
        folder: folder to fill; created if missing.
        count: number of phantoms.
        noise: standard deviation in per cent of BODY.
        seed: random seed of shapes and noise.
        correlation: of the noise of neighbouring voxels, as for `noisy`.
        first: number of the first phantom, so that others than before are made.
    """
    for part in ("frames", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        clean, labels = phantom(np.random.default_rng([seed, number, 0]))
        image = noisy(clean, noise, correlation, 1000 * seed + number)
        name = f"phantom-{number:03d}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(np.rint(image).astype(np.int16), np.eye(4)), folder / "frames" / name)
        nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), folder / "masks" / name)
