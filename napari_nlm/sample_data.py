"""The engine's own volumes for File > Open Sample, as a reader of NIfTI would show them."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np

from napari_nlm.results import KEY
from nlmeans.files import nifti
from nlmeans.files import samples

NIFTI: Any = nib  # nibabel's calls carry no types

LayerData = tuple[Any, dict[str, Any], str]

SEED = 7
REPETITIONS = 4


def layer_data(name: str, title: str) -> list[LayerData]:
    """Rows run down from superior or anterior, columns from the patient's right."""
    scan = nifti.read(samples.path(name))
    turn = NIFTI.orientations.io_orientation(scan.image.affine)
    turn[:, 1] *= -1
    data = NIFTI.orientations.apply_orientation(scan.data, turn[: scan.data.ndim]).T
    assert scan.spacing is not None
    order = turn[: scan.data.ndim, 0].astype(int).argsort()
    scale = tuple(scan.spacing[axis] for axis in order)[::-1]
    low, high = np.percentile(data, (0.1, 99.8))
    return [
        (
            np.ascontiguousarray(data),
            {
                "name": title,
                "scale": scale,
                "units": "mm",
                "contrast_limits": (float(low), float(high)),
                "metadata": {KEY: {"path": str(scan.path)}},
            },
            "image",
        )
    ]


def head() -> list[LayerData]:
    """Voxels of 2 mm, sigma 60."""
    return layer_data("head", "head")


def thick() -> list[LayerData]:
    """Slices of 5 mm, sigma 40."""
    return layer_data("thick", "thick slices")


def image() -> list[LayerData]:
    """One slice, sigma 90."""
    return layer_data("slice", "slice")


def series() -> list[LayerData]:
    """The head without noise, with four times new noise: sigma 40, 50, 60 and 70."""
    ((clean, looks, kind),) = layer_data("head_clean", "repetitions")
    rng = np.random.default_rng(SEED)
    volumes = []
    for number in range(REPETITIONS):
        real, imaginary = (40 + 10 * number) * rng.standard_normal((2, *clean.shape), dtype=np.float32)
        volumes.append(np.rint(np.hypot(clean + real, imaginary)).astype(np.int16))
    looks |= {"scale": (1.0, *looks["scale"]), "metadata": {}, "axis_labels": ("t", "z", "y", "x")}
    looks["units"] = ("pixel", "mm", "mm", "mm")
    return [(np.stack(volumes), looks, kind)]
