"""Requests to backends: empty ones of any size, random ones, and the same in float64."""

from __future__ import annotations

import dataclasses

import torch

from nlmeans.core.axes import Axes
from nlmeans.core.progress import Report, silent
from nlmeans.operator.request import Request

GIB = 2**30


def empty_request(
    shape: Axes,
    search: int,
    memory: int = GIB,
    center: str = "one",
    sigma: float = 0.0,
    dtype: torch.dtype = torch.float64,
) -> Request:
    """A request of zeros of any size that itself takes no memory."""
    d, h, w = (n + 2 * search for n in shape)
    volume = torch.zeros(1, 1, 1, 1, dtype=dtype).expand(1, d, h, w)
    return Request(
        image=volume,
        guide=volume,
        falloff=torch.tensor(1.0, dtype=dtype),
        offset=torch.tensor(2 * sigma**2, dtype=dtype),
        patch_radius=(0, 0, 0),
        search_radius=(search, search, search),
        center=center,
        memory=memory,
    )


def random_request(
    shape: Axes,
    patch_radius: Axes,
    search_radius: Axes,
    *,
    channels: int = 1,
    features: int = 0,
    maps: bool = False,
    falloff: float = 3.0,
    offset: float = 0.0,
    center: str = "one",
    progress: Report = silent,
    seed: int = 0,
) -> Request:
    """A random request in float32; without `features` the image is its own guide."""
    random = torch.Generator().manual_seed(seed)
    padded = [n + 2 * (p + s) for n, p, s in zip(shape, patch_radius, search_radius, strict=True)]
    image = torch.rand(channels, *padded, generator=random) * 2 - 0.8
    guide = torch.rand(features, *padded, generator=random) if features else image
    slope, level = torch.tensor(falloff), torch.tensor(offset)
    if maps:
        slope = slope * (0.5 + torch.rand(*shape, generator=random))
        level = level * torch.rand(*shape, generator=random)
    return Request(image, guide, slope, level, patch_radius, search_radius, center, progress=progress)


def in_float64(request: Request) -> Request:
    image = request.image.double()
    guide = image if request.guide is request.image else request.guide.double()
    falloff, offset = request.falloff.double(), request.offset.double()
    return dataclasses.replace(request, image=image, guide=guide, falloff=falloff, offset=offset)
