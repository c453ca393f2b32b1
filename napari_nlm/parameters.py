"""What a user may choose, described once. Names and defaults are the engine's; units are those that people think in."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from napari_nlm.devices import device_title, devices
from nlmeans import METHODS, Settings
from nlmeans.core import checks
from nlmeans.engine.settings import RESULT_DTYPES
from nlmeans.methods.registry import method_names
from nlmeans.noise.kinds import FOLLOWING, NOISES
from nlmeans.noise.model import Lags
from nlmeans.noise.variation import Levels
from nlmeans.operator.backends import BACKENDS

ENGINE_DEFAULTS = Settings()


MODALITIES = {"MR": "MR magnitude", "CT": "CT", "GM": "confocal or light-sheet", "PT": "PET or SPECT"}
"""DICOM's code of what made an image, and how people call it."""


@dataclass(frozen=True, kw_only=True)
class Control:
    """How a parameter is shown. The type of its default decides whether it is text, a switch or a number."""

    label: str
    tip: str | Callable[[], str]
    """A function where the text depends on what is registered with the engine."""
    group: str
    """The panel; ``"applied"`` for what has no field, because only the noise panel sets it."""
    choices: tuple[str, ...] | Callable[[], tuple[str, ...]] = ()
    """A function where the choices depend on what is registered with the engine, or on the computer."""
    title_of: Callable[[str], str] = str
    """How a choice is written."""
    automatic: str = ""
    """The name of ``None``, for parameters that may be left to the engine."""
    low: float = 0
    high: float = 0
    step: float = 1
    whole: bool = False
    unit: str = ""
    applies: Callable[[Parameters], bool] = lambda parameters: True
    """Whether the parameter has any effect, given the others."""
    kept: bool = True
    """Whether the choice is kept for the next image."""

    @property
    def options(self) -> tuple[str, ...]:
        """The choices as of now."""
        return self.choices() if callable(self.choices) else self.choices

    @property
    def tooltip(self) -> str:
        return self.tip() if callable(self.tip) else self.tip

    def accepts(self, value: Any, default: Any) -> bool:
        """Whether a user could have chosen the value."""
        if value is None:
            return bool(self.automatic)
        if self.choices:
            return value in self.options
        if self.high > self.low:
            kinds = (int,) if self.whole else (int, float)
            return isinstance(value, kinds) and not isinstance(value, bool) and self.low <= value <= self.high
        return isinstance(value, type(default))


def parameter(default: Any, **control: Any) -> Any:
    """A field of `Parameters` with its `Control`."""
    return field(default=default, metadata={"control": Control(**control)})


def summaries(described: Mapping[str, Any]) -> str:
    """One line per method or backend.

    >>> print(summaries(BACKENDS).splitlines()[0].split(":")[0])
    cpu
    """
    return "\n".join(f"{name}: {one.summary}" for name, one in described.items())


def is_poisson(parameters: Parameters) -> bool:
    return parameters.noise == "poisson"


def follows_intensity(parameters: Parameters) -> bool:
    """Whether the level of the noise follows the intensity, so that sigma is not all of it."""
    return parameters.noise in FOLLOWING


