"""From file to file: read, denoise, and write the result with a record of how, and a picture if wanted."""

from __future__ import annotations

import dataclasses
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import torch
from matplotlib.figure import Figure

from nlmeans import arrays, io, outliers, report
from nlmeans.denoise import resolve, run
from nlmeans.estimate import estimate_sigma, otsu_threshold
from nlmeans.layout import Layout
from nlmeans.progress import reporting
from nlmeans.settings import Settings


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
    picture: Path | None = None,
    overwrite: bool = False,
    progress: bool = False,
    **options: Any,
) -> str:
    """Denoise a file; returns a line that says what was done."""
    record = target.with_name(target.name.removesuffix(".gz").removesuffix(".nii") + ".json")
    outputs = [target, record] if picture is None else [target, record, picture]
    for path, endings in zip(outputs, (io.ENDINGS, (".json",), (".png",)), strict=False):
        io.check_output(path, overwrite, endings)
    if target.resolve() == source.resolve():
        raise ValueError(f"OUT={target} is IN itself; the original is never overwritten, choose another name")

    if sigma is not None and sigma_file is not None:
        raise ValueError(f"--sigma {sigma} and --sigma-map {sigma_file} both say what the noise is; give one of them")
    settings = Settings(sigma=sigma, **options)
    scan = io.read(source)
    if share_weights and scan.series is None:
        raise ValueError(f"--share-weights is for series of volumes, but {source} has no fourth axis; leave it out")
    channels, series = (scan.series, None) if share_weights else (None, scan.series)
    layout = Layout.of(scan.data, channels, series, str(source))
    mask, sigma_map = read_beside(mask_file, layout), read_beside(sigma_file, layout)
    device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
    spacing = None if voxel_radii else scan.spacing
    settings = dataclasses.replace(settings, channels=channels, series=series, spacing=spacing, device=device)
    if as_float:
        settings = dataclasses.replace(settings, dtype="float32")
    if settings.sigma is None and sigma_map is None and settings.noise != "poisson":
        settings = dataclasses.replace(settings, sigma=estimated(scan, settings.noise, mask, settings.despeckle))
    settings = resolve(settings, layout)
    with reporting(progress, source.name) as report_progress:
        result = run(scan.data, settings, mask=mask, sigma_map=sigma_map, progress=report_progress)

    facts = {
        "input": source.name,
        "input_sha256": io.sha256(source),
        "sigma_estimated": sigma in (None, "map") and sigma_map is None and settings.noise != "poisson",
        "settings": settings.to_dict(),
        "mask": mask_file and mask_file.name,
        "sigma_map": sigma_file and sigma_file.name,
        "nlmeans": version("nlmeans"),
        "torch": torch.__version__,
    }
    with io.written_together(*outputs) as temporary:
        io.write(io.like(scan, result, keep_type=not as_float), temporary[0])
        temporary[1].write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        if picture is not None:
            report.save(temporary[2], picture_of(scan, result))
    level = "" if settings.noise == "poisson" else f", sigma {sigma_text(settings.sigma)}"
    return f"{target}: {settings.method}, {settings.noise} noise{level}"


def read_beside(path: Path | None, layout: Layout) -> arrays.Array | None:
    """A mask or map that must have the spatial shape of the image."""
    if path is None:
        return None
    data = io.read(path).data
    layout.spatial(data, str(path))
    if not data.any():
        raise ValueError(f"{path} is zero everywhere, so there is nothing to do; give an image with other values")
    return data


def estimated(
    scan: io.Scan, noise: str, mask: arrays.Array | None, without_outliers: bool = False
) -> float | tuple[float, ...]:
    data = outliers.despeckle(scan.data, series=scan.series) if without_outliers else scan.data
    found = np.asarray(estimate_sigma(data, noise=noise, mask=mask, series=scan.series))
    return float(found) if found.ndim == 0 else tuple(found.tolist())


def sigma_text(sigma: float | tuple[float, ...] | str | None) -> str:
    if sigma is None or isinstance(sigma, str):
        return "from a map" if sigma is None else "estimated in every place"
    if isinstance(sigma, tuple):
        return f"{min(sigma):.4g} to {max(sigma):.4g} over {len(sigma)} volumes"
    return f"{sigma:.4g}"


def picture_of(scan: io.Scan, result: arrays.Array) -> Figure:
    """The report of a scan, turned so that its axes run right, anterior, superior; of a series the first volume."""
    before, after = (
        (data[..., 0] if data.ndim == 4 else data).astype(np.float32) for data in (scan.data, np.asarray(result))
    )
    spacing = scan.spacing or (1.0,) * before.ndim
    with np.errstate(invalid="ignore"):  # an affine without volume gives NaN
        turn = nib.orientations.io_orientation(scan.image.affine)[: before.ndim]
    if not np.isnan(turn).any():
        order = turn[:, 0].argsort()
        turn[:, 0] = order.argsort()  # a 2D image keeps the two axes that it has
        spacing = tuple(spacing[axis] for axis in order)
        before, after = (nib.orientations.apply_orientation(volume, turn) for volume in (before, after))
    return report.figure(before, after, spacing)


def object_mean(scan: io.Scan, index: int, mask: arrays.Array | None) -> float:
    volume = np.asarray(scan.data[..., index] if scan.series is not None else scan.data)
    if mask is not None:
        return float(volume[np.asarray(mask) != 0].mean())
    return float(volume[volume > otsu_threshold(torch.from_numpy(volume.astype(np.float32)))].mean())
