"""What a user may choose, described once: names and defaults are the engine's, units are those that people think in."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nlmeans import METHODS, Settings
from nlmeans.core import checks
from nlmeans.operator.backends import BACKENDS
from nlmeans.noise.kinds import (NOISES)
from nlmeans.engine.settings import FLOATS

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

    def shows(self, value: Any, default: Any) -> bool:
        """Whether it is a value that a user could have chosen."""
        if value is None:
            return bool(self.automatic)
        if self.choices:
            return value in self.choices
        if self.high > self.low:
            kinds = (int,) if self.whole else (int, float)
            return isinstance(value, kinds) and not isinstance(value, bool) and self.low <= value <= self.high
        return isinstance(value, bool if isinstance(default, bool) else str)


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
    sigma_varies: bool = shown(
        False,
        label="Noise varies in space",
        group="noise",
        applies=lambda parameters: not is_poisson(parameters) and parameters.sigma is None,
        kept=False,
        tip="Estimate sigma in every place, as for parallel imaging or corrected coil sensitivity.",
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
        label="Window radius",
        group="filter",
        automatic="the method's own",
        low=0,
        high=12,
        whole=True,
        unit="voxels",
        tip="Window size: similar voxels are sought in a window of 2r + 1 voxels around each. Larger is slower.",
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
    despeckle: bool = shown(
        DEFAULTS.despeckle,
        label="Despeckle first",
        group="filter",
        tip="Replace impulses and dead voxels before: single voxels that no noise of this sigma would make.",
    )
    seed: int = shown(
        DEFAULTS.seed,
        label="Seed",
        group="filter",
        low=0,
        high=2**31 - 1,
        whole=True,
        applies=lambda parameters: parameters.method == "stochastic",
        tip="Of the random part of the window; the same seed gives the same result.",
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

    def settings(self, spacing: tuple[float, ...] | None = None, channels: int | None = None) -> Settings:
        """What the engine is told of these, for an image with such axes. h follows once sigma is known."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(Settings) if hasattr(self, f.name)}
        if not is_poisson(self):
            own |= {"gain": DEFAULTS.gain, "offset": DEFAULTS.offset}
        if self.maps_sigma:
            own["sigma"] = "map"
        own |= {"h": None, "memory": None if self.memory is None else int(self.memory * 1e9), "channels": channels}
        return Settings(**own, spacing=spacing if self.voxel_size else None)

    @property
    def maps_sigma(self) -> bool:
        return self.sigma_varies and self.sigma is None and not is_poisson(self)

    def to_json(self) -> str:
        """What outlives the image, as text."""
        kept = {name: getattr(self, name) for name, control in CONTROLS.items() if control.kept}
        return json.dumps({name: value for name, value in kept.items() if value != getattr(Parameters(), name)})

    @classmethod
    def from_json(cls, text: str) -> Parameters:
        """The choices in `text`; those that this version or this computer cannot follow are dropped."""
        try:
            values = checks.json_object("choices", text)
        except (ValueError, TypeError):
            return cls()
        parameters = cls()
        for name, value in values.items():
            if name in CONTROLS and CONTROLS[name].kept and CONTROLS[name].shows(value, getattr(cls(), name)):
                candidate = dataclasses.replace(parameters, **{name: value})
                with contextlib.suppress(ValueError, TypeError):
                    candidate.settings()
                    parameters = candidate
        return parameters


CONTROLS: dict[str, Control] = {f.name: f.metadata["control"] for f in dataclasses.fields(Parameters)}
