"""OME-Zarr images, of any size: what their metadata say, and their volumes, read piece by piece.

Version 0.4 on zarr format 2 and 0.5 on format 3 (https://ngff.openmicroscopy.org/0.5/), or a plain zarr array.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from nlmeans.files import nifti

log = logging.getLogger("nlmeans")

LENGTHS = {
    "angstrom": 1e-10,
    "picometer": 1e-12,
    "nanometer": 1e-9,
    "micrometer": 1e-6,
    "millimeter": 1e-3,
    "centimeter": 1e-2,
    "decimeter": 1e-1,
    "meter": 1.0,
}
"""Metres in the units of length that are in use, for axes of which each has its own."""

KINDS = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
"""Of axes that say no more than their name."""


@dataclass(frozen=True)
class ZarrImage:
    """An image of any size: its finest level, and what its metadata say of it."""

    path: Path
    array: zarr.Array[Any]
    axes: tuple[Mapping[str, Any], ...]
    """One per axis of the array: name, type and unit as they are written."""
    scale: tuple[float, ...]
    """Of the finest level, one per axis, without what `multiscale` says of all levels."""
    translation: tuple[float, ...] | None
    multiscale: Mapping[str, Any]
    """The entry of ``multiscales`` that it is read from; empty for a plain array."""
    attributes: Mapping[str, Any]
    """All of the group, that is read or not."""
    levels: int

    @property
    def version(self) -> str:
        return "0.4" if self.array.metadata.zarr_format == 2 else "0.5"

    @property
    def spatial_axes(self) -> tuple[int, ...]:
        return tuple(index for index, axis in enumerate(self.axes) if kind(axis) == "space")

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape[axis] for axis in self.spatial_axes)

    @property
    def unit(self) -> tuple[int, ...]:
        """The shape of the pieces that are written as a whole: shards if there are any, else chunks."""
        return self.array.shards or self.array.chunks

    @functools.cached_property
    def files(self) -> list[str]:
        """What the finest level is stored in, below its folder. There may be millions, so they are listed once."""
        root = array_folder(self)
        return sorted(
            Path(folder, name).relative_to(root).as_posix() for folder, _, names in os.walk(root) for name in names
        )

    @property
    def spacing(self) -> tuple[float, ...]:
        """Size of a voxel along the spatial axes, in their unit of length; where they have several, in metres."""
        whole = scale_of(self.multiscale.get("coordinateTransformations", ()), len(self.axes)) or (1.0,) * len(
            self.axes
        )
        sizes = [abs(self.scale[axis] * whole[axis]) for axis in self.spatial_axes]
        units = [self.axes[axis].get("unit") for axis in self.spatial_axes]
        if len(set(units)) > 1:
            unknown = [unit for unit in units if unit not in LENGTHS]
            if unknown:
                raise ValueError(
                    f"{self.path}: the spatial axes have the units {units}, of which {unknown[0]!r} is not known, so "
                    "that they cannot be compared; correct the metadata"
                )
            sizes = [size * LENGTHS[str(unit)] for size, unit in zip(sizes, units, strict=True)]
        return tuple(sizes)

    def volumes(self) -> list[tuple[int, ...]]:
        """Where each single volume lies: one number for each axis that is not spatial."""
        return list(np.ndindex(*(n for axis, n in enumerate(self.array.shape) if axis not in self.spatial_axes)))

    def volume(self, place: Sequence[int]) -> ZarrVolume:
        return ZarrVolume(self, tuple(place))

    def title(self, place: Sequence[int]) -> str:
        """Which volume that is, in words: ``t 3, c 0``."""
        names = [axis["name"] for index, axis in enumerate(self.axes) if index not in self.spatial_axes]
        return ", ".join(f"{name} {number}" for name, number in zip(names, place, strict=True))


class ZarrVolume:
    """One volume of an image, read piece by piece: an array with the spatial axes alone."""

    def __init__(self, image: ZarrImage, place: tuple[int, ...]) -> None:
        self.image, self.place = image, place
        self.shape, self.ndim, self.dtype = image.spatial_shape, len(image.spatial_axes), image.array.dtype
        self.chunks = tuple(image.unit[axis] for axis in image.spatial_axes)

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        numbers, pieces = iter(self.place), iter(key)
        spatial = self.image.spatial_axes
        index = tuple(next(pieces if axis in spatial else numbers) for axis in range(self.image.array.ndim))
        try:
            return np.asarray(self.image.array[index])
        except Exception as error:  # whatever the codecs meet in a damaged chunk
            raise ValueError(
                f"{self.image.path} cannot be read in {self.image.title(self.place)} {key}, where it may be damaged: "
                f"{one_line(error)}"
            ) from error


# ---------------------------------------------------------------- reading


def read_image(path: Path | str, multiscale: int | str = 0) -> ZarrImage:
    """The image in an OME-Zarr group, or a zarr array as an image; no voxels are read.

    Args:
        path: folder of the group, in which `multiscale` (number or name) is read where there are several; or of an
            array, with two or three spatial axes, or with the names t, c, z, y, x for its axes.
        multiscale: as above; the specification has the first as the usual one.

    Raises:
        FileNotFoundError: there is nothing.
        ValueError, TypeError: it is something else, damaged, or of a version that is not read.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such folder")
    if not nifti.is_zarr(path):
        raise ValueError(f"{path} is no zarr group or array: it has no zarr.json, .zgroup or .zarray")
    node = opened(path)
    image = of_array(path, node) if isinstance(node, zarr.Array) else of_group(path, node, multiscale)
    if image.array.dtype.kind not in "buif":
        raise TypeError(f"{path} has dtype {image.array.dtype}; only real numbers can be denoised")
    if 0 in image.array.shape:
        raise ValueError(f"{path} has shape {image.array.shape} and so no voxels")
    if min(image.unit, default=1) < 1:
        raise ValueError(f"{path} cannot be read as zarr, it may be damaged: its chunks have the shape {image.unit}")
    if len(image.spatial_axes) not in (2, 3):
        raise ValueError(f"{path} has {len(image.spatial_axes)} spatial axes; two or three can be denoised")
    return image


