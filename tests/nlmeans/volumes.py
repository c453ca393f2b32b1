"""Volumes whose clean values are known, and how far from them a result is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

SAMPLE_DATA = Path(__file__).parents[2] / "sample_data"

Floats = npt.NDArray[np.float64]

NIFTI: Any = nib.nifti1  # nibabel's calls carry no types


def piecewise(*shape: int) -> Floats:
    """Blocks of 50 to 200, a bright ball, and one dark quarter of exact zeros."""
    places = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    volume = 100.0 + 50.0 * (places[-1] > 0.2) - 50.0 * (places[-2] > 0.4)
    volume[sum(p**2 for p in places) < 0.2] = 200.0
    volume[(places[-1] < 0) & (places[-2] < 0)] = 0.0
    return volume


def gaussian(clean: Floats, sigma: float | Floats, seed: int = 0) -> Floats:
    return clean + sigma * np.random.default_rng(seed).standard_normal(clean.shape)


def rician(clean: Floats, sigma: float | Floats, seed: int = 0) -> Floats:
    """The magnitude of the clean signal with noise in its real and imaginary part."""
    real, imaginary = sigma * np.random.default_rng(seed).standard_normal((2, *clean.shape))
    return np.hypot(clean + real, imaginary)


def gain(clean: Floats, noisy: Floats, denoised: Floats) -> float:
    """How much nearer to the clean values the denoised ones are, in dB."""
    return float(10 * np.log10(np.square(noisy - clean).mean() / np.square(denoised - clean).mean()))


def sample(name: str) -> Floats:
    """A volume of the sample data."""
    return np.asarray(NIFTI.load(SAMPLE_DATA / f"{name}.nii.gz").dataobj).astype(np.float64)
