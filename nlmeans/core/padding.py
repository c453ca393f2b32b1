"""Padding by reflection, with any margin. An axis shorter than its margin is reflected repeatedly."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def reflected_index(length: int, margin: int, device: torch.device | None = None) -> Tensor:
    """For each voxel of the padded axis, the index of the voxel that it copies. The border voxel is not repeated.

    >>> reflected_index(4, 2).tolist()
    [2, 1, 0, 1, 2, 3, 2, 1]
    """
    period = max(2 * (length - 1), 1)
    position = torch.arange(-margin, length + margin, device=device) % period
    return torch.minimum(position, period - position)


def reflect(volume: Tensor, margin: tuple[int, int, int]) -> Tensor:
    """Pad the last three axes of `volume` by reflection, with `margin` voxels on both sides."""
    spatial = volume.shape[-3:]
    if all(width < length for width, length in zip(margin, spatial, strict=True)):
        depth, height, width = margin
        channels = volume.reshape(1, -1, *spatial)
        padded = F.pad(channels, (width, width, height, height, depth, depth), mode="reflect")
        return padded.reshape(*volume.shape[:-3], *padded.shape[-3:])
    for axis, width in enumerate(margin, start=volume.ndim - 3):
        if width:
            volume = volume.index_select(axis, reflected_index(volume.shape[axis], width, volume.device))
    return volume
