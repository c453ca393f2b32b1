"""Python functions of the package: they take any array and return the same type, shape, dtype and device."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, Unpack, cast, overload

import numpy as np
import numpy.typing as npt

from nlmeans.core import arrays, checks
from nlmeans.core.layout import Layout
from nlmeans.core.progress import Report, reporting
from nlmeans.engine.arguments import Arguments, spelled_out
from nlmeans.engine.choices import Choices
from nlmeans.engine.plan import Plan
from nlmeans.engine.run import VolumeT, denoise_array, readable_spatial
from nlmeans.engine.settings import GivenSigma, settings_from
from nlmeans.noise.estimate import (
    SigmaMap,
    affordable_voxels,
    read_mask,
    read_pieces,
    sample_pieces,
    sigma_levels,
    sigma_maps,
)
from nlmeans.noise.found import model_of_volume
from nlmeans.noise.model import NoiseModel


@spelled_out(Arguments)
def denoise(
    volume: VolumeT,
    sigma: GivenSigma = None,
    *,
    mask: arrays.Readable | None = None,
    out: arrays.Writable | None = None,
    progress: bool | Report | None = None,
    **arguments: Unpack[Arguments],
) -> VolumeT:
    """Denoise an image, a volume, or a series of volumes.

    Args:
        volume: (H, W) or (D, H, W), with one more axis each for `channels` and `series`. A numpy array or torch tensor
            of finite real numbers, of any dtype; a dask array; or anything that gives numpy arrays when sliced, such as
            a zarr array, an h5py dataset or a NIfTI image's ``dataobj``. Such arrays and numpy.memmap are read piece by
            piece and may be larger than memory. A ``.nii.gz`` is slow that way, because every piece is decompressed
            from the start of the file. The input is never written to.
        sigma: standard deviation of the noise, in image units: one number; one per volume of the series, or per
            channel; or an array of the spatial shape, for noise that varies in space. None estimates one number
            (see `estimate_sigma`), and ``"map"`` estimates an array.
        method: a name in `nlmeans.METHODS`, or ``"auto"``: `bayes`, unless the volume would take more than ten minutes
            or more memory than is free. The log (level INFO) says which method was chosen, and why.
        noise: ``"gaussian"``; ``"rician"`` for MR magnitude images, which also removes the bias of such noise, so that
            the background becomes zero; or ``"poisson"`` for counts of photons or decays. For Poisson noise, `sigma` is
            the read noise of the detector, and None means that there is none. Or a `NoiseModel`, such as
            `estimate_noise` finds, which says whether the noise of neighbours is correlated. `sigma`, `gain`, `offset`
            and `correlation` win over those of the model.
        gain: image units per photon, for Poisson noise.
        offset: image value where no photon arrives, for Poisson noise.
        correlation: autocovariance of the noise in units of sigma², as in a `NoiseModel`; None for white noise. It
            needs `sigma`.
        h: filter strength in image units; larger values smooth more. None for the method's own multiple of sigma. With
            a map of sigma, `h` is the strength where sigma is largest; elsewhere it follows the map. With Poisson
            noise, `h` is in units of the noise.
        patch_radius: voxels, one number for all axes or one per axis; a patch is 2r + 1 voxels wide. None for the
            method's own.
        search_radius: voxels, one number for all axes or one per axis; the search window is 2r + 1 voxels wide. None
            for the method's own.
        mask: array of the spatial shape. Voxels where it is zero come back unchanged.
        spacing: voxel size in mm, one number per spatial axis. A radius that is one number, or not given, then spans
            the same distance along all axes, counted in voxels of the smallest size: thick slices get a flat window.
        channels: the axis of channels that are compared together, such as RGB. None if there is no such axis.
        series: the axis of volumes that are denoised one by one, such as the repetitions of a 4D scan. Name the axis
            `channels` instead to let all volumes decide together which voxels are similar. None if there is no such
            axis.
        despeckle: replace impulses and dead voxels first; see `despeckle`.
        seed: random seed for the method ``"stochastic"``; the same seed repeats the same result.
        backend: ``"auto"``, ``"cpu"``, ``"gpu"``, ``"loop"``, ``"full"`` or ``"windowed"``, which is an approximation.
        device: where to compute, such as ``"cuda"``; None for the device that holds the volume.
        memory: bytes to work in, or text such as ``"2GB"``. Larger volumes are cut into overlapping tiles, which does
            not change the result. None for half the free memory.
        dtype: ``"float16"``, ``"float32"`` or ``"float64"`` for a result of that type; None for that of the volume.
        out: the array to write the result to: a numpy array, a memory map, a zarr array or the like. It has the
            volume's shape, and the volume's dtype, a dtype that holds all its values, or a floating-point dtype.
        progress: True for a progress bar, or a function that is called with the fraction done; returning ``False``
            cancels the run.

    Returns:
        `out` if it is given. Otherwise an array of the same type, shape and device as the volume, and of its dtype
        unless `dtype` is given. A volume that is read by slicing gives a numpy array. A dask array gives a dask array
        that is computed later. Integers are rounded and clipped. All methods compute in float32.

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
    settings, sigma_map = settings_from(sigma, arguments)
    if arrays.is_dask(volume):
        if out is not None or progress:
            raise ValueError(
                "out= and progress= do not work with a dask array, whose result is computed later; store the result "
                "with its to_zarr() or dask.array.store(), and watch dask's ProgressBar or dashboard"
            )
        from nlmeans.engine.dask import denoised_lazily

        return cast(VolumeT, denoised_lazily(volume, settings, mask, sigma_map))
    with reporting(progress, "denoising") as report:
        return denoise_array(volume, settings, mask=mask, sigma_map=sigma_map, out=out, progress=report)


