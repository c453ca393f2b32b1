"""Denoise a file into a file, with a record of how the result was made and a picture on request."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Unpack, cast

import numpy as np
import numpy.typing as npt
import torch

from nlmeans.core import arrays
from nlmeans.core.layout import Layout
from nlmeans.core.progress import Report, reporting
from nlmeans.engine.arguments import FilterArguments
from nlmeans.engine.choices import Choices
from nlmeans.engine.settings import device_or_gpu, settings_from
from nlmeans.engine.survey import Facts, levels_of, noise_in_words, settled
from nlmeans.files import atomic, paths, scan
from nlmeans.files.computed import denoise_parts, denoise_real, split_noise_volumes, with_noise_volumes
from nlmeans.files.formats import nifti, registry
from nlmeans.files.maps import MapFiles
from nlmeans.files.phase import ComplexScan, complex_scan, phase_beside
from nlmeans.files.pictures import figure
from nlmeans.files.pictures.noise_figure import noise_figure
from nlmeans.files.scan import MeasuredNoise


def denoise_file(
    source: Path,
    target: Path,
    *,
    sigma: float | Literal["map"] | None = None,
    sigma_file: Path | None = None,
    mask_file: Path | None = None,
    voxel_radii: bool = False,
    share_weights: bool = False,
    as_float: bool = False,
    dicom_series: str | None = None,
    picture: Path | None = None,
    noise_picture: Path | None = None,
    noise_map: Path | None = None,
    residual: Path | None = None,
    rank_map: Path | None = None,
    phase_file: Path | None = None,
    phase_out: Path | None = None,
    real_part: bool = False,
    noise_volumes: int = 0,
    resample: bool = False,
    overwrite: bool = False,
    progress: bool | Report = False,
    about: Mapping[str, Any] | None = None,
    **arguments: Unpack[FilterArguments],
) -> str:
    """Denoise an image file, a DICOM series in a folder, or a zarr image.

    The record of the run is written next to `target`, under the same name with the ending ``.json``. A zarr image keeps
    its record in its metadata.

    Args:
        source: image file, folder with a DICOM series, or zarr image. It is never written to.
        target: file of a format in `FORMATS`; for a DICOM series also a folder, for a derived series; for a zarr image,
            a zarr image.
        sigma: standard deviation of the noise, in image units; ``"map"`` estimates it at every voxel; None estimates
            one number per volume.
        sigma_file: image with sigma at every voxel.
        mask_file: image that is not zero where to denoise; all other voxels stay unchanged.
        voxel_radii: count radii in voxels along all axes, whatever the voxel size.
        share_weights: the volumes of a series decide together which voxels are similar.
        as_float: store float32 instead of the type of `source`.
        dicom_series: number or UID of the series, if the folder holds several.
        picture: PNG file for a picture of before, after, and the removed noise.
        noise_picture: PNG file for a picture of the noise that was found; not for zarr images.
        noise_map: image file for sigma at every voxel; like the next two, not for zarr images.
        residual: image file for what was removed.
        rank_map: image file for the number of components kept around every voxel, by the method for series.
        phase_file: the phase of `source`, in radians or in a scanner's units. None looks for the file that BIDS names
            beside a magnitude.
        phase_out: image file for the phase of the result, in radians.
        real_part: write the real part of a complex image, which has no bias in the dark, instead of the magnitude.
        noise_volumes: number of volumes at the end that hold noise alone. They give sigma at every voxel, and stay as
            they are.
        resample: bring a mask, a map of sigma or a phase of another grid to the voxels of `source`.
        overwrite: replace existing outputs.
        progress: True shows a bar; a function is called with the fraction done.
        about: entries that come first in the record.
        arguments: further arguments of `nlmeans.denoise`.

    Returns:
        A line that says what was done.

    Raises:
        ValueError, TypeError: an argument is wrong, or the file is damaged or holds no image with real numbers.
        OSError: a file cannot be read or written.
    """
    maps = MapFiles(noise_map, residual, rank_map, phase_out)
    if wants_zarr(source, target):
        if maps.paths or phase_file or real_part or noise_volumes or resample:
            raise ValueError(
                f"{source} is a zarr image, for which there are no maps and no phase: leave out --noise-map, "
                "--residual, --rank-map, --phase, --phase-out, --real-part, --noise-volumes and --resample"
            )
        if share_weights or dicom_series is not None:
            name = "--share-weights" if share_weights else "--dicom-series"
            raise ValueError(f"{name} is not for zarr images, whose volumes are denoised one by one; leave it out")
        if as_float:
            arguments["dtype"] = "float32"
        return denoise_zarr_file(
            source,
            target,
            picture,
            overwrite,
            sigma=sigma,
            sigma_map=sigma_file,
            mask=mask_file,
            spacing=None if voxel_radii else "image",
            progress=progress,
            **arguments,
        )
    from_dicom = source.is_dir() or scan.is_dicom(source)
    as_dicom = from_dicom and not registry.ending_of(target, registry.WRITTEN)
    record = target.with_name(registry.without_ending(target.name) + ".json")
    pictures = [path for path in (picture, noise_picture) if path is not None]
    second = [file for path in (target, *maps.paths) for file in registry.files_of(path)[1:]]
    outputs = [target, record, *pictures, *maps.paths, *second]
    check_outputs(source, outputs, pictures, second, as_dicom, as_float, overwrite)
    if sigma is not None and sigma_file is not None:
        raise ValueError(f"--sigma {sigma} and --sigma-map {sigma_file} both describe the noise; give one of them")
    if noise_volumes and (sigma is not None or sigma_file is not None):
        raise ValueError(
            f"--noise-volumes {noise_volumes} gives sigma at every voxel; leave out --sigma and --sigma-map"
        )
    settings, _ = settings_from(sigma, arguments)
    noisy = scan.read_scan(source, dicom_series, complex_too=True)
    phase_file = phase_file or phase_beside(source, settings.noise)
    turned = complex_scan(noisy, phase_file, resample)
    check_parts(noisy, turned, as_dicom, real_part, as_float)
    keep_type = not as_float and not (real_part and arrays.is_complex(noisy.data))
    whole = arrays.is_complex(noisy.data) and not real_part
    noisy = noisy if turned is None else turned.magnitude
    complete = noisy
    split = None
    if noise_volumes:
        split = split_noise_volumes(noisy, turned, noise_volumes, whole)
        noisy, turned = split.noisy, split.turned
        if split.is_magnitude and settings.noise == "auto":
            settings = dataclasses.replace(settings, noise="rician")
    if share_weights and noisy.series is None:
        raise ValueError(f"--share-weights is for series of volumes, but {source} has no fourth axis; leave it out")
    channels, series = (noisy.series, None) if share_weights else (None, noisy.series)
    layout = Layout.of(noisy.data, channels, series, str(source))
    mask = scan.read_mask_or_map(mask_file, layout, noisy, resample)
    sigma_map = scan.read_mask_or_map(sigma_file, layout, noisy, resample, order=1)
    sigma_map = sigma_map if split is None else split.sigma_map
    settings = dataclasses.replace(
        settings,
        modality=settings.modality or noisy.modality,
        channels=channels,
        series=series,
        spacing=None if voxel_radii else noisy.spacing,
        device=device_or_gpu(settings.device),
        dtype="float32" if as_float and turned is None else settings.dtype,
    )
    choices = Choices.of(settings, layout, noisy.data)
    maps.check(choices.method.joint, turned is not None)
    settings = choices.record
    where = noisy.inside if mask is None or noisy.inside is None else noisy.inside & (np.asarray(mask) != 0)
    search = mask if mask is not None or noisy.inside is None else scan.object_mask(noisy, 0, None)
    with reporting(progress, source.name) as report_progress:
        how_to: Any = {
            "mask": mask if where is None else where,
            "noise_mask": search,
            "sigma_map": sigma_map,
            "progress": report_progress,
        }
        if turned is None:
            done = denoise_real(noisy.data, settings, layout, **how_to)
        else:
            done = denoise_parts(turned, settings, whole, real_part, **how_to)
    plans = done.plans
    shown = np.abs(done.result) if whole else done.result
    known = [plan.facts for plan in plans]

    varies = ""
    if plans[0].sigma_map is not None:
        varies = "from a map" if sigma_map is not None else "estimated at every voxel"
        varies = varies if split is None else f"from {noise_volumes} volumes of noise"
    noise = noise_in_words(known, varies)
    how = f"{choices.title}, {'' if turned is None else 'complex, '}{noise}"
    stated = sigma_map is not None or settings.curve is not None or settings.noise == "poisson"
    estimated = sigma in (None, "map") and not stated
    origin = "estimated from the image" if estimated else "as given"
    volumes = noisy.data.shape[3] if noisy.series is not None else 1
    one_noise = noisy.series is None or choices.method.joint
    facts = {
        **(about or {}),
        "input": source.name,
        "input_sha256": registry.hash_of(source),
        "noise": noise_record(known[0]) if one_noise else [noise_record(facts) for facts in known],
        "sigma_estimated": estimated,
        "settings": (settled(settings, known[0]) if one_noise and not varies else settings).to_dict(),
        "phase": phase_file and phase_file.name,
        "phase_sha256": phase_file and paths.sha256(phase_file),
        "mask": mask_file and mask_file.name,
        "sigma_map": sigma_file and sigma_file.name,
        "boilerplate": boilerplate(choices, volumes, turned is not None, f"{noise}, {origin}"),
        "doubts": [plan.verdict() for plan in plans],
        "quality": scan.quality(noisy, shown, None if varies else levels_of(known), mask),
        "nlmeans": version("nlmeans"),
        "torch": torch.__version__,
    }
    written = done if split is None else with_noise_volumes(done, split.end)
    with atomic.written_together(*outputs, folders=[target] if as_dicom else (), overwrite=overwrite) as temporary:
        place = dict(zip(outputs, temporary, strict=True))
        if as_dicom:
            write_dicom(complete, written.result, place[target], how)
        else:
            files = [place[file] for file in registry.files_of(target)]
            registry.save_scan(complete, written.result, target, files, keep_type)
        facts["output_sha256"] = registry.hash_of(target, place)
        place[record].write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        inside = None if search is None else np.asarray(search) != 0
        if picture is not None:
            level = None if varies or known[0].noise.follows_intensity else known[0].sigma[0]
            figure.save_figure(place[picture], figure.scan_figure(noisy, shown, level))
        if noise_picture is not None:
            figure.save_figure(place[noise_picture], noise_figure(noisy.volume(0), known[0].noise, inside))
        for path, image in zip(maps.paths, maps.images(complete, written.maps), strict=True):
            registry.write_format(image, path, [place[file] for file in registry.files_of(path)])
    return f"{target}: {how}"


def check_parts(noisy: nifti.Scan, turned: ComplexScan | None, as_dicom: bool, real_part: bool, as_float: bool) -> None:
    """Raise ``ValueError`` if a real part is wanted that there is not, or that the type of the file cannot hold."""
    if turned is not None and as_dicom:
        raise ValueError(f"{noisy.path} is a DICOM series, for which there is no phase; convert both to NIfTI first")
    if real_part and turned is None:
        raise ValueError("--real-part needs a complex image or a phase beside it; leave it out, or give --phase")
    stored = noisy.image.get_data_dtype()
    if real_part and stored.kind == "u" and not as_float:
        raise ValueError(f"--real-part has negative values, which {stored} of {noisy.path} cannot hold; add --float")


def check_outputs(
    source: Path,
    outputs: Sequence[Path],
    pictures: Sequence[Path],
    second: Sequence[Path],
    as_dicom: bool,
    as_float: bool,
    overwrite: bool,
) -> None:
    """Raise an error, before any work, if an output cannot be written or is the input.

    Args:
        source: the input.
        outputs: the result, its record, and perhaps pictures and maps.
        pictures: those of `outputs` that are PNG files.
        second: those of `outputs` that hold the voxels of others.
        as_dicom: the result is a folder with a derived DICOM series.
        as_float: the result is stored as float32.
        overwrite: replace existing outputs.
    """
    target, record, *others = outputs
    if as_dicom:
        with scan.needs_dicom(source):
            from nlmeans.files.formats.dicom.derived import check_series_folder
        check_series_folder(target, source, overwrite)
        if as_float:
            raise ValueError(
                f"OUT={target} is a DICOM series, which stores integers; leave out --float or write a .nii.gz"
            )
    else:
        check_image_file(target, overwrite)
    paths.check_output_file(record, overwrite, (".json",))
    for path in others:
        if path in pictures or path in second:
            paths.check_output_file(path, overwrite, (".png",) if path in pictures else (path.suffix,))
        else:
            check_image_file(path, overwrite)
    real = [paths.real_path(path) for path in outputs]
    if paths.real_path(target) == paths.real_path(source):
        raise ValueError(f"OUT={target} is IN itself, which is never overwritten; choose another name")
    for path in others:
        if paths.real_path(path) == paths.real_path(source) or real.count(paths.real_path(path)) > 1:
            raise ValueError(f"{path} is the input or another output as well; choose another name")


def check_image_file(path: Path, overwrite: bool) -> None:
    """Raise an error if an image cannot be written there, because of its name, its folder, or a missing library."""
    registry.check_written(path)
    paths.check_output_file(path, overwrite, registry.WRITTEN)


def write_dicom(noisy: nifti.Scan, result: npt.NDArray[Any], folder: Path, how: str) -> None:
    """Write a result as a derived DICOM series."""
    from nlmeans.files.formats.dicom.derived import write_derived
    from nlmeans.files.formats.dicom.series import DicomScan

    write_derived(cast(DicomScan, noisy), result, folder, f"Denoised by nlmeans {version('nlmeans')}: {how}")


def boilerplate(choices: Choices, volumes: int, as_complex: bool, noise: str) -> str:
    """Return two sentences for the methods section of a paper.

    Args:
        choices: the method and its strength.
        volumes: number of volumes.
        as_complex: whether magnitude and phase were.
        noise: what is said of the noise.

    >>> from nlmeans import Settings
    >>> choices = Choices.of(Settings(method="classic"), Layout((24, 24), None, None))
    >>> boilerplate(choices, 1, False, "gaussian noise, sigma 8, as given").partition("(")[2]
    'patch-based non-local means (Buades, Coll and Morel 2005)). Noise: gaussian noise, sigma 8, as given.'
    """
    how = "together" if choices.method.joint else "one by one"
    what = f"The {volumes} volumes were denoised {how}" if volumes > 1 else "The image was denoised"
    numbers = ", as complex numbers," if as_complex else ""
    tool = f"nlmeans {version('nlmeans')}, method {choices.title} ({choices.method.summary})"
    return f"{what}{numbers} with {tool}. Noise: {noise}."


def noise_record(facts: Facts) -> dict[str, Any]:
    """Return the noise of a volume for the record: the model, and sigma of each channel that is compared with it."""
    channels = {} if len(set(facts.sigma)) == 1 else {"channels": list(facts.sigma)}
    return {**facts.noise.to_dict(), **channels}


# ---------------------------------------------------------------- zarr images


def wants_zarr(source: Path, target: Path) -> bool:
    """Whether a zarr image is read or written.

    Raises:
        ValueError: the output is a zarr image and the input is not.
    """
    if target.name.endswith(".zarr") and source.exists() and not paths.is_zarr(source):
        raise ValueError(f"OUT={target} is a zarr image, but {source} is not; write a .nii.gz instead")
    return paths.is_zarr(source) or target.name.endswith(".zarr")


def denoise_zarr_file(
    source: Path,
    target: Path,
    picture: Path | None,
    overwrite: bool,
    *,
    sigma: float | str | None,
    sigma_map: Path | None,
    mask: Path | None,
    spacing: str | None,
    progress: bool | Report,
    **arguments: Unpack[FilterArguments],
) -> str:
    """Denoise a zarr image, and draw the centre of its middle plane if `picture` is given."""
    with needs_zarr(source):
        from nlmeans.files.zarr.denoise import denoise_zarr, middle_planes
    if picture is not None:
        paths.check_output_file(picture, overwrite, (".png",))
    summary = denoise_zarr(
        source,
        target,
        sigma=sigma,
        sigma_map=sigma_map,
        mask=mask,
        spacing=spacing,
        overwrite=overwrite,
        progress=progress,
        **arguments,
    )
    if picture is not None:
        (before, after), pixel_size = middle_planes(source, target)
        with atomic.written_together(picture) as (temporary,):
            figure.save_figure(temporary, figure.before_and_after(before, after, pixel_size))
    return summary


# ---------------------------------------------------------------- noise


def measure_noise(
    source: Path,
    kind: str,
    mask_file: Path | None,
    dicom_series: str | None,
    picture: Path | None = None,
    resample: bool = False,
) -> list[MeasuredNoise]:
    """Measure the noise in an image file, a DICOM series in a folder, or a zarr image.

    Args:
        source: file or folder.
        kind: kind of noise; ``"auto"`` finds it.
        mask_file: image that is not zero where to measure.
        dicom_series: number or UID of the series, if the folder holds several.
        picture: PNG file for a picture of the noise of the first volume; not for zarr images.
        resample: bring a mask of another grid to the voxels of `source`.

    Returns:
        The noise of each volume.
    """
    if picture is not None:
        paths.check_output_file(picture, True, (".png",))
        if paths.is_zarr(source):
            raise ValueError(f"--plot {picture} is not for zarr images, which may be too large to draw; leave it out")
    if paths.is_zarr(source):
        with needs_zarr(source):
            from nlmeans.files.zarr.denoise import zarr_noise
        return zarr_noise(source, kind, mask_file)
    noisy = scan.read_scan(source, dicom_series)
    layout = Layout.of(noisy.data, None, noisy.series, str(source))
    mask = scan.read_mask_or_map(mask_file, layout, noisy, resample)
    found = scan.noise_of_volumes(noisy, kind, mask)
    if picture is not None:
        inside = None if mask is None else np.asarray(mask) != 0
        with atomic.written_together(picture, overwrite=True) as (temporary,):
            figure.save_figure(temporary, noise_figure(noisy.volume(0), found[0].model, inside))
    return found


def needs_zarr(path: Path) -> AbstractContextManager[None]:
    return registry.needs_extra("zarr", f"{path} is a zarr image; to read it")
