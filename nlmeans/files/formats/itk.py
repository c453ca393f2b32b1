"""NRRD and MetaImage (.nrrd, .nhdr, .mha, .mhd) by SimpleITK, with their geometry and metadata."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nlmeans.core import memory
from nlmeans.files.formats import nifti
from nlmeans.files.formats.geometry import affine_of, spacing_direction_origin, storable

OWN_KEYS = ("ITK_", "NRRD_", "Modality")
"""Starts of the names of metadata that SimpleITK makes itself when it reads or writes."""

COLOURS = (2, 3, 4)
"""Components of a voxel, in 8 bits, that are colours."""

COMPLEX_PIXELS = (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64)
"""Pixels whose two components are one number."""

ITK_TYPES = ("uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")
ITK_COMPLEX = ("complex64", "complex128")


def read_file(path: Path) -> Any:
    """Read a file of ITK as a NIfTI image. Components of a voxel become volumes, as in diffusion NRRD."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    parts = 1 if reader.GetPixelIDValue() in COMPLEX_PIXELS else reader.GetNumberOfComponents()
    size = reader.GetSize()
    if len(size) > 4 or (len(size) > 3 and parts > 1):
        raise ValueError(f"{path} has {len(size)} axes of sizes {size}; only 2D, 3D and series can be denoised")
    needed = math.prod(size) * parts  # bytes at least
    if needed > memory.free():
        raise ValueError(f"{path} needs {memory.size_text(needed)}, but only {memory.size_text(memory.free())} is free")
    image = reader.Execute()
    if parts in COLOURS and image.GetPixelID() == sitk.sitkVectorUInt8:
        raise ValueError(f"{path} holds colours ({parts} × 8 bits), not intensities; convert it to grey first")
    return nifti_of_itk(image)


def nifti_of_itk(image: sitk.Image) -> Any:
    """Make a NIfTI image of an image of SimpleITK; ``extra`` keeps what NIfTI cannot hold."""
    values, parts = sitk.GetArrayFromImage(image), image.GetNumberOfComponentsPerPixel()
    vectors = parts > 1
    data = values.transpose(*reversed(range(values.ndim - vectors)), *([values.ndim - 1] if vectors else []))
    if vectors and data.ndim == 3:  # components of a 2D image
        data = data[:, :, None]
    dimensions = image.GetDimension()
    direction = np.array(image.GetDirection()).reshape(dimensions, dimensions)
    spacing, origin, turned = np.ones(3), np.zeros(3), np.eye(3)
    spatial = min(dimensions, 3)
    spacing[:spatial], origin[:spatial] = image.GetSpacing()[:spatial], image.GetOrigin()[:spatial]
    turned[:spatial, :spatial] = direction[:spatial, :spatial]
    step = image.GetSpacing()[3] if dimensions == 4 else None
    metadata = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys() if not key.startswith(OWN_KEYS)}
    extra = {"itk": {"metadata": metadata, "vectors": vectors}}
    return nifti.in_nifti(np.ascontiguousarray(data), affine_of(spacing, turned, origin), step, extra)


def itk_of_nifti(image: Any, name: Any = "the image") -> sitk.Image:
    """Make an image of SimpleITK of a NIfTI image, with the metadata that `nifti_of_itk` kept."""
    kept = (image.extra or {}).get("itk", {})
    data = np.asarray(image.dataobj)
    data = storable(data, ITK_COMPLEX if data.dtype.kind == "c" else ITK_TYPES, name)
    data = data.astype(data.dtype.newbyteorder("="))
    vectors = bool(kept.get("vectors")) and data.ndim == 4
    spatial = 3 if vectors else data.ndim
    values = data.transpose(*reversed(range(spatial)), *([3] if vectors else []))
    made = sitk.GetImageFromArray(np.ascontiguousarray(values), isVector=vectors)
    dimensions = made.GetDimension()
    spacing, direction, origin = spacing_direction_origin(nifti.millimetres(image))
    sizes, place, turned = np.ones(dimensions), np.zeros(dimensions), np.eye(dimensions)
    inside = min(dimensions, 3)
    sizes[:inside], place[:inside] = spacing[:inside], origin[:inside]
    turned[:inside, :inside] = direction[:inside, :inside]
    if dimensions == 4:
        sizes[3] = nifti.seconds_between(image) or 1.0
    made.SetSpacing(sizes.tolist())
    made.SetOrigin(place.tolist())
    made.SetDirection(turned.ravel().tolist())
    for key, value in kept.get("metadata", {}).items():
        made.SetMetaData(key, value)
    return made


def write_file(image: Any, path: Path, name: Path) -> None:
    """Write a NIfTI image as NRRD, or as MetaImage, which would hold complex numbers as two volumes."""
    if path.name.lower().endswith((".mha", ".mhd")) and image.get_data_dtype().kind == "c":
        storable(np.asarray(image.dataobj), ITK_TYPES, name)
    sitk.WriteImage(itk_of_nifti(image, name), str(path), not path.name.lower().endswith((".mhd", ".nhdr")))
