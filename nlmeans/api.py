"""Python functions of the package: they take any array and return the same type, shape, dtype and device."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple, Unpack, cast, overload

import numpy as np
import numpy.typing as npt
import torch

from nlmeans.core import arrays, checks
from nlmeans.core.layout import Layout
from nlmeans.core.modes import outside_autocast
from nlmeans.core.progress import Report, reporting
from nlmeans.core.wrapped import beside, taken_apart
from nlmeans.engine.arguments import Arguments, spelled_out
from nlmeans.engine.choices import Choices
from nlmeans.engine.maps import as_array, noise_map, residual_of
from nlmeans.engine.noise import noise_of
from nlmeans.engine.phase import DenoisedComplex, denoise_complex, like_complex
from nlmeans.engine.plan import Plan
from nlmeans.engine.run import VolumeT, denoise_array, readable_spatial
from nlmeans.engine.settings import GivenSigma, Settings, settings_from
from nlmeans.noise.kinds import MAGNITUDES, NOISES, kinds_of
from nlmeans.noise.model import NoiseModel
from nlmeans.noise.search.estimate import (
    SigmaMap,
    sampled_channels,
    sampled_places,
    sigma_maps,
)
from nlmeans.noise.search.uneven import model_of_sample


@outside_autocast
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
            of real numbers, of any dtype; a dask array; or anything that gives numpy arrays when sliced, such as a zarr
            array, an h5py dataset or a NIfTI image's ``dataobj``. Such arrays and numpy.memmap are read piece by piece
            and may be larger than memory. A ``.nii.gz`` is slow that way, because every piece is decompressed from the
            start of the file. The input is never written to. Voxels that are NaN count as outside and stay NaN, which
            is logged; infinite values are refused. Complex arrays in memory are denoised as complex: their phase is
            taken off, and put back at the end. An image of nibabel or SimpleITK, or a ``DataArray`` of xarray, whose
            spacing is that of the image unless `spacing` is given. The fourth axis of an image counts volumes.
        sigma: standard deviation of the noise, in image units: one number; one per volume of the series, or per
            channel; or an array of the spatial shape, for noise that varies in space. None estimates one number
            (see `estimate_sigma`), and ``"map"`` estimates an array. For complex volumes, it is that of the real part,
            which the imaginary part has too.
        method: a name in `nlmeans.METHODS`, or ``"auto"``: `best` for volumes of up to 2²⁰ voxels, which takes
            seconds; else `bayes`, unless the volume would take more than ten minutes or more memory than is free. The
            log (level INFO) says which method was chosen, and why.
        noise: ``"auto"`` finds the kind in each volume, as `estimate_noise` does, and the log (level INFO) says why; if
            `sigma` is given, it stands for white Gaussian noise. ``"gaussian"``; ``"rician"`` for MR magnitude images,
            which also removes the bias of such noise, so that the background becomes zero; ``"chi"`` for the sum of
            squares of several coils (a volume with negative values has neither, so it counts as Gaussian, with a
            warning); or ``"poisson"`` for counts of photons or decays. For Poisson noise, `sigma` is
            the read noise of the detector, and None means that there is none. ``"curve"`` for noise whose standard
            deviation follows the intensity in any other way, as after a gamma correction. Or a `NoiseModel`, such as
            `estimate_noise` finds. `sigma`, `gain`, `offset`, `coils`, `curve`, `correlation` and `variation` win over
            the model's.
        gain: image units per photon, for Poisson noise; ``"auto"`` finds gain, offset and read noise in each volume.
        offset: image value where no photon arrives, for Poisson noise.
        coils: effective number of coils, 1 to 64, for chi noise; None reads it from the air around the object.
        curve: standard deviation of the noise at several intensities, both in image units, for ``noise="curve"``, which
            has no `sigma`: pairs such as ``[(0, 3), (500, 8)]``, an array of shape (N, 2), or text such as
            ``"0:3,500:8"``. Sigma is linear between the intensities, and constant below the first and above the last.
            None finds the curve in each volume.
        correlation: whether neighbouring voxels have noise in common. ``"auto"`` looks for it if `sigma` is not given
            either; None takes the noise for white; or the autocovariance in units of sigma², as in a `NoiseModel`,
            which needs `sigma`.
        variation: whether the noise is stronger in some places than in others, as parallel imaging makes it. ``"auto"``
            looks for it if `sigma` is not given either; None takes it for equally strong everywhere; or the level
            relative to `sigma` at the points of an even grid, as in a `NoiseModel`, which needs `sigma`.
        modality: DICOM's code of what made the volume, which says what kinds of noise to look for: ``"MR"`` for
            magnitudes, ``"PT"``, ``"NM"`` or ``"GM"`` (microscopy) for counts, ``"CT"`` for neither. None for what
            `load_image` read with an image from DICOM, and otherwise for all.
        strength: how strong the method takes the noise to be, relative to what it is: 1 is the method's own choice, 0.5
            removes less, 2 removes more. It acts on every method, by what they subtract or by `h`, which it multiplies.
            From 0.01 to 100.
        h: filter strength in image units; larger values smooth more. None for the method's own multiple of sigma. With
            a map of sigma, `h` is the strength where sigma is largest; elsewhere it follows the map. With noise that
            follows the intensity, Poisson noise or a curve, `h` is in units of the noise.
        patch_radius: voxels, one number for all axes or one per axis; a patch is 2r + 1 voxels wide. None for the
            method's own.
        search_radius: voxels, one number for all axes or one per axis; the search window is 2r + 1 voxels wide. None
            for the method's own. The methods `bayes`, `best`, `subspace` and `series` take the patches of a group from
            this window; `dct` searches nothing.
        mask: array of the spatial shape, or an image that lies where the volume lies. Voxels where it is zero come back
            unchanged.
        spacing: voxel size in mm, one number per spatial axis. A radius that is one number, or not given, then spans
            the same distance along all axes, counted in voxels of the smallest size: thick slices get a flat window.
            For ``"bayes"``, ``"best"`` and ``"subspace"`` the window and the patches get flatter where slices are at
            least 1.5 times as thick as voxels are wide; the patches of ``"series"`` do, too. Not used for microscopy,
            modality ``"GM"``: along its axis, a microscope resolves as coarsely as its slices are apart.
        channels: the axis of channels that are compared together, such as RGB; of a ``DataArray``, its number or name.
            None if there is no such axis.
        series: the axis of volumes that are denoised one by one, such as the repetitions of a 4D scan. Name the axis
            `channels` instead to let all volumes decide together which voxels are similar. None if there is no such
            axis.
        despeckle: replace impulses and dead voxels first; see `despeckle`.
        seed: random seed for the method ``"stochastic"``; the same seed repeats the same result.
        backend: ``"auto"``, ``"cpu"``, ``"gpu"``, ``"loop"``, ``"full"`` or ``"windowed"``, which is an approximation.
        device: where to compute, such as ``"cuda"``; None for the device that holds the volume.
        memory: bytes to work in, or text such as ``"2GB"``. Larger volumes are cut into overlapping tiles, which does
            not change the result. None for half the free memory.
        dtype: ``"float16"``, ``"float32"`` or ``"float64"``, also as a dtype of numpy or torch, for a result of that
            type; None for that of the volume.
        out: the array to write the result to: a numpy array, a memory map, a zarr array or the like. It has the
            volume's shape, and the volume's dtype, a dtype that holds all its values, or a floating-point dtype.
        progress: True for a progress bar, or a function that is called with the fraction done; returning ``False``
            cancels the run.

    Returns:
        `out` if it is given. Otherwise an array of the same type, shape and device as the volume, and of its dtype
        unless `dtype` is given. A volume that is read by slicing gives a numpy array. A dask array gives a dask array
        that is computed later. An image gives an image of the same kind, in the same place. Integers are rounded and
        clipped. All methods compute in float32. The result has no gradient, which a warning says once if the volume
        requires one; `nonlocal_means` is differentiable.

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
    image = taken_apart(volume)
    if image is not None:
        if out is not None:
            raise ValueError(f"out= does not work with a {type(volume).__name__}; leave it out, and use the result")
        around: Any = {"mask": beside(mask, image, "mask"), "progress": progress}
        return cast(
            VolumeT,
            image.wrap(denoise(image.values, beside(sigma, image, "sigma"), **around, **image.arguments(arguments))),
        )
    settings, sigma_map = settings_from(sigma, arguments)
    if arrays.is_dask(volume):
        if out is not None or progress:
            raise ValueError(
                "out= and progress= do not work with a dask array, whose result is computed later; store the result "
                "with its to_zarr() or dask.array.store(), and watch dask's ProgressBar or dashboard"
            )
        from nlmeans.engine.dask.graph import denoised_lazily

        return cast(VolumeT, denoised_lazily(volume, settings, mask, sigma_map))
    if arrays.is_complex(volume):
        if out is not None:
            raise ValueError("out= does not work with a complex volume; leave it out and store the result")
        with reporting(progress, "denoising") as report:
            found = denoise_complex(volume, settings, mask=mask, sigma_map=sigma_map, progress=report)
        return cast(VolumeT, like_complex(found.volume, volume))
    with reporting(progress, "denoising") as report:
        return denoise_array(volume, settings, mask=mask, sigma_map=sigma_map, out=out, progress=report)


class Denoised(NamedTuple):
    """A result with its maps, all in image units and all of the same kind of array or image."""

    volume: arrays.Array
    """The result of `denoise`."""
    residual: arrays.Array
    """What was removed: the volume minus the result, in floating point. It should look like noise and nothing else."""
    noise_map: arrays.Array
    """Sigma at every voxel, float32: of the spatial shape for volumes that were denoised together, otherwise of the
    volume's shape. For noise that follows the intensity, it follows the result."""
    rank_map: arrays.Array | None
    """Components that were kept around every voxel, float32, of the spatial shape; None unless the method is
    `series`."""
    phase: arrays.Array | None = None
    """Of a complex volume: the phase that was taken off, as complex numbers of length 1. The real part of volume × its
    conjugate is the signal without the bias of magnitudes: about 0 in air."""


