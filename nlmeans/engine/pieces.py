"""Pieces in which a volume that is not in memory is read."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from nlmeans.core import arrays
from nlmeans.core.layout import Layout
from nlmeans.core.memory import allowed
from nlmeans.core.tiles import Piece, blocks
from nlmeans.engine.settings import Settings


def pieces_to_read(volume: arrays.Source, layout: Layout, settings: Settings, region: Piece) -> Iterator[Piece]:
    """Cut a region into pieces that fit the memory; an array in memory stays in one piece."""
    if arrays.in_memory(volume):
        yield region
        return
    memory = allowed(torch.device("cpu"), settings.memory)
    per_voxel = layout.channel_count * arrays.precise_dtype(volume).itemsize * COPIES
    yield from blocks(layout.shape, min(memory / per_voxel, LARGEST_PIECE), region, layout.chunk(volume))


COPIES = 4
"""Copies of a piece that are in memory while it is read and decompressed."""

LARGEST_PIECE = 2**24
"""Largest number of voxels in a piece."""
