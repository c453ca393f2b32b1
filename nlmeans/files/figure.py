"""A picture of a denoised volume: before, after, and the noise that was removed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nlmeans.core import arrays

Volume = npt.NDArray[Any]

PLANES = ("sagittal", "coronal", "axial")

LOWEST, HIGHEST = 0.2, 3.0
"""Height by width of the room for a picture; a longer one is shown smaller."""


def middle_slices(volume: Volume, spacing: Sequence[float]) -> list[tuple[str, Volume, float]]:
    """The planes to show of an array whose axes run right, anterior, superior: title, picture and its height by width.

    A plane that is one voxel thin, or whose voxels are more than three times as long as wide, shows little and is left
    out; if all are, the one with the most voxels remains.
    """
    if volume.ndim == 2:
        return [("", volume.T, spacing[1] / spacing[0])]
    planes = []
    for axis, title in enumerate(PLANES):
        (_, across), (_, up) = [(a, spacing[a]) for a in range(3) if a != axis]
        planes.append((title, volume.take(volume.shape[axis] // 2, axis).T, up / across))
    clear = [plane for plane in planes if min(plane[1].shape) > 1 and 1 / 3 <= plane[2] <= 3]
    return clear or [max(planes, key=lambda plane: plane[1].size)]


def figure(before: Volume, after: Volume, spacing: Sequence[float]) -> Figure:
    """Rows of planes, columns before, after and removed.

    Before and after share one grey scale, from the 0.5th to the 99.5th percentile of the image before. The removed
    noise has zero in the middle of its own, and reaches four of its standard deviations to either side.
    """
    before, after = (volume.astype(np.result_type(volume.dtype, np.float32)) for volume in (before, after))
    removed = before - after
    low, high = (float(v) for v in np.percentile(before, (0.5, 99.5)))
    reach = 4 * arrays.deviation(removed) or 1.0
    columns = (
        ("before", before, (low, high)),
        ("after", after, (low, high)),
        ("removed noise", removed, (-reach, reach)),
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


def save(path: Path, drawing: Figure) -> None:
    drawing.savefig(path, format="png", dpi=110, bbox_inches="tight")
