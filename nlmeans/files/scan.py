"""Read a scan of any format and its mask, and measure it: noise, object, and what denoising removed."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from nlmeans.api import estimate_noise
from nlmeans.core import arrays
from nlmeans.core.layout import Layout
from nlmeans.files.formats import registry
from nlmeans.files.formats.grid import on_grid_of
from nlmeans.files.formats.nifti import Scan
from nlmeans.noise.model import NoiseModel
from nlmeans.noise.search.usable import object_threshold

log = logging.getLogger("nlmeans")

# ---------------------------------------------------------------- reading


def read_scan(source: Path, dicom_series: str | None = None, complex_too: bool = False) -> Scan:
    """Read an image file, or a DICOM series from a folder.

    Args:
        source: a file of any format in `FORMATS`, or a folder of DICOM files.
        dicom_series: number or UID of the series, if the folder holds several.
        complex_too: accept complex numbers as well.

    Raises:
        OSError: there is no such file or folder.
        ValueError, TypeError: it is damaged, or not an image with such numbers.
    """
    if source.is_dir() or is_dicom(source):
        with needs_dicom(source):
            from nlmeans.files.formats.dicom.series import read_series
        return read_series(source, dicom_series)
    if dicom_series is not None:
        raise ValueError(
            f"--dicom-series {dicom_series} is for a folder of DICOM files, which {source} is not; leave it out"
        )
    return registry.load_scan(source, complex_too)


def is_dicom(source: Path) -> bool:
    """Whether a path is that of a DICOM file, by its name or its mark, such as an enhanced image or a dose grid."""
    if not source.is_file() or registry.format_of(source) is not None:
        return False
    if source.suffix.lower() in registry.DICOM_NAMES:
        return True
    with source.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def needs_dicom(folder: Path) -> AbstractContextManager[None]:
    return registry.needs_extra("dicom", f"{folder} is a folder or a DICOM file; to read the DICOM series in it")


def read_mask_or_map(
    path: Path | None, layout: Layout, scan: Scan, resample: bool = False, order: int = 0
) -> arrays.Array | None:
    """Read a mask or a map of sigma on the voxels of a scan; see `on_grid_of`. It must not be zero everywhere."""
    if path is None:
        return None
    found = registry.load_scan(path)
    if not found.data.any():
        raise ValueError(f"{path} is zero everywhere, so no voxel would be denoised; check the file")
    data = on_grid_of(scan, found, resample, order)
    if arrays.is_nan(data) is not None:
        log.warning("%s has NaN, which counts as 0: nothing is denoised there", path)
        data = np.nan_to_num(data, nan=0.0)
    layout.spatial(data, str(path))
    if not data.any():
        raise ValueError(f"{path} is zero everywhere in {scan.path}, so no voxel would be denoised; check the file")
    return data


# ---------------------------------------------------------------- noise


class MeasuredNoise(NamedTuple):
    """The noise of one volume."""

    name: str
    """Name of the volume in its series; empty for a single volume."""
    model: NoiseModel
    mean: float
    """Mean of the object, in image units."""


def noise_of_volumes(scan: Scan, kind: str, mask: arrays.Array | None) -> list[MeasuredNoise]:
    """Measure the noise of each volume of a scan.

    Args:
        scan: the scan.
        kind: kind of noise; ``"auto"`` finds it.
        mask: where to look, with the spatial shape; None for everywhere.
    """
    if mask is None and scan.inside is not None:  # padding is not part of the object
        mask = object_mask(scan, 0, None)
    series = scan.series is not None
    return [
        MeasuredNoise(
            f"volume {index}" if series else "",
            estimate_noise(scan.volume(index), kind=kind, mask=mask, modality=scan.modality),
            object_mean(scan, index, mask),
        )
        for index in range(scan.data.shape[3] if series else 1)
    ]


# ---------------------------------------------------------------- the object, and what denoising removed


def object_mask(scan: Scan, index: int, mask: arrays.Array | None) -> npt.NDArray[np.bool_]:
    """Find the object in one volume: the mask, or else all measured voxels above Otsu's threshold."""
    if mask is not None:
        return np.asarray(np.asarray(mask) != 0)
    volume = scan.volume(index)
    known = volume if scan.inside is None else volume[scan.inside]
    bright: npt.NDArray[np.bool_] = volume > object_threshold(torch.from_numpy(known.astype(np.float64)))
    return bright if scan.inside is None else bright & scan.inside


def object_mean(scan: Scan, index: int, mask: arrays.Array | None) -> float:
    where = object_mask(scan, index, mask)
    values = scan.volume(index)[where]
    return float(np.nanmean(values)) if np.isfinite(values).any() else 0.0


def quality(
    scan: Scan, result: arrays.Array, sigma: tuple[float, ...] | None, mask: arrays.Array | None
) -> dict[str, Any]:
    """Measure the signal, its ratio to the noise, and the residual, all inside the object.

    The residual is what denoising removed. Its standard deviation should be about sigma: a smaller one means that noise
    stayed, a larger one that structure was removed.

    Returns:
        ``signal``, the mean before denoising; ``snr``, signal / sigma, None if sigma is unknown or 0; ``removed``, the
        standard deviation of the residual. Each is one number; for a series, a list with one number per volume.
    """
    found: dict[str, list[float | None]] = {"signal": [], "snr": [], "removed": []}
    for index in range(1 if scan.series is None else scan.data.shape[scan.series]):
        where, after = object_mask(scan, index, mask), scan.volume(index, np.asarray(result))
        where = where & ~np.isnan(scan.volume(index))
        values = scan.volume(index)[where].astype(np.float64)
        level = 0.0 if sigma is None else sigma[min(index, len(sigma) - 1)]
        found["signal"].append(float(values.mean()) if where.any() else 0.0)
        found["snr"].append((found["signal"][-1] or 0.0) / level if level > 0 else None)
        found["removed"].append(arrays.standard_deviation(values - after[where]))
    return found if scan.series is not None else {name: numbers[0] for name, numbers in found.items()}
