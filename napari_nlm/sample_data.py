"""The engine's sample volumes for File > Open Sample, in the orientation in which a NIfTI reader shows them."""

from __future__ import annotations

from typing import Any

import nibabel
import numpy as np

from napari_nlm.marks import PROVENANCE_KEY
from nlmeans.files import samples

NIB: Any = nibabel
"""nibabel, whose functions have no types."""

LayerData = tuple[Any, dict[str, Any], str]

SERIES_SEED = 7
REPETITIONS = 4
SOFT_TISSUE = (-160.0, 240.0)
"""The usual window for a belly, in Hounsfield units."""
BODY_OF_PET = (0.0, 400.0)
"""A window for the body, in which lesions and the bladder are saturated."""
PER_MM = {"mm": 1, "um": 1000}


def layer_data(name: str, title: str, unit: str = "mm") -> list[LayerData]:
    """A sample as a layer. Rows run down from superior or anterior, columns from the patient's right.

    Args:
        name: of the sample.
        title: of the layer.
        unit: of the layer's scale, ``"mm"`` or ``"um"``.
    """
    path = samples.path(name)
    image = NIB.load(path)
    turn = NIB.orientations.io_orientation(image.affine)[: image.ndim]
    turn[:, 1] *= -1
    data = NIB.orientations.apply_orientation(np.asarray(image.dataobj), turn).T
    sizes = image.header.get_zooms()
    scale = tuple(float(sizes[axis]) * PER_MM[unit] for axis in turn[:, 0].astype(int).argsort())[::-1]
    low, high = np.percentile(data, (0.1, 99.8))
    return [
        (
            np.ascontiguousarray(data),
            {
                "name": title,
                "scale": scale,
                "units": unit,
                "contrast_limits": (float(low), float(high)),
                "metadata": {PROVENANCE_KEY: {"path": str(path)}},
            },
            "image",
        )
    ]


def head() -> list[LayerData]:
    """Head phantom with 2 mm voxels and Rician noise of sigma 60."""
    return layer_data("head", "head")


def thick() -> list[LayerData]:
    """Head phantom with 5 mm slices and Rician noise of sigma 40."""
    return layer_data("thick", "thick slices")


def image() -> list[LayerData]:
    """One slice of the head phantom with Rician noise of sigma 90."""
    return layer_data("slice", "slice")


def confocal() -> list[LayerData]:
    """Cells and beads under a confocal microscope: photon counts with read noise."""
    return layer_data("confocal", "confocal", "um")


def ct() -> list[LayerData]:
    """Belly in CT, in Hounsfield units, with noise of 25 HU that the reconstruction kernel has smoothed."""
    ((data, looks, kind),) = layer_data("ct", "CT")
    return [(data, looks | {"contrast_limits": SOFT_TISSUE}, kind)]


def pet() -> list[LayerData]:
    """Torso in PET: few counts in the body, many in the bladder."""
    ((data, looks, kind),) = layer_data("pet", "PET")
    return [(data, looks | {"contrast_limits": BODY_OF_PET}, kind)]


def series() -> list[LayerData]:
    """Four repetitions of the head phantom, with Rician noise of sigma 40, 50, 60 and 70."""
    ((clean, looks, kind),) = layer_data("head_clean", "repetitions")
    rng = np.random.default_rng(SERIES_SEED)
    volumes = []
    for number in range(REPETITIONS):
        real, imaginary = (40 + 10 * number) * rng.standard_normal((2, *clean.shape), dtype=np.float32)
        volumes.append(np.rint(np.hypot(clean + real, imaginary)).astype(np.int16))
    looks |= {"scale": (1.0, *looks["scale"]), "metadata": {}, "axis_labels": ("t", "z", "y", "x")}
    looks["units"] = ("pixel", "mm", "mm", "mm")
    return [(np.stack(volumes), looks, kind)]
