"""Parts of a volume that are enough to know its noise, as one small array in memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_nlm.volume_view import LayerArray, VolumeView
from nlmeans.core.arrays import chunks
from nlmeans.core.layout import Layout
from nlmeans.core.tiles import Piece, piece
from nlmeans.noise.search.estimate import sample_pieces


def sampled_boxes(view: LayerArray | VolumeView, layout: Layout, voxels: int) -> list[Piece]:
    """Choose evenly spaced boxes of a volume. They begin where stored chunks do, so that few chunks are read.

    Args:
        view: the volume.
        layout: what its axes are.
        voxels: how many voxels to choose.
    """
    boxes = sample_pieces(layout.shape, voxels)
    if chunks(view) is None:
        return boxes
    stored = layout.chunk(view)
    moved: list[Piece] = []
    for box in boxes:
        sides = [
            side if side.stop - side.start > size else slice(start := side.start // size * size, start + width)
            for side, size in zip(box, stored, strict=True)
            if (width := side.stop - side.start)
        ]
        inside = all(side.stop <= n for side, n in zip(sides, layout.shape, strict=True))
        here = piece(sides) if inside else box
        if here not in moved:
            moved.append(here)
    return moved


def joined_boxes(view: LayerArray | VolumeView, layout: Layout, boxes: list[Piece]) -> LayerArray:
    """Read boxes of a volume and join them along its first axis that is longer than 1, as one array of the same axes.

    The seams look like edges, which estimates of noise leave out.
    """
    along = layout.spatial_axes[0] if layout.shape[0] > 1 or len(layout.spatial_axes) == 2 else layout.spatial_axes[1]
    parts: list[Any] = [np.asarray(view[layout.index(0, box)]) for box in boxes]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=along)