def is_joint(parameters: Parameters) -> bool:
    """Whether the method denoises all volumes of a series together."""
    return parameters.method != "auto" and METHODS[parameters.method].joint


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """The choices of a user. ``None`` leaves a choice to the engine."""

    noise: str = parameter(
        ENGINE_DEFAULTS.noise,
        label="Noise",
        group="noise",
        choices=("auto", *NOISES),
        kept=False,
        tip="auto: found in the image; if you set sigma, gaussian.\n"
        "gaussian: the same strength in dark and bright parts.\n"
        "rician: MR magnitude images, where noise makes the background brighter.\n"
        "chi: the same, of several coils whose squares were summed; their number is found in the air.\n"
        "poisson: counts of photons or decays (PET, microscopy).\n"
        "curve: a sigma that follows the intensity in another way, as after a gamma correction.",
    )
    modality: str | None = parameter(
        ENGINE_DEFAULTS.modality,
        label="Image is",
        group="noise",
        automatic="anything",
        choices=tuple(MODALITIES),
        title_of=MODALITIES.__getitem__,
        kept=False,
        tip="What made the image, which says what kinds of noise to look for where the noise is auto:\n"
        "MR magnitudes have Rician noise, photons and decays that of counts, CT neither.",
    )
    sigma: float | None = parameter(
        ENGINE_DEFAULTS.sigma,
        label="Sigma (σ)",
        group="noise",
        automatic="estimated",
        low=0,
        high=1e9,
        applies=lambda parameters: parameters.noise != "curve",
        kept=False,
        tip="Standard deviation of the noise, in image units. It is estimated from the image until you change it.\n"
        "For poisson noise, this is the read noise of the detector.",
    )
    sigma_varies: bool = parameter(
        False,
        label="Noise varies in space",
        group="noise",
        applies=lambda parameters: not follows_intensity(parameters) and parameters.sigma is None,
        kept=False,
        tip="Estimate sigma separately at every voxel. Parallel imaging and the correction of coil sensitivity make\n"
        "noise that varies in space.",
    )
    gain: float = parameter(
        ENGINE_DEFAULTS.gain,
        label="Gain",
        group="noise",
        low=1e-9,
        high=1e9,
        applies=is_poisson,
        kept=False,
        tip="Image units per photon or decay.",
    )
    offset: float = parameter(
        ENGINE_DEFAULTS.offset,
        label="Offset",
        group="noise",
        low=-1e9,
        high=1e9,
        applies=is_poisson,
        kept=False,
        tip="Image value where no photon arrives, in image units.",
    )
    coils: float | None = parameter(
        ENGINE_DEFAULTS.coils,
        label="Coils",
        group="applied",
        kept=False,
        tip="Number of coils of chi noise, as the noise panel found it.",
    )
    curve: str | None = parameter(
        None,
        label="Curve",
        group="noise",
        automatic="found in the image",
        applies=lambda parameters: parameters.noise == "curve",
        kept=False,
        tip="Pairs of an intensity and the standard deviation of the noise there, both in image units, such as\n"
        "0:3, 500:8. Between them, sigma is linear. It is found in the image until you write one.",
    )
    correlation: Lags | Literal["auto"] | None = parameter(  # noqa: RUF009
        ENGINE_DEFAULTS.correlation,
        label="Correlation",
        group="applied",
        kept=False,
        tip="What neighbours share of the noise, as the noise panel found it.",
    )
    variation: Levels | Literal["auto"] | None = parameter(  # noqa: RUF009
        ENGINE_DEFAULTS.variation,
        label="Variation",
        group="applied",
        kept=False,
        tip="Where the noise is stronger, as the noise panel found it.",
    )
    strength: float = parameter(
        ENGINE_DEFAULTS.strength,
        label="Strength",
        group="filter",
        low=0.25,
        high=4,
        step=0.05,
        tip="How strong the method takes the noise to be, relative to what it is. 1: the method's own choice.\n"
        "0.5 keeps more detail and noise, 2 removes more of both. It acts on every method.",
    )
    search_radius: int | None = parameter(
        ENGINE_DEFAULTS.search_radius,
        label="Window radius",
        group="filter",
        automatic="the method's own",
        low=0,
        high=13,
        whole=True,
        unit="voxels",
        tip="The filter looks for similar voxels, or for the patches of a group, in a window of 2r + 1 voxels around\n"
        "each voxel. Larger windows take longer.",
    )
    h: float | None = parameter(
        None,
        label="h",
        group="filter",
        automatic="the method's own",
        low=0.1,
        high=3,
        step=0.05,
        unit="σ",
        tip="Filter strength, in multiples of sigma: how different two voxels may be and still be averaged.\n"
        "Larger values smooth more.",
    )
    method: str = parameter(
        ENGINE_DEFAULTS.method,
        label="Method",
        group="filter",
        choices=method_names,
        tip=lambda: summaries(METHODS),
    )
    patch_radius: int | None = parameter(
        ENGINE_DEFAULTS.patch_radius,
        label="Patch radius",
        group="filter",
        automatic="the method's own",
        low=0,
        high=4,
        whole=True,
        unit="voxels",
        tip="Two voxels are similar if the patches of 2r + 1 voxels around them are similar.",
    )
    despeckle: bool = parameter(
        ENGINE_DEFAULTS.despeckle,
        label="Despeckle first",
        group="filter",
        tip="First replace impulses and dead voxels: single voxels that differ more from their surroundings than\n"
        "noise of this sigma would make them.",
    )
    seed: int = parameter(
        ENGINE_DEFAULTS.seed,
        label="Seed",
        group="filter",
        low=0,
        high=2**31 - 1,
        whole=True,
        applies=lambda parameters: parameters.method == "stochastic",
        tip="Random seed for the method stochastic. The same seed gives the same result.",
    )
    voxel_size: bool = parameter(
        True,
        label="Use voxel size",
        group="advanced",
        tip="On: windows span the same distance along all axes, so thick slices get a flat window.\n"
        "Off: windows have the same number of voxels along all axes.",
    )
    device: str | None = parameter(
        ENGINE_DEFAULTS.device,
        label="Device",
        group="advanced",
        automatic="auto",
        choices=devices,
        title_of=device_title,
        tip="Where to compute. auto: the first GPU, or the CPU if there is no GPU.",
    )
    backend: str = parameter(
        ENGINE_DEFAULTS.backend,
        label="Backend",
        group="advanced",
        choices=lambda: ("auto", *BACKENDS),
        tip=lambda: summaries(BACKENDS),
    )
    memory: float | None = parameter(
        None,
        label="Memory limit",
        group="advanced",
        automatic="auto",
        low=0.1,
        high=1024,
        unit="GB",
        tip="Memory to work in, in GB (10⁹ bytes). Larger volumes are cut into tiles, which does not change the "
        "result.\nauto: half the free memory of the computer, or four fifths of the free memory of the GPU.",
    )
    dtype: str | None = parameter(
        ENGINE_DEFAULTS.dtype,
        label="Result type",
        group="advanced",
        automatic="as the image",
        choices=RESULT_DTYPES,
        tip="Number type of the result.",
    )

    def settings(self, spacing: tuple[float, ...] | None = None, channels: int | None = None) -> Settings:
        """The engine's settings for an image with these axes. Without h, which needs sigma to become image units."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(Settings) if hasattr(self, f.name)}
        if not is_poisson(self):
            own |= {"gain": ENGINE_DEFAULTS.gain, "offset": ENGINE_DEFAULTS.offset}
        if self.maps_sigma:
            own["sigma"] = "map"
        own |= {"sigma": None} if self.noise == "curve" else {"curve": None}
        own |= {"h": None, "memory": None if self.memory is None else int(self.memory * 1e9), "channels": channels}
        return Settings(**own, spacing=spacing if self.voxel_size else None)

    @property
    def without_sigma(self) -> Parameters:
        """The same choices for another image, whose noise has a strength of its own."""
        return dataclasses.replace(self, sigma=None, **NOT_APPLIED)

    @property
    def maps_sigma(self) -> bool:
        return self.sigma_varies and self.sigma is None and not follows_intensity(self)

    def to_json(self) -> str:
        """The choices that are kept for the next image and the next session, as text."""
        kept = {name: getattr(self, name) for name, control in CONTROLS.items() if control.kept}
        return json.dumps({name: value for name, value in kept.items() if value != getattr(Parameters(), name)})

    @classmethod
    def from_json(cls, text: str) -> Parameters:
        """The choices in `text`, except those that this version or this computer cannot follow."""
        try:
            values = checks.json_object("choices", text)
        except (ValueError, TypeError):
            return cls()
        parameters = cls()
        for name, value in values.items():
            if name in CONTROLS and CONTROLS[name].kept and CONTROLS[name].accepts(value, getattr(cls(), name)):
                candidate = dataclasses.replace(parameters, **{name: value})
                with contextlib.suppress(ValueError, TypeError):
                    candidate.settings()
                    parameters = candidate
        return parameters


NOT_APPLIED: dict[str, Any] = {
    name: getattr(ENGINE_DEFAULTS, name) for name in ("coils", "curve", "correlation", "variation")
}
"""The parameters that the noise panel sets with noise and sigma, as they are without it."""

CONTROLS: dict[str, Control] = {f.name: f.metadata["control"] for f in dataclasses.fields(Parameters)}
