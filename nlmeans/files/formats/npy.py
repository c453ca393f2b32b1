"""Arrays of numpy, .npy, which have no geometry."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from nlmeans.core import memory
from nlmeans.files.formats import nifti

log = logging.getLogger("nlmeans")


def read_file(path: Path) -> Any:
    """Read an array as a NIfTI image: axes x, y, z and volumes, with voxels of 1 mm."""
    found = np.load(path, mmap_mode="r", allow_pickle=False)
    if found.nbytes > memory.free():
        raise ValueError(
            f"{path} holds {memory.size_text(found.nbytes)}, but only {memory.size_text(memory.free())} is free"
        )
    if found.dtype.kind not in "buifc":
        raise ValueError(f"{path} holds {found.dtype}, not numbers; convert it first")
    if found.ndim not in (2, 3, 4):
        raise ValueError(f"{path} has shape {found.shape}; only 2D, 3D and series of volumes can be denoised")
    log.warning("%s has no geometry: voxels of 1 mm are assumed, and the last of four axes counts volumes", path)
    return nifti.in_nifti(np.array(found), np.eye(4), extra={"npy": True})


def write_file(image: Any, path: Path, name: Path) -> None:
    """Write the values of a NIfTI image, without its geometry."""
    if not (image.extra or {}).get("npy"):
        log.warning("%s holds the values alone: no voxel size, no orientation, no position", name)
    with path.open("wb") as file:
        np.save(file, np.asarray(image.dataobj), allow_pickle=False)
