"""From file to file: read, denoise, and write the result with a record of how, and a picture if wanted."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Unpack

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure

from nlmeans.api import estimate_sigma
from nlmeans.core import arrays
from nlmeans.core.layout import Layout
from nlmeans.core.progress import reporting
from nlmeans.engine.arguments import FilterArguments
from nlmeans.engine.choices import Choices
from nlmeans.engine.run import denoise_array
from nlmeans.engine.settings import device_or_gpu, settings_from
from nlmeans.files import atomic, figure, nifti
from nlmeans.noise import outliers
from nlmeans.noise.estimate import otsu_threshold


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
    overwrite: bool = False,
    progress: bool = False,
    about: Mapping[str, Any] | None = None,
    **arguments: Unpack[FilterArguments],
) -> str:
    """Denoise a file, or the DICOM series in a folder; returns a line that says what was done.

    `target` is a NIfTI file, or for a folder also another folder, for a derived DICOM series. `about` goes into the
    record first. A zarr image becomes a zarr image by `denoise_zarr`.
    """
    if is_zarr(source, target):
        if share_weights or dicom_series is not None:
            name = "--share-weights" if share_weights else "--dicom-series"
            raise ValueError(f"{name} is not for zarr images, whose volumes are denoised one by one; leave it out")
        if as_float:
            arguments["dtype"] = "float32"
        return denoise_zarr(
            source,
            target,
            picture,
            sigma=sigma,
            sigma_map=sigma_file,
            mask=mask_file,
            spacing=None if voxel_radii else "image",
            overwrite=overwrite,
            progress=progress,
            **arguments,
        )
    as_dicom = source.is_dir() and not target.name.endswith(nifti.ENDINGS)
    record = target.with_name(target.name.removesuffix(".gz").removesuffix(".nii") + ".json")
    outputs = [target, record] if picture is None else [target, record, picture]
    if as_dicom:
        dicom_module(source).check_output(target, source, overwrite)
        if as_float:
            raise ValueError(f"OUT={target} is for DICOM, which stores integers; leave out --float or write a .nii.gz")
    for path, endings in zip(outputs, (nifti.ENDINGS, (".json",), (".png",)), strict=False):
        if path != target or not as_dicom:
            nifti.check_output(path, overwrite, endings)
    if nifti.real(target) == nifti.real(source):
        raise ValueError(f"OUT={target} is IN itself; the original is never overwritten, choose another name")

    if sigma is not None and sigma_file is not None:
        raise ValueError(f"--sigma {sigma} and --sigma-map {sigma_file} both say what the noise is; give one of them")
    settings, _ = settings_from(sigma, arguments)
    scan = read(source, dicom_series)
    if share_weights and scan.series is None:
        raise ValueError(f"--share-weights is for series of volumes, but {source} has no fourth axis; leave it out")
    channels, series = (scan.series, None) if share_weights else (None, scan.series)
    layout = Layout.of(scan.data, channels, series, str(source))
    mask, sigma_map = read_beside(mask_file, layout), read_beside(sigma_file, layout)
    device = device_or_gpu(settings.device)
    spacing = None if voxel_radii else scan.spacing
    settings = dataclasses.replace(settings, channels=channels, series=series, spacing=spacing, device=device)
    if as_float:
        settings = dataclasses.replace(settings, dtype="float32")
    if settings.sigma is None and sigma_map is None and settings.noise != "poisson":
        settings = dataclasses.replace(settings, sigma=estimated(scan, settings.noise, mask, settings.despeckle))
    settings = Choices.of(settings, layout).record
    where = scan.inside if mask is None or scan.inside is None else scan.inside & (np.asarray(mask) != 0)
    with reporting(progress, source.name) as report_progress:
        result = denoise_array(
            scan.data, settings, mask=mask if where is None else where, sigma_map=sigma_map, progress=report_progress
        )

    level = "" if settings.noise == "poisson" else f", sigma {sigma_text(settings.sigma)}"
    how = f"{settings.method}, {settings.noise} noise{level}"
    facts = {
        **(about or {}),
        "input": source.name,
        "input_sha256": nifti.sha256(source),
        "sigma_estimated": sigma in (None, "map") and sigma_map is None and settings.noise != "poisson",
        "settings": settings.to_dict(),
        "mask": mask_file and mask_file.name,
        "sigma_map": sigma_file and sigma_file.name,
        "quality": quality(scan, result, settings.sigma, mask),
        "nlmeans": version("nlmeans"),
        "torch": torch.__version__,
    }
    with atomic.written_together(*outputs, folders=[target] if as_dicom else (), overwrite=overwrite) as temporary:
        if as_dicom:
            text = f"Denoised by nlmeans {version('nlmeans')}: {how}"
            dicom_module(source).write(scan, np.asarray(result), temporary[0], text)
        else:
            nifti.write(nifti.like(scan, result, keep_type=not as_float), temporary[0])
        facts["output_sha256"] = nifti.sha256(temporary[0])
        temporary[1].write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        if picture is not None:
            figure.save(temporary[2], picture_of(scan, result))
    return f"{target}: {how}"


def is_zarr(source: Path, target: Path) -> bool:
    """Whether a zarr image is to be read and written; for what is one alone there is no way to the other."""
    if target.name.endswith(".zarr") and source.exists() and not nifti.is_zarr(source):
        raise ValueError(f"OUT={target} would be a zarr image, but {source} is none; write a .nii.gz")
    return nifti.is_zarr(source) or target.name.endswith(".zarr")


def denoise_zarr(source: Path, target: Path, picture: Path | None, **options: Any) -> str:
    """Denoise a zarr image, chunk by chunk, and show the middle of it."""
    module = optional("zarr.denoise", "zarr", f"{source} is a zarr image; for those")
    if picture is not None:
        nifti.check_output(picture, options["overwrite"], (".png",))
    summary: str = module.denoise_zarr(source, target, **options)
    if picture is not None:
        (before, after), spacing = module.middle_planes(source, target)
        with atomic.written_together(picture) as (temporary,):
            figure.save(temporary, figure.figure(before, after, spacing))
    return summary


def interruption(target: Path) -> str:
    """What an interrupted run leaves."""
    if target.name.endswith(".zarr"):
        return f"Interrupted: the same command goes on with {target}, which is not there before it is whole."
    return "Interrupted: nothing was left half-written."


def read(source: Path, dicom_series: str | None = None) -> nifti.Scan:
    """An image file, or the DICOM series in a folder."""
    if source.is_dir():
        scan: nifti.Scan = dicom_module(source).read(source, dicom_series)
        return scan
    if dicom_series is not None:
        raise ValueError(f"--dicom-series {dicom_series} is for a folder of DICOM files, which {source} is not")
    return nifti.read(source)


def dicom_module(folder: Path) -> ModuleType:
    return optional("dicom", "dicom", f"{folder} is a folder; for the DICOM series in it")


def optional(name: str, extra: str, why: str) -> ModuleType:
    """A module of ours that needs packages which not everyone has."""
    try:
        return importlib.import_module(f"nlmeans.files.{name}")
    except ModuleNotFoundError as error:
        raise ValueError(f'{why} install: pip install "nlmeans[{extra}]"') from error


def read_beside(path: Path | None, layout: Layout) -> arrays.Array | None:
    """A mask or map that must have the spatial shape of the image."""
    if path is None:
        return None
    data = nifti.read(path).data
    layout.spatial(data, str(path))
    if not data.any():
        raise ValueError(f"{path} is zero everywhere, so there is nothing to do; give an image with other values")
    return data


def estimated(
    scan: nifti.Scan, noise: str, mask: arrays.Array | None, without_outliers: bool = False
) -> float | tuple[float, ...]:
    data = outliers.despeckle(scan.data, series=scan.series) if without_outliers else scan.data
    if mask is None and scan.inside is not None:  # padding would take part in Otsu's threshold
        mask = object_of(scan, 0, None)
    found = np.asarray(estimate_sigma(data, noise=noise, mask=mask, series=scan.series))
    return float(found) if found.ndim == 0 else tuple(found.tolist())


def noise_levels(
    source: Path, noise: str, mask_file: Path | None, dicom_series: str | None
) -> list[tuple[str, float, float]]:
    """Of each volume what it is called, if there are several, sigma, and the mean of the object."""
    if nifti.is_zarr(source):
        module = optional("zarr.denoise", "zarr", f"{source} is a zarr image; for those")
        levels: list[tuple[str, float, float]] = module.noise_levels(source, noise, mask_file)
        return levels
    scan = read(source, dicom_series)
    mask = read_beside(mask_file, Layout.of(scan.data, None, scan.series, str(source)))
    return [
        (f"volume {index}" if scan.series is not None else "", float(sigma), object_mean(scan, index, mask))
        for index, sigma in enumerate(np.atleast_1d(estimated(scan, noise, mask)))
    ]


def sigma_text(sigma: float | tuple[float, ...] | str | None) -> str:
    if sigma is None or isinstance(sigma, str):
        return "from a map" if sigma is None else "estimated in every place"
    if isinstance(sigma, tuple):
        return f"{min(sigma):.4g} to {max(sigma):.4g} over {len(sigma)} volumes"
    return f"{sigma:.4g}"


def picture_of(scan: nifti.Scan, result: arrays.Array) -> Figure:
    """The report of a scan, turned so that its axes run right, anterior, superior; of a series the first volume."""
    before, after = (data[..., 0] if data.ndim == 4 else data for data in (scan.data, np.asarray(result)))
    spacing = scan.spacing or (1.0,) * before.ndim
    with np.errstate(invalid="ignore"):  # an affine without volume gives NaN
        turn = nib.orientations.io_orientation(scan.image.affine)[: before.ndim]
    if not np.isnan(turn).any():
        order = turn[:, 0].argsort()
        turn[:, 0] = order.argsort()  # a 2D image keeps the two axes that it has
        spacing = tuple(spacing[axis] for axis in order)
        before, after = (nib.orientations.apply_orientation(volume, turn) for volume in (before, after))
    return figure.figure(before, after, spacing)


def object_of(scan: nifti.Scan, index: int, mask: arrays.Array | None) -> npt.NDArray[np.bool_]:
    """Where the object is in one volume: in the mask, or above Otsu's threshold of what was measured."""
    if mask is not None:
        return np.asarray(np.asarray(mask) != 0)
    volume = scan.volume(index)
    known = volume if scan.inside is None else volume[scan.inside]
    bright: npt.NDArray[np.bool_] = volume > otsu_threshold(torch.from_numpy(known.astype(np.float64)))
    return bright if scan.inside is None else bright & scan.inside