@spelled_out(Arguments)
def preview(
    volume: VolumeT,
    index: int,
    axis: int = 0,
    sigma: GivenSigma = None,
    *,
    mask: arrays.Readable | None = None,
    progress: bool | Report | None = None,
    **arguments: Unpack[Arguments],
) -> VolumeT:
    """Denoise one slice of a volume, with the same result as denoising the whole volume.

    Only the slab that the slice depends on is computed.

    Args:
        volume: (D, H, W), or with `channels` or `series`, as for `denoise`.
        index: number of the slice; negative numbers count from the end.
        axis: the spatial axis of `volume` that the slice is perpendicular to.
        sigma: as for `denoise`. None estimates it from the whole volume at every call; pass it to save time.
        mask: as for `denoise`, for the whole volume.
        progress: as for `denoise`.
        arguments: the other arguments of `denoise`.

    Returns:
        The slice, without `axis`. It equals ``denoise(volume, ...).take(index, axis)`` up to rounding.

    Raises:
        ValueError, TypeError, Cancelled: as for `denoise`. ValueError also if there is no such slice.

    Example:
        >>> import numpy as np
        >>> noisy = np.random.default_rng(0).standard_normal((20, 24, 28))
        >>> one = preview(noisy, 10, axis=1, sigma=1.0)
        >>> one.shape, bool(np.allclose(one, denoise(noisy, sigma=1.0)[:, 10], atol=1e-5))
        ((20, 28), True)
    """
    settings, sigma_map = settings_from(sigma, arguments)
    source = arrays.readable(volume, "volume")
    layout = Layout.of(source, settings.channels, settings.series)
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
        result: Any = denoise_array(source, settings, mask=mask, sigma_map=sigma_map, progress=report, region=(d, h, w))
    return cast(VolumeT, result.squeeze(axis))


