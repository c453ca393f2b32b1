"""Small OME-Zarr images, and how to read them back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from click.testing import CliRunner, Result

import nlmeans
from nlmeans import cli
from tests.nlmeans.volumes import gaussian, piecewise

SAME: dict[str, Any] = {"method": "classic", "search_radius": 1, "device": "cpu"}
SMALLEST = 16 * 2**20
"""The least memory that a run accepts, in bytes."""

TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
SCALES = {"t": 1.5, "c": 1.0, "z": 2.0, "y": 0.5, "x": 0.5}
OMERO = {"channels": [{"color": "00FF00", "label": "GFP", "window": {"start": 0, "end": 200, "min": 0, "max": 255}}]}


def noisy(*shape: int, dtype: str = "f4", seed: int = 0) -> npt.NDArray[Any]:
    """Noisy volumes along the last three axes, or images along two."""
    spatial = shape[-3:] if len(shape) > 2 else (1, *shape)
    clean = np.broadcast_to(piecewise(*spatial).reshape(spatial[-len(shape) :]), shape)
    return gaussian(clean, 10.0, seed).clip(0, 255).astype(dtype)


def save(path: Path, data: npt.NDArray[Any], axes: str, version: str = "0.5", chunk: int = 8, **storage: Any) -> Path:
    """Write an OME-Zarr image with one level and with all metadata fields."""
    chunks = tuple(1 if axis in "tc" else min(chunk, n) for axis, n in zip(axes, data.shape, strict=True))
    form: Any = 3 if version == "0.5" else 2
    if form == 3:
        storage = {"dimension_names": list(axes)} | storage
    else:
        storage = {"chunk_key_encoding": {"name": "v2", "separator": "/"}} | storage
    group = zarr.open_group(path, mode="w", zarr_format=form)
    group.create_array("full", data=data, **{"chunks": chunks, "attributes": {"of the array": 1}} | storage)
    multiscale = {
        "name": "cells",
        "axes": [
            {"name": axis, "type": TYPES[axis], **({"unit": "micrometer"} if TYPES[axis] == "space" else {})}
            for axis in axes
        ],
        "datasets": [
            {
                "path": "full",
                "coordinateTransformations": [
                    {"type": "scale", "scale": [SCALES[axis] for axis in axes]},
                    {"type": "translation", "translation": [10.0] * len(axes)},
                ],
            }
        ],
        "coordinateTransformations": [{"type": "scale", "scale": [1.0] * len(axes)}],
        "type": "gaussian",
        "metadata": {"method": "someone's"},
    }
    if form == 3:
        group.attrs["ome"] = {"version": version, "multiscales": [multiscale], "omero": OMERO}
    else:
        group.attrs.update({"multiscales": [{**multiscale, "version": version}], "omero": OMERO})
    group.attrs["of the user"] = {"kept": [1, 2]}
    return path


def about(path: Path) -> dict[str, Any]:
    """The OME metadata of a group of either version."""
    attributes = zarr.open_group(path, mode="r", use_consolidated=False).attrs.asdict()
    found: dict[str, Any] = attributes.get("ome", attributes)
    return found


def level(path: Path, number: int = 0) -> npt.NDArray[Any]:
    return np.asarray(array(path, number)[:])


def array(path: Path, number: int = 0) -> zarr.Array[Any]:
    found = zarr.open_group(path, mode="r", use_consolidated=False)[str(number)]
    assert isinstance(found, zarr.Array)
    return found


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit the metadata of a group in place."""
    group = zarr.open_group(path, mode="r+", use_consolidated=False)
    attributes = group.attrs.asdict()
    edit(attributes.get("ome", attributes))
    group.attrs.put(attributes)


def in_memory(data: npt.NDArray[Any], axes: str, **settings: Any) -> npt.NDArray[Any]:
    """Denoise every volume of an array on its own."""
    spacing = tuple(SCALES[axis] for axis in axes if axis in "zyx")
    flat = data.reshape(-1, *data.shape[sum(axis in "tc" for axis in axes) :])
    done = [nlmeans.denoise(volume, **{**SAME, "spacing": spacing, **settings}) for volume in flat]
    return np.stack(done).reshape(data.shape)


def call(*words: object) -> Result:
    return CliRunner().invoke(cli.main, [str(word) for word in words])
