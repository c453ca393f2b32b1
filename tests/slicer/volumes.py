"""Volumes for the tests of the module for 3D Slicer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt


def write(path: Path, size: int = 16) -> npt.NDArray[np.int16]:
    """Write a noisy volume in another orientation, and return its voxels, (D, H, W)."""
    import SimpleITK as sitk

    noise = np.random.default_rng(0).standard_normal((size, size, size))
    voxels = (np.where(np.arange(size) < size // 2, 100, 300) + 8 * noise).astype(np.int16)
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((1.0, 1.5, 2.0))
    image.SetOrigin((-10.0, 20.0, 5.0))
    image.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
    sitk.WriteImage(image, str(path))
    return voxels
