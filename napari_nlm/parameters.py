"""What a user may choose, described once: names and defaults are the engine's, units are those that people think in."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nlmeans import METHODS, Settings
from nlmeans.backends import BACKENDS
from nlmeans.noise import NOISES
from nlmeans.settings import FLOATS

DEFAULTS = Settings()

Sigma = float | tuple[float, ...]
"""One number, or one per channel."""


@dataclass(frozen=True, kw_only=True)
class Control:
    """How a parameter is shown. The type of its default says what it is: text, a switch, or a number."""

    label: str
    tip: str
    group: str
    choices: tuple[str, ...] = ()
    automatic: str = ""
    """What ``None`` is called, for parameters that may be left to the engine."""
    low: float = 0
    high: float = 0
    step: float = 1
    whole: bool = False
    unit: str = ""
    applies: Callable[[Parameters], bool] = lambda parameters: True
    kept: bool = True
    """Whether the choice outlives the image that it was made for."""


def shown(default: Any, **control: Any) -> Any:
    return field(default=default, metadata={"control": Control(**control)})


def is_poisson(parameters: Parameters) -> bool:
    return parameters.noise == "poisson"


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """The choices of a user; ``None`` leaves one to the engine."""

    noise: str = shown(
        DEFAULTS.noise,
        label="Noise",
        group="noise",
        choices=NOISES,
        tip="gaussian: the same in dark and bright.\nrician: MR magnitude images, whose background is lifted.\n"
        "poisson: counts of photons or decays (PET, microscopy).",
    )
    sigma: float | None = shown(
        DEFAULTS.sigma,
        label="Sigma (σ)",
        group="noise",
        automatic="estimated",
        low=0,
        high=1e9,
        kept=False,
        tip="Standard deviation of the noise, in image units. Estimated from the image until you change it.\n"
        "With poisson noise: the read noise of the detector.",
    )
    gain: float = shown(
        DEFAULTS.gain,
        label="Gain",
        group="noise",
        low=1e-9,
        high=1e9,
        applies=is_poisson,
        kept=False,
        tip="Image units per photon or decay.",
    )
    offset: float = shown(
        DEFAULTS.offset,
        label="Offset",
        group="noise",
        low=-1e9,
        high=1e9,
        applies=is_poisson,
        kept=False,
        tip="Image value without any photon, in image units.",
    )
    method: str = shown(
        DEFAULTS.method,
        label="Method",
        group="filter",
        choices=("auto", *METHODS),
        tip="\n".join(f"{name}: {method.summary}" for name, method in METHODS.items()),
    )
    h: float | None = shown(
        None,
        label="Strength h",
        group="filter",
        automatic="the method's own",
        low=0.1,
        high=3,
        step=0.05,
        unit="σ",
        tip="How unlike voxels may be that are still averaged, in multiples of sigma. Larger is smoother.",
    )
    search_radius: int | None = shown(
        DEFAULTS.search_radius,
        label="Search radius",
        group="filter",
        automatic="the method's own",
        low=0,
        high=12,
        whole=True,
        unit="voxels",
        tip="Similar voxels are sought in a window of 2r + 1 voxels around each. Larger is better and slower.",
    )
    patch_radius: int | None = shown(
        DEFAULTS.patch_radius,
        label="Patch radius",
        group="filter",
        automatic="the method's own",
        low=0,
        high=4,
        whole=True,
        unit="voxels",
        tip="Voxels are compared by the patches of 2r + 1 voxels around them.",
    )
    voxel_size: bool = shown(
        True,
        label="Use voxel size",
        group="advanced",
        tip="Windows span the same distance along all axes: thick slices get a flat one.\n"
        "Off: the same number of voxels, whatever their size.",
    )
    device: str | None = shown(
        DEFAULTS.device,
        label="Device",
        group="advanced",
        automatic="auto",
        tip="Where to compute. auto: the first GPU, or the CPU where there is none.",
    )
    backend: str = shown(
        DEFAULTS.backend,
        label="Backend",
        group="advanced",
        choices=("auto", *BACKENDS),
        tip="\n".join(f"{name}: {backend.summary}" for name, backend in BACKENDS.items()),
    )
    memory: float | None = shown(
        None,
        label="Memory limit",
        group="advanced",
        automatic="auto",
        low=0.1,
        high=1024,
        unit="GB",
        tip="Memory to work in, in GB (10⁹ bytes); larger volumes are cut into tiles, which changes nothing in the "
        "result.\nauto: half of what is free, of a GPU four fifths.",
    )
    dtype: str | None = shown(
        DEFAULTS.dtype,
        label="Result type",
        group="advanced",
        automatic="as the image",
        choices=FLOATS,
        tip="Type of the numbers of the result.",
    )

    def settings(self, sigma: Sigma | None, spacing: tuple[float, ...] | None, channels: int | None) -> Settings:
        """What the engine is told, for an image with this noise; `sigma` counts where the user gave none."""
        sigma = sigma if self.sigma is None else self.sigma
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(Settings) if hasattr(self, f.name)}
        if not is_poisson(self):
            own |= {"gain": DEFAULTS.gain, "offset": DEFAULTS.offset}
        return Settings(
            **own
            | {
                "sigma": sigma,
                "h": self.strength(sigma),
                "memory": None if self.memory is None else int(self.memory * 1e9),
                "spacing": spacing if self.voxel_size else None,
                "channels": channels,
            }
        )

    def strength(self, sigma: Sigma | None) -> float | None:
        """h in image units; with Poisson noise in units of the noise, as the engine counts there."""
        if self.h is None:
            return None
        level = 1.0 if is_poisson(self) else float(np.mean(sigma or 0.0))
        return self.h * level or None  # without noise there is nothing to smooth

    def to_json(self) -> str:
        """What outlives the image, as text."""
        kept = {name: getattr(self, name) for name, control in CONTROLS.items() if control.kept}
        return json.dumps({name: value for name, value in kept.items() if value != getattr(Parameters(), name)})

    @classmethod
    def from_json(cls, text: str) -> Parameters:
        """The choices in `text`; those that this version or this computer cannot follow are dropped."""
        try:
            values = json.loads(text or "{}")
        except ValueError:
            return cls()
        parameters = cls()
        for name, value in values.items() if isinstance(values, dict) else ():
            if name in CONTROLS and CONTROLS[name].kept:
                candidate = dataclasses.replace(parameters, **{name: value})
                try:
                    candidate.settings(1.0, None, None)
                except (ValueError, TypeError):
                    continue
                parameters = candidate
        return parameters


CONTROLS: dict[str, Control] = {f.name: f.metadata["control"] for f in dataclasses.fields(Parameters)}
