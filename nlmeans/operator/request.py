"""The request that every backend receives, and the parts of the formula that all backends share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nlmeans.core.axes import Axes as Axes
from nlmeans.core.progress import Report, silent
from nlmeans.operator.neighbours import Neighbour, half_window

SMALLEST_EXPONENT = -64.0
"""Weights are at least e⁻⁶⁴ (1.6e-28). This avoids subnormal numbers, which take a CPU five times as long, and gives a
voxel unlike all others the mean of its neighbours if its own weight is 0."""

LEAST_OWN_WEIGHT = math.exp(SMALLEST_EXPONENT / 2)
"""Smallest weight of the voxel itself under the center rule "max": a voxel unlike all others keeps its value."""


@dataclass(frozen=True)
class Request:
    """One evaluation of the operator, padded and normalised, ready for any backend.

    ``image`` is (C, Dp, Hp, Wp) and ``guide`` is (F, Dp, Hp, Wp), with Dp = D + 2·(search radius + patch radius) and so
    on. If the image is its own guide, both are the same object, so a backend can read it once. ``falloff`` (1/h²) and
    ``offset`` (2σ²) are 0-dimensional, or (D, H, W) with one number per voxel.

    ::

        d(i,j) = Σ_f mean over the patch of (guide_f(i+o) − guide_f(j+o))²
        w(i,j) = exp(max(−falloff(i) · max(d − offset(i), 0), −64))
    """

    image: Tensor
    guide: Tensor
    falloff: Tensor
    offset: Tensor
    patch_radius: Axes
    search_radius: Axes
    center: str
    least_own: float = LEAST_OWN_WEIGHT
    """Smallest weight of the voxel itself under the center rule "max"."""
    sample: tuple[Neighbour, ...] | None = None
    """Offsets that stand for the whole search window; None for the window itself."""
    blend: str = "smooth"
    memory: int = 2**62
    progress: Report = silent

    @property
    def margin(self) -> Axes:
        """Padding on either side of each axis."""
        z, y, x = (s + p for s, p in zip(self.search_radius, self.patch_radius, strict=True))
        return z, y, x

    @property
    def shape(self) -> Axes:
        """(D, H, W) of the result."""
        d, h, w = (n - 2 * m for n, m in zip(self.image.shape[1:], self.margin, strict=True))
        return d, h, w

    @property
    def window(self) -> Axes:
        """Voxels of the search window along each axis."""
        z, y, x = (2 * s + 1 for s in self.search_radius)
        return z, y, x

    @property
    def patch(self) -> Axes:
        """Voxels of the patch along each axis."""
        z, y, x = (2 * p + 1 for p in self.patch_radius)
        return z, y, x

    @property
    def neighbours(self) -> tuple[Neighbour, ...]:
        """One of each pair of opposite offsets to compare, with the factor of its weights."""
        if self.sample is not None:
            return self.sample
        return tuple(Neighbour(offset, 1.0) for offset in half_window(self.search_radius))

    @property
    def uniform(self) -> bool:
        """Whether falloff and offset are the same for every voxel."""
        return self.falloff.ndim == 0 and self.offset.ndim == 0

    @property
    def requires_grad(self) -> bool:
        """Whether autograd tracks any input."""
        return torch.is_grad_enabled() and any(
            t.requires_grad for t in (self.image, self.guide, self.falloff, self.offset)
        )

    def inside(self, padded: Tensor, margin: Axes | None = None) -> Tensor:
        """Cut the margin off `padded`, which leaves the voxels of the result."""
        for axis, m in enumerate(self.margin if margin is None else margin, start=padded.ndim - 3):
            padded = padded.narrow(axis, m, padded.shape[axis] - 2 * m)
        return padded


@dataclass(frozen=True)
class Backend:
    """One way to evaluate the operator.

    ``refusal`` returns the reason why it cannot serve a request, or an empty string. ``run`` returns the result,
    (C, D, H, W). ``bytes_per_voxel`` estimates the working memory, from which tiles are planned.
    """

    name: str
    summary: str
    refusal: Callable[[Request], str]
    run: Callable[[Request], Tensor]
    bytes_per_voxel: Callable[[int, int, Axes, Axes], float]
    """Called with the number of image channels, the number of guide channels, patch radius and search radius."""
    differentiable: bool = False
    """Whether autograd can differentiate ``run``; for other backends, `gradient` computes the derivative."""


def weight_from_distance(distance: Tensor, falloff: Tensor, offset: Tensor) -> Tensor:
    """The weight exp(−falloff · max(distance − offset, 0)), but at least e⁻⁶⁴."""
    return ((offset - distance) * falloff).clamp(SMALLEST_EXPONENT, 0.0).exp()


def with_center(weighted: Tensor, total: Tensor, largest: Tensor, request: Request) -> Tensor:
    """Add the voxel itself with the weight of the center rule, and divide by the sum of the weights.

    Over the neighbours j ≠ i, ``weighted`` is Σ_j w·V, (C, D, H, W); ``total`` is Σ_j w, and ``largest`` is max_j w,
    both (D, H, W).
    """
    own = own_weight(largest, request)
    return (weighted + own * request.inside(request.image)) / (total + own)


def own_weight(largest: Tensor, request: Request) -> Tensor:
    """The weight of each voxel itself under the center rule. Under "zero" it is 1 if the window has no other voxel."""
    if request.center == "one":
        return torch.ones_like(largest)
    if request.center == "max":
        return largest.clamp_min(request.least_own)
    return (largest == 0).to(largest.dtype)
