"""Save a layer as NIfTI with the grid, header, affine, qform and sform of the file that its image came from."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from napari.layers import Image
from napari.utils.notifications import show_warning

from napari_nlm.geometry import matrix_and_offset
from napari_nlm.maps import MAP_MARK, MAPPED_IMAGE
from napari_nlm.marks import PROVENANCE_KEY
from napari_nlm.volume_view import LayerArray
from nlmeans.files import atomic, paths
from nlmeans.files.formats import nifti, registry
from nlmeans.files.maps import map_image

NIBABEL: Any = nib
"""nibabel, whose functions have no types."""

SAME_SCAN = 0.5
"""A layer shows the scan of a file if the mean squared difference is less than this share of the scan's variance."""

COMPARED_VALUES = 200_000
"""Number of values that are compared to find out how the axes of a layer lie in the file."""


@dataclass(frozen=True)
class Turn:
    """How the axes of a layer lie in a file: transposed, then some reversed."""

    order: tuple[int, ...]
    reversed: tuple[bool, ...]

    def apply(self, data: LayerArray) -> LayerArray:
        """The layer's data with the axes of the file."""
        steps = tuple(slice(None, None, -1 if flip else 1) for flip in self.reversed)
        return data.transpose(self.order)[steps]


def write_layer(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write one image layer to ``.nii`` or ``.nii.gz``, and how it was made to ``.json``.

    Returns the paths of what was written, as napari expects of a writer.
    """
    data = np.asarray(data[0] if isinstance(data, list | tuple) else data)
    target, metadata = Path(path), meta.get("metadata", {})
    record = metadata.get(PROVENANCE_KEY, {})
    if meta.get("rgb"):
        raise ValueError("NIfTI files have no colours here; save this layer as TIFF or PNG")
    paths.check_output_file(target, overwrite=True, endings=nifti.ENDINGS)
    original = check_not_original(target, record)
    image = like_the_source(data, metadata, original)
    if image is None:
        image = without_a_source(data, meta)
        show_warning(
            f"No NIfTI header is known for {meta.get('name', 'this layer')}, so {target.name} has the scale and "
            "position of the layer in napari; its axes may not be those of the patient"
        )
    return written_with_record(target, record, lambda file: nifti.write_nifti(image, file))


def check_not_original(target: Path, record: dict[str, Any]) -> Path | None:
    """Return the file that a layer came from, if it is known; raise ``ValueError`` if that is the one to write."""
    original = Path(record["path"]) if record.get("path") else None
    if original is not None and original.exists() and target.exists() and original.samefile(target):
        raise ValueError(f"{target} is the original scan, which is never overwritten; choose another name")
    return original


def written_with_record(target: Path, record: dict[str, Any], write: Callable[[Path], object]) -> list[str]:
    """Write a file, and next to it as ``.json`` how its layer was made, if that is known. Returns their paths."""
    if not record:
        with atomic.written_together(target) as (temporary,):
            write(temporary)
        return [str(target)]
    record_path = target.with_name(registry.without_ending(target.name) + ".json")
    with atomic.written_together(target, record_path) as (temporary, facts):
        write(temporary)
        facts.write_text(json.dumps(record, indent=2, default=str) + "\n", encoding="utf-8")
    return [str(target), str(record_path)]


def like_the_source(data: LayerArray, metadata: dict[str, Any], original: Path | None) -> Any:
    """An image with the grid and header of the layer's source; None if no header is known.

    A map shows something else than the scan, so the image that lies under it tells how its axes lie in the file.
    """
    record = metadata.get(PROVENANCE_KEY, {})
    volume, is_map = record.get("volume"), MAP_MARK in record
    keep_type = record.get("settings", {}).get("dtype") is None and not is_map
    shown = metadata.get(MAPPED_IMAGE, data)
    if original is not None and original.is_file() and original.name.endswith(nifti.ENDINGS):
        scan = nifti.read_nifti(original)
        grid = scan.data
        if scan.series is not None and (volume or (is_map and shown.size < grid.size)):
            grid = grid[..., volume[0] if volume else 0]
        turned = find_turn(shown, grid, data)
        if turned is None:
            raise ValueError(
                f"{original} does not show what this layer shows; the file may have changed since it was opened: "
                "open it again, denoise and save"
            )
        return map_image(scan, turned) if is_map else nifti.image_like(scan, turned, keep_type=keep_type)
    header = metadata.get("header")
    if isinstance(header, NIBABEL.Nifti1Header):
        return from_reader(data, header, keep_type)
    return None


def find_turn(shown: LayerArray, grid: LayerArray, data: LayerArray) -> LayerArray | None:
    """The layer's data with the axes of `grid`; None if no turn of what is shown resembles `grid`.

    Every reader turns images in its own way, so this compares the values of all turns and takes the most similar one.

    Args:
        shown: what resembles the scan: the data themselves, or the image that lies under a map.
        grid: the scan.
        data: what to turn, of the same shape as `shown`.
    """
    extra = shown.ndim - grid.ndim
    if extra > 0:  # one volume of a series has an axis of length 1
        single = tuple(axis for axis, n in enumerate(shown.shape) if n == 1)[:extra]
        shown, data = shown.squeeze(single), data.squeeze(single)
    if shown.ndim != grid.ndim:
        return None
    best, least = None, SAME_SCAN * float(np.var(thinned(grid).astype(np.float64)))
    for turn in turns(shown.shape, grid.shape):
        difference = float(np.mean((thinned(turn.apply(shown)).astype(np.float64) - thinned(grid)) ** 2))
        if difference < least or (best is None and difference == least):
            best, least = turn.apply(data), difference
    return best


def thinned(data: LayerArray) -> LayerArray:
    """Evenly spaced values of a large image; all values of a small one. NaN, which is outside, becomes 0."""
    step = max(1, round((data.size / COMPARED_VALUES) ** (1 / data.ndim)))
    return np.nan_to_num(data[(slice(None, None, step),) * data.ndim])


def turns(shape: tuple[int, ...], wanted: tuple[int, ...]) -> Iterator[Turn]:
    """All turns that lead from one shape to the other, the simplest first. Time is never reversed."""
    for order in itertools.permutations(range(len(shape))):
        if tuple(shape[axis] for axis in order) == wanted:
            for flips in itertools.product((False, True), repeat=min(len(shape), 3)):
                yield Turn(order, flips + (False,) * (len(shape) - len(flips)))


def from_reader(data: LayerArray, header: Any, keep_type: bool) -> Any:
    """An image from the header that napari-nifti leaves in the metadata.

    The reader turns a file whose axes are in the order x, y, z to superior, anterior, right. It permutes the axes of
    other files in a way that the header does not tell (as of version 0.0.20).
    """
    shape = tuple(int(n) for n in header.get_data_shape())
    if NIBABEL.orientations.io_orientation(header.get_best_affine())[:, 0].tolist() != [0, 1, 2]:
        raise ValueError(
            "the original file is no longer in its place, and its header does not tell the order of the layer's axes; "
            "put it back, or open it from its new place and denoise again"
        )
    spatial = data.reshape(data.shape[:3]) if data.ndim == 4 and data.shape[3] == 1 else data
    to_file = NIBABEL.orientations.ornt_transform(
        NIBABEL.orientations.axcodes2ornt("RAS"), NIBABEL.orientations.io_orientation(header.get_best_affine())
    )
    turned = NIBABEL.orientations.apply_orientation(np.moveaxis(spatial, (0, 1, 2), (2, 1, 0)), to_file)
    if turned.shape[:3] != shape[:3]:
        raise ValueError(
            f"this layer has the shape {data.shape}, but the header in its metadata belongs to the shape {shape}; "
            "remove metadata['header'] to save without a header"
        )
    kind = NIBABEL.Nifti2Image if isinstance(header, NIBABEL.Nifti2Header) else NIBABEL.Nifti1Image
    image = kind(np.ascontiguousarray(turned), None, header)
    image.set_data_dtype(turned.dtype if keep_type else np.float32)
    return image


def without_a_source(data: LayerArray, meta: dict[str, Any]) -> Any:
    """An image with the layer's position in napari. The last axes of the layer become x, y and z."""
    if data.dtype == bool:
        data = data.astype(np.uint8)
    elif data.dtype.name in ("float16", "int64", "uint64"):
        data = data.astype(np.float32 if data.dtype.kind == "f" else np.int32)
    spatial = min(data.ndim, 3)
    place = {name: meta[name] for name in ("scale", "translate", "rotate", "shear", "affine") if name in meta}
    matrix, offset = matrix_and_offset(Image(np.empty(data.shape, bool) if data.size < 2**20 else data, **place))
    affine = np.eye(4)
    affine[:spatial, :spatial] = matrix[-spatial:, -spatial:][::-1, ::-1]
    affine[:spatial, 3] = offset[-spatial:][::-1]
    order = [*range(data.ndim - 1, data.ndim - 1 - spatial, -1), *range(data.ndim - spatial)]
    return NIBABEL.Nifti1Image(np.ascontiguousarray(data.transpose(order)), affine)