def object_mean(scan: nifti.Scan, index: int, mask: arrays.Array | None) -> float:
    where = object_of(scan, index, mask)
    return float(scan.volume(index)[where].mean()) if where.any() else 0.0


def quality(
    scan: nifti.Scan, result: arrays.Array, sigma: float | tuple[float, ...] | str | None, mask: arrays.Array | None
) -> dict[str, Any]:
    """Of the object: mean, mean / sigma, and standard deviation of what was removed. Lists for a series.

    What was removed should be about sigma: much less is noise that stayed, more is structure that went.
    """
    levels = None if sigma is None or isinstance(sigma, str) else np.atleast_1d(sigma)
    found: dict[str, list[float | None]] = {"signal": [], "snr": [], "removed": []}
    for index in range(1 if scan.series is None else scan.data.shape[scan.series]):
        where, after = object_of(scan, index, mask), scan.volume(index, np.asarray(result))
        values = scan.volume(index)[where].astype(np.float64)
        level = 0.0 if levels is None else float(levels[min(index, len(levels) - 1)])
        found["signal"].append(float(values.mean()) if where.any() else 0.0)
        found["snr"].append((found["signal"][-1] or 0.0) / level if level > 0 else None)
        found["removed"].append(arrays.deviation(values - after[where]))
    return found if scan.series is not None else {name: numbers[0] for name, numbers in found.items()}