def opened(path: Path) -> zarr.Array[Any] | zarr.Group:
    node: zarr.Array[Any] | zarr.Group
    try:
        if (path / ".zgroup").is_file():
            node = zarr.open_group(path, mode="r", zarr_format=2, use_consolidated=False)
        elif (path / ".zarray").is_file():
            node = zarr.open_array(path, mode="r", zarr_format=2)
        elif json.loads((path / "zarr.json").read_text(encoding="utf-8"))["node_type"] == "array":
            node = zarr.open_array(path, mode="r", zarr_format=3)
        else:
            node = zarr.open_group(path, mode="r", zarr_format=3, use_consolidated=False)
        node.attrs.asdict()  # which fails where they are no object
        return node
    except Exception as error:  # whatever zarr meets in a damaged document
        raise ValueError(f"{path} cannot be read as zarr, it may be damaged: {one_line(error)}") from error


def of_array(path: Path, array: zarr.Array[Any]) -> ZarrImage:
    names: Any = getattr(array.metadata, "dimension_names", None)
    names = names or array.attrs.get("_ARRAY_DIMENSIONS")  # as xarray calls them in zarr format 2
    if not names or not all(isinstance(name, str) and name.lower() in KINDS for name in names):
        if array.ndim not in (2, 3):
            raise ValueError(
                f"{path} is a plain zarr array of shape {array.shape}, whose {array.ndim} axes have no names among "
                "t, c, z, y, x, so that it is not known which are spatial; write it as OME-Zarr, or name them "
                "(dimension_names)"
            )
        names = "zyx"[-array.ndim :]
    names = [str(name).lower() for name in names]
    if len(set(names)) < array.ndim:
        raise ValueError(f"{path} has the axes {names}; each needs a name of its own")
    axes = tuple({"name": name, "type": KINDS[name]} for name in names)
    return ZarrImage(path, array, axes, (1.0,) * array.ndim, None, {}, {}, 1)


