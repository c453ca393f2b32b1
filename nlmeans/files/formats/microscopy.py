"""Files of microscopes' makers, such as CZI, LIF and ND2, by the readers of bioio, where these are installed."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

from nlmeans.core import memory
from nlmeans.files.formats import registry
from nlmeans.files.formats.axes import of_named_axes

SPATIAL_AND_VOLUMES = "TCZYX"
"""The axes that bioio gives every grey image."""

MICROMETRE = 1e-3
"""bioio's unit of length, in mm."""


def read_file(path: Path) -> Any:
    """Read the file of a microscope as a NIfTI image. Its times and channels are volumes, as those of OME-TIFF are.

    Raises:
        ValueError: bioio is missing; or the file holds several images, colours, or tiles that are not one image; or it
            does not fit into free memory.
    """
    known = registry.format_of(path)
    assert known is not None
    with known.needed(path):
        from bioio import BioImage
    image = BioImage(path, reader=importlib.import_module(known.library).Reader)
    if len(image.scenes) != 1:
        names = "; ".join(image.scenes[:8]) + ("; …" if len(image.scenes) > 8 else "")
        raise ValueError(
            f"{path} holds {len(image.scenes)} images ({names}); export the one to denoise to its own file, such as "
            "OME-TIFF"
        )
    axes, shape = image.dims.order, image.shape
    if "S" in axes:
        raise ValueError(f"{path} holds colours ({shape[axes.index('S')]} samples), not intensities; convert it")
    if axes != SPATIAL_AND_VOLUMES:
        raise ValueError(
            f"{path} has the axes {axes}, of which only {SPATIAL_AND_VOLUMES} can be denoised; stitch its tiles first"
        )
    needed = math.prod(shape) * image.dtype.itemsize
    if needed > memory.free():
        raise ValueError(f"{path} needs {memory.size_text(needed)}, but only {memory.size_text(memory.free())} is free")
    sizes = {axis: size * MICROMETRE for axis, size in image.physical_pixel_sizes._asdict().items() if size}
    interval = image.time_interval
    # bioio gives every image all five axes, and a length of 1 to those that it lacks
    there = "".join(axis for axis, length in zip(axes, shape, strict=True) if length > 1 or axis in "YX")
    values = image.data.reshape([shape[axes.index(axis)] for axis in there])
    return of_named_axes(values, there, sizes, interval.total_seconds() if interval else None, path)
