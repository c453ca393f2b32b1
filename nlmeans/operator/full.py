"""The backend `full`: all neighbours of all voxels in one tensor.

Its few large operations are fastest for small images. Its memory grows with the search window; it refuses a request
that needs more than is allowed before it allocates anything.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from nlmeans.core.axes import Axes, window_voxels
from nlmeans.operator.request import Backend, Request, weight_from_distance, with_center


def neighbours(padded: Tensor, window: Axes) -> Tensor:
    """View of `padded` at all offsets of the window, without a copy.

    From (C, D, H, W) to (C, wz, wy, wx, D − wz + 1, H − wy + 1, W − wx + 1).
    """
    for axis, length in enumerate(window, start=1):
        padded = padded.unfold(axis, padded.shape[axis] - length + 1, 1)
    # unfold appends the axis of voxels at the end, so the axes of the window stay in front
    return padded


def run(request: Request) -> Tensor:
    offsets = window_voxels(request.search_radius)
    guides = neighbours(request.guide, request.window)
    middle = request.inside(request.guide, request.search_radius)
    difference = guides - middle[:, None, None, None]
    squared = difference.square().sum(0).reshape(offsets, 1, *difference.shape[4:])
    distance = F.avg_pool3d(squared, request.patch, stride=1).reshape(offsets, *request.shape)
    factors = distance.new_zeros(request.window)  # 0 for the voxel itself, whose weight `with_center` adds
    for (z, y, x), factor in request.neighbours:
        for sign in (1, -1):
            factors[*(s + sign * o for s, o in zip(request.search_radius, (z, y, x), strict=True))] = factor
    factors = factors.view(offsets, 1, 1, 1)
    weights = weight_from_distance(distance, request.falloff, request.offset)
    largest = (weights * (factors > 0)).amax(0)
    weights = weights * factors

    values = neighbours(request.inside(request.image, request.patch_radius), request.window)
    weighted = (weights * values.reshape(values.shape[0], offsets, *request.shape)).sum(1)
    return with_center(weighted, weights.sum(0), largest, request)


def bytes_per_voxel(channels: int, features: int, patch_radius: Axes, search_radius: Axes) -> float:
    # differences, their squares and means, weights, neighbours and weighted neighbours
    return 4.0 * window_voxels(search_radius) * (2 * features + 4 + 3 * channels)


def memory_needed(request: Request) -> float:
    """Bytes of working memory for a request."""
    per_voxel = bytes_per_voxel(
        request.image.shape[0], request.guide.shape[0], request.patch_radius, request.search_radius
    )
    return per_voxel * request.image.element_size() / 4 * math.prod(request.shape)


def refusal(request: Request) -> str:
    needed = memory_needed(request)
    if needed > request.memory:
        return f"it would need {needed / 2**30:.2f} GiB of the {request.memory / 2**30:.2f} GiB allowed by memory="
    return ""


FULL = Backend(
    "full", "all neighbours in one tensor (torch, any device)", refusal, run, bytes_per_voxel, differentiable=True
)
