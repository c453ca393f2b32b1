"""Settings of a run: one frozen, checked object that can be stored as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from nlmeans.core import arrays, checks
from nlmeans.core.checks import Radius
from nlmeans.core.memory import parse_bytes
from nlmeans.engine.arguments import Arguments, check_names
from nlmeans.methods.registry import method_names
from nlmeans.noise.kinds import FOLLOWING, NOISES
from nlmeans.noise.level_curve import Curve, checked_curve
from nlmeans.noise.model import Lags, NoiseModel, checked_coils, checked_correlation
from nlmeans.noise.variation import Levels, checked_variation
from nlmeans.operator.backends import BACKENDS

NoiseLevel = float | tuple[float, ...] | Literal["map"]
"""Type of sigma in `Settings`."""

GivenSigma = float | Sequence[float] | str | arrays.Readable | None
"""Type of the argument sigma: a number, several, ``"map"``, an array, or None for an estimate."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of `nlmeans.denoise`, checked and in plain types.

    Each field has the meaning of the argument of `nlmeans.denoise` with the same name. ``None`` leaves a choice to the
    run.

    Raises:
        ValueError, TypeError: an argument is out of range; the message names a remedy.

    Example:
        >>> settings = Settings(sigma=20, spacing=[1.0, 1.0, 5.0])
        >>> settings.sigma, settings.spacing
        (20.0, (1.0, 1.0, 5.0))
        >>> Settings.from_json(settings.to_json()) == settings
        True
    """

    sigma: NoiseLevel | None = None
    method: str = "auto"
    noise: str = "auto"
    gain: float | Literal["auto"] = 1.0
    offset: float = 0.0
    coils: float | None = None
    curve: Curve | None = None
    """Pairs of intensity and sigma, for ``noise="curve"``; None for the curve that is found."""
    strength: float = 1.0
    """How strong a method takes the noise to be, relative to what it is."""
    h: float | None = None
    patch_radius: Radius | None = None
    search_radius: Radius | None = None
    spacing: tuple[float, ...] | None = None
    channels: int | None = None
    series: int | None = None
    despeckle: bool = False
    seed: int = 0
    backend: str = "auto"
    device: str | None = None
    memory: int | None = None
    dtype: str | None = None
    correlation: Lags | Literal["auto"] | None = "auto"
    """Autocovariance of the noise in units of sigma²; None for white noise; ``"auto"`` for what is found."""
    variation: Levels | Literal["auto"] | None = "auto"
    """How strong the noise is in parts of the volume, relative to sigma; None for equally strong everywhere; ``"auto"``
    for what is found."""
    modality: str | None = None
    """DICOM's code of what made the image."""

    def __post_init__(self) -> None:
        checks.choice("method", self.method, method_names())
        checks.choice("noise", self.noise, ("auto", *NOISES))
        checks.choice("backend", self.backend, ("auto", *BACKENDS))
        if self.sigma is not None:
            self._set("sigma", checked_sigma("sigma", self.sigma))
        if not isinstance(self.despeckle, bool):
            raise TypeError(f"despeckle={self.despeckle!r} must be True or False")
        self._set("seed", checks.whole("seed", self.seed))
        if self.gain != "auto":
            self._set("gain", checks.positive("gain", self.gain))
        self._set("offset", checks.real("offset", self.offset))
        if self.coils is not None:
            self._set("coils", checked_coils(self.coils))
            if self.noise != "chi":
                raise ValueError(f"coils={self.coils} belongs to noise='chi'; give that, or leave coils out")
        if self.curve is not None:
            self._set("curve", checked_curve(self.curve))
            if self.noise != "curve":
                raise ValueError(f"curve belongs to noise='curve', not to noise={self.noise!r}; leave one of them out")
        if self.noise == "curve" and self.sigma is not None:
            raise ValueError(
                f"sigma={self.sigma} does not fit noise='curve', whose level is a curve over intensity; give curve, or "
                "leave sigma out to find the curve"
            )
        if self.noise != "poisson" and (self.gain, self.offset) != (1, 0):
            raise ValueError(
                f"gain={self.gain} and offset={self.offset} describe a detector; they need noise='poisson'"
            )
        self._set("strength", checked_strength("strength", self.strength))
        if self.h is not None:
            self._set("h", checks.positive("h", self.h))
        for name in ("channels", "series"):
            if getattr(self, name) is not None:
                self._set(name, checks.index(name, getattr(self, name)))
        for name in ("patch_radius", "search_radius"):
            if getattr(self, name) is not None:
                self._set(name, checks.radius(name, getattr(self, name)))
        if self.spacing is not None:
            if not isinstance(self.spacing, tuple | list | np.ndarray):
                raise TypeError(f"spacing={self.spacing!r} must have one number per spatial axis")
            self._set("spacing", tuple(checks.positive("spacing", s) for s in self.spacing))
        if self.device is not None:
            self._set("device", checked_device(self.device))
        if isinstance(self.memory, str):
            self._set("memory", parse_bytes(self.memory))
        if self.memory is not None:
            self._set("memory", int(checks.positive("memory", self.memory)))
        if self.memory is not None and self.memory < MINIMUM_MEMORY:
            raise ValueError(
                f"memory={self.memory} bytes is too little to work in; give at least {MINIMUM_MEMORY} (16 MiB)"
            )
        if self.dtype is not None:
            self._set("dtype", checks.choice("dtype", name_of_dtype(self.dtype), RESULT_DTYPES))
        if self.modality is not None and not isinstance(self.modality, str):
            raise TypeError(f"modality={self.modality!r} must be a DICOM code such as 'MR' or 'CT', or None")
        if self.correlation is not None and not is_auto(self.correlation):
            self._set("correlation", checked_correlation(self.correlation))
        if self.variation is not None and not is_auto(self.variation):
            self._set("variation", checked_variation(self.variation))
            if not isinstance(self.sigma, float | tuple) or self.noise in FOLLOWING:
                raise ValueError(
                    f"variation is relative to sigma, but sigma={self.sigma} and noise={self.noise!r}; give sigma as a "
                    f"number, and a kind other than {' and '.join(map(repr, FOLLOWING))}, whose strength follows from "
                    "the intensity"
                )

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def kind(self) -> str:
        """Kind of noise as stated. Whoever states sigma, but no kind, states white Gaussian noise of this sigma."""
        return "gaussian" if self.noise == "auto" and self.sigma is not None and self.sigma != "map" else self.noise

    @property
    def finds_noise(self) -> bool:
        """Whether the noise model of a volume is to be found in the volume."""
        if self.noise == "curve":
            return self.curve is None
        if self.noise == "poisson":
            return self.gain == "auto"
        unknown = self.noise == "auto" or (self.noise == "chi" and self.coils is None)
        return self.sigma is None and (unknown or self.correlation == "auto")

    @property
    def may_be_correlated(self) -> bool:
        """Whether the noise is stated to be correlated, or may be found to be."""
        return self.finds_noise if is_auto(self.correlation) else self.correlation is not None

    @property
    def stated(self) -> NoiseModel:
        """The noise model as far as it is stated: white where nothing is said."""
        varies = self.variation is not None and not is_auto(self.variation)
        level = self.sigma[0] if isinstance(self.sigma, tuple) else self.sigma
        return NoiseModel(
            kind="gaussian" if self.kind == "auto" else self.kind,
            sigma=cast(float, level) if varies else None,
            variation=self.variation if varies else None,
            gain=1.0 if self.gain == "auto" else self.gain,
            offset=self.offset,
            coils=self.coils or 1.0,
            curve=self.curve,
            correlation=None if self.correlation == "auto" else self.correlation,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the settings by name."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Settings:
        """Make settings from their values by name. Lists, which JSON has instead of tuples, become tuples.

        Raises:
            ValueError, TypeError: a name is unknown, or a value is out of range.
        """
        unknown = sorted(set(values) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: no such setting; the settings are {', '.join(cls().to_dict())}")
        arguments: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**arguments)

    def to_json(self) -> str:
        """Return the settings as a JSON object."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Make settings from a JSON object.

        Raises:
            ValueError, TypeError: `text` is not a JSON object, or has a setting twice, an unknown one or a wrong one.
        """
        return cls.from_dict(checks.json_object("settings", text))


RESULT_DTYPES = ("float16", "float32", "float64")
"""Values of the setting ``dtype``."""

MINIMUM_MEMORY = 16 * 2**20
"""Least value of the setting ``memory``, in bytes."""

HARDWARE_SETTINGS = ("device", "memory")
"""Settings that say on what hardware a run computes. They change the result by no more than rounding."""


def name_of_dtype(dtype: object) -> Any:
    """Return the name of a dtype of numpy or torch; anything else as it is.

    >>> name_of_dtype(torch.float32), name_of_dtype(np.float64), name_of_dtype("float16")
    ('float32', 'float64', 'float16')
    """
    if isinstance(dtype, torch.dtype):
        return str(dtype).removeprefix("torch.")
    if isinstance(dtype, np.dtype) or (isinstance(dtype, type) and issubclass(dtype, np.generic)):
        return np.dtype(dtype).name
    return dtype


def is_auto(value: object) -> bool:
    """Whether an argument that may be an array is the word ``"auto"``."""
    return isinstance(value, str) and value == "auto"


def checked_sigma(name: str, value: NoiseLevel) -> NoiseLevel:
    """Check sigma and convert it to plain types."""
    if value == "map":
        return "map"
    if isinstance(value, str):
        raise TypeError(f"{name}={value!r} must be a number, several numbers, or the word 'map'")
    if isinstance(value, tuple | list):
        return tuple(checks.not_negative(name, v) for v in value)
    return checks.not_negative(name, value)


def checked_strength(name: str, value: float) -> float:
    """Return a strength as a float; raise an error unless a method can follow it."""
    return checks.within(name, value, *STRENGTHS, remedy="1 is the method's own, 0.5 keeps more, 2 removes more")


STRENGTHS = (0.01, 100.0)
"""Smallest and largest strength. Less changes nothing, and more leaves nothing."""


def device_or_gpu(device: str | None) -> str:
    """Return the given device; for None, the GPU if there is one, and otherwise the CPU.

    The command line and napari use this. The Python functions compute where their array is.
    """
    return device or ("cuda" if torch.cuda.is_available() else "cpu")


def checked_device(device: str) -> str:
    """Return the device if tensors can be made there.

    Raises:
        ValueError: they cannot.
    """
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        here = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        raise ValueError(
            f"device={device!r} is not available or not known to torch; use one of {', '.join(here)}"
        ) from error
    if torch.device(device).type == "meta":
        raise ValueError("device='meta' computes nothing; use 'cpu' or 'cuda'")
    return device


def settings_from(sigma: GivenSigma, arguments: Mapping[str, Any]) -> tuple[Settings, arrays.Readable | None]:
    """Turn the arguments of `nlmeans.denoise` into settings, and return sigma separately if it is a map.

    Raises:
        ValueError, TypeError: an argument does not exist or is out of range.
    """
    check_names(arguments, Arguments.__annotations__)
    given = dict(arguments)
    if isinstance(given.get("noise"), NoiseModel):
        model: NoiseModel = given["noise"]
        for name in ("gain", "offset", "correlation", "variation"):
            given.setdefault(name, getattr(model, name))
        if isinstance(sigma, np.ndarray | Tensor) and sigma.ndim > 1:
            given["variation"] = None  # the map that is given says how the noise varies
        if model.kind in ("chi", "curve"):
            own = "coils" if model.kind == "chi" else "curve"
            given.setdefault(own, getattr(model, own))
        given["noise"] = model.kind
        sigma = model.sigma if sigma is None else sigma
    if given.get("spacing") is not None:
        given["spacing"] = tuple(np.atleast_1d(given["spacing"]).tolist())
    if given.get("device") is not None:
        given["device"] = str(given["device"])
    if isinstance(sigma, np.ndarray | Tensor) and sigma.ndim <= 1:
        sigma = sigma.tolist()
    elif isinstance(sigma, arrays.Readable) and not isinstance(sigma, np.generic):
        return Settings(**given), sigma
    if isinstance(sigma, Sequence) and not isinstance(sigma, str):
        sigma = tuple(sigma)
    return Settings(sigma=cast(Any, sigma), **given), None
