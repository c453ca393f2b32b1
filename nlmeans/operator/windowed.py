"""The backend `windowed`: overlapping windows, in which every voxel attends to all voxels.

Within a window the Gaussian weights are a softmax, in which the square of the query cancels. With query
[2·g_i/h², −1/h²] and key [g, |g|²] the operator is therefore the attention of the non-local block (`nlmeans.nn`).

This backend is an approximation: it compares a voxel with the windows that contain it, and not with a window centred on
it. It blends overlapping windows smoothly. Plain blending, which the first implementations used, leaves visible steps.

The squares are expanded, so the relative error of the weights is about 1e-7·(range of the window / h)².
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from nlmeans.core.axes import Axes, window_voxels
from nlmeans.operator.attention import attention, head_size
from nlmeans.operator.loop import off_row, on_row, row_of
from nlmeans.operator.request import Backend, Request

BATCH_BYTES = 64 * 2**20
"""Bytes of working memory for the windows that are computed at once, or less if memory is short."""


def run(request: Request) -> Tensor:
    image, guide = request.image.flatten(1), request.guide.flatten(1)
    falloff = on_row(request.falloff, request)
    within, starts = window_indices(request)
    around = patch_steps(request)
    blend = blending(request.window, request.blend, image).flatten()

    summed, weights = torch.zeros_like(image), torch.zeros_like(image[0])
    per_window = bytes_per_window(len(image), len(guide), request.patch_radius, request.search_radius)
    batches = torch.split(starts, max(1, int(min(BATCH_BYTES, request.memory) / per_window)))
    for number, batch in enumerate(batches):
        voxels = batch[:, None] + within
        features = guide[:, voxels[..., None] + around].movedim(0, -1).flatten(-2) / math.sqrt(len(around))
        slope = falloff if falloff.ndim == 0 else falloff[voxels, None]
        attended = attend(features, slope, image[:, voxels].movedim(0, -1))
        summed.index_add_(1, voxels.flatten(), (attended * blend[:, None]).flatten(0, 1).T)
        weights.index_add_(0, voxels.flatten(), blend.repeat(len(batch)))
        request.progress((number + 1) / len(batches))

    result = summed / weights.clamp_min(torch.finfo(weights.dtype).tiny)
    return off_row(result, request)


def attend(features: Tensor, falloff: Tensor, values: Tensor) -> Tensor:
    """Σ_j softmax_j(−falloff·|g_i − g_j|²)·V_j within each window; features g are (B, N, F), values V (B, N, C)."""
    # the mean cancels in the softmax, but would add rounding errors
    features = features - features.detach().mean(1, keepdim=True)
    squares = features.square().sum(-1, keepdim=True)
    query = torch.cat([2 * falloff * features, -falloff * torch.ones_like(squares)], -1)
    key = torch.cat([features, squares], -1)
    averaged: Tensor = attention(query, key, values)
    return averaged


def window_indices(request: Request) -> tuple[Tensor, Tensor]:
    """Steps from the first voxel of a window to each of its voxels, and indices of the first voxels of all windows.

    Both count along the padded row. Windows overlap by half. The first window begins one search radius before the
    volume, and the last ends one search radius behind it.
    """
    row, device = row_of(request), request.image.device
    ranges = [range(n) for n in request.window]
    within = torch.tensor([row.step((z, y, x)) for z, y, x in itertools.product(*ranges)], device=device)
    corners = [sorted({*range(0, n, s + 1), n - 1}) for n, s in zip(request.shape, request.search_radius, strict=True)]
    starts = torch.tensor([row.step((z, y, x)) for z, y, x in itertools.product(*corners)], device=device)
    return within, starts + row.step(request.patch_radius)


def windows_step(search_radius: Axes) -> int:
    """Voxels along every axis after which the positions of windows repeat."""
    return math.lcm(*(s + 1 for s in search_radius))


def patch_steps(request: Request) -> Tensor:
    """Steps along the padded row from the middle voxel of a patch to each of its voxels."""
    row = row_of(request)
    ranges = [range(-p, p + 1) for p in request.patch_radius]
    steps = [row.step((z, y, x)) for z, y, x in itertools.product(*ranges)]
    return torch.tensor(steps, device=request.image.device)


def blending(window: Axes, blend: str, like: Tensor) -> Tensor:
    """Weight of each voxel of a window in the blend: 1, or for smooth blending a sin² that falls towards the edges."""
    if blend == "plain":
        return like.new_ones(window)
    z, y, x = (
        torch.sin(math.pi * torch.arange(1, n + 1, dtype=like.dtype, device=like.device) / (n + 1)) ** 2 for n in window
    )
    return z[:, None, None] * y[:, None] * x


def bytes_per_window(channels: int, features: int, patch_radius: Axes, search_radius: Axes) -> float:
    """Bytes of working memory for one window."""
    depth = features * window_voxels(patch_radius) + 1
    head = head_size(depth, channels)
    # features twice, their indices (8 bytes each), and query, key, values and result, each padded and unpadded
    return window_voxels(search_radius) * (8.0 * depth + 8 * depth + 8 * 4 * head)


def bytes_per_voxel(channels: int, features: int, patch_radius: Axes, search_radius: Axes) -> float:
    return 4.0 * (3 * channels + features + 4)


def refusal(request: Request) -> str:
    if request.center != "one":
        return f"softmax gives the voxel itself the weight 1, so center={request.center!r} is not possible"
    if request.sample is not None:
        return "a window attends to all of its voxels, so samples must be None"
    if request.offset.ndim or float(request.offset.detach()) != 0:
        return "softmax weights have no offset, so sigma must be 0"
    return ""


WINDOWED = Backend(
    "windowed",
    "attention within overlapping windows (torch, any device)",
    refusal,
    run,
    bytes_per_voxel,
    differentiable=True,
)
