"""Save a layer under a name whose ending chooses the format, like the file that its image came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image

from napari_nlm.layer_source import CHANNEL_NAMES, SERIES_NAMES, AxisRoles, LayerSource
from napari_nlm.marks import PROVENANCE_KEY
from napari_nlm.nifti import check_not_original, write_layer, written_with_record
from napari_nlm.streaming import new_zarr
from nlmeans.files import paths
from nlmeans.files.formats import nifti, registry
from nlmeans.files.formats.axes import of_named_axes

TIFF_ENDINGS, ZARR_ENDING = (".ome.tif", ".ome.tiff", ".tif", ".tiff"), ".zarr"

FILTERS = {
    "NIfTI (*.nii.gz *.nii)": nifti.ENDINGS,
    "TIFF, ImageJ or OME-TIFF (*.tif *.tiff)": TIFF_ENDINGS,
    "OME-Zarr (*.zarr)": (ZARR_ENDING,),
}
"""What the dialog offers, and the endings of each."""


def filter_for(name: str) -> str:
    """The filter of the dialog that a file name has.

    >>> filter_for("cells_denoised.ome.tif")
    'TIFF, ImageJ or OME-TIFF (*.tif *.tiff)'
    """
    return next((title for title, endings in FILTERS.items() if name.lower().endswith(endings)), next(iter(FILTERS)))


def with_ending(name: str, chosen: str) -> str:
    """A file name, with the ending of the chosen filter if it has none that can be written.

    >>> with_ending("cells", "OME-Zarr (*.zarr)"), with_ending("cells.tif", "OME-Zarr (*.zarr)")
    ('cells.zarr', 'cells.tif')
    """
    known = any(name.lower().endswith(endings) for endings in FILTERS.values())
    return name if known else name + FILTERS.get(chosen, nifti.ENDINGS)[-1 if "TIFF" in chosen else 0]


def save_layer(path: Path, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write one image layer, and how it was made to ``.json`` next to it, or to the attributes of an OME-Zarr image.

    Args:
        path: its ending is one of `FILTERS`.
        data: of the layer; the levels of a pyramid in a list.
        meta: what napari tells writers of a layer.

    Returns:
        the paths of what was written.

    Raises:
        ValueError: the format cannot hold the layer, its library is missing, or `path` is the file of the source.
        OSError: the file cannot be written.
    """
    name = path.name.lower()
    if name.endswith(ZARR_ENDING):
        return save_zarr(path, Image.create(data, meta, "image"))
    if name.endswith(TIFF_ENDINGS):
        return save_tiff(path, Image.create(data, meta, "image"))
    return write_layer(str(path), data, meta)


def record_of(layer: Image) -> dict[str, Any]:
    """How a layer was made."""
    return dict(layer.metadata.get(PROVENANCE_KEY) or {})


def source_of(layer: Image) -> LayerSource:
    """A layer with the axes that the run which made it was told, if there was one."""
    roles: dict[str, Any] = record_of(layer).get("axes") or {}
    axes = AxisRoles(tuple(roles["spatial"]), roles["channels"], tuple(roles["separate"])) if roles else None
    many = 0 if axes is None else len(axes.spatial) + (axes.channels is not None) + len(axes.separate)
    return LayerSource.of(layer, axes if many == layer.ndim + bool(layer.rgb) else None)


# ---------------------------------------------------------------- OME-Zarr


def save_zarr(path: Path, layer: Image) -> list[str]:
    """Write a layer as an OME-Zarr image with a pyramid: stored like that of its source, if it came from one."""
    check_not_original(path, record_of(layer))
    with registry.needs_extra("zarr", f"{path} is a zarr image; to write it"):
        import dask.array as da

    source = source_of(layer)

    def fill(array: Any) -> dict[str, Any]:
        if isinstance(source.data, np.ndarray):
            array[...] = source.data
        else:
            da.store(da.asarray(source.data), array)
        return record_of(layer)

    new_zarr(path, source, source.shape, source.data.dtype, fill)
    return [str(path)]


# ---------------------------------------------------------------- TIFF


def save_tiff(path: Path, layer: Image) -> list[str]:
    """Write a layer as TIFF, with the axes and voxel sizes of the TIFF file that it came from, or else of the layer."""
    record = record_of(layer)
    check_not_original(path, record)
    paths.check_output_file(path, overwrite=True, endings=TIFF_ENDINGS)
    with registry.needs_extra("formats", f"{path} is a TIFF file; to write it"):
        import tifffile
    data = np.asarray(layer.data[0] if layer.multiscale else layer.data)
    if layer.rgb:
        return written_with_record(path, record, lambda file: tifffile.imwrite(file, data, photometric="rgb"))
    axes, sizes, step = tiff_axes(layer, data.shape)
    image = of_named_axes(data, axes, sizes, step, path)
    return written_with_record(path, record, lambda file: registry.write_format(image, path, [file]))


def tiff_axes(layer: Image, shape: tuple[int, ...]) -> tuple[str, dict[str, float], float | None]:
    """The letter of each axis, voxel sizes in mm along X, Y and Z, and seconds between volumes."""
    import tifffile

    from nlmeans.files.formats.tiff import MILLIMETRES, sizes_of

    source = source_of(layer)
    letters = letters_of(source)
    of_layer = {
        letters[axis]: abs(float(layer.scale[axis])) * MILLIMETRES[str(layer.units[axis])]
        for axis in source.axes.spatial
        if str(layer.units[axis]) in MILLIMETRES
    }
    original = source.path
    if original is None or not original.is_file() or not original.name.lower().endswith(TIFF_ENDINGS):
        return letters, of_layer, None
    with tifffile.TiffFile(original) as file:
        axes, stored = file.series[0].axes, file.series[0].shape
        sizes, step = sizes_of(file)
    fits = len(stored) == len(shape) and all(n in (1, m) for n, m in zip(shape, stored, strict=True))
    return (axes if fits else letters), of_layer | sizes, step


def letters_of(source: LayerSource) -> str:
    """A letter of TIFF for each axis of a layer.

    Raises:
        ValueError: it has more axes than time, channels and space.
    """
    spatial, names = source.axes.spatial, source.axis_names
    letters = dict(zip(spatial, "ZYX"[-len(spatial) :], strict=True))
    for axis, name in enumerate(names):
        if axis not in letters:
            letter = "T" if name.lower() in SERIES_NAMES else "C" if name.lower() in CHANNEL_NAMES else ""
            letters[axis] = letter if letter and letter not in letters.values() else free_letter(letters, source)
    return "".join(letters[axis] for axis in range(len(names)))


def free_letter(letters: dict[int, str], source: LayerSource) -> str:
    """A letter that no axis has yet."""
    free = [letter for letter in "TCZ" if letter not in letters.values()]
    if not free:
        raise ValueError(
            f"{source.layer.name} has {len(source.shape)} axes, and TIFF has time, channels and space alone; save it "
            "as OME-Zarr"
        )
    return free[0]
