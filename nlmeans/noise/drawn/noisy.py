"""Noise of a noise model, drawn and added to an image."""

from __future__ import annotations

import dataclasses
import math
from typing import cast

import numpy as np
import torch
from torch import Tensor

from nlmeans.core import arrays
from nlmeans.core.axes import Axes
from nlmeans.core.tiles import piece
from nlmeans.noise.drawn.fields import gaussian_field
from nlmeans.noise.kinds import MAGNITUDES, check_counts
from nlmeans.noise.level_curve import MOST_POINTS
from nlmeans.noise.model import NoiseModel
from nlmeans.noise.variation import Levels, variation_at


def with_noise(image: Tensor, model: NoiseModel, generator: torch.Generator, sigma: Tensor | None = None) -> Tensor:
    """Draw noise of a noise model and return the image with it.

    ::

        gaussian   V + σ·g
        rician     |V + σ·(g + i·g')|
        chi        the root of the summed squares of 2·coils parts, of which one has the signal V
        poisson    gain·P((V − offset)/gain) + offset + σ·g,   where P draws a count
        curve      V + σ(V)·g,   where σ(V) is the level at the intensity V

    g are Gaussian fields with the correlation of the model. Correlated photon noise is drawn as Gaussian noise of its
    variance. If the coils are not whole, the last part counts as a share.

    Magnitudes that have noise already get what they would have with more noise in their complex parts.

    Args:
        image: the signal, (H, W) or (D, H, W), floating point.
        model: the noise, with a sigma, or a curve, unless `sigma` is given.
        generator: source of the random numbers, on the CPU. The same state gives the same noise on any device.
        sigma: standard deviation at every voxel, in image units, instead of that of the model; not for Poisson noise.

    Returns:
        The noisy image, in the dtype and on the device of `image`.

    Raises:
        ValueError: sigma is missing, or the image has values that the kind of noise does not allow.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> air = with_noise(torch.zeros(100, 100), NoiseModel(kind="rician", sigma=4.0), generator)
        >>> round(float(air.mean() / 4), 1)  # the mean of magnitudes without signal is 1.25 sigma
        1.3
    """
    lowest, _ = arrays.value_range(image, "image")
    signal = image.to(arrays.precise_dtype(image))
    if model.kind == "poisson":
        return photons(signal, lowest, model, generator).to(image.dtype)
    level: Tensor | float | None = model.sigma if sigma is None else sigma.to(signal)
    if sigma is None and model.kind == "curve":
        level = model.sigma_at(signal)
    elif sigma is None and model.variation is not None:
        level = level_of(model, signal)
    if level is None:
        raise ValueError("sigma is missing: the noise model has none; give one, or one for each voxel")
    if model.kind in MAGNITUDES and lowest < 0:
        raise ValueError(
            f"noise={model.kind!r} is for magnitudes, but the image has values down to {lowest:.4g}; add such noise "
            "before intensities are shifted or scaled, or use noise='gaussian'"
        )

    def part() -> Tensor:
        return level * gaussian_field(image.shape, generator, model.correlation).to(signal)

    result = signal + part()
    if model.kind in MAGNITUDES:
        others = 2 * (model.coils if model.kind == "chi" else 1.0) - 1
        squares = result.square()
        for number in range(math.ceil(others)):
            squares += min(others - number, 1.0) * part().square()
        result = squares.sqrt()
    return result.to(image.dtype)


def level_of(model: NoiseModel, signal: Tensor) -> Tensor:
    """Return sigma of a model that varies in space at each voxel of an image, in its dtype."""
    shape = cast(Axes, (1,) * (3 - signal.ndim) + tuple(signal.shape))
    relative = variation_at(cast(Levels, model.variation), shape, piece([slice(0, n) for n in shape]), signal.device)
    return (relative * (model.sigma or 0.0)).view_as(signal).to(signal)


