"""Volumes with known clean values, noise for them, and the gain of a result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from nlmeans.methods.registry import single_methods

SAMPLE_DATA = Path(__file__).parents[2] / "sample_data"

Floats = npt.NDArray[np.float64]

SINGLE = single_methods()
"""Methods that denoise a volume by itself."""

NIFTI: Any = nib.nifti1  # nibabel's calls carry no types


def piecewise(*shape: int) -> Floats:
    """Make blocks of 50 to 200, a bright ball, and one dark quarter of exact zeros."""
    places = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    volume = 100.0 + 50.0 * (places[-1] > 0.2) - 50.0 * (places[-2] > 0.4)
    volume[sum(p**2 for p in places) < 0.2] = 200.0
    volume[(places[-1] < 0) & (places[-2] < 0)] = 0.0
    return volume


def mosaic(edge: int = 10) -> Floats:
    """Make 64 flat cubes of different intensities from 0.1 to 0.9, in no order, each `edge` voxels wide."""
    levels = np.random.default_rng(4).permutation(np.linspace(0.1, 0.9, 64)).reshape(4, 4, 4)
    return np.asarray(np.kron(levels, np.ones((edge, edge, edge))))


def noisy_piecewise(*shape: int, sigma: float | Floats) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return a piecewise constant volume in float32, and the same with Gaussian noise."""
    clean = piecewise(*shape).astype(np.float32)
    return clean, (clean + sigma * np.random.default_rng(0).standard_normal(clean.shape)).astype(np.float32)


def decaying_series(volumes: int, sigma: float) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return signals that decay over the volumes (last axis) at two rates, mixed by place; clean, and with noise."""
    share = piecewise(12, 13, 14) / 150
    time = np.arange(1, volumes + 1) / (volumes + 1)
    clean = 300 * (share[..., None] * np.exp(-3 * time) + (1 - share[..., None]) * np.exp(-time))
    noise = sigma * np.random.default_rng(0).standard_normal(clean.shape)
    return clean.astype(np.float32), (clean + noise).astype(np.float32)


def unrelated_images(count: int) -> npt.NDArray[np.float32]:
    """Return images that have nothing in common but the shape, along the last axis, with little noise."""
    rng = np.random.default_rng(0)
    images = []
    for _ in range(count):
        places = np.meshgrid(*(np.arange(n) for n in (24, 26, 28)), indexing="ij")
        waves = [np.sin(rng.uniform(0.3, 1.2, 3) @ np.array([p.ravel() for p in places])) for _ in range(12)]
        images.append(100 + 20 * sum(waves).reshape(24, 26, 28))
    return (np.stack(images, -1) + rng.standard_normal((24, 26, 28, count))).astype(np.float32)


def gaussian(clean: Floats, sigma: float | Floats, seed: int = 0) -> Floats:
    return clean + sigma * np.random.default_rng(seed).standard_normal(clean.shape)


def rician(clean: Floats, sigma: float | Floats, seed: int = 0) -> Floats:
    """Return the magnitude of the clean signal with noise in its real and imaginary part."""
    real, imaginary = sigma * np.random.default_rng(seed).standard_normal((2, *clean.shape))
    return np.hypot(clean + real, imaginary)


def gain(clean: Floats, noisy: Floats, denoised: Floats) -> float:
    """Return how much smaller the error of the denoised volume is than that of the noisy one, in dB."""
    return float(10 * np.log10(np.square(noisy - clean).mean() / np.square(denoised - clean).mean()))


def sample(name: str) -> Floats:
    """Load a volume of the sample data."""
    return np.asarray(NIFTI.load(SAMPLE_DATA / f"{name}.nii.gz").dataobj).astype(np.float64)
