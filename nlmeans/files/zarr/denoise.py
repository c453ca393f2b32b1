"""Denoise OME-Zarr images of any size into OME-Zarr, block by block, and go on where an interrupted run was.

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

from nlmeans.api import estimate_sigma
from nlmeans.core import arrays
from nlmeans.core.layout import Layout
from nlmeans.core.progress import Report, reporting
from nlmeans.engine.arguments import FilterArguments, spelled_out
from nlmeans.engine.settings import settings_from
from nlmeans.files import lock, nifti
from nlmeans.files.atomic import check_folder
from nlmeans.files.zarr import ngff
from nlmeans.files.zarr.ngff import ZarrImage
from nlmeans.files.zarr.run import ZarrRequest, started, volume_of
from nlmeans.noise.estimate import otsu_threshold, read_together, sample

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
    """Denoise an OME-Zarr image, or a zarr array, into an OME-Zarr image, within the memory allowed.

    Every volume, which is one time of one channel, is denoised on its own, with a sigma of its own. The new image has
    the version, axes, scales, type, chunks, shards, compression and all metadata of `source`, and a pyramid by the
    mean of 2 voxels. What it was made from and how is in its attribute ``nlmeans``.

    Until it is whole it lies beside `target` as ``.NAME.partial``. A run that was interrupted, by whatever, is gone on
    with by the next call with the same arguments: finished blocks are not computed again, and the result is the same,
    bit for bit where `memory`, `device` and threads are.

    Args:
        source: folder of an OME-Zarr image (version 0.4 or 0.5), or of a zarr array with two or three spatial axes.
        target: folder to make; its name ends in ``.zarr``.
        sigma: standard deviation of the noise, in image units: one number, or one per volume in the order of the axes;
            None estimates one for every volume.
        sigma_map: zarr of the spatial shape with sigma in every place, for noise that varies in space.
        mask: zarr of the spatial shape, not zero where to denoise; elsewhere voxels come back as they were.
        multiscale: number or name of the image to read where the group has several.
        spacing: ``"image"`` for the voxel size in the metadata; or as for `nlmeans.denoise`.
        overwrite: replace `target` if it exists, and what an interrupted run with other arguments left of it.
        progress: True for a bar, or a function called with the fraction done; returning ``False`` stops the run, which
            the next call goes on with.
        arguments: the other arguments of `nlmeans.denoise`. `memory` is for all that the run needs beyond
            what Python and torch themselves take.

    Returns:
        A line that says what was done.

    Raises:
        ValueError, TypeError: an argument is out of range or does not fit the image, which may be damaged.
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
    check_output(target, source, overwrite)
    for name in ("channels", "series"):
        if (axis := arguments.get(name)) is not None:
            raise ValueError(f"{name}={axis}: the axes of a zarr image say what they are; leave it out")
    if sigma == "map":
        raise ValueError(
            "sigma='map' is estimated from a whole volume in memory, and zarr images may be larger; give a number, "
            "None, or as sigma_map a zarr with sigma in every place"
        )
    if sigma is not None and sigma_map is not None:
        raise ValueError(f"sigma={sigma} and sigma_map={sigma_map} both say what the noise is; give one of them")
    image = ngff.read_image(source, multiscale)
    ngff.check_stored(image)
    places = image.volumes()
    given: Any = sigma if sigma is None or isinstance(sigma, str) else np.asarray(sigma).tolist()
    if isinstance(given, list) and len(given) != len(places):
        raise ValueError(f"sigma has {len(given)} numbers; give one, or one for each of the {len(places)} volumes")
    size: Any = image.spacing if isinstance(spacing, str) else spacing
    settings, _ = settings_from(given, {**arguments, "spacing": size})
    request = ZarrRequest(image, target, settings, beside(mask, image), beside(sigma_map, image))
    with (
        reporting(progress, source.name) as report,
        lock.held(target.with_name(f".{target.name}.lock"), target, wait=False),
    ):
        check_output(target, source, overwrite)  # another run may have finished it since
        run = started(request, overwrite)
        there = run.finished
        if there:
            log.info("%s: going on, %d of %d blocks are there already", target, there, run.total)
        run.complete(report)
    return f"{target}: {run.how}" + (f"; {there} of {run.total} blocks were there already" if there else "")


def beside(path: Path | str | None, image: ZarrImage) -> ZarrImage | None:
    """A mask or map that must have the spatial shape of the image."""
    if path is None:
        return None
    found = ngff.read_image(path)
    if found.spatial_shape != image.spatial_shape or len(found.volumes()) != 1:
        raise ValueError(
            f"{path} has shape {found.array.shape}, but {image.path} has the spatial shape {image.spatial_shape}"
        )
    return found


def check_output(target: Path, source: Path, overwrite: bool) -> None:
    """Refuse, before any work, what could not be written after it."""
    if not target.name.endswith(".zarr"):
        raise ValueError(f"{target} must end in .zarr, such as denoised.ome.zarr, as {source} is a zarr image")
    check_folder(target)
    if not nifti.apart(target, source):
        raise ValueError(f"{target} must be apart from {source}, which is never written to; choose another name")
    if target.exists() and not (target.is_dir() and nifti.is_zarr(target)):
        raise FileExistsError(f"{target} is something else than a zarr group; choose another name")
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} exists; choose another name or add --overwrite")


def noise_levels(source: Path, noise: str, mask: Path | None = None) -> list[tuple[str, float, float]]:
    """Of each volume what it is called, sigma, and the mean of the object, from evenly spaced parts of it."""
    image = ngff.read_image(source)
    ngff.check_stored(image)
    layout, cpu = Layout(image.spatial_shape, None, None), torch.device("cpu")
    places = [layout.index(0, box) for box in sample(layout.shape, OBJECT_SAMPLE)]
    inside = volume_of(beside(mask, image))
    found = []
    for place in image.volumes():
        volume = arrays.readable(image.volume(place), str(source))
        sigma = estimate_sigma(volume, noise=noise, mask=inside)
        values = read_together(volume, layout, places, cpu)
        within = values > otsu_threshold(values) if inside is None else read_together(inside, layout, places, cpu) != 0
        found.append((image.title(place), sigma, float(values[within].double().mean()) if within.any() else 0.0))
    return found


OBJECT_SAMPLE = 2**22
"""Voxels to know the brightness of a volume by."""


def middle_planes(source: Path, target: Path) -> tuple[list[npt.NDArray[Any]], tuple[float, float]]:
    """The middle of the middle plane of the first volume, before and after, and the size of its pixels.

    Their axes run right and up, as `report.figure` has them; those of the image run down and right.
    """
    images = [ngff.read_image(path) for path in (source, target)]
    shape = images[0].spatial_shape
    sizes = (1,) * (len(shape) - 2) + (PICTURE, PICTURE)
    starts = [max(0, (n - size) // 2) for n, size in zip(shape, sizes, strict=True)]
    place = tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))
    planes = [image.volume(image.volumes()[0])[place] for image in images]
    height, width = images[0].spacing[-2:]
    return [plane.reshape(plane.shape[-2:])[::-1].T for plane in planes], (width, height)


PICTURE = 1024
"""Pixels along either axis of a plane that is shown, of more those in the middle."""
