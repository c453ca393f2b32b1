"""Random requests on the device that runs the kernel of the backend `gpu`, and the error of its results."""

from __future__ import annotations

import pytest
import torch

from nlmeans.core.axes import Axes
from nlmeans.operator.gpu import GPU
from nlmeans.operator.loop import LOOP
from nlmeans.operator.request import Request
from tests.nlmeans.operator.requests import in_float64

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def gpu_request(
    shape: Axes,
    patch_radius: Axes = (0, 0, 0),
    search_radius: Axes = (1, 1, 1),
    *,
    channels: int = 1,
    features: int = 0,
    falloff: float = 0.7,
    offset: float = 0.0,
    maps: str = "",
    center: str = "one",
) -> Request:
    """A random request; without `features` the image is its own guide."""
    random = torch.Generator().manual_seed(0)
    padded = [n + 2 * (p + s) for n, p, s in zip(shape, patch_radius, search_radius, strict=True)]
    image = torch.randn(channels, *padded, generator=random).to(DEVICE)
    guide = torch.randn(features, *padded, generator=random).to(DEVICE) if features else image
    slope, level = torch.tensor(falloff, device=DEVICE), torch.tensor(offset, device=DEVICE)
    if "falloff" in maps:
        slope = slope * (0.5 + torch.rand(shape, generator=random).to(DEVICE))
    if "offset" in maps:
        level = level * (0.5 + torch.rand(shape, generator=random).to(DEVICE))
    return Request(image, guide, slope, level, patch_radius, search_radius, center)


def reference(of: Request) -> torch.Tensor:
    """The result of `loop` in float64."""
    return LOOP.run(in_float64(of))


def error(of: Request) -> float:
    """The relative error of the backend, as a norm."""
    assert GPU.refusal(of) == ""
    expected = reference(of)
    result = GPU.run(of)
    assert result.dtype == of.image.dtype
    return float((result.double() - expected).norm() / expected.norm())
