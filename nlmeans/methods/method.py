"""The type of a method: a function, and the facts that the engine needs in order to run it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from nlmeans.core.axes import Axes
from nlmeans.core.progress import Report
from nlmeans.core.tiles import Piece


@dataclass(frozen=True)
class Options:
    """Options of a method, in voxels and in units of sigma."""

    h: float
    """Filter strength in units of sigma."""
    patch_radius: Axes
    search_radius: Axes
    backend: str
    memory: int
    """Bytes to work in."""
    seed: int = 0
    """Random seed, for methods that draw at random."""
    autocovariance: Tensor | None = None
    """Autocovariance of the noise, in units of sigma², with lag 0 in the middle; None for white noise."""
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Distance between voxels along each axis, in any unit."""
    rank: Tensor | None = None
    """Where a method for series writes how many components it keeps at each voxel of the tile, (D, H, W)."""


Stage = Callable[[Tensor, float | Tensor, Options, Report], Tensor]
"""A function of the noisy tile, sigma, the options and a progress callback. It returns the denoised tile."""

TileFilter = Callable[[Tensor, float | Tensor, Piece, Options, Report], Tensor]
"""A `Stage` that is also told which part of the tile is wanted, and returns that part."""

Halo = Callable[[Axes, Axes], Axes]
"""A function of the patch radius and the search radius."""

InVoxels = Callable[[int, Sequence[float]], tuple[int, ...]]
"""A function of a radius in voxels of the smallest size, and of the voxel size."""

Memory = Callable[[str, int, Axes, Axes], float]
"""Bytes per voxel, as a function of the backend, the number of channels, the patch radius and the search radius."""


def same_distance(radius: int, spacing: Sequence[float]) -> tuple[int, ...]:
    """Return the radius along each axis, in voxels, that is as long as `radius` voxels of the smallest size.

    >>> same_distance(3, (0.9, 0.9, 5.0))
    (3, 3, 1)
    """
    return tuple(round(radius * min(spacing) / size) for size in spacing)


@dataclass(frozen=True)
class Method:
    """A method that denoises tiles, (C, D, H, W), in units of sigma."""

    summary: str
    """One line for help texts and tables."""
    run: TileFilter
    """Denoises the wanted part of a tile."""
    halo: Halo
    """Returns how far away, in voxels along each axis, other voxels influence a voxel's result."""
    bytes_per_voxel: Memory
    """Returns the working memory."""
    h: float = 1.0
    """The method's own filter strength, as a multiple of `h_of_contrast`."""
    patch_radius: int = 1
    """Default patch radius."""
    search_radius: int = 3
    """Default search radius."""
    window: InVoxels = same_distance
    """Returns the search radius along each axis, in voxels, for one number and the voxel size."""
    flat_search_radius: int | None = None
    """The same in an image, and in a volume of which only a plane is searched; None for `search_radius`."""
    without: Mapping[str, str] = field(default_factory=dict)
    """Controls that have no effect, or hardly any: ``"h"``, ``"patch_radius"``, ``"search_radius"``, each with the
    reason."""
    shrinks: bool = False
    """Whether sigma decides how much noise is subtracted, and not only which voxels are similar."""
    whitens: bool = False
    """Whether it takes the correlation of the noise into account."""
    joint: bool = False
    """Whether it denoises all volumes of a series together. Its channels are then the components that their signals
    have in common, instead of the volumes."""
    coarser_reach: int = 0
    """Voxels that it reaches farther than its halo if the noise is correlated."""
    grain: int = 1
    """Tiles start at multiples of this many voxels, so that their grids of patches are those of the whole volume."""

    def usual_search_radius(self, flat: bool) -> int:
        """Return the search radius, in voxels, that is used if the user gives none.

        Args:
            flat: only a plane is searched.
        """
        return self.search_radius if not flat or self.flat_search_radius is None else self.flat_search_radius

    def usual_h(self, contrast: float, search_radius: Axes) -> float:
        """Return the filter strength, in units of sigma, that is used if the user gives none."""
        return self.h * h_of_contrast(contrast, search_radius)


def h_of_contrast(contrast: float, search_radius: Axes) -> float:
    """Return the filter strength, in units of sigma, that suits a volume whose values span `contrast` times sigma.

    Weak noise allows more averaging than strong noise, which hides differences between patches. The line is fitted to
    seven volumes with 1 to 9 % noise (benchmarks/results/calibration.md). It applies to 3D windows. A 2D window has
    fewer voxels to average, so its strength is 1.
    """
    return min(max(0.53 + 0.012 * contrast, 0.6), 1.0) if all(search_radius) else 1.0


THICK = 1.5
"""Ratio of the voxel size along an axis to the smallest from which slices are thick."""


def flatter_window(search_radius: int, spacing: Sequence[float]) -> tuple[int, ...]:
    """Return the search radius along each axis, in voxels, for groups of patches.

    Thick slices are alike, but less so than voxels within them, and groups need enough patches to choose from.

    >>> flatter_window(4, (0.9, 0.9, 5.0))
    (5, 5, 3)
    >>> flatter_window(4, (1.0, 1.0, 1.2))
    (4, 4, 4)
    """
    thick = is_thick(spacing)
    if search_radius == 0 or not any(thick):
        return (search_radius,) * len(thick)
    return tuple((search_radius + 2) // 2 if slices else search_radius + 1 for slices in thick)


def is_thick(spacing: Sequence[float]) -> list[bool]:
    """Tell which axes lie across thick slices."""
    return [size >= THICK * min(spacing) for size in spacing]


def is_narrow(search_radius: Axes) -> Axes:
    """Return 1 for the axes along which a window is at most two thirds as wide as along another one, 0 for others.

    >>> is_narrow((5, 5, 3)), is_narrow((4, 4, 4))
    ((0, 0, 1), (0, 0, 0))
    """
    d, h, w = (int(3 * radius <= 2 * max(search_radius)) for radius in search_radius)
    return d, h, w


def is_flat(search_radius: Axes, shape: Sequence[int], spacing: Sequence[float]) -> Axes:
    """Return 1 for the axes along which patches of a volume are short, 0 for others.

    These are the narrow axes of the window. A window that is cut short because the volume is says nothing of slices:
    there the voxel size has to say that they are thick. Across two slices, all patches are short.

    >>> is_flat((5, 5, 3), (64, 64, 20), (1, 1, 1)), is_flat((4, 4, 2), (64, 64, 3), (1, 1, 1))
    ((0, 0, 1), (0, 0, 0))
    >>> is_flat((5, 5, 2), (64, 64, 3), (1, 1, 4)), is_flat((5, 5, 1), (64, 64, 2), (1, 1, 4))
    ((0, 0, 1), (0, 0, 0))
    """
    d, h, w = (
        int(narrow and n > 2 and (thick or radius < n - 1))
        for narrow, radius, n, thick in zip(
            is_narrow(search_radius), search_radius, shape, is_thick(spacing), strict=True
        )
    )
    return d, h, w


def whole_tile(stage: Stage) -> TileFilter:
    """Turn a stage into a method's ``run``: compute the whole tile and return the wanted part."""

    def run(noisy: Tensor, sigma: float | Tensor, wanted: Piece, options: Options, progress: Report) -> Tensor:
        return stage(noisy, sigma, options, progress)[:, *wanted]

    return run
