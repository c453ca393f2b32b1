"""A model of the noise in an image: its kind, its level, and its correlation between neighbouring voxels."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nlmeans.core import checks
from nlmeans.noise import poisson
from nlmeans.noise.kinds import FOLLOWING, NOISES, kind_in_words
from nlmeans.noise.level_curve import (
    Curve,
    checked_curve,
    curve_in_words,
    gentle_curve,
    restore_level,
    sigma_on_curve,
    stabilise_level,
)
from nlmeans.noise.variation import checked_variation

Lags = tuple[tuple[tuple[float, ...], ...], ...]
"""One number per lag along depth, height and width."""


@dataclass(frozen=True, kw_only=True)
class NoiseModel:
    """What the noise of an image is like. `nlmeans.denoise` takes it as ``noise=``; `nlmeans.estimate_noise` finds it.

    Args:
        kind: ``"gaussian"``, ``"rician"``, ``"chi"``, ``"poisson"`` or ``"curve"``.
        sigma: standard deviation of the noise, in image units; None leaves it to be estimated. For Poisson noise, the
            read noise of the detector. For ``"curve"`` always None.
        gain: image units per photon, for Poisson noise.
        offset: image value where no photon arrives, for Poisson noise.
        coils: effective number of coils whose squared magnitudes are summed, for ``"chi"``: 1 to 64, not necessarily
            whole.
        curve: pairs of an intensity and the standard deviation of the noise there, both in image units, for
            ``"curve"``; an array of shape (N, 2), or text such as ``"0:3,500:8"``. Intensities rise. Between them,
            sigma is linear; below the first and above the last, it is constant. None leaves it to be found.
        correlation: autocovariance of the noise in units of sigma², at lags −l … l along depth, height and width, with
            1 in the middle: three nested sequences or an array with an odd number of entries along each axis. Lags
            beyond those given are not correlated. None: the noise of neighbouring voxels is independent (white).
        variation: how strong the noise is in parts of the volume, relative to `sigma`, at the points of an even grid
            along depth, height and width, from the first voxel to the last; linear between them. Three nested sequences
            or an array. None: it is equally strong everywhere.
        evidence: how the model was found, in sentences.
        doubts: what speaks against what was found, each with a remedy. Doors warn of it.

    Raises:
        ValueError, TypeError: an argument is out of range; the message names a remedy.

    Example:
        >>> model = NoiseModel(sigma=20.0, correlation=[[[0.3, 1.0, 0.3]]])
        >>> print(model)
        gaussian noise, sigma 20, correlated: 0.30 with the next voxel along its axis
        >>> NoiseModel.from_json(model.to_json()) == model
        True
    """

    kind: str = "gaussian"
    sigma: float | None = None
    gain: float = 1.0
    offset: float = 0.0
    coils: float = 1.0
    curve: npt.ArrayLike | None = None
    correlation: npt.ArrayLike | None = None
    variation: npt.ArrayLike | None = None
    evidence: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checks.choice("kind", self.kind, NOISES)
        if self.sigma is not None:
            object.__setattr__(self, "sigma", checks.not_negative("sigma", self.sigma))
        object.__setattr__(self, "gain", checks.positive("gain", self.gain))
        object.__setattr__(self, "offset", checks.real("offset", self.offset))
        object.__setattr__(self, "coils", checked_coils(self.coils))
        if self.curve is not None:
            object.__setattr__(self, "curve", checked_curve(self.curve))
            if self.kind != "curve":
                raise ValueError(f"curve belongs to kind='curve', not to kind={self.kind!r}; leave one of them out")
        if self.kind == "curve" and self.sigma is not None:
            raise ValueError(f"sigma={self.sigma} does not fit kind='curve', whose level is the curve; leave it out")
        object.__setattr__(self, "evidence", tuple(map(str, self.evidence)))
        object.__setattr__(self, "doubts", tuple(map(str, self.doubts)))
        if self.correlation is not None:
            object.__setattr__(self, "correlation", checked_correlation(self.correlation))
        if self.variation is not None:
            object.__setattr__(self, "variation", checked_variation(self.variation))
            if self.follows_intensity or self.sigma is None:
                raise ValueError(
                    f"variation is relative to sigma, but sigma={self.sigma} and kind={self.kind!r}; give sigma, and a "
                    f"kind other than {' and '.join(map(repr, FOLLOWING))}, whose strength follows from the intensity"
                )

    @property
    def autocovariance(self) -> npt.NDArray[np.float64] | None:
        """The correlation as an array; None for white noise."""
        return None if self.correlation is None else np.array(self.correlation)

    @property
    def follows_intensity(self) -> bool:
        """Whether the level of the noise follows from the intensity, so that no sigma says what it is."""
        return self.kind in FOLLOWING

    @property
    def has_level(self) -> bool:
        """Whether the model says how strong the noise is."""
        return self.kind == "poisson" or (self.sigma if self.curve is None else self.curve) is not None

    def stabilise(self, image: Tensor) -> Tensor:
        """Give noise that follows the intensity a standard deviation of 1 everywhere.

        Args:
            image: floating point, any shape, in image units.

        Returns:
            The stabilised image, in the same dtype. Other noise is equally strong at all intensities as it is: the
            image itself.

        Raises:
            ValueError: the curve is missing.
        """
        if self.kind == "curve":
            return stabilise_level(image, self.told_curve)
        return poisson.stabilise_counts(image, *self.detector) if self.kind == "poisson" else image

    def restore(self, mean: Tensor) -> Tensor:
        """Return the noise-free image from the mean of the stabilised image, without bias; see `stabilise`."""
        if self.kind == "curve":
            return restore_level(mean, self.told_curve)
        return poisson.restore_counts(mean, *self.detector) if self.kind == "poisson" else mean

    def sigma_at(self, intensity: Tensor) -> Tensor:
        """Return the standard deviation of the noise where the noise-free image has these values, in image units.

        Raises:
            ValueError: the model leaves it open.

        Example:
            >>> NoiseModel(kind="poisson", gain=2.0, sigma=3.0).sigma_at(torch.tensor([0.0, 8.0]))
            tensor([3., 5.])
        """
        if self.kind == "curve":
            return sigma_on_curve(intensity, self.told_curve)
        if self.kind == "poisson":
            return poisson.deviation_of_counts(intensity, *self.detector)
        if self.sigma is None:
            raise ValueError(f"the noise model is {self}, which does not say how strong the noise is; give sigma")
        return torch.full_like(intensity, self.sigma)

    def without_variation(self) -> NoiseModel:
        """The same model with one level for all places, for what cannot use a variation; the doubts say so."""
        if self.variation is None:
            return self
        levels = limits_in_words(self.variation, self.sigma or 0.0)
        doubt = (
            f"the noise varies in space, from {levels}, but counts as equally strong everywhere, as it was looked for "
            "in parts of the volume alone; denoise an array in memory, or give sigma as an array"
        )
        return dataclasses.replace(self, variation=None, doubts=(*self.doubts, doubt))

    @property
    def detector(self) -> tuple[float, float, float]:
        """Gain, offset and read noise, for Poisson noise."""
        return self.gain, self.offset, self.sigma or 0.0

    @property
    def told_curve(self) -> Curve:
        """The curve of sigma over intensity, for ``"curve"``."""
        if self.curve is None:
            raise ValueError(
                "curve is missing: the noise model has none; give one, or find it by nlmeans.estimate_noise"
            )
        return cast(Curve, self.curve)

    def times(self, factor: float) -> NoiseModel:
        """The same noise, so many times as strong at each intensity; less where a curve would be too steep."""
        if self.curve is not None:
            curve = tuple((t, factor * sigma) for t, sigma in self.told_curve)
            return dataclasses.replace(self, curve=gentle_curve(curve))
        gain = self.gain * factor**2 if self.kind == "poisson" else self.gain
        return dataclasses.replace(self, gain=gain, sigma=None if self.sigma is None else self.sigma * factor)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> NoiseModel:
        """Raises ``ValueError`` for a name that is not part of a noise model."""
        unknown = sorted(set(values) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: not part of a noise model, which has {', '.join(cls().to_dict())}")
        return cls(**values)

    def to_json(self) -> str:
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> NoiseModel:
        """Raises ``ValueError`` or ``TypeError`` where `text` is not the JSON of a noise model."""
        return cls.from_dict(checks.json_object("noise model", text))

    def __str__(self) -> str:
        text = f"{kind_in_words(self.kind)} noise"
        if self.kind == "poisson":
            text += f", gain {self.gain:.4g}, offset {self.offset:.4g}"
        if self.kind == "chi":
            text += f" of {self.coils:.3g} coils"
        if self.curve is not None:
            text += f", {curve_in_words(self.told_curve)}"
        if self.sigma is not None:
            text += f", {'read noise' if self.kind == 'poisson' else 'sigma'} {self.sigma:.4g}"
        if self.variation is not None:
            text += f", in parts {limits_in_words(self.variation, self.sigma or 0.0)}"
        return text + ("" if self.correlation is None else f", correlated: {correlations_in_words(self.correlation)}")


def limits_in_words(variation: npt.ArrayLike, sigma: float) -> str:
    """Between what the level of the noise lies, in image units.

    >>> limits_in_words([[[0.5, 2.0]]], 10.0)
    '5 to 20'
    """
    return f"{np.min(variation) * sigma:.3g} to {np.max(variation) * sigma:.3g}"


def checked_coils(coils: float) -> float:
    """Check the number of coils.

    >>> checked_coils(100)
    Traceback (most recent call last):
    ValueError: coils=100 must be a number from 1 to 64
    """
    if not 1 <= checks.positive("coils", coils) <= MOST_COILS:
        raise ValueError(f"coils={coils} must be a number from 1 to {MOST_COILS:g}")
    return float(coils)


MOST_COILS = 64
"""Largest number of coils. Noise of more coils is Gaussian with a bias."""


def checked_correlation(correlation: Any) -> Lags:
    """The correlation as nested tuples of floats."""
    try:
        lags = np.asarray(correlation, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"correlation={correlation!r} must be an array with three axes of lags") from error
    if lags.ndim != 3 or any(n % 2 == 0 for n in lags.shape):
        raise ValueError(
            f"correlation has shape {lags.shape}; give an odd number of lags along depth, height and width: 1 for an "
            "axis along which the noise is independent"
        )
    middle = tuple(n // 2 for n in lags.shape)
    if not np.isfinite(lags).all() or lags[middle] != 1 or np.abs(lags).max() > 1:
        raise ValueError("correlation must have 1 in the middle, the lag 0, and numbers between -1 and 1 around it")
    if not np.allclose(lags, lags[::-1, ::-1, ::-1], atol=1e-6):
        raise ValueError("correlation must be symmetric: the same at a lag and at its opposite")
    return tuple(tuple(tuple(row) for row in plane) for plane in lags.tolist())


def with_next_voxel(correlation: npt.ArrayLike | None) -> list[float | None]:
    """Return the correlation with the next voxel along depth, height and width; None along an axis without lags.

    >>> with_next_voxel([[[0.3, 1.0, 0.3]]]), with_next_voxel(None)
    ([None, None, 0.3], [None, None, None])
    """
    lags = np.ones((1, 1, 1)) if correlation is None else np.array(correlation)
    middle = np.array(lags.shape) // 2
    steps = np.eye(3, dtype=int)
    return [float(lags[tuple(middle + step)]) if n > 1 else None for n, step in zip(lags.shape, steps, strict=True)]


def correlations_in_words(correlation: npt.ArrayLike) -> str:
    """The correlation with the next voxel along each axis, in words."""
    said = [f"{found:.2f}" for found in with_next_voxel(correlation) if found is not None]
    axes = "its axis" if len(said) == 1 else f"each of {len(said)} axes"
    return f"{', '.join(said)} with the next voxel along {axes}" if said else "with no other voxel"
