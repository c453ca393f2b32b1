"""What a method is: a function, and the facts that the engine needs in order to run it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from nlmeans.core.axes import Axes
from nlmeans.core.progress import Report
from nlmeans.core.tiles import Piece


@dataclass(frozen=True)
class Options:
    """What a method may be told, in voxels and in units of sigma."""

    h: float
    patch_radius: Axes
    search_radius: Axes
    backend: str
    memory: int
    seed: int = 0
    """Random seed, for methods that draw at random."""


Stage = Callable[[Tensor, float | Tensor, Options, Report], Tensor]
"""A function of the noisy tile, sigma, the options and a progress callback. It returns the denoised tile."""

TileFilter = Callable[[Tensor, float | Tensor, Piece, Options, Report], Tensor]
"""A `Stage` that is also told which part of the tile is wanted, and returns that part."""

Halo = Callable[[Axes, Axes], Axes]
"""A function of the patch radius and the search radius."""

Memory = Callable[[str, int, Axes, Axes], float]
"""Bytes per voxel, as a function of the backend, the number of channels, the patch radius and the search radius."""


@dataclass(frozen=True)
class Method:
    """A way to denoise (C, D, H, W), given in units of sigma.

    ``run`` takes the noisy tile, sigma (a number or a (D, H, W) map), which part of the tile is wanted, the options,
    and a progress callback. It returns the wanted part, which depends on no voxel farther away than ``halo``.
    """

    summary: str
    run: TileFilter
    halo: Halo
    bytes_per_voxel: Memory
    """Working memory."""
    h: float = 1.0
    """The method's own filter strength, in units of `h_of_contrast`."""
    patch_radius: int = 1
    search_radius: int = 3
    shrinks: bool = False
    """Whether sigma decides how much is taken off, and not only which voxels are similar."""
    grain: int = 1
    """Tiles start at multiples of this many voxels, so that their grids of patches are those of the whole volume."""

    def usual_h(self, contrast: float, search_radius: Axes) -> float:
        """The filter strength in units of sigma, where the user gives none."""
        return self.h * h_of_contrast(contrast, search_radius)


def h_of_contrast(contrast: float, search_radius: Axes) -> float:
    """The filter strength, in units of sigma, that suits a volume whose values span `contrast` times sigma.

    Weak noise tolerates more averaging than strong noise, which hides differences. The line was fitted to seven volumes
    at 1 to 9 % (benchmarks/results/calibration.md). A window in one plane has fewer voxels to choose from.
    """
    return min(max(0.53 + 0.012 * contrast, 0.6), 1.0) if all(search_radius) else 1.0


def whole_tile(stage: Stage) -> TileFilter:
    """Turn a stage into a method's ``run``: compute the whole tile and return the wanted part."""

    def run(noisy: Tensor, sigma: float | Tensor, wanted: Piece, options: Options, progress: Report) -> Tensor:
        return stage(noisy, sigma, options, progress)[:, *wanted]

    return run