@outside_autocast
@spelled_out(Arguments)
def denoise_with_maps(
    volume: arrays.Readable,
    sigma: GivenSigma = None,
    *,
    mask: arrays.Readable | None = None,
    progress: bool | Report | None = None,
    **arguments: Unpack[Arguments],
) -> Denoised:
    """Denoise as `denoise` does, and return what was removed and what was found along with the result.

    Args:
        volume: as for `denoise`, but not a dask array.
        sigma: as for `denoise`.
        mask: as for `denoise`.
        progress: as for `denoise`.
        arguments: the other arguments of `denoise`.

    Returns:
        A named tuple: `volume`, `residual`, `noise_map`, `rank_map`, which is None unless the method is `series`, and
        `phase`, which is None unless the volume is complex.

    Raises:
        ValueError, TypeError, Cancelled: as for `denoise`.

    Example:
        >>> import numpy as np
        >>> noisy = 100 + 5 * np.random.default_rng(0).standard_normal((12, 12, 12, 10))
        >>> result = denoise_with_maps(noisy, series=3)
        >>> result.noise_map.shape, round(float(result.noise_map.mean())), round(float(result.residual.std()))
        ((12, 12, 12), 5, 5)
    """
    image = taken_apart(volume)
    if image is not None:
        given = image.arguments(arguments)
        around: Any = {"mask": beside(mask, image, "mask"), "progress": progress}
        found = denoise_with_maps(image.values, beside(sigma, image, "sigma"), **around, **given)
        series, axes = given.get("series"), image.values.ndim
        wrapped: Any = (
            None if part is None else image.wrap(part, without=series if part.ndim < axes else None) for part in found
        )
        return Denoised(*wrapped)
    if arrays.is_dask(volume):
        raise TypeError("volume is a dask array, which has no maps; give volume.compute(), or subtract denoise(volume)")
    settings, sigma_map = settings_from(sigma, arguments)
    if arrays.is_complex(volume):
        with reporting(progress, "denoising") as report:
            return maps_of_complex(
                volume, denoise_complex(volume, settings, mask=mask, sigma_map=sigma_map, progress=report)
            )
    source = arrays.readable(volume, "volume")
    layout = Layout.of(source, settings.channels, settings.series)
    plans: list[Plan] = []
    rank = torch.zeros(layout.shape)
    with reporting(progress, "denoising") as report:
        result = cast(
            arrays.Array,
            denoise_array(source, settings, mask=mask, sigma_map=sigma_map, progress=report, plans=plans, rank=rank),
        )
    rank_map = None
    if plans[0].choices.method.joint:
        rank_map = as_array(layout.spatial_alone.from_engine(rank[None]), result)
    return Denoised(result, residual_of(source, result), noise_map(plans, result), rank_map)