@spelled_out(Arguments)
def usual_h(
    volume: arrays.Readable,
    sigma: GivenSigma = None,
    *,
    mask: arrays.Readable | None = None,
    **arguments: Unpack[Arguments],
) -> float:
    """Return the filter strength that ``h=None`` stands for, in image units.

    It is a multiple of sigma: 0.6 to 1.0 for `classic` in 3D. The multiple grows with the range of the volume's values
    relative to sigma. With Poisson noise, the result is in units of the noise. For a series, it is that of the first
    volume.

    Args:
        volume: as for `denoise`.
        sigma: as for `denoise`.
        mask: as for `denoise`.
        arguments: the other arguments of `denoise`.

    Returns:
        The filter strength.

    Raises:
        ValueError, TypeError: as for `denoise`.

    Example:
        >>> import numpy as np
        >>> volume = np.linspace(0, 1000, 4096).reshape(16, 16, 16)
        >>> [round(usual_h(volume, sigma, method="classic"), 1) for sigma in (100.0, 10.0)]
        [64.9, 10.0]
    """
    settings, sigma_map = settings_from(sigma, arguments)
    settings = dataclasses.replace(settings, h=None)
    source = arrays.readable(volume, "volume")
    layout = Layout.of(source, settings.channels, settings.series)
    where, given = readable_spatial(mask, "mask", layout), readable_spatial(sigma_map, "sigma", layout)
    plan = Plan.of(source, 0, layout, Choices.of(settings, layout), mask=where, sigma_map=given)
    return plan.h * plan.facts.unit


@overload
def estimate_sigma(
    volume: arrays.Readable,
    *,
    noise: str = ...,
    mask: arrays.Readable | None = ...,
    map: Literal[False] = ...,
    channels: None = ...,
    series: None = ...,
) -> float: ...
@overload
def estimate_sigma(
    volume: arrays.Readable,
    *,
    noise: str = ...,
    mask: arrays.Readable | None = ...,
    map: Literal[False] = ...,
    channels: int | None = ...,
    series: int | None = ...,
) -> float | npt.NDArray[np.float64]: ...
@overload
def estimate_sigma(
    volume: arrays.Readable,
    *,
    noise: str = ...,
    mask: arrays.Readable | None = ...,
    map: Literal[True],
    channels: int | None = ...,
    series: int | None = ...,
) -> SigmaMap: ...
def estimate_sigma(
    volume: arrays.Readable,
    *,
    noise: str = "gaussian",
    mask: arrays.Readable | None = None,
    map: bool = False,
    channels: int | None = None,
    series: int | None = None,
) -> float | npt.NDArray[np.float64] | SigmaMap:
    """Estimate the standard deviation of the noise, in image units.

    The estimate is the deviation of the finest detail (second differences along all axes) in the flattest parts of the
    object. The object is what lies above Otsu's threshold, or inside `mask`. Voxels next to exact zeros, as in a
    removed background, do not count. Interpolated, zero-filled or smoothed scans have correlated noise, for which the
    estimate is too low: pass your own sigma to `denoise` instead.

    Args:
        volume: (H, W) or (D, H, W), plus the axes that `channels` and `series` name; an array as for `denoise`. A
            volume of more than 16 million voxels is sampled in evenly spaced parts. One that is read by slicing is
            sampled as far as half the free memory allows.
        noise: ``"gaussian"``, or ``"rician"`` for MR magnitude images, in which dark voxels vary less than sigma.
        mask: array of the spatial shape. Voxels where it is not zero are measured; None for Otsu's threshold.
        map: True to estimate sigma at every voxel, for noise that varies in space, as after parallel imaging. The map
            also depends on the background, unless this is exactly zero or outside `mask`.
        channels: axis of channels, each with its own sigma.
        series: axis of volumes, each with its own sigma.

    Returns:
        A float; with `series` an array (T,), with `channels` (C,), with both (T, C). With `map`, a smooth float32 array
        of the volume's shape. 0 if there is no noise.

    Raises:
        ValueError, TypeError: an argument is out of range or does not fit the volume.

    References:
        J. Immerkær, "Fast noise variance estimation", Comput. Vis. Image Underst. 1996, doi:10.1006/cviu.1996.0060
        (second differences). C. G. Koay, P. J. Basser, "Analytically exact correction scheme for signal
        extraction from noisy magnitude MR signals", J. Magn. Reson. 2006, doi:10.1016/j.jmr.2006.01.016.

    Example:
        >>> import numpy as np
        >>> noisy = 100 + 5 * np.random.default_rng(0).standard_normal((32, 32, 32))
        >>> round(estimate_sigma(noisy), 1)
        5.0
    """
    checks.choice("noise", noise, ("gaussian", "rician"))
    if arrays.is_dask(volume) and not map:
        from nlmeans.engine.dask import estimated_levels

        return with_axes(estimated_levels(volume, channels, series, noise, mask), channels, series)
    source = arrays.readable(volume, "volume")
    layout = Layout.of(source, channels, series)
    where = None if mask is None else arrays.readable(mask, "mask")
    if where is not None:
        layout.spatial(where, "mask")
    if map:
        maps = [sigma_maps(source, index, layout, noise, where) for index in range(layout.volumes)]
        return np.concatenate(maps, axis=series or 0)
    found = [sigma_levels(source, index, layout, noise, where) for index in range(layout.volumes)]
    return with_axes(found, channels, series)