def of_group(path: Path, group: zarr.Group, choice: int | str) -> ZarrImage:
    attributes = group.attrs.asdict()
    about = attributes.get("ome", {}) if group.metadata.zarr_format == 3 else attributes
    about = checked(about, dict, f"{path}: ome")
    if "multiscales" not in about:
        raise ValueError(f"{path} is a zarr group, but no OME-Zarr image{hint(path, group, about)}")
    multiscales = checked(about["multiscales"], list, f"{path}: multiscales")
    where, chosen = chosen_multiscale(path, multiscales, choice)
    version = about.get("version") if group.metadata.zarr_format == 3 else chosen.get("version", "0.4")
    expected = "0.5" if group.metadata.zarr_format == 3 else "0.4"
    if version != expected:
        raise ValueError(
            f"{path} has OME-Zarr version {version!r} on zarr format {group.metadata.zarr_format}; 0.4 on format 2 and "
            "0.5 on format 3 can be read: convert it first"
        )
    axes = checked(chosen.get("axes"), list, f"{where}.axes")
    for index, axis in enumerate(axes):
        checked(checked(axis, dict, f"{where}.axes[{index}]").get("name"), str, f"{where}.axes[{index}].name")
        checked(axis.get("unit", ""), str, f"{where}.axes[{index}].unit")
    if len({axis["name"] for axis in axes}) < len(axes):
        raise ValueError(f"{where}.axes has the names {[axis['name'] for axis in axes]}; each needs its own")
    datasets = checked(chosen.get("datasets"), list, f"{where}.datasets")
    if not datasets:
        raise ValueError(f"{where}.datasets is empty, so there is no image")
    finest = checked(datasets[0], dict, f"{where}.datasets[0]")
    below = inside(checked(finest.get("path"), str, f"{where}.datasets[0].path"), f"{where}.datasets[0].path")
    array = opened(path / below) if nifti.is_zarr(path / below) else None
    if not isinstance(array, zarr.Array):
        raise FileNotFoundError(f"{where}.datasets[0].path is {str(below)!r}, but there is no array; it is incomplete")
    if array.ndim != len(axes):
        raise ValueError(f"{where}.axes are {len(axes)}, but the array in {below} has the shape {array.shape}")
    if array.metadata.zarr_format != group.metadata.zarr_format:
        raise ValueError(f"{path}: the group and its array {below} have different zarr formats")
    transformations = checked(
        finest.get("coordinateTransformations"), list, f"{where}.datasets[0].coordinateTransformations"
    )
    try:
        scale = scale_of(transformations, array.ndim)
        translation = numbers_of(transformations, "translation", array.ndim)
        scale_of(chosen.get("coordinateTransformations", ()), array.ndim)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error
    if scale is None:
        raise ValueError(f"{where}.datasets[0].coordinateTransformations has no scale, which an image must have")
    return ZarrImage(path, array, tuple(axes), scale, translation, chosen, attributes, len(datasets))


def chosen_multiscale(path: Path, multiscales: list[Any], choice: int | str) -> tuple[str, dict[str, Any]]:
    """Its place in the metadata, for messages, and itself."""
    found = [checked(entry, dict, f"{path}: multiscales[{index}]") for index, entry in enumerate(multiscales)]
    for index, entry in enumerate(found):
        if choice in (index, entry.get("name")):
            return f"{path}: multiscales[{index}]", entry
    names = ", ".join(f"{index} {entry.get('name', '')!r}" for index, entry in enumerate(found)) or "none"
    raise ValueError(f"multiscale={choice!r} is not in {path}, which has: {names}")


def hint(path: Path, group: zarr.Group, about: Mapping[str, Any]) -> str:
    """What to name instead."""
    if group.metadata.zarr_format == 3 and "multiscales" in group.attrs:
        return ": it has metadata of version 0.4 on zarr format 3; convert it to 0.5"
    collection = next((name for name in ("plate", "well", "bioformats2raw.layout") if name in about), None)
    images = sorted(str(child.relative_to(path)) for child in below(path, 3) if is_image(child))[:3]
    if not images:
        return ""
    what = "" if collection is None else f" but a collection of them ({collection})"
    return f"{what}; name one of those in it, such as {', '.join(images)}"


def below(path: Path, depth: int) -> Iterator[Path]:
    for child in path.iterdir() if depth else ():
        if child.is_dir() and nifti.is_zarr(child):
            yield child
            yield from below(child, depth - 1)


def is_image(path: Path) -> bool:
    try:
        of_group(path, zarr.open_group(path, mode="r", use_consolidated=False), 0)
    except Exception:
        return False
    return True


