"""The methods. Each composes stages in a few lines; noise has a standard deviation of 1 there, or of a map around 1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from nlmeans.backends import working_memory
from nlmeans.backends.request import Axes
from nlmeans.nonlocal_means import nonlocal_means
from nlmeans.progress import Report
from nlmeans.tiles import Piece


@dataclass(frozen=True)
class Options:
    """What a method may be told, in voxels and in units of sigma."""

    h: float
    patch_radius: Axes
    search_radius: Axes
    backend: str
    memory: int


@dataclass(frozen=True)
class Method:
    """A way to denoise (C, D, H, W) in units of sigma.

    ``run`` takes the noisy tile, sigma (a number or a (D, H, W) map), which part of the tile is wanted, the options
    and where to report progress. It returns the wanted part, which depends on the tile no farther away than ``halo``.
    """

    summary: str
    run: Callable[[Tensor, float | Tensor, Piece, Options, Report], Tensor]
    h: float
    patch_radius: int
    search_radius: int
    halo: Callable[[Axes, Axes], Axes]
    """Of (patch radius, search radius)."""
    bytes_per_voxel: Callable[[str, int, Axes, Axes], float]
    """Working memory, of (backend, channels, patch radius, search radius)."""


def both_radii(patch_radius: Axes, search_radius: Axes) -> Axes:
    d, h, w = (p + s for p, s in zip(patch_radius, search_radius, strict=True))
    return d, h, w


def classic(noisy: Tensor, sigma: float | Tensor, wanted: Piece, options: Options, progress: Report) -> Tensor:
    """Patch non-local means (Buades, Coll and Morel 2005) with the distance due to noise taken off.

    A voxel counts as much as its best neighbour, but at least a tenth, so that what is unlike all else is kept.
    Attention within windows knows neither of the two: there all weights are plain, and its own is 1.
    """
    attention = options.backend == "windowed"
    return nonlocal_means(
        noisy,
        options.h * sigma,
        sigma=0.0 if attention else sigma,
        patch_radius=options.patch_radius,
        search_radius=options.search_radius,
        center="one" if attention else 0.1,
        channels=0,
        region=wanted,
        backend=options.backend,
        memory=options.memory,
        progress=progress,
    )


METHODS: dict[str, Method] = {
    "classic": Method(
        summary="patch non-local means",
        run=classic,
        h=0.9,
        patch_radius=1,
        search_radius=3,
        halo=both_radii,
        bytes_per_voxel=lambda backend, channels, patch, search: working_memory(
            backend, channels, channels, patch, search
        ),
    ),
}


def pick(method: str) -> str:
    """The method itself, or the one that ``"auto"`` stands for."""
    return "classic" if method == "auto" else method