def photons(signal: Tensor, lowest: float, model: NoiseModel, generator: torch.Generator) -> Tensor:
    """Draw what a detector reads where the expected image is `signal`."""
    gain, offset, read_noise = model.detector
    check_counts(lowest, offset, read_noise)
    expected = ((signal - offset) / gain).clamp_min(0)
    if model.correlation is not None:
        deviation = (gain**2 * expected + read_noise**2).sqrt()
        return signal + deviation * gaussian_field(signal.shape, generator, model.correlation).to(signal)
    counts = torch.poisson(expected.cpu(), generator).to(signal)
    return gain * counts + offset + read_noise * gaussian_field(signal.shape, generator).to(signal)


def missing_noise(own: NoiseModel, target: NoiseModel) -> NoiseModel | None:
    """Return the noise that must be added to an image with its own noise, so that it has the target's.

    Variances add, and so do autocovariances. The result has the target's kind, unless its own is that of magnitudes.

    Args:
        own: the noise of the image, with a sigma.
        target: the noise wanted, with a sigma.

    Returns:
        The model of what is missing; None if the image has as much noise or more. If one is a curve over intensity, it
        is a curve, with hardly any noise where the image has as much or more.

    Raises:
        ValueError: one is Poisson noise, or has no level; or one is a curve and the other that of magnitudes, or
            correlated.

    Example:
        >>> print(missing_noise(NoiseModel(sigma=3.0), NoiseModel(sigma=5.0)))
        gaussian noise, sigma 4
    """
    for name, model in (("own", own), ("target", target)):
        if model.kind == "poisson" or not model.has_level:
            raise ValueError(f"the {name} noise is {model}; give Gaussian noise or that of magnitudes, with a sigma")
    if "curve" in (own.kind, target.kind):
        return missing_curve(own, target)
    mine, wanted = own.sigma or 0.0, target.sigma or 0.0
    if mine >= wanted:
        return None
    variance = wanted**2 - mine**2
    kind = own if own.kind in MAGNITUDES else target
    correlation = None
    if own.correlation is not None or target.correlation is not None:
        lags = [np.ones((1, 1, 1)) if one.autocovariance is None else one.autocovariance for one in (target, own)]
        shape = np.max([one.shape for one in lags], axis=0)
        wide = [np.pad(one, [((n - m) // 2,) * 2 for n, m in zip(shape, one.shape, strict=True)]) for one in lags]
        both = (wanted**2 * wide[0] - mine**2 * wide[1]) / variance
        both[tuple(n // 2 for n in shape)] = 1.0
        correlation = both.clip(-1, 1)
    evidence = (f"it brings {mine:.4g} to {wanted:.4g}",)
    even = dataclasses.replace(kind, sigma=math.sqrt(variance), variation=None)
    return dataclasses.replace(even, correlation=correlation, evidence=evidence)


def missing_curve(own: NoiseModel, target: NoiseModel) -> NoiseModel | None:
    """Return the noise that is missing at each intensity, if one of both is a curve over intensity."""
    for name, model in (("own", own), ("target", target)):
        if model.kind not in ("gaussian", "curve") or model.correlation is not None or model.variation is not None:
            raise ValueError(
                f"the {name} noise is {model}, which does not fit one that is a curve over intensity; give white "
                "Gaussian noise, with a sigma, or a curve"
            )
    told = np.unique([t for model in (own, target) if model.curve is not None for t, _ in model.told_curve])
    between = np.linspace(told[:-1], told[1:], max(1, min(POINTS_BETWEEN, MOST_POINTS // len(told))), endpoint=False)
    intensity = torch.from_numpy(np.append(between.T.ravel(), told[-1]))
    wanted = target.sigma_at(intensity).square()
    missing = wanted - own.sigma_at(intensity).square()
    if not bool((missing > 0).any()):
        return None
    sigma = torch.maximum(missing, LEAST_MISSING * wanted).sqrt()
    return NoiseModel(kind="curve", curve=torch.stack([intensity, sigma], 1).numpy())


POINTS_BETWEEN = 8
"""Points of the curve of missing noise for each piece of the curves that it is made of."""

LEAST_MISSING = 1e-4
"""Least variance that is added, in units of the one wanted, as a curve cannot be 0."""
