"""Read the metadata of OME-Zarr images of any size, and their volumes piece by piece.

An image may have version 0.4 on zarr format 2 or version 0.5 on format 3 (https://ngff.openmicroscopy.org/0.5/), or be
a plain zarr array.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from nlmeans.files.formats.geometry import SAME_PLACE
from nlmeans.files.paths import check_exists, is_zarr, one_line

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
"""Units of length in metres, to compare axes that have different units."""

Place = tuple[int | slice, ...]
"""Place of a volume or series in an image: per axis that is not spatial, a number, or all of it."""

AXIS_KINDS = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
"""Type of an axis that has only a name."""


@dataclass(frozen=True)
class ZarrImage:
    """An OME-Zarr image: the array of its finest level, and its metadata."""

    path: Path
    array: zarr.Array[Any]
    axes: tuple[Mapping[str, Any], ...]
    """Name, type and unit of each axis of the array, as in the metadata."""
    scale: tuple[float, ...]
    """Voxel size of the finest level along each axis, before the transformations that apply to all levels."""
    translation: tuple[float, ...] | None
    """Position of the first voxel of the finest level, if the metadata give one."""
    multiscale: Mapping[str, Any]
    """The entry of ``multiscales`` that the image is read from; empty for a plain array."""
    attributes: Mapping[str, Any]
    """All attributes of the group."""
    levels: int
    """Number of levels of its pyramid."""

    @property
    def version(self) -> str:
        """Version of OME-Zarr."""
        return "0.4" if self.array.metadata.zarr_format == 2 else "0.5"

    @property
    def spatial_axes(self) -> tuple[int, ...]:
        return tuple(index for index, axis in enumerate(self.axes) if axis_kind(axis) == "space")

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape[axis] for axis in self.spatial_axes)

    @property
    def unit(self) -> tuple[int, ...]:
        """Shape of the pieces that are written as a whole: shards if there are any, else chunks."""
        return self.array.shards or self.array.chunks

    @functools.cached_property
    def files(self) -> list[str]:
        """Files of the finest level, relative to its folder. There may be millions, so they are listed only once."""
        root = array_folder(self)
        return sorted(
            Path(folder, name).relative_to(root).as_posix() for folder, _, names in os.walk(root) for name in names
        )

    @property
    def spacing(self) -> tuple[float, ...]:
        """Voxel size along the spatial axes, in their unit of length; in metres if their units differ."""
        whole = scale_of(self.multiscale.get("coordinateTransformations", ()), len(self.axes)) or (1.0,) * len(
            self.axes
        )
        sizes = [abs(self.scale[axis] * whole[axis]) for axis in self.spatial_axes]
        units = [self.axes[axis].get("unit") for axis in self.spatial_axes]
        if len(set(units)) > 1:
            unknown = [unit for unit in units if unit not in LENGTHS]
            if unknown:
                raise ValueError(
                    f"{self.path}: the spatial axes have the units {units}, which differ, and {unknown[0]!r} is not "
                    "known; correct the metadata"
                )
            sizes = [size * LENGTHS[str(unit)] for size, unit in zip(sizes, units, strict=True)]
        return tuple(sizes)

    @property
    def origin(self) -> tuple[float, ...]:
        """Position of the first voxel along the spatial axes, in the units of the metadata; 0 where they give none."""
        axes, general = len(self.axes), self.multiscale.get("coordinateTransformations", ())
        scale = scale_of(general, axes) or (1.0,) * axes
        moved, own = numbers_of(general, "translation", axes) or (0.0,) * axes, self.translation or (0.0,) * axes
        return tuple(own[axis] * scale[axis] + moved[axis] for axis in self.spatial_axes)

    def difference_of_place(self, other: ZarrImage) -> str:
        """Say in what the voxels of another image of the same shape lie elsewhere; empty if they lie where ours do.

        Plain arrays, whose metadata do not say where they lie, lie anywhere.
        """
        if not self.multiscale or not other.multiscale:
            return ""
        units = [[image.axes[axis].get("unit") for axis in image.spatial_axes] for image in (self, other)]
        if units[0] != units[1]:
            return ""  # nothing to compare
        ours, theirs = np.array(self.spacing), np.array(other.spacing)
        if not np.allclose(ours, theirs, rtol=1e-3):
            return f"voxels of {sizes_text(theirs)} instead of {sizes_text(ours)}"
        apart = np.abs(np.array(self.origin) - other.origin)
        if (apart > SAME_PLACE * np.abs(ours)).any():
            return f"a first voxel at {sizes_text(other.origin)} instead of {sizes_text(self.origin)}"
        return ""

    @property
    def other_axes(self) -> tuple[int, ...]:
        """Axes that are not spatial."""
        return tuple(axis for axis in range(self.array.ndim) if axis not in self.spatial_axes)

    @property
    def time_axis(self) -> int | None:
        """Axis of the time points; None if the image has none."""
        return next((index for index, axis in enumerate(self.axes) if axis_kind(axis) == "time"), None)

    def volumes(self) -> list[tuple[int, ...]]:
        """List the place of each volume: one number per axis that is not spatial."""
        return list(np.ndindex(*(self.array.shape[axis] for axis in self.other_axes)))

    def series(self) -> list[Place]:
        """List the place of each series of volumes over time: a number or, for time, all, per axis not spatial."""
        lengths = (1 if axis == self.time_axis else self.array.shape[axis] for axis in self.other_axes)
        return [
            tuple(slice(None) if axis == self.time_axis else n for axis, n in zip(self.other_axes, place, strict=True))
            for place in np.ndindex(*lengths)
        ]

    def at(self, place: Place) -> ZarrPart:
        """The volume or series at one of the places that `volumes` and `series` list."""
        return ZarrPart(self, place)

    def title(self, place: Place) -> str:
        """Name of a volume or series: ``t 3, c 0``, or ``c 0``."""
        names = [self.axes[axis]["name"] for axis in self.other_axes]
        numbers = [(name, n) for name, n in zip(names, place, strict=True) if not isinstance(n, slice)]
        return ", ".join(f"{name} {number}" for name, number in numbers)


class ZarrPart:
    """A volume of an image, or a series of volumes: an array that is read piece by piece.

    Its axes are those of the image, in their order, without the axes that `place` has a number for.
    """

    def __init__(self, image: ZarrImage, place: Place) -> None:
        self.image, self.place, self.dtype = image, place, image.array.dtype
        whole = [axis for axis, n in zip(image.other_axes, place, strict=True) if isinstance(n, slice)]
        self.axes = tuple(sorted([*image.spatial_axes, *whole]))
        """Its axes, by their number in the image."""
        self.shape, self.ndim = tuple(image.array.shape[axis] for axis in self.axes), len(self.axes)
        self.chunks = tuple(image.unit[axis] for axis in self.axes)

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        pieces, numbers = iter(key), iter(n for n in self.place if not isinstance(n, slice))
        index = tuple(next(pieces if axis in self.axes else numbers) for axis in range(self.image.array.ndim))
        try:
            return np.asarray(self.image.array[index])
        except Exception as error:  # codecs raise errors of any type for a damaged chunk
            raise ValueError(
                f"{self.image.path} cannot be read at {self.image.title(self.place)} {key}; it may be damaged there: "
                f"{one_line(error)}"
            ) from error


def sizes_text(numbers: Any) -> str:
    """
    >>> sizes_text([2, 0.5, 0.5])
    '2 × 0.5 × 0.5'
    """
    return " × ".join(f"{number:.4g}" for number in numbers)


# ---------------------------------------------------------------- reading


def read_image(path: Path | str, multiscale: int | str = 0) -> ZarrImage:
    """Read the metadata of an OME-Zarr image, or of a zarr array. No voxels are read.

    Args:
        path: folder of the group; or of an array that has two or three axes, or axes with the names t, c, z, y, x.
        multiscale: number or name of the image, if the group has several. The specification recommends the first.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError, TypeError: it is not an image of real numbers, is damaged, or has a version that cannot be read.
    """
    path = Path(path)
    check_exists(path)
    if not is_zarr(path):
        raise ValueError(f"{path} is not a zarr group or array: it has no zarr.json, .zgroup or .zarray")
    node = open_node(path)
    image = image_of_array(path, node) if isinstance(node, zarr.Array) else image_of_group(path, node, multiscale)
    if image.array.dtype.kind not in "buif":
        raise TypeError(f"{path} has dtype {image.array.dtype}; only real numbers can be denoised")
    if 0 in image.array.shape:
        raise ValueError(f"{path} has shape {image.array.shape}, which has no voxels")
    if min(image.unit, default=1) < 1:
        raise ValueError(f"{path} cannot be read as zarr; it may be damaged: its chunks have the shape {image.unit}")
    if len(image.spatial_axes) not in (2, 3):
        raise ValueError(
            f"{path} has {len(image.spatial_axes)} spatial axes; only images with two or three can be denoised"
        )
    return image


def open_node(path: Path) -> zarr.Array[Any] | zarr.Group:
    """Open a zarr group or array, and read its attributes."""
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
        node.attrs.asdict()  # fails if the attributes are not a JSON object
        return node
    except Exception as error:  # zarr raises errors of any type for a damaged document
        raise ValueError(f"{path} cannot be read as zarr; it may be damaged: {one_line(error)}") from error


def image_of_array(path: Path, array: zarr.Array[Any]) -> ZarrImage:
    """Take a zarr array as an image. Its axes are known by their names, or by their order if there are two or three."""
    names: Any = getattr(array.metadata, "dimension_names", None)
    names = names or array.attrs.get("_ARRAY_DIMENSIONS")  # xarray's name for them in zarr format 2
    if not names or not all(isinstance(name, str) and name.lower() in AXIS_KINDS for name in names):
        if array.ndim not in (2, 3):
            raise ValueError(
                f"{path} is a plain zarr array of shape {array.shape}, and its {array.ndim} axes have no names among "
                "t, c, z, y, x that say which are spatial; write it as OME-Zarr, or name its axes (dimension_names)"
            )
        names = "zyx"[-array.ndim :]
    names = [str(name).lower() for name in names]
    if len(set(names)) < array.ndim:
        raise ValueError(f"{path} has the axes {names}; each needs a different name")
    axes = tuple({"name": name, "type": AXIS_KINDS[name]} for name in names)
    return ZarrImage(path, array, axes, (1.0,) * array.ndim, None, {}, {}, 1)


def image_of_group(path: Path, group: zarr.Group, choice: int | str) -> ZarrImage:
    """Read the metadata of an OME-Zarr group, and check them."""
    attributes = group.attrs.asdict()
    about = attributes.get("ome", {}) if group.metadata.zarr_format == 3 else attributes
    about = checked_type(about, dict, f"{path}: ome")
    if "multiscales" not in about:
        raise ValueError(f"{path} is not an OME-Zarr image{hint(path, group, about)}")
    multiscales = checked_type(about["multiscales"], list, f"{path}: multiscales")
    where, chosen = chosen_multiscale(path, multiscales, choice)
    version = about.get("version") if group.metadata.zarr_format == 3 else chosen.get("version", "0.4")
    expected = "0.5" if group.metadata.zarr_format == 3 else "0.4"
    if version != expected:
        raise ValueError(
            f"{path} has OME-Zarr version {version!r} on zarr format {group.metadata.zarr_format}; convert it to 0.4 "
            "on format 2, or to 0.5 on format 3"
        )
    axes = checked_type(chosen.get("axes"), list, f"{where}.axes")
    for index, axis in enumerate(axes):
        checked_type(checked_type(axis, dict, f"{where}.axes[{index}]").get("name"), str, f"{where}.axes[{index}].name")
        checked_type(axis.get("unit", ""), str, f"{where}.axes[{index}].unit")
    if len({axis["name"] for axis in axes}) < len(axes):
        raise ValueError(f"{where}.axes has the names {[axis['name'] for axis in axes]}; each needs a different name")
    datasets = checked_type(chosen.get("datasets"), list, f"{where}.datasets")
    if not datasets:
        raise ValueError(f"{where}.datasets is empty, so it has no image")
    finest = checked_type(datasets[0], dict, f"{where}.datasets[0]")
    place = path_inside_group(
        checked_type(finest.get("path"), str, f"{where}.datasets[0].path"), f"{where}.datasets[0].path"
    )
    array = open_node(path / place) if is_zarr(path / place) else None
    if not isinstance(array, zarr.Array):
        raise FileNotFoundError(
            f"{where}.datasets[0].path is {str(place)!r}, but there is no array; copy the image again"
        )
    if array.ndim != len(axes):
        raise ValueError(f"{where}.axes has {len(axes)} axes, but the array in {place} has the shape {array.shape}")
    if array.metadata.zarr_format != group.metadata.zarr_format:
        raise ValueError(
            f"{path}: the group and its array {place} have different zarr formats; write both in one format"
        )
    transformations = checked_type(
        finest.get("coordinateTransformations"), list, f"{where}.datasets[0].coordinateTransformations"
    )
    try:
        scale = scale_of(transformations, array.ndim)
        translation = numbers_of(transformations, "translation", array.ndim)
        scale_of(chosen.get("coordinateTransformations", ()), array.ndim)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error
    if scale is None:
        raise ValueError(f"{where}.datasets[0].coordinateTransformations has no scale; add one")
    return ZarrImage(path, array, tuple(axes), scale, translation, chosen, attributes, len(datasets))


def chosen_multiscale(path: Path, multiscales: list[Any], choice: int | str) -> tuple[str, dict[str, Any]]:
    """Choose an entry of ``multiscales``. Returns where it stands in the metadata, for messages, and the entry."""
    found = [checked_type(entry, dict, f"{path}: multiscales[{index}]") for index, entry in enumerate(multiscales)]
    for index, entry in enumerate(found):
        if choice in (index, entry.get("name")):
            return f"{path}: multiscales[{index}]", entry
    names = ", ".join(f"{index} {entry.get('name', '')!r}" for index, entry in enumerate(found)) or "none"
    raise ValueError(f"multiscale={choice!r} is not in {path}, which has: {names}")


def hint(path: Path, group: zarr.Group, about: Mapping[str, Any]) -> str:
    """Say why a group is not an image, and which image in it to name instead."""
    if group.metadata.zarr_format == 3 and "multiscales" in group.attrs:
        return ": it has metadata of version 0.4 on zarr format 3; convert it to 0.5"
    collection = next((name for name in ("plate", "well", "bioformats2raw.layout") if name in about), None)
    images = sorted(str(child.relative_to(path)) for child in zarr_children(path, 3) if is_image(child))[:3]
    if not images:
        return ": its metadata have no multiscales; name the folder of an image"
    what = "" if collection is None else f" but a collection of images ({collection})"
    return f"{what}; name an image in it, such as {', '.join(images)}"


def zarr_children(path: Path, depth: int) -> Iterator[Path]:
    """Find groups and arrays below a group, down to `depth` levels."""
    for child in path.iterdir() if depth else ():
        if child.is_dir() and is_zarr(child):
            yield child
            yield from zarr_children(child, depth - 1)


def is_image(path: Path) -> bool:
    """Whether a folder is an OME-Zarr image that can be read."""
    try:
        image_of_group(path, zarr.open_group(path, mode="r", use_consolidated=False), 0)
    except Exception:
        return False
    return True


def checked_type(value: Any, wanted: type[dict[str, Any] | list[Any] | str], name: str) -> Any:
    """Return a value of the metadata; raise ``TypeError`` if it has another type than `wanted`."""
    if not isinstance(value, wanted):
        words: dict[Any, str] = {dict: "an object", list: "a list", str: "text"}
        shown = "missing" if value is None else repr(value)[:60]
        raise TypeError(f"{name} is {shown}, but must be {words[wanted]}; correct the metadata")
    return value


def path_inside_group(path: str, name: str) -> PurePosixPath:
    """Return a path of the metadata; raise ``ValueError`` if it leads out of the group.

    Metadata may come from an untrusted source.
    """
    parts = path.strip("/").split("/") if not path.startswith("/") else [".."]
    if any(part in ("", ".", "..") or "\\" in part or ":" in part for part in parts):
        raise ValueError(
            f"{name} is {path!r}, which is not a path inside the group, so it is not followed; correct the metadata"
        )
    return PurePosixPath(*parts)


def axis_kind(axis: Mapping[str, Any]) -> str:
    """The type of an axis: ``space``, ``time``, ``channel`` or another one.

    >>> axis_kind({"name": "z"}), axis_kind({"name": "z", "type": "custom"})
    ('space', 'custom')
    """
    return str(axis.get("type") or AXIS_KINDS.get(axis["name"].lower(), "custom"))


def scale_of(transformations: Any, axes: int) -> tuple[float, ...] | None:
    """Find the scale among transformations; None if there is none."""
    scale = numbers_of(transformations, "scale", axes)
    if scale is not None and not all(scale):
        raise ValueError(f"coordinateTransformations has the scale {list(scale)}; no voxel can have the size 0")
    return scale


def numbers_of(transformations: Any, name: str, axes: int) -> tuple[float, ...] | None:
    """Find the scale or the translation among transformations, one number per axis; None if there is none."""
    for entry in transformations:
        if not isinstance(entry, Mapping) or entry.get("type") not in ("scale", "translation", "identity"):
            raise ValueError(f"coordinateTransformations has {entry!r}; only scale and translation can be read")
        if entry["type"] != name:
            continue
        found = entry.get(name)
        if not isinstance(found, list) or not all(isinstance(n, int | float) and math.isfinite(n) for n in found):
            raise ValueError(f"coordinateTransformations has the {name} {found!r}; give one number per axis")
        if len(found) != axes:
            raise ValueError(f"coordinateTransformations has the {name} {found}, but there are {axes} axes")
        return tuple(float(number) for number in found)
    return None


# ---------------------------------------------------------------- recognising an input

SAMPLED_FILES, SAMPLED_BYTES = 32, 2**20
"""Files whose content is hashed, and bytes at either end of each."""


def image_fingerprint(image: ZarrImage) -> str:
    """Compute a hash that recognises an image, also if it was moved or copied.

    The hash covers the metadata, the names and sizes of all files of the finest level, and the content of 32 of these
    files, spread evenly: the first and the last MiB of each. It does not notice a change in another file that keeps the
    file's size. That can only happen to chunks that are stored without compression.
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
    """Raise ``ValueError`` if fewer than one in a thousand chunks of an image are stored.

    zarr does not store chunks that hold only the fill value. But if almost all are missing, the metadata are damaged or
    the image was copied incompletely.
    """
    expected = math.prod(math.ceil(n / unit) for n, unit in zip(image.array.shape, image.unit, strict=True))
    stored = sum(Path(name).name not in METADATA for name in image.files)
    if stored < LEAST_STORED * expected or not stored:
        raise ValueError(
            f"{image.path} has {stored} of {expected} chunks, and missing chunks count as {image.array.fill_value}; it "
            "may be damaged or copied incompletely"
        )
    if stored < expected:
        log.info("%s: %d of %d chunks are stored", image.path, stored, expected)


LEAST_STORED = 1e-3
"""Smallest fraction of its chunks that an image must have stored."""

METADATA = ("zarr.json", ".zarray", ".zattrs")
"""Files that are not chunks."""


def array_folder(image: ZarrImage) -> Path:
    return Path(image.array.store_path.store.root) / image.array.path  # type: ignore[attr-defined]
