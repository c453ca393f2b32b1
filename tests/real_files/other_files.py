"""Files of ITK, TIFF, numpy and OME-Zarr."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import tifffile

from tests.nlmeans import zarrs
from tests.real_files.cases import Build, Built, Denoised, Refused, Values
from tests.real_files.volumes import volume

LPS_TO_RAS = np.diag([-1.0, -1, 1, 1])
TURN = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])
SIZES, ORIGIN = (2.0, 3.0, 4.0), (10.0, -20.0, 30.0)


def itk_affine(turn: Values = TURN) -> Values:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * SIZES, ORIGIN
    return np.asarray(LPS_TO_RAS @ affine)


def itk(values: Values, name: str, compressed: bool = False, vectors: bool = False) -> Build:
    """What SimpleITK writes, turned by 37 degrees.

    Args:
        values: (X, Y), (X, Y, Z) or (X, Y, Z, T).
        name: of the file.
        compressed: pack the voxels.
        vectors: store the volumes as components of each voxel.
    """

    def build(folder: Path) -> Built:
        spatial = 3 if vectors else values.ndim
        axes = [*reversed(range(spatial)), *range(spatial, values.ndim)]
        image = sitk.GetImageFromArray(np.ascontiguousarray(values.transpose(axes)), isVector=vectors)
        dimensions = image.GetDimension()
        turn = np.eye(dimensions)
        inside = min(dimensions, 3)
        turn[:inside, :inside] = TURN[:inside, :inside]
        image.SetDirection(turn.ravel().tolist())
        image.SetSpacing((*SIZES, 1.5)[:dimensions])
        image.SetOrigin((*ORIGIN, 0.0)[:dimensions])
        sitk.WriteImage(image, str(folder / name), compressed)
        affine = itk_affine()
        if dimensions == 2:  # a flat image lies in a slice of 1 mm at 0
            affine[2, 2:] = 1, 0
        return Built(folder / name, values, affine)

    return build


def itk_colours(name: str) -> Build:
    def build(folder: Path) -> Built:
        image = sitk.GetImageFromArray(np.zeros((11, 12, 13, 3), np.uint8), isVector=True)
        sitk.WriteImage(image, str(folder / name))
        return Built(folder / name, np.zeros(0))

    return build


def nrrd(
    values: Values, *fields: str, space: str = "left-anterior-superior", encoding: str = "raw", apart: str = ""
) -> Build:
    """A file of NRRD as other programs write it.

    Args:
        values: (X, Y, Z), or with the volumes first.
        fields: more lines of the header.
        space: which way the axes of the world go; empty for a file that has voxel sizes alone.
        encoding: raw, gzip or ascii.
        apart: the name of a second file for the voxels.
    """

    def build(folder: Path) -> Built:
        listed = values.ndim == 4
        sizes = " ".join(map(str, values.shape))
        kind = {"int16": "short", "uint8": "uchar", "float32": "float"}[values.dtype.newbyteorder("=").name]
        head = ["NRRD0005", f"type: {kind}", f"dimension: {values.ndim}", f"sizes: {sizes}", f"encoding: {encoding}"]
        head += ["kinds: list domain domain domain"] if listed else []
        head += ["endian: big" if values.dtype.str.startswith(">") else "endian: little"]
        if space:
            head += [f"space: {space}", "space origin: (10,-20,30)"]
            head += [f"space directions: {'none ' if listed else ''}(2,0,0) (0,3,0) (0,0,4)"]
        else:
            head += ["spacings: 2 3 4"]
        head += [*fields, *([f"data file: {apart}"] if apart else [])]
        raw = values.tobytes("F")
        if encoding == "ascii":
            raw = " ".join(map(str, values.ravel("F"))).encode()
        raw = gzip.compress(raw) if encoding == "gzip" else raw
        text = ("\n".join(head) + "\n\n").encode()
        path = folder / ("scan.nhdr" if apart else "scan.nrrd")
        path.write_bytes(text if apart else text + raw)
        if apart and apart != "missing.raw":
            (folder / apart).write_bytes(raw)
        signs = [{"l": -1, "p": -1}.get(word[0], 1) for word in (space or "left-posterior-superior").split("-")]
        affine = np.diag([*np.multiply(SIZES, signs), 1.0])
        affine[:3, 3] = np.multiply(ORIGIN, signs) if space else 0
        return Built(path, np.moveaxis(values, 0, -1) if listed else values, affine)

    return build


# ---------------------------------------------------------------- TIFF


def tiff(values: Values, axes: str, name: str = "stack.tif", **options: Any) -> Build:
    """What tifffile writes of an array with these axes, of which each page is (Y, X)."""
    spacing = SIZES if "metadata" in options else (1.0, 1.0, 1.0)

    def build(folder: Path) -> Built:
        tifffile.imwrite(folder / name, values, **options)
        order = [axes.index(axis) for axis in "XYZ" if axis in axes]
        order += [number for number, axis in enumerate(axes) if axis not in "XYZ"]
        found = values.transpose(order)
        if "Z" not in axes and values.ndim > 2:
            found = found[:, :, None]
        found = found.reshape(*found.shape[:3], -1) if found.ndim > 3 else found
        return Built(folder / name, found, spacing=spacing[: min(found.ndim, 3)])

    return build


def stack(dtype: str = "uint16", axes: str = "ZYX") -> Values:
    """A volume with the axes of a stack of pages; two times or channels where these have an axis."""
    if axes == "YX":
        return np.ascontiguousarray(volume(dtype)[:, :, 5].T)
    others = 2 ** sum(axis in "TC" for axis in axes)
    values = volume(dtype, others) if others > 1 else volume(dtype)
    values = values.reshape(*values.shape[:3], *([2] * sum(axis in "TC" for axis in axes)))
    written = "XYZ" + "".join(axis for axis in axes if axis in "TC")
    return np.ascontiguousarray(values.transpose([written.index(axis) for axis in axes]))


def imagej(values: Values, axes: str) -> Build:
    """A stack of ImageJ with voxels of 2 × 3 × 4 mm."""
    about = {"axes": axes, "unit": "mm", "spacing": 4.0}
    return tiff(values, axes, imagej=True, resolution=(1 / 2, 1 / 3), metadata=about)


def ome(values: Values, axes: str) -> Build:
    """An OME-TIFF with voxels of 2 × 3 × 4 mm."""
    about: dict[str, Any] = {"axes": axes, **{f"PhysicalSize{axis}Unit": "mm" for axis in "XYZ"}}
    about |= {"PhysicalSizeX": 2.0, "PhysicalSizeY": 3.0, "PhysicalSizeZ": 4.0}
    return tiff(values, axes, "stack.ome.tif", metadata=about)


def lzw() -> Build:
    """Pages that another program packed with LZW, which tifffile itself cannot write."""
    from PIL import Image

    def build(folder: Path) -> Built:
        page = stack("uint8", "YX")
        Image.fromarray(page).save(folder / "page.tif", compression="tiff_lzw")
        return Built(folder / "page.tif", page.T, spacing=(1.0, 1.0))

    return build


HAS_IMAGECODECS = importlib.util.find_spec("imagecodecs") is not None
LZW = Denoised("uint8", "no voxel size along") if HAS_IMAGECODECS else Refused("pip install imagecodecs")


# ---------------------------------------------------------------- numpy and zarr


def npy(values: Values, name: str = "scan.npy") -> Build:
    def build(folder: Path) -> Built:
        np.save(folder / name, values, allow_pickle=True)
        wider = values.astype("float32") if values.dtype == "float16" else values
        return Built(folder / name, wider, spacing=(1.0, 1.0, 1.0)[: values.ndim])

    return build


def zarr(values: Values, axes: str, name: str = "image.zarr") -> Build:
    def build(folder: Path) -> Built:
        zarrs.save(folder / name, values, axes)
        return Built(folder / name, values)

    return build