def maps_of_complex(volume: arrays.Array, found: DenoisedComplex) -> Denoised:
    """Return a denoised complex volume with its maps, as the same kind of array as the volume."""
    result = like_complex(found.volume, volume)
    rank = None if found.rank is None else as_array(found.rank, result)
    phase = like_complex(found.phase, volume)
    return Denoised(result, cast(Any, volume) - result, as_array(found.noise_map, result), rank, phase)


@outside_autocast
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
        volume: (D, H, W), or with `channels` or `series`, as for `denoise`. The axes of an image of SimpleITK are z, y,
            x, as in its array.
        index: number of the slice; negative numbers count from the end.
        axis: the spatial axis of `volume` that the slice is perpendicular to.
        sigma: as for `denoise`. None estimates it from the whole volume at every call; pass it to save time.
        mask: as for `denoise`, for the whole volume.
        progress: as for `denoise`.
        arguments: the other arguments of `denoise`.

    Returns:
        The slice, without `axis`. It equals ``denoise(volume, ...).take(index, axis)`` up to rounding. Of an image of
        nibabel or SimpleITK, an image of one slice, where it lies.

    Raises:
        ValueError, TypeError, Cancelled: as for `denoise`. ValueError also if there is no such slice.

    Example:
        >>> import numpy as np
        >>> noisy = np.random.default_rng(0).standard_normal((20, 24, 28))
        >>> one = preview(noisy, 10, axis=1, sigma=1.0)
        >>> one.shape, bool(np.allclose(one, denoise(noisy, sigma=1.0)[:, 10], atol=1e-5))
        ((20, 28), True)
    """
    image = taken_apart(volume)
    if image is not None:
        around: Any = {"mask": beside(mask, image, "mask"), "progress": progress, **image.arguments(arguments)}
        one = preview(image.values, index, axis, beside(sigma, image, "sigma"), **around)
        axis = axis % image.values.ndim
        return cast(VolumeT, image.wrap_slice(one, axis, index % image.values.shape[axis]))
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


@outside_autocast
@spelled_out(Arguments)
def usual_h(
    volume: arrays.Readable,
    sigma: GivenSigma = None,
    *,
    mask: arrays.Readable | None = None,
    **arguments: Unpack[Arguments],
) -> float:
    """Return the filter strength that ``h=None`` stands for, in image units, where `strength` is 1.

    It is a multiple of sigma: 0.6 to 1.0 for `classic` in 3D. The multiple grows with the range of the volume's values
    relative to sigma. With Poisson noise and noise that is a curve, the result is in units of the noise. For a series,
    it is that of the first volume.

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
    image = taken_apart(volume)
    if image is not None:
        around: Any = {"mask": beside(mask, image, "mask"), **image.arguments(arguments)}
        return usual_h(image.values, beside(sigma, image, "sigma"), **around)
    settings, sigma_map = settings_from(sigma, arguments)
    settings = dataclasses.replace(settings, h=None)
    source = arrays.readable(volume, "volume")
    layout = Layout.of(source, settings.channels, settings.series)
    where, given = readable_spatial(mask, "mask", layout), readable_spatial(sigma_map, "sigma", layout)
    choices = Choices.of(settings, layout, source)
    plan = Plan.of(source, 0, choices.layout, choices, mask=where, sigma_map=given)
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
@outside_autocast
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
    removed background, and next to clipped values do not count. If the noise of neighbours is correlated, as in
    interpolated or zero-filled scans, the estimate is that of `estimate_noise`, which has more to say.

    Args:
        volume: (H, W) or (D, H, W), plus the axes that `channels` and `series` name; an array as for `denoise`. A
            volume of more than 16 million voxels is sampled in evenly spaced parts. One that is read by slicing is
            sampled as far as half the free memory allows.
        noise: ``"gaussian"``; ``"rician"`` or ``"chi"`` for MR magnitude images, in which dark voxels vary less than
            sigma; or ``"auto"`` for whichever of these the volume speaks for.
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
        >>> noisy = 100 + 5 * np.random.default_rng(0).standard_normal((48, 48, 48))
        >>> round(estimate_sigma(noisy), 1)
        5.0
    """
    checks.choice("noise", noise, ("auto", "gaussian", *MAGNITUDES))
    image = taken_apart(volume)
    if image is not None:
        axes = image.arguments({"channels": channels, "series": series})
        volume, mask, channels, series = image.values, beside(mask, image, "mask"), axes["channels"], axes["series"]
    if arrays.is_dask(volume) and not map:
        from nlmeans.engine.dask.graph import estimated_levels

        return with_axes(estimated_levels(volume, channels, series, noise, mask), channels, series)
    source = arrays.readable(volume, "volume")
    layout = Layout.of(source, channels, series)
    where = None if mask is None else arrays.readable(mask, "mask")
    if where is not None:
        layout.spatial(where, "mask")
    settings = Settings(noise=noise, modality="MR", channels=layout.channels, series=layout.series)
    if map:
        kind = "gaussian" if noise == "gaussian" else "rician"
        if noise == "auto":
            model = noise_of(source, 0, layout, settings, where, None).model
            kind = "rician" if model.kind in MAGNITUDES else "gaussian"
        maps = [sigma_maps(source, index, layout, kind, where) for index in range(layout.volumes)]
        return np.concatenate(maps, axis=series or 0)
    found = [noise_of(source, index, layout, settings, where, None).sigma for index in range(layout.volumes)]
    return with_axes(found, channels, series)


@outside_autocast
def estimate_noise(
    volume: arrays.Readable, *, kind: str = "auto", mask: arrays.Readable | None = None, modality: str | None = None
) -> NoiseModel:
    """Find the kind of the noise, its level, and whether neighbouring voxels have noise in common.

    Nothing needs to be known. The kind follows from how the noise varies with intensity: not at all for Gaussian noise;
    weaker in the dark, with air like magnitudes without signal, for Rician and chi noise; its variance in a straight
    line for photon counts, which gives gain, offset and read noise. It is Gaussian where the volume speaks for nothing
    else.

    Interpolation, zero-filling, filters in k-space and the reconstruction kernels of CT correlate the noise of
    neighbours. `estimate_sigma` then sees only the part of the noise that changes from voxel to voxel. This function
    also measures level and autocovariance in the flattest blocks of the volume. If both say that the noise is
    correlated, the model has this level and this autocovariance. Otherwise the noise is white.

    Args:
        volume: (H, W) or (D, H, W), as for `denoise`.
        kind: ``"auto"`` finds it; ``"gaussian"``, ``"rician"``, ``"chi"`` or ``"poisson"`` states it. ``"curve"`` finds
            how strong the noise is at each intensity, whatever makes it follow the intensity.
        mask: where to look, of the spatial shape.
        modality: as for `denoise`.

    Returns:
        The model, to be passed as ``denoise(volume, noise=model)``. Its `evidence` says why.

    Raises:
        ValueError, TypeError: an argument is out of range or does not fit the volume.

    References:
        M. Lebrun, M. Colom, J.-M. Morel, "Multiscale image blind denoising", IEEE Transactions on Image Processing 24,
        2015, doi:10.1109/TIP.2015.2439041 (the covariance of noise from the flattest blocks). A. Foi, M. Trimeche, V.
        Katkovnik, K. Egiazarian, "Practical Poissonian-Gaussian noise modeling and fitting for single-image raw-data",
        IEEE Transactions on Image Processing 17, 2008, doi:10.1109/TIP.2008.2001399 (variance against intensity).

    Example:
        >>> import numpy as np
        >>> white = np.random.default_rng(0).standard_normal((2, 40, 40, 40)).cumsum(0)[1]
        >>> smooth = 100 + 10 * (white[:, :, 1:] + white[:, :, :-1])
        >>> model = estimate_noise(smooth)
        >>> model.kind, bool(abs(model.sigma - 20) < 1), model.correlation is not None
        ('gaussian', True, True)
    """
    checks.choice("kind", kind, ("auto", *NOISES))
    image = taken_apart(volume)
    if image is not None:
        volume, mask, modality = image.values, beside(mask, image, "mask"), modality or image.modality
    source = arrays.readable(volume, "volume")
    layout = Layout.of(source, None, None)
    ((values, inside),) = sampled_channels(source, 0, layout, readable_spatial(mask, "mask", layout))
    possible, likely = kinds_of(modality)
    return model_of_sample(values, inside, layout.shape, sampled_places(source, layout), kind, possible, likely=likely)


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