def checked(value: Any, wanted: type[dict[str, Any] | list[Any] | str], name: str) -> Any:
    if not isinstance(value, wanted):
        words: dict[Any, str] = {dict: "an object", list: "a list", str: "a text"}
        shown = "missing" if value is None else repr(value)[:60]
        raise TypeError(f"{name} is {shown}, but must be {words[wanted]}; the metadata are damaged")
    return value


def inside(path: str, name: str) -> PurePosixPath:
    """A path in metadata, if it leads to something below the group: they may come from anywhere."""
    parts = path.strip("/").split("/") if not path.startswith("/") else [".."]
    if any(part in ("", ".", "..") or "\\" in part or ":" in part for part in parts):
        raise ValueError(f"{name} is {path!r}, which leads out of the group or nowhere; it is not followed")
    return PurePosixPath(*parts)


def kind(axis: Mapping[str, Any]) -> str:
    return str(axis.get("type") or KINDS.get(axis["name"].lower(), "custom"))


def scale_of(transformations: Any, axes: int) -> tuple[float, ...] | None:
    scale = numbers_of(transformations, "scale", axes)
    if scale is not None and not all(scale):
        raise ValueError(f"coordinateTransformations has the scale {list(scale)}; no voxel has the size 0")
    return scale


def numbers_of(transformations: Any, name: str, axes: int) -> tuple[float, ...] | None:
    """Scale or translation among transformations, one number per axis; None if it is not there."""
    for entry in transformations:
        if not isinstance(entry, Mapping) or entry.get("type") not in ("scale", "translation", "identity"):
            raise ValueError(f"coordinateTransformations has {entry!r}; scale and translation are known")
        if entry["type"] != name:
            continue
        found = entry.get(name)
        if not isinstance(found, list) or not all(isinstance(n, int | float) and math.isfinite(n) for n in found):
            raise ValueError(f"coordinateTransformations has the {name} {found!r}; give one number per axis")
        if len(found) != axes:
            raise ValueError(f"coordinateTransformations has the {name} {found}, but there are {axes} axes")
        return tuple(float(number) for number in found)
    return None


def one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


# ---------------------------------------------------------------- which input that was

SAMPLED_FILES, SAMPLED_BYTES = 32, 2**20


def fingerprint(image: ZarrImage) -> str:
    """A hash by which an image is known again, wherever it is moved or copied to.

    Of its metadata, of names and sizes of all files that its finest level is stored in, and of what is in 32 of them,
    spread evenly, up to the first and last MiB of each. A change within other files that leaves their sizes is not
    noticed, which only happens to chunks stored without compression.
    """
    root = array_folder(image)
    sizes = [(name, (root / name).stat().st_size) for name in image.files]
    described = [image.array.metadata.to_dict(), list(image.axes), image.scale, dict(image.multiscale), sizes]
    found = hashlib.sha256(json.dumps(described, default=str, sort_keys=True).encode())
    for name, size in sizes[:: max(1, math.ceil(len(sizes) / SAMPLED_FILES))]:
        with (root / name).open("rb") as file:
            found.update(file.read(SAMPLED_BYTES))
            file.seek(max(SAMPLED_BYTES, size - SAMPLED_BYTES))
            found.update(file.read(SAMPLED_BYTES))
    return found.hexdigest()


def check_stored(image: ZarrImage) -> None:
    """Refuse an image of which next to nothing is stored, as where its metadata is damaged or a copy was cut off.

    What is not stored counts as the fill value: zarr leaves out the chunks that hold nothing else.
    """
    expected = math.prod(math.ceil(n / unit) for n, unit in zip(image.array.shape, image.unit, strict=True))
    stored = sum(Path(name).name not in METADATA for name in image.files)
    if stored < LEAST_STORED * expected or not stored:
        raise ValueError(
            f"{image.path} has {stored} of {expected} chunks, and the others would count as {image.array.fill_value}; "
            "it may be damaged, or a copy that was cut off"
        )
    if stored < expected:
        log.info("%s: %d of %d chunks are stored", image.path, stored, expected)


LEAST_STORED = 1e-3
"""Of the chunks of an image."""

METADATA = ("zarr.json", ".zarray", ".zattrs")


def array_folder(image: ZarrImage) -> Path:
    return Path(image.array.store_path.store.root) / image.array.path  # type: ignore[attr-defined]
