"""Save a layer as the NIfTI that its image came from: same grid, header, affine, qform and sform."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from napari.layers import Image
from napari.utils.notifications import show_warning

from napari_nlm.geometry import linear
from napari_nlm.results import KEY
from nlmeans.files import atomic
from nlmeans.files import nifti

NIFTI: Any = nib  # nibabel's calls carry no types
Array = npt.NDArray[Any]

ALIKE = 0.5
"""Of the variance of a file's values: an image that differs by more is not a denoised version of them."""

SAMPLE = 200_000
"""Values that are compared to find out how the axes of a layer lie in the file."""


@dataclass(frozen=True)
class Turn:
    """How the axes of a layer lie in a file: transposed, then some reversed."""

    order: tuple[int, ...]
    reversed: tuple[bool, ...]

    def apply(self, data: Array) -> Array:
        """The layer's data with the axes of the file."""
        steps = tuple(slice(None, None, -1 if flip else 1) for flip in self.reversed)
        return data.transpose(self.order)[steps]


def write_nifti(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """The writer of the manifest: one image layer to ``.nii`` or ``.nii.gz``, with a record of how it was made."""
    data = np.asarray(data[0] if isinstance(data, list | tuple) else data)
    target, metadata = Path(path), meta.get("metadata", {})
    record = metadata.get(KEY, {})
    if meta.get("rgb"):
        raise ValueError("NIfTI keeps no colours here; save this layer as TIFF or PNG")
    nifti.check_output(target, overwrite=True)
    original = Path(record["path"]) if record.get("path") else None
    if original is not None and original.exists() and target.exists() and original.samefile(target):
        raise ValueError(f"{target} is the original itself, which is never overwritten; choose another name")
    image = like_the_source(data, metadata, original)
    if image is None:
        image = by_itself(data, meta)
        show_warning(
            f"No NIfTI header is known for {meta.get('name', 'this layer')}: {target.name} has the scale and position "
            "that the layer has in napari, whose axes need not be those of a patient"
        )
    if not record:
        with atomic.written_together(target) as (temporary,):
            nifti.write(image, temporary)
        return [str(target)]
    beside = target.with_name(target.name.removesuffix(".gz").removesuffix(".nii") + ".json")
    with atomic.written_together(target, beside) as (temporary, facts):
        nifti.write(image, temporary)
        facts.write_text(json.dumps(record, indent=2, default=str) + "\n", encoding="utf-8")
    return [str(target), str(beside)]


def like_the_source(data: Array, metadata: dict[str, Any], original: Path | None) -> Any:
    """The layer's data in the grid of its source, with its header; None where there is none to be had."""
    volume = metadata.get(KEY, {}).get("volume")
    keep_type = metadata.get(KEY, {}).get("settings", {}).get("dtype") is None
    if original is not None and original.is_file() and original.name.endswith(nifti.ENDINGS):
        scan = nifti.read(original)
        grid = scan.data if not volume or scan.series is None else scan.data[..., volume[0]]
        turned = find_turn(data, grid)
        if turned is None:
            raise ValueError(
                f"{original} does not show what this layer shows, it may have been changed or moved since; "
                "open it again, denoise and save"
            )
        return nifti.like(scan, turned, keep_type=keep_type)
    header = metadata.get("header")
    if isinstance(header, NIFTI.Nifti1Header):
        return from_reader(data, header, keep_type)
    return None


def find_turn(data: Array, grid: Array) -> Array | None:
    """The layer's data with the axes of `grid`, as it resembles it most; None if it resembles it in no way.

    Readers turn images each in their own way; the values themselves tell how.
    """
    extra = data.ndim - grid.ndim
    if extra > 0:  # one volume of a series has an axis of length 1
        single = [axis for axis, n in enumerate(data.shape) if n == 1][:extra]
        data = data.squeeze(tuple(single))
    if data.ndim != grid.ndim:
        return None
    best, least = None, ALIKE * float(np.var(thinned(grid).astype(np.float64)))
    for turn in turns(data.shape, grid.shape):
        turned = turn.apply(data)
        difference = float(np.mean((thinned(turned).astype(np.float64) - thinned(grid)) ** 2))
        if difference < least or (best is None and difference == least):
            best, least = turned, difference
    return best


def thinned(data: Array) -> Array:
    """Evenly spaced values, whole in small images."""
    step = max(1, round((data.size / SAMPLE) ** (1 / data.ndim)))
    return data[(slice(None, None, step),) * data.ndim]


def turns(shape: tuple[int, ...], wanted: tuple[int, ...]) -> Iterator[Turn]:
    """All that lead from one shape to the other, the simplest first; time is never reversed."""
    for order in itertools.permutations(range(len(shape))):
        if tuple(shape[axis] for axis in order) == wanted:
            for flips in itertools.product((False, True), repeat=min(len(shape), 3)):
                yield Turn(order, flips + (False,) * (len(shape) - len(flips)))


def from_reader(data: Array, header: Any, keep_type: bool) -> Any:
    """From the header that napari-nifti leaves in the metadata: its layers run to superior, anterior, right.

    That holds for files whose axes are in the order x, y, z. Others it permutes otherwise, as of version 0.0.20, and
    the header alone does not tell how.
    """
    shape = tuple(int(n) for n in header.get_data_shape())
    if NIFTI.orientations.io_orientation(header.get_best_affine())[:, 0].tolist() != [0, 1, 2]:
        raise ValueError(
            "the original file is not where it was, and its axes are in an order that cannot be told from the header; "
            "put it back, or open it from where it is now"
        )
    spatial = data.reshape(data.shape[:3]) if data.ndim == 4 and data.shape[3] == 1 else data
    to_file = NIFTI.orientations.ornt_transform(
        NIFTI.orientations.axcodes2ornt("RAS"), NIFTI.orientations.io_orientation(header.get_best_affine())
    )
    turned = NIFTI.orientations.apply_orientation(np.moveaxis(spatial, (0, 1, 2), (2, 1, 0)), to_file)
    if turned.shape[:3] != shape[:3]:
        raise ValueError(
            f"this layer has the shape {data.shape}, but the header in its metadata belongs to {shape}; "
            "remove metadata['header'] to save it without"
        )
    kind = NIFTI.Nifti2Image if isinstance(header, NIFTI.Nifti2Header) else NIFTI.Nifti1Image
    image = kind(np.ascontiguousarray(turned), None, header)
    image.set_data_dtype(turned.dtype if keep_type else np.float32)
    return image


def by_itself(data: Array, meta: dict[str, Any]) -> Any:
    """With the layer's own place in the world, x, y, z being its last axes."""
    if data.dtype == bool:
        data = data.astype(np.uint8)
    elif data.dtype.name in ("float16", "int64", "uint64"):
        data = data.astype(np.float32 if data.dtype.kind == "f" else np.int32)
    spatial = min(data.ndim, 3)
    place = {name: meta[name] for name in ("scale", "translate", "rotate", "shear", "affine") if name in meta}
    matrix, offset = linear(Image(np.empty(data.shape, bool) if data.size < 2**20 else data, **place))
    affine = np.eye(4)
    affine[:spatial, :spatial] = matrix[-spatial:, -spatial:][::-1, ::-1]
    affine[:spatial, 3] = offset[-spatial:][::-1]
    order = [*range(data.ndim - 1, data.ndim - 1 - spatial, -1), *range(data.ndim - spatial)]
    return NIFTI.Nifti1Image(np.ascontiguousarray(data.transpose(order)), affine)
