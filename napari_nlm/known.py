"""What is known about a run before it starts, as plain values for the widget to show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from napari_nlm.parameters import Parameters, follows_intensity, is_poisson
from nlmeans.core.axes import Axes
from nlmeans.core.memory import allowed
from nlmeans.engine.choices import Choices
from nlmeans.engine.survey import Facts
from nlmeans.noise.level_curve import Curve, curve_as_text

SigmaNumbers = float | tuple[float, ...]
"""One number, or one per channel."""


@dataclass(frozen=True)
class Known:
    """What the engine will do with the volume that is shown."""

    parameters: Parameters
    choices: Choices
    facts: Facts | None
    """None until the volume has been surveyed."""
    h: float | None
    """The filter strength in units of sigma; None until the volume has been surveyed."""
    spacing: tuple[float, ...] | None
    unit: str
    """Name of the world units."""
    varies: bool = False
    """Whether sigma was found to vary in space, or is to be estimated at every voxel."""
    provisional: bool = False
    """Whether the facts are those of few voxels, and better ones follow."""
    judged: bool = True
    """Whether it is known if the volumes of a series are denoised one by one or together."""

    @property
    def sigma(self) -> SigmaNumbers | None:
        """The number that the user gave, else the estimate. With Poisson noise, the read noise; with a curve, none."""
        if self.parameters.sigma is not None or follows_intensity(self.parameters) or self.facts is None:
            return self.parameters.sigma
        if self.facts.noise.follows_intensity:
            return self.facts.noise.sigma
        return self.facts.sigma[0] if len(set(self.facts.sigma)) == 1 else self.facts.sigma

    @property
    def curve(self) -> Curve | None:
        """Sigma over intensity, as given or found; None for other noise, and until it is found."""
        if self.facts is None or self.facts.noise.curve is None:
            return None
        return self.facts.noise.told_curve

    @property
    def automatic(self) -> dict[str, Any]:
        """The numbers that the engine takes for parameters on auto. Radii are in voxels of the smallest size."""
        sigma = self.sigma
        if sigma is None and is_poisson(self.parameters):
            sigma = 0.0
        settings = self.choices.settings
        found = {
            "sigma": sum(sigma) / len(sigma) if isinstance(sigma, tuple) else sigma,
            "memory": allowed(torch.device(settings.device or "cpu"), None) / 1e9,
            "patch_radius": max(self.choices.patch_radius),
            "search_radius": max(self.choices.search_radius),
            "h": self.h,
            "curve": None if self.curve is None else curve_as_text(self.curve),
        }
        return {name: value for name, value in found.items() if value is not None}

    @property
    def h_in_image_units(self) -> float | None:
        """None until it is known, and where image units mean nothing: without noise, or if it follows the intensity."""
        if self.h is None or self.facts is None or self.facts.noise.follows_intensity or not any(self.facts.sigma):
            return None
        return self.h * self.facts.unit

    def window(self, radius: Axes) -> list[int]:
        """Voxels that a window with this radius spans along each spatial axis."""
        return [2 * r + 1 for r in radius[-self.choices.dimensions :]]

    def window_in_world(self, radius: Axes) -> list[float] | None:
        """The same distances in world units; None if these have no name, or if one is a voxel."""
        if self.spacing is None or self.unit == "pixel" or set(self.spacing) == {1.0}:
            return None
        return [width * size for width, size in zip(self.window(radius), self.spacing, strict=True)]


@dataclass(frozen=True)
class MemoryNeed:
    """Memory that a run needs, and what is free, in bytes."""

    device: str
    working: float
    """On the device."""
    result: float
    """In the computer's memory, for the result layers."""
    free: float
    """On the device."""
    free_here: float
    """In the computer's memory."""

    @property
    def on_cpu(self) -> bool:
        return self.device.startswith("cpu")

    @property
    def enough(self) -> bool:
        if self.on_cpu:
            return self.working + self.result < self.free_here
        return self.working < self.free and self.result < self.free_here
