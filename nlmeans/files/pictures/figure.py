"""Draw a denoised volume: before, after, and the noise that was removed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from nlmeans.core import arrays
from nlmeans.files.formats.nifti import Scan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Intensities = npt.NDArray[Any]

PLANES = ("sagittal", "coronal", "axial")

LOWEST, HIGHEST = 0.2, 3.0
"""Limits of the height of a picture, as a multiple of its width. A longer picture is drawn smaller."""


def scan_figure(scan: Scan, result: arrays.Array, sigma: float | None = None) -> Figure:
    """Draw a scan and its result, turned so that the axes run right, anterior, superior.

    The figure of a series shows its first volume. `sigma` is the standard deviation of its noise, if it has only one.
    """
    before, after = (data[..., 0] if data.ndim == 4 else data for data in (scan.data, np.asarray(result)))
    spacing = scan.spacing or (1.0,) * before.ndim
    with np.errstate(invalid="ignore"):  # a singular affine gives NaN
        turn = nib.orientations.io_orientation(scan.image.affine)[: before.ndim]
    if not np.isnan(turn).any():
        order = turn[:, 0].argsort()
        turn[:, 0] = order.argsort()  # number the axes of a 2D image 0 and 1
        spacing = tuple(spacing[axis] for axis in order)
        before, after = (nib.orientations.apply_orientation(volume, turn) for volume in (before, after))
    return before_and_after(before, after, spacing, sigma)


def before_and_after(
    before: Intensities, after: Intensities, spacing: Sequence[float], sigma: float | None = None
) -> Figure:
    """Draw the middle slices of a volume: one row per plane, with the columns before, after and removed noise.

    Before and after share one grey scale, from the 0.5th to the 99.5th percentile of the image before. The scale of the
    removed noise has zero in the middle and spans four sigma to either side, so that a result from which hardly any
    noise was removed looks like one.

    Args:
        before: volume or 2D image whose axes run right, anterior, superior.
        after: the same, denoised.
        spacing: voxel size along each axis.
        sigma: standard deviation of the noise; None or 0 for that of what was removed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    before, after = (volume.astype(np.result_type(volume.dtype, np.float32)) for volume in (before, after))
    removed = before - after
    before, after, removed = (np.nan_to_num(volume, nan=0.0) for volume in (before, after, removed))
    low, high = (float(v) for v in np.percentile(before, (0.5, 99.5)))
    reach = 4 * (sigma or arrays.standard_deviation(removed)) or 1.0
    columns = (
        ("before", before, (low, high)),
        ("after", after, (low, high)),
        ("removed noise, ±4 sigma" if sigma else "removed noise", removed, (-reach, reach)),
    )
    heights = [picture.shape[0] * aspect / picture.shape[1] for _, picture, aspect in middle_slices(before, spacing)]
    heights = [min(max(height, LOWEST), HIGHEST) for height in heights]
    drawing = Figure(figsize=(10, 1.2 + 3.2 * sum(heights)), layout="constrained")
    FigureCanvasAgg(drawing)
    axes = drawing.subplots(len(heights), 3, squeeze=False, height_ratios=heights)
    for column, (name, volume, (least, most)) in enumerate(columns):
        for row, (plane, picture, aspect) in enumerate(middle_slices(volume, spacing)):
            axis = axes[row, column]
            shown = axis.imshow(picture, cmap="gray", vmin=least, vmax=most, origin="lower", aspect=aspect)
            axis.set_xticks([])
            axis.set_yticks([])
            if row == 0:
                axis.set_title(name)
            if column == 0:
                axis.set_ylabel(plane)
        drawing.colorbar(shown, ax=axes[:, column], location="bottom", shrink=0.8, aspect=30)
    return drawing


def middle_slices(volume: Intensities, spacing: Sequence[float]) -> list[tuple[str, Intensities, float]]:
    """Take the middle slice of each plane that is worth showing.

    A plane that is only one voxel thin, or whose pixels are more than three times as long as wide, is left out. If all
    planes would be left out, the one with the most pixels is shown.

    Args:
        volume: array whose axes run right, anterior, superior.
        spacing: voxel size along each axis.

    Returns:
        Title, picture, and height of a pixel divided by its width, for each plane.
    """
    if volume.ndim == 2:
        return [("", volume.T, spacing[1] / spacing[0])]
    planes = []
    for axis, title in enumerate(PLANES):
        (_, across), (_, up) = [(a, spacing[a]) for a in range(3) if a != axis]
        planes.append((title, volume.take(volume.shape[axis] // 2, axis).T, up / across))
    clear = [plane for plane in planes if min(plane[1].shape) > 1 and 1 / 3 <= plane[2] <= 3]
    return clear or [max(planes, key=lambda plane: plane[1].size)]


def save_figure(path: Path, drawing: Figure) -> None:
    """Save a figure as PNG."""
    drawing.savefig(path, format="png", dpi=110, bbox_inches="tight")
