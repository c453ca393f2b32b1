"""The front door: any array in, the same type, shape, dtype and device out."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from nlmeans import arrays, checks
from nlmeans.checks import Radius
from nlmeans.layout import Layout
from nlmeans.memory import allowed
from nlmeans.methods import METHODS, pick
from nlmeans.progress import Report, part, reporting
from nlmeans.settings import Settings
from nlmeans.task import Task
from nlmeans.tiles import Piece

log = logging.getLogger("nlmeans")

VolumeT = TypeVar("VolumeT", bound=arrays.Readable)


def denoise(
    volume: VolumeT,
    sigma: float | Sequence[float] | str | arrays.Readable | None = None,
    *,
    method: str = "auto",
    noise: str = "gaussian",
    gain: float = 1.0,
    offset: float = 0.0,
    h: float | None = None,
    patch_radius: Radius | None = None,
    search_radius: Radius | None = None,
    mask: arrays.Readable | None = None,
    spacing: Sequence[float] | None = None,
    channels: int | None = None,
    series: int | None = None,
    despeckle: bool = False,
    seed: int = 0,
    backend: str = "auto",
    device: str | torch.device | None = None,
    memory: int | str | None = None,
    dtype: str | None = None,
    out: arrays.Writable | None = None,
    progress: bool | Report | None = None,
) -> VolumeT:
    """Denoise an image, a volume, or a series of volumes.

    Args:
        volume: (H, W) or (D, H, W), with one more axis for each of `channels` and `series`; real numpy array or torch
            tensor, any dtype, finite; or anything else that gives numpy arrays when sliced, such as a zarr array, an
            h5py dataset or a NIfTI image's ``dataobj``. Those, and numpy.memmap, are read piece by piece and may be
            larger than memory; a ``.nii.gz`` is slow that way, for each piece it is decompressed from its start.
            It is never written to.
        sigma: standard deviation of the noise, in image units: one number; one per volume of the series (or per
            channel); or an array of the spatial shape for noise that varies in space. None estimates one number
            (`estimate_sigma`), ``"map"`` such an array.
        method: a name in `nlmeans.METHODS`, or ``"auto"``: `bayes`, but for volumes for which it would take too long
            or too much memory. The log (level INFO) says what it picked, and why.
        noise: ``"gaussian"``, or ``"rician"`` for MR magnitude images: the bias that such noise adds is removed, so
            that the background goes to zero; or ``"poisson"`` for counts of photons or decays: sigma is then the read
            noise of the detector, None for none.
        gain: image units per photon, for Poisson noise.
        offset: image value without any photon, for Poisson noise.
        h: filter strength in image units; None for the method's own multiple of sigma. Larger is smoother. With a map
            of sigma, the strength where sigma is largest; elsewhere it follows the map. With Poisson noise, in units
            of the noise.
        patch_radius: voxels, for all axes or one per axis; patches are 2r + 1 wide. None for the method's own.
        search_radius: voxels, likewise, of the window in which similar voxels are sought.
        mask: where to denoise, of the spatial shape; voxels where it is zero come back as they were.
        spacing: voxel size in mm, one number per spatial axis. A radius given as one number, or not given, then spans
            the same distance along all axes, counted in voxels of the smallest size: thick slices get a flat window.
        channels: axis of channels that are compared together, such as RGB. None: all axes are spatial.
        series: axis of volumes to denoise one by one, such as the repetitions of a 4D scan. Given as `channels`
            instead they share their weights: what is alike is decided by all volumes together.
        despeckle: replace impulses and dead voxels first; see `despeckle`.
        seed: of the method ``"stochastic"``, which repeats exactly with the same seed.
        backend: ``"auto"``, ``"cpu"``, ``"gpu"``, ``"loop"``, ``"full"`` or ``"windowed"``, which approximates.
        device: where to compute, such as ``"cuda"``; None for where the volume lies.
        memory: bytes to work in (or text, ``"2GB"``): larger volumes are cut into overlapping tiles, which changes
            nothing in the result. None for half the free memory.
        dtype: ``"float16"``, ``"float32"`` or ``"float64"`` for a result of that type; None for the volume's own.
        out: where to write the result, of the volume's shape: a numpy array, a memory map, a zarr array or the like, of
            the volume's dtype, one that holds all its values, or floating point.
        progress: True for a bar, or a function called with the fraction done; returning ``False`` cancels.

    Returns:
        `out` if it is given. Else same type, shape, device, and dtype unless `dtype` is given; a numpy array for a
        volume that is read by slicing. Integers are rounded and clipped. Computed in float32.

    Raises:
        ValueError, TypeError: an argument is out of range or does not fit the volume; the message names a remedy.
        Cancelled: `progress` returned ``False``.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> noisy = (100 + 8 * rng.standard_normal((24, 24, 24))).astype(np.int16)
        >>> denoised = denoise(noisy, sigma=8)
        >>> denoised.dtype, bool(denoised.std() < 0.3 * noisy.std())
        (dtype('int16'), True)
    """
    settings, sigma_map = gather(
        sigma,
        method=method,
        noise=noise,
        gain=gain,
        offset=offset,
        h=h,
        patch_radius=patch_radius,
        search_radius=search_radius,
        spacing=spacing,
        channels=channels,
        series=series,
        despeckle=despeckle,
        seed=seed,
        backend=backend,
        device=device,
        memory=memory,
        dtype=dtype,
    )
    if arrays.is_dask(volume):
        if out is not None or progress:
            raise ValueError(
                "out and progress are for what is computed at once; of a dask array store the result, with its "
                "to_zarr() or dask.array.store(), and watch dask's ProgressBar or dashboard"
            )
        from nlmeans.dask import denoised

        return cast(VolumeT, denoised(volume, settings, mask, sigma_map))
    with reporting(progress, "denoising") as report:
        return run(volume, settings, mask=mask, sigma_map=sigma_map, out=out, progress=report)


def preview(
    volume: VolumeT,
    index: int,
    axis: int = 0,
    sigma: float | Sequence[float] | str | arrays.Readable | None = None,
    *,
    mask: arrays.Readable | None = None,
    progress: bool | Report | None = None,
    **settings: Any,
) -> VolumeT:
    """Denoise one slice of a volume, as it will be in the whole result, from the slab that it depends on.

    Args:
        volume: (D, H, W), or with `channels` or `series`, as for `denoise`.
        index: which slice; negative numbers count from the end.
        axis: the spatial axis of `volume` that it is a slice across.
        sigma: as for `denoise`. If None it is estimated from the whole volume, at every call: pass it where speed
            matters.
        mask: as for `denoise`, for the whole volume.
        progress: as for `denoise`.
        settings: the other arguments of `denoise`, by name.

    Returns:
        The slice, without `axis`, equal to ``denoise(volume, ...).take(index, axis)`` up to rounding.

    Raises:
        ValueError, TypeError, Cancelled: as for `denoise`, and if there is no such slice.

    Example:
        >>> import numpy as np
        >>> noisy = np.random.default_rng(0).standard_normal((20, 24, 28))
        >>> one = preview(noisy, 10, axis=1, sigma=1.0)
        >>> one.shape, bool(np.allclose(one, denoise(noisy, sigma=1.0)[:, 10], atol=1e-5))
        ((20, 28), True)
    """
    gathered, sigma_map = gather(sigma, **settings)
    source = arrays.readable(volume, "volume")
    layout = Layout.of(source, gathered.channels, gathered.series)
    axis = checks.axis("axis", axis, source.ndim)
    if axis not in layout.spatial_axes or len(layout.spatial_axes) != 3:
        raise ValueError(f"axis={axis} must be one of the three spatial axes of a volume: {layout.spatial_axes}")
    length = source.shape[axis]
    if not -length <= index < length:
        raise ValueError(f"index={index} is not among the {length} slices across axis {axis}")
    region = list(layout.everywhere)
    region[layout.spatial_axes.index(axis)] = slice(index % length, index % length + 1)
    d, h, w = region
    with reporting(progress, "preview") as report:
        result: Any = run(source, gathered, mask=mask, sigma_map=sigma_map, progress=report, region=(d, h, w))
    return cast(VolumeT, result.squeeze(axis))


def usual_h(
    volume: arrays.Readable,
    sigma: float | Sequence[float] | str | arrays.Readable | None = None,
    *,
    mask: arrays.Readable | None = None,
    **settings: Any,
) -> float:
    """The filter strength in image units that ``h=None`` stands for; of a series, that of the first volume.

    It is a multiple of sigma, 0.6 to 1.0 for `classic` in 3D: the more, the more the values of the volume span beside
    sigma. With Poisson noise it is in units of the noise.

    Args:
        volume: as for `denoise`.
        sigma: as for `denoise`.
        mask: as for `denoise`.
        settings: the other arguments of `denoise`, by name.

    Raises:
        ValueError, TypeError: as for `denoise`.

    Example:
        >>> import numpy as np
        >>> volume = np.linspace(0, 1000, 4096).reshape(16, 16, 16)
        >>> [round(usual_h(volume, sigma, method="classic"), 1) for sigma in (100.0, 10.0)]
        [64.9, 10.0]
    """
    gathered, sigma_map = gather(sigma, **{**settings, "h": None})
    source = arrays.readable(volume, "volume")
    layout = Layout.of(source, gathered.channels, gathered.series)
    where, levels = readable_beside(mask, "mask", layout), readable_beside(sigma_map, "sigma", layout)
    task = Task.of(source, 0, layout, resolve(gathered, layout), where, levels, layout.everywhere)
    return task.h * task.mean_sigma


def gather(
    sigma: float | Sequence[float] | str | arrays.Readable | None, **arguments: Any
) -> tuple[Settings, arrays.Readable | None]:
    """Arguments of `denoise` as settings, and the map of sigma if it is one."""
    arguments = {
        name: tuple(np.atleast_1d(v).tolist()) if name == "spacing" and v is not None else v
        for name, v in arguments.items()
    }
    if arguments.get("device") is not None:
        arguments["device"] = str(arguments["device"])
    if isinstance(sigma, np.ndarray | Tensor) and sigma.ndim <= 1:
        sigma = sigma.tolist()
    elif isinstance(sigma, arrays.Readable) and not isinstance(sigma, np.generic):
        return Settings(**arguments), sigma
    if isinstance(sigma, Sequence) and not isinstance(sigma, str):
        sigma = tuple(sigma)
    return Settings(sigma=cast(Any, sigma), **arguments), None


def run(
    volume: VolumeT,
    settings: Settings,
    *,
    mask: arrays.Readable | None = None,
    sigma_map: arrays.Readable | None = None,
    out: arrays.Writable | None = None,
    progress: Report,
    region: Piece | None = None,
) -> VolumeT:
    """Denoise with `settings`: what every door comes to.

    `sigma_map` takes the place of ``settings.sigma``. Only the `region` of (D, H, W) is computed and returned, by
    default all.
    """
    source = arrays.readable(volume, "volume")
    layout = Layout.of(source, settings.channels, settings.series)
    where, levels = readable_beside(mask, "mask", layout), readable_beside(sigma_map, "sigma", layout)
    settings = resolve(settings, layout)
    region = layout.everywhere if region is None else region
    shape = layout.array_shape_of(region)
    if out is not None:
        arrays.check_out(out, source, shape, settings.dtype)
    result = arrays.empty_like(source, settings.dtype, shape) if out is None else out
    for index in range(layout.volumes):
        task = Task.of(source, index, layout, settings, where, levels, region)
        task.run(result, region, part(progress, index / layout.volumes, (index + 1) / layout.volumes))
    progress(1.0)
    return cast(VolumeT, result)


def readable_beside(array: arrays.Readable | None, name: str, layout: Layout) -> arrays.Source | None:
    """A mask or map, if it has the spatial shape."""
    if array is None:
        return None
    source = arrays.readable(array, name)
    layout.spatial(source, name)
    return source


def resolve(settings: Settings, layout: Layout) -> Settings:
    """Settings with the method picked and one radius per spatial axis.

    No window reaches farther than the opposite border: reflected beyond it, a voxel would be its own neighbour.
    """
    name = settings.method
    if name == "auto":
        memory = allowed(torch.device(settings.device or "cpu"), settings.memory)
        name, reason = pick(layout.shape, layout.channel_count, settings.backend, memory)
        log.info("method auto picked %s: %s", name, reason)
    method, dimensions = METHODS[name], len(layout.spatial_axes)

    if settings.spacing is not None and len(settings.spacing) != dimensions:
        raise ValueError(f"spacing={settings.spacing} must have one number per spatial axis: {dimensions}")

    def in_voxels(name: str, radius: Radius) -> tuple[int, ...]:
        if isinstance(radius, int) and settings.spacing is not None:
            radius = tuple(round(radius * min(settings.spacing) / size) for size in settings.spacing)
        per_axis = checks.radii(name, radius, dimensions)[-dimensions:]
        return tuple(min(r, n - 1) for r, n in zip(per_axis, layout.spatial_shape, strict=True))

    return dataclasses.replace(
        settings,
        method=name,
        patch_radius=in_voxels(
            "patch_radius", method.patch_radius if settings.patch_radius is None else settings.patch_radius
        ),
        search_radius=in_voxels(
            "search_radius", method.search_radius if settings.search_radius is None else settings.search_radius
        ),
    )
