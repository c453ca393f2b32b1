"""The choices that the engine makes before it reads any voxel: the method and its radii."""

from __future__ import annotations

import dataclasses
import logging
import math
from dataclasses import dataclass, field

import torch

from nlmeans.core import arrays, checks
from nlmeans.core.axes import Axes
from nlmeans.core.checks import Radius
from nlmeans.core.constants import REACH_OF_CONSTANTS
from nlmeans.core.layout import Layout
from nlmeans.core.memory import allowed
from nlmeans.engine.series import is_one_series
from nlmeans.engine.settings import Settings
from nlmeans.methods.automatic import pick_method
from nlmeans.methods.means import pilot_radius
from nlmeans.methods.method import Method, same_distance
from nlmeans.methods.registry import METHODS
from nlmeans.noise.kinds import MAGNITUDES, MICROSCOPY
from nlmeans.noise.outliers import DESPECKLE_REACH
from nlmeans.operator.windowed import windows_step
from nlmeans.patches.low_rank.hot import HOT_REACH

log = logging.getLogger("nlmeans")

COUNTS_REACH = 2
"""Pixels from which the level of few photons is found."""


@dataclass(frozen=True)
class Choices:
    """Settings, together with everything that the shape of the volume and the memory decide."""

    settings: Settings
    """Settings as the user gave them."""
    name: str
    """Name of the method, never ``"auto"``. Other processes look up the method by this name."""
    patch_radius: Axes
    search_radius: Axes
    dimensions: int
    """2 for images, 3 for volumes."""
    layout: Layout
    """The meaning of the axes for the method: volumes that are denoised together are channels."""
    said: set[str] = field(default_factory=set, compare=False, repr=False)
    """What `warn_once` has said."""

    @classmethod
    def of(cls, settings: Settings, layout: Layout, volume: arrays.Source | None = None) -> Choices:
        """Choose the method, and one radius per axis.

        A radius is at most the length of its axis − 1. In a wider window, a voxel would meet its own reflection.

        Args:
            settings: as the user gave them.
            layout: what the axes of the array are.
            volume: the array, from which ``"auto"`` sees whether the volumes of a series belong together; None takes
                them one by one.

        Raises:
            ValueError: the settings do not fit the axes of the array.
        """
        name = settings.method
        if name == "auto" and volume is not None and is_one_series(volume, layout, settings):
            name = "series"
            log.info("method auto picked series: %d volumes have much in common", layout.volumes)
        elif name == "auto":
            memory = allowed(torch.device(settings.device or "cpu"), settings.memory)
            name, reason = pick_method(layout.shape, layout.channel_count, settings.backend, memory)
            log.info("method auto picked %s: %s", name, reason)
        method, dimensions = METHODS[name], len(layout.spatial_axes)
        if method.joint:
            layout = joined_layout(name, layout)
        if settings.spacing is not None and len(settings.spacing) != dimensions:
            raise ValueError(f"spacing={settings.spacing} must have one number per spatial axis: {dimensions}")

        spacing = spacing_that_counts(settings)

        def in_voxels(argument: str, given: Radius | None, usual: int) -> Axes:
            radius: Radius = usual if given is None else given
            if isinstance(radius, int) and spacing is not None:
                radius = (method.window if argument == "search_radius" else same_distance)(radius, spacing)
            per_axis = checks.radii(argument, radius, dimensions)
            d, h, w = (min(r, n - 1) for r, n in zip(per_axis, layout.shape, strict=True))
            return d, h, w

        search_radius = in_voxels("search_radius", settings.search_radius, method.search_radius)
        if settings.search_radius is None and not all(search_radius):
            wide = in_voxels("search_radius", None, method.usual_search_radius(flat=True))
            d, h, w = (w if r else 0 for r, w in zip(search_radius, wide, strict=True))
            search_radius = d, h, w
        patch_radius = in_voxels("patch_radius", settings.patch_radius, method.patch_radius)
        return cls(settings, name, patch_radius, search_radius, dimensions, layout)

    def warn_once(self, about: str, text: str) -> None:
        """Log a warning, but once per run about the same thing, and not for each volume."""
        if about not in self.said:
            self.said.add(about)
            log.warning("%s", text)

    @property
    def method(self) -> Method:
        """The chosen method."""
        return METHODS[self.name]

    @property
    def title(self) -> str:
        """The method, with its strength if that is not its own."""
        strength = self.settings.strength
        return self.name if strength == 1 else f"{self.name} at strength {strength:g}"

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between voxels along each axis, (D, H, W), in the unit of the settings; 1 if they do not say it."""
        known = spacing_that_counts(self.settings) or (1.0,) * self.dimensions
        d, h, w = (min(known),) * (3 - self.dimensions) + tuple(known)
        return d, h, w

    @property
    def record(self) -> Settings:
        """Settings that lead to the same choices again: the method by name, and one radius per spatial axis."""
        return dataclasses.replace(
            self.settings,
            method=self.name,
            patch_radius=self.patch_radius[-self.dimensions :],
            search_radius=self.search_radius[-self.dimensions :],
        )

    @property
    def halo(self) -> Axes:
        """Distance along each axis within which other voxels influence the result of a voxel, whatever its noise is."""
        return self.halo_for(self.settings.may_be_correlated)

    def halo_for(self, correlated: bool) -> Axes:
        """Return the distance along each axis within which other voxels influence the result of a voxel."""
        margins = [self.method.halo(self.patch_radius, self.search_radius)]
        if self.settings.kind in ("auto", *MAGNITUDES) and self.method.shrinks:
            margins.append(METHODS["classic"].halo(self.patch_radius, pilot_radius(self.search_radius)))
        if self.settings.kind in ("auto", "poisson") and self.method.shrinks and 1 in self.layout.shape:
            margins.append((COUNTS_REACH,) * 3)
        if self.settings.backend == "windowed":  # a voxel at the edge of a window depends on the whole window
            margins += [self.search_radius] * len(margins)
        if correlated:
            margins.append((self.method.coarser_reach,) * 3)
        outliers = DESPECKLE_REACH * self.settings.despeckle + HOT_REACH * self.method.joint
        reach = (sum(margin) + outliers for margin in zip(*margins, strict=True))
        d, h, w = (max(voxels, 2 * REACH_OF_CONSTANTS) for voxels in reach)
        return d, h, w

    @property
    def grain(self) -> int:
        """Tiles start at multiples of this many voxels, so that patches and windows lie as in the whole volume."""
        if self.settings.backend != "windowed":
            return self.method.grain
        steps = (windows_step(radius) for radius in (self.search_radius, pilot_radius(self.search_radius)))
        return math.lcm(self.method.grain, *steps)

    def usual_h(self, contrast: float) -> float:
        """Return the method's own filter strength, in units of sigma."""
        return self.method.usual_h(contrast, self.search_radius)

    def bytes_per_voxel(self, channels: int) -> float:
        """Return the working memory per voxel of a tile with its halo."""
        working = self.method.bytes_per_voxel(self.settings.backend, channels, self.patch_radius, self.search_radius)
        return working + CONVERSION_BYTES * channels


def joined_layout(name: str, layout: Layout) -> Layout:
    """Return the layout for a method that takes all volumes together.

    Raises:
        ValueError: there are not several volumes, or they have channels as well.
    """
    if layout.series is not None and layout.channels is not None:
        raise ValueError(
            f"method={name!r} takes one axis of volumes, but channels= and series= name two; leave one out"
        )
    if layout.joined.channel_count < FEWEST_VOLUMES:
        raise ValueError(
            f"method={name!r} is for a series of {FEWEST_VOLUMES} volumes or more; name their axis by series=, or use "
            "another method"
        )
    return layout.joined


FEWEST_VOLUMES = 4
"""Least number of volumes that can be denoised together: fewer have little that noise has not."""

CONVERSION_BYTES = 24
"""Bytes per voxel and channel for the copies of a tile: as read, in units of sigma, and converted back."""


def spacing_that_counts(settings: Settings) -> tuple[float, ...] | None:
    """Return the voxel size; None for a microscope, which resolves as coarsely along its axis as slices are apart."""
    return None if settings.modality == MICROSCOPY else settings.spacing
