"""Denoise OME-Zarr images of any size, block by block, and resume interrupted runs.

Needs ``pip install "nlmeans[zarr]"``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
import torch

from nlmeans.api import estimate_noise
from nlmeans.core import arrays
from nlmeans.core.layout import Layout
from nlmeans.core.progress import Report, reporting
from nlmeans.engine.arguments import FilterArguments, spelled_out
from nlmeans.engine.settings import settings_from
from nlmeans.files import lock
from nlmeans.files.paths import apart, check_folder, is_zarr
from nlmeans.files.scan import MeasuredNoise
from nlmeans.files.zarr import ngff
from nlmeans.files.zarr.ngff import ZarrImage
from nlmeans.files.zarr.run import ZarrRequest, only_volume, start_or_resume
from nlmeans.noise.search.estimate import read_pieces, sample_pieces
from nlmeans.noise.search.usable import object_threshold

log = logging.getLogger("nlmeans")


@spelled_out(FilterArguments)
def denoise_zarr(
    source: Path | str,
    target: Path | str,
    *,
    sigma: float | Sequence[float] | str | None = None,
    sigma_map: Path | str | None = None,
    mask: Path | str | None = None,
    multiscale: int | str = 0,
    spacing: Sequence[float] | str | None = "image",
    overwrite: bool = False,
    progress: bool | Report | None = None,
    **arguments: Unpack[FilterArguments],
) -> str:
    """Denoise an OME-Zarr image, or a zarr array, into an OME-Zarr image.

    A volume is one time point of one channel. Each is denoised on its own, with its own sigma, unless the method is
    ``"series"``: then the time points of a channel are denoised together. ``"auto"`` takes that for eight time points
    or more that have much in common. The new image has the version, axes, scales, type, chunks, shards, compression and
    all metadata of `source`. Its pyramid is computed
    again, as the mean of 2 voxels along each halved axis. The attribute ``nlmeans`` records how it was made.

    An unfinished result lies next to `target` as ``.NAME.partial``. If a run is interrupted, call this function again
    with the same arguments to resume. Finished blocks are not computed again. The result is the same, bit for bit if
    `memory`, `device` and the number of threads are the same.

    Args:
        source: folder of an OME-Zarr image (version 0.4 or 0.5), or of a zarr array with two or three spatial axes.
        target: folder to make; its name ends in ``.zarr``.
        sigma: standard deviation of the noise, in image units: one number, or one per volume in the order of the axes.
            None estimates one per volume.
        sigma_map: zarr array or image of the spatial shape, with sigma at every voxel.
        mask: zarr array or image of the spatial shape, not zero where to denoise. All other voxels stay unchanged.
        multiscale: number or name of the image to read, if the group has several.
        spacing: ``"image"`` for the voxel size in the metadata, or else as for `nlmeans.denoise`.
        overwrite: replace `target` if it exists, and delete what an interrupted run with other arguments left.
        progress: True for a bar, or a function that is called with the fraction done. If the function returns
            ``False``, the run stops, and the next call resumes it.
        arguments: further arguments of `nlmeans.denoise`. `memory` is what the run may use in addition to what Python
            and torch need.

    Returns:
        A line that says what was done.

    Raises:
        ValueError, TypeError: an argument is wrong or does not fit the image, or the image is damaged.
        FileExistsError: `target` exists, or an interrupted run had other arguments or another `source`.
        BlockingIOError: another run is writing `target`.
        Cancelled: `progress` returned ``False``.

    References:
        J. Moore et al., "OME-NGFF: a next-generation file format for expanding bioimaging data-access strategies",
        Nat. Methods 2021, doi:10.1038/s41592-021-01326-w.

    Example:
        >>> import tempfile, numpy as np, zarr
        >>> folder = Path(tempfile.mkdtemp())
        >>> noisy = 100 + 8 * np.random.default_rng(0).standard_normal((2, 24, 24, 24), dtype=np.float32)
        >>> _ = zarr.create_array(folder / "in.zarr", data=noisy, dimension_names=["c", "z", "y", "x"])
        >>> _ = denoise_zarr(folder / "in.zarr", folder / "out.ome.zarr", sigma=8)
        >>> denoised = zarr.open_group(folder / "out.ome.zarr", mode="r")["0"]
        >>> denoised.shape, bool(denoised[:].std() < 0.3 * noisy.std())
        ((2, 24, 24, 24), True)
    """
    source, target = Path(source), Path(target)
    check_zarr_output(target, source, overwrite)
    for name in ("channels", "series"):
        if (axis := arguments.get(name)) is not None:
            raise ValueError(f"{name}={axis} is not for zarr images, whose metadata name the axes; leave it out")
    if sigma == "map":
        raise ValueError(
            "sigma='map' needs a whole volume in memory, and zarr images may be larger; give a number or None, or pass "
            "sigma_map, a zarr array with sigma at every voxel"
        )
    if sigma is not None and sigma_map is not None:
        raise ValueError(f"sigma={sigma} and sigma_map={sigma_map} both describe the noise; give one of them")
    image = ngff.read_image(source, multiscale)
    ngff.check_stored(image)
    places = image.volumes()
    given: Any = sigma if sigma is None or isinstance(sigma, str) else np.asarray(sigma).tolist()
    if isinstance(given, list) and len(given) != len(places):
        raise ValueError(f"sigma has {len(given)} numbers; give one, or one for each of the {len(places)} volumes")
    size: Any = image.spacing if isinstance(spacing, str) else spacing
    settings, _ = settings_from(given, {**arguments, "spacing": size})
    request = ZarrRequest(image, target, settings, open_mask_or_map(mask, image), open_mask_or_map(sigma_map, image))
    with (
        reporting(progress, source.name) as report,
        lock.held(target.with_name(f".{target.name}.lock"), target, wait=False),
    ):
        check_zarr_output(target, source, overwrite)  # another run may have finished it meanwhile
        run = start_or_resume(request, overwrite)
        done = run.finished
        if done:
            log.info("%s: resuming, %d of %d blocks were done already", target, done, run.total)
        run.complete(report)
    return f"{target}: {run.how}" + (f"; {done} of {run.total} blocks were done already" if done else "")


def open_mask_or_map(path: Path | str | None, image: ZarrImage) -> ZarrImage | None:
    """Open a mask or a map of sigma, and check that it has the spatial shape of the image, and lies where it lies."""
    if path is None:
        return None
    found = ngff.read_image(path)
    if found.spatial_shape != image.spatial_shape or len(found.volumes()) != 1:
        raise ValueError(
            f"{path} has shape {found.array.shape}, but {image.path} has the spatial shape {image.spatial_shape}; give "
            "a mask or map of that shape"
        )
    if difference := image.difference_of_place(found):
        raise ValueError(
            f"{path} lies elsewhere than {image.path}: it has {difference}; resample it, or, if its metadata are "
            "wrong, give it those of the image"
        )
    return found


def check_zarr_output(target: Path, source: Path, overwrite: bool) -> None:
    """Raise an error, before any work, if the result cannot be written.

    Raises:
        ValueError: the name does not end in ``.zarr``, or `target` and `source` are the same or lie in each other.
        OSError: `target` exists without `overwrite`, is not a zarr group, or its folder cannot be written to.
    """
    if not target.name.endswith(".zarr"):
        raise ValueError(
            f"{target} must end in .zarr, for instance denoised.ome.zarr, because {source} is a zarr image"
        )
    check_folder(target)
    if not apart(target, source):
        raise ValueError(f"{target} must lie outside {source}, which is never written to; choose another name")
    if target.exists() and not (target.is_dir() and is_zarr(target)):
        raise FileExistsError(f"{target} exists and is not a zarr group; choose another name")
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} exists; choose another name or add --overwrite")


def zarr_noise(source: Path, kind: str, mask: Path | None = None) -> list[MeasuredNoise]:
    """Measure the noise in each volume of a zarr image, in evenly spaced parts of it.

    Args:
        source: folder of the image.
        kind: kind of noise; ``"auto"`` finds it.
        mask: zarr array or image of the spatial shape, not zero where to measure.
    """
    image = ngff.read_image(source)
    ngff.check_stored(image)
    layout, cpu = Layout(image.spatial_shape, None, None), torch.device("cpu")
    places = [layout.index(0, box) for box in sample_pieces(layout.shape, OBJECT_SAMPLE)]
    inside = only_volume(open_mask_or_map(mask, image))
    found = []
    for place in image.volumes():
        volume = arrays.readable(image.at(place), str(source))
        model = estimate_noise(volume, kind=kind, mask=inside)
        values = read_pieces(volume, layout, places, cpu)
        bright = values > object_threshold(values) if inside is None else read_pieces(inside, layout, places, cpu) != 0
        bright &= ~values.isnan()
        mean = float(values[bright].double().mean()) if bright.any() else 0.0
        found.append(MeasuredNoise(image.title(place), model, mean))
    return found


OBJECT_SAMPLE = 2**22
"""Voxels from which the mean of the object is computed, per volume."""


def middle_planes(source: Path, target: Path) -> tuple[list[npt.NDArray[Any]], tuple[float, float]]:
    """Read the centre of the middle plane of the first volume, before and after.

    Returns:
        Both planes, with axes that run right and up as `figure.before_and_after` expects them (those of the image run
        down and right), and the size of a pixel along these axes.
    """
    images = [ngff.read_image(path) for path in (source, target)]
    shape = images[0].spatial_shape
    sizes = (1,) * (len(shape) - 2) + (PICTURE, PICTURE)
    starts = [max(0, (n - size) // 2) for n, size in zip(shape, sizes, strict=True)]
    place = tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))
    planes = [image.at(image.volumes()[0])[place] for image in images]
    height, width = images[0].spacing[-2:]
    return [plane.reshape(plane.shape[-2:])[::-1].T for plane in planes], (width, height)


PICTURE = 1024
"""Largest number of pixels along an axis of the plane; a larger plane is cropped to its centre."""
