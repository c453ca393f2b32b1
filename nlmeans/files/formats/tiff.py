"""TIFF, ImageJ TIFF and OME-TIFF by tifffile, with their axes and voxel sizes."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import tifffile

from nlmeans.core import memory
from nlmeans.files.formats import nifti
from nlmeans.files.formats.axes import of_named_axes, order_of
from nlmeans.files.formats.geometry import spacing_direction_origin, storable

log = logging.getLogger("nlmeans")

MILLIMETRES = {
    **dict.fromkeys(("nm", "nanometer"), 1e-6),
    **dict.fromkeys(("um", "µm", "μm", "micron", "microns", "micrometer", "\\u00B5m"), 1e-3),
    **dict.fromkeys(("mm", "millimeter"), 1.0),
    **dict.fromkeys(("cm", "centimeter"), 10.0),
    **dict.fromkeys(("inch", "in"), 25.4),
    **dict.fromkeys(("m", "meter"), 1000.0),
}
"""Length of each unit that TIFF files name, in mm."""

SMALL = 0.05
"""Voxel sizes below this, in mm, are written in µm."""

IMAGEJ_TYPES = ("uint8", "uint16", "float32")
IMAGEJ_BYTES = 2**32 - 2**20
"""The most that an ImageJ TIFF holds."""

OME_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
COMPLEX_TYPES = ("complex64", "complex128")


def read_file(path: Path) -> Any:
    """Read a TIFF file as a NIfTI image. Its rows go to the left and its columns to the back, as ITK takes them."""
    with tifffile.TiffFile(path) as file:
        if len(file.series) != 1:
            sizes = "; ".join(f"{one.axes} {one.shape}" for one in file.series[:8])
            raise ValueError(f"{path} holds {len(file.series)} images ({sizes}); put each into its own file")
        series = file.series[0]
        axes = series.axes
        if "S" in axes:
            raise ValueError(
                f"{path} holds colours ({series.shape[axes.index('S')]} samples), not intensities; convert it"
            )
        if series.nbytes > memory.free():
            raise ValueError(
                f"{path} needs {memory.size_text(series.nbytes)}, but only {memory.size_text(memory.free())} is free"
            )
        spacing, step = sizes_of(file)
        try:
            values = series.asarray()
        except ValueError as error:
            if "imagecodecs" in str(error):
                how = tifffile.COMPRESSION(file.pages.first.compression).name
                raise ValueError(f"{path} is compressed as {how}; to read it: pip install imagecodecs") from error
            raise
    return of_named_axes(values, axes, spacing, step, path)


def sizes_of(file: tifffile.TiffFile) -> tuple[dict[str, float], float | None]:
    """Read the voxel size along each axis, in mm, and the time between volumes, in seconds, where the file has them."""
    found: dict[str, float] = {}
    step = None
    if file.is_ome and file.ome_metadata:
        pixels = next(one for one in ElementTree.fromstring(file.ome_metadata).iter() if one.tag.endswith("}Pixels"))
        for axis in "XYZ":
            size, unit = pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm")
            if size is not None and unit in MILLIMETRES:
                found[axis] = float(size) * MILLIMETRES[unit]
        if pixels.get("TimeIncrement") and pixels.get("TimeIncrementUnit", "s") == "s":
            step = float(pixels.get("TimeIncrement", 0))
    elif file.is_imagej and file.imagej_metadata:
        about, tags = file.imagej_metadata, file.pages.first.tags
        scale = MILLIMETRES.get(str(about.get("unit", "")))
        if scale is not None:
            for axis in "XY":
                count, length = tags[f"{axis}Resolution"].value
                found[axis] = scale * length / count
            if "spacing" in about:
                found["Z"] = scale * float(about["spacing"])
        step = float(about["finterval"]) if "finterval" in about else None
    return found, step


def write_file(image: Any, path: Path, name: Path) -> None:
    """Write a NIfTI image as TIFF: OME-TIFF if the name says so or ImageJ has no such type, else ImageJ TIFF."""
    kept = (image.extra or {}).get("tiff", {})
    data = np.asarray(image.dataobj)
    spacing, _, _ = spacing_direction_origin(nifti.millimetres(image))
    if not kept:
        log.warning("%s holds the voxel size, but neither orientation nor position, of the image", name)
    values, axes = as_in_file(data, kept)
    by_ome = path.name.lower().endswith((".ome.tif", ".ome.tiff")) or data.dtype.name not in IMAGEJ_TYPES
    by_ome = by_ome or data.nbytes > IMAGEJ_BYTES or axes != "".join(axis for axis in "TZCYX" if axis in axes)
    unit, scale = ("µm", 1e-3) if spacing.min() < SMALL else ("mm", 1.0)
    x, y, z = (float(size) / scale for size in spacing)
    step = nifti.seconds_between(image)
    if by_ome or data.dtype.kind == "c":
        values = storable(values, COMPLEX_TYPES if data.dtype.kind == "c" else OME_TYPES, name)
        about: dict[str, Any] = {"axes": axes.replace("Q", "Z").replace("I", "Z")}
        about |= {"PhysicalSizeX": x, "PhysicalSizeY": y, "PhysicalSizeZ": z}
        about |= {f"PhysicalSize{axis}Unit": unit for axis in "XYZ"}
        about |= {"TimeIncrement": step, "TimeIncrementUnit": "s"} if step else {}
        tifffile.imwrite(path, values, ome=True, metadata=about, photometric="minisblack", compression="zlib")
        return
    about = {"axes": axes, "spacing": z, "unit": "um" if scale < 1 else "mm"}
    about |= {"finterval": step} if step else {}
    tifffile.imwrite(path, values, imagej=True, resolution=(1 / x, 1 / y), metadata=about)


def as_in_file(data: npt.NDArray[Any], kept: dict[str, Any]) -> tuple[npt.NDArray[Any], str]:
    """Return the values with the axes that the source had, or with the usual ones; and the names of these axes."""
    axes, shape = kept.get("axes", ""), kept.get("shape", ())
    if axes and math.prod(shape) == data.size:
        order = order_of(axes)
        stacked = data.reshape([shape[index] for index in order])
        return np.ascontiguousarray(stacked.transpose(np.argsort(order))), axes
    return np.ascontiguousarray(data.transpose()), "TZYX"[-data.ndim :]