def estimate_noise(
    volume: arrays.Readable, *, kind: str = "gaussian", mask: arrays.Readable | None = None
) -> NoiseModel:
    """Find the level of the noise, and whether neighbouring voxels have noise in common.

    Interpolation, zero-filling, filters in k-space and the reconstruction kernels of CT correlate the noise of
    neighbours. `estimate_sigma` then sees only the part of the noise that changes from voxel to voxel. This function
    also measures level and autocovariance in the flattest blocks of the volume. If both say that the noise is
    correlated, the model has this level and this autocovariance. Otherwise the noise is white, and sigma is that of
    `estimate_sigma`.

    Args:
        volume: (H, W) or (D, H, W), as for `denoise`.
        kind: ``"gaussian"``, or ``"rician"`` for magnitude images.
        mask: where to look, of the spatial shape.

    Returns:
        The model, to be passed as ``denoise(volume, noise=model)``. Its `evidence` says why.

    Raises:
        ValueError, TypeError: an argument is out of range or does not fit the volume.

    References:
        M. Lebrun, M. Colom, J.-M. Morel, "Multiscale image blind denoising", IEEE Transactions on Image Processing 24,
        2015, doi:10.1109/TIP.2015.2439041 (the covariance of noise from the flattest blocks).

    Example:
        >>> import numpy as np
        >>> white = np.random.default_rng(0).standard_normal((2, 40, 40, 40)).cumsum(0)[1]
        >>> smooth = 100 + 10 * (white[:, :, 1:] + white[:, :, :-1])
        >>> model = estimate_noise(smooth)
        >>> bool(abs(model.sigma - 20) < 1), model.correlation is not None
        (True, True)
    """
    checks.choice("kind", kind, ("gaussian", "rician"))
    source = arrays.readable(volume, "volume")
    layout = Layout.of(source, None, None)
    where = readable_spatial(mask, "mask", layout)
    device = arrays.device_of(source)
    pieces = sample_pieces(layout.shape, affordable_voxels(source, None))
    inside = read_mask(where, layout, pieces, device)
    values = read_pieces(source, layout, [layout.index(0, place) for place in pieces], device)
    arrays.value_range(values, "volume")
    return model_of_volume(values, kind, inside)


def with_axes(
    found: list[tuple[float, ...]], channels: int | None, series: int | None
) -> float | npt.NDArray[np.float64]:
    """Arrange the estimates of all volumes and channels along the axes that were named."""
    if channels is None and series is None:
        return float(found[0][0])
    estimates = np.array(found)
    return estimates.reshape(
        [n for n, axis in zip(estimates.shape, (series, channels), strict=True) if axis is not None]
    )
