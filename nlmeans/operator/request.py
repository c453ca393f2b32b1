"""What every backend receives, and the parts of the formula that all of them share."""

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
"""Weights are not let below e⁻⁶⁴ (1.6e-28): no subnormal numbers, which cost a CPU five times the
time, and a voxel that resembles nothing has a mean of its neighbours even if its own weight is 0."""

LEAST_OWN_WEIGHT = math.exp(SMALLEST_EXPONENT / 2)
"""Of the center rule "max", so that a voxel that resembles nothing keeps its value."""


@dataclass(frozen=True)
class Request:
    """One evaluation of the operator, padded and normalised, ready for any backend.

    ``image`` is (C, Dp, Hp, Wp) and ``guide`` (F, Dp, Hp, Wp), with Dp = D + 2·(search + patch radius)
    and so on. Where an image guides itself the two are the same object, so a backend can read
    it once. ``falloff`` (1/h²) and ``offset`` (2σ²) are 0-dimensional or one number per voxel, (D, H, W).

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
    """The least weight that a voxel has to itself by the center rule "max"."""
    sample: tuple[Neighbour, ...] | None = None
    """Offsets that stand for the whole search window; None for all of it."""
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
        """One of each pair of opposite offsets to compare, and by how much its weights count more."""
        if self.sample is not None:
            return self.sample
        return tuple(Neighbour(offset, 1.0) for offset in half_window(self.search_radius))

    @property
    def uniform(self) -> bool:
        """Whether one h and one offset serve every voxel."""
        return self.falloff.ndim == 0 and self.offset.ndim == 0

    @property
    def requires_grad(self) -> bool:
        return torch.is_grad_enabled() and any(
            t.requires_grad for t in (self.image, self.guide, self.falloff, self.offset)
        )

    def inside(self, padded: Tensor, margin: Axes | None = None) -> Tensor:
        """`padded` without its margin: the voxels of the result."""
        for axis, m in enumerate(self.margin if margin is None else margin, start=padded.ndim - 3):
            padded = padded.narrow(axis, m, padded.shape[axis] - 2 * m)
        return padded


@dataclass(frozen=True)
class Backend:
    """One way to evaluate the operator.

    ``refusal`` gives the reason why a request cannot be served, or an empty string; ``run`` returns the
    (C, D, H, W) result; ``bytes_per_voxel`` estimates the working memory, from which tiles are planned.
    """

    name: str
    summary: str
    refusal: Callable[[Request], str]
    run: Callable[[Request], Tensor]
    bytes_per_voxel: Callable[[int, int, Axes, Axes], float]
    """Of (image channels, guide channels, patch radius, search radius)."""
    differentiable: bool = False
    """Whether autograd can follow ``run`` by itself; `gradient` serves the others."""


def weight(distance: Tensor, falloff: Tensor, offset: Tensor) -> Tensor:
    """exp(−falloff · max(distance − offset, 0)), bounded below."""
    return ((offset - distance) * falloff).clamp(SMALLEST_EXPONENT, 0.0).exp()


def with_center(weighted: Tensor, total: Tensor, largest: Tensor, request: Request) -> Tensor:
    """Add the voxel itself, with its weight by the center rule, and divide.

    ``weighted`` Σ_j w·V, (C, D, H, W), ``total`` Σ_j w and ``largest`` max_j w, both (D, H, W), over j ≠ i.
    """
    own = own_weight(largest, request)
    return (weighted + own * request.inside(request.image)) / (total + own)


def own_weight(largest: Tensor, request: Request) -> Tensor:
    """The weight of each voxel to itself; a window of one voxel leaves it as it is."""
    if request.center == "one":
        return torch.ones_like(largest)
    if request.center == "max":
        return largest.clamp_min(request.least_own)
    return (largest == 0).to(largest.dtype)
