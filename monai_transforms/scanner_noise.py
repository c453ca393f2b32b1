"""Noise as scanners make it, for training: drawn from a noise model, such as that of a scan."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config.type_definitions import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTransform
from torch import Tensor

from monai_transforms import images, levels
from monai_transforms.arguments import checked_pair
from nlmeans import NoiseModel
from nlmeans.core import arrays, checks
from nlmeans.noise.drawn.fields import scanner_correlation, smooth_factor
from nlmeans.noise.drawn.noisy import with_noise

GivenModel = NoiseModel | Mapping[str, Any] | str
"""A noise model, its values by name, as bundles have them, or the name of a kind of noise."""


def model_of(noise: GivenModel, more: Mapping[str, Any]) -> NoiseModel:
    """Return a noise model from what a transform was given; values other than None replace those of the model."""
    if isinstance(noise, str):
        noise = NoiseModel(kind=noise)
    elif not isinstance(noise, NoiseModel):
        noise = NoiseModel.from_dict(dict(noise))
    return dataclasses.replace(noise, **{name: value for name, value in more.items() if value is not None})


class RandScannerNoise(RandomizableTransform):
    """Add noise as a scanner makes it, with probability `prob`. Put it before intensities are shifted or scaled.

    ``RandScannerNoise(1.0, nlmeans.estimate_noise(scan))`` adds noise like that of a scan.

    Args:
        prob: probability to add noise, 0 to 1.
        noise: ``"gaussian"``, ``"rician"``, ``"chi"``, ``"poisson"`` or ``"curve"``; a `nlmeans.NoiseModel`, or its
            values by name; or ``"meta"`` for what `EstimateNoise` found in this image.
        sigma: standard deviation of the noise, in image units, or the read noise if it is Poisson noise. None for that
            of the model.
        strength: smallest and largest strength; one is drawn uniformly for each image. The noise is so many times as
            strong: sigma, or a curve of it, is multiplied by it, and the gain of Poisson noise by its square.
        gain: image units per photon; None for that of the model, 1 unless it says otherwise.
        offset: image value where no photon arrives; None for that of the model.
        coils: number of coils for chi noise; None for that of the model.
        curve: pairs of intensity and sigma for ``"curve"``; None for that of the model.
        correlation: of neighbouring voxels: an autocovariance as in the model; ``"zero-filled"``, ``"apodised"`` or
            ``"ct"`` for a filter of scanners; None for that of the model.
        varying: relative variation of sigma in space, 0 to less than 1: a smooth map is drawn for each image.

    Raises:
        ValueError, TypeError: an argument is out of range or has the wrong type; the message names a remedy.

    Example:
        >>> add = RandScannerNoise(1.0, "rician", sigma=5.0, correlation="zero-filled").set_random_state(seed=0)
        >>> air = add(torch.zeros(1, 64, 64))
        >>> round(float(air.mean() / 5), 1)
        1.3
    """

    backend = images.BACKEND

    def __init__(
        self,
        prob: float = 0.1,
        noise: GivenModel = "gaussian",
        sigma: float | None = None,
        strength: Sequence[float] = (1.0, 1.0),
        *,
        gain: float | None = None,
        offset: float | None = None,
        coils: float | None = None,
        curve: Any = None,
        correlation: Any = None,
        varying: float = 0.0,
    ) -> None:
        super().__init__(prob)
        self.filter = correlation if isinstance(correlation, str) else None
        if self.filter is not None:
            scanner_correlation(self.filter)  # raises if there is no such filter
            correlation = None
        self.more = {
            "sigma": sigma,
            "gain": gain,
            "offset": offset,
            "coils": coils,
            "curve": curve,
            "correlation": correlation,
        }
        self.model = None if isinstance(noise, str) and noise == levels.IN_METADATA else model_of(noise, self.more)
        self.strength_range = checked_pair("strength", strength)
        if not 0 <= checks.real("varying", varying) < 1:
            raise ValueError(f"varying={varying} must be from 0 to less than 1")
        if self.model is not None and self.model.kind == "curve":
            _ = self.model.told_curve  # raises if there is none
        if varying and self.model is not None and self.model.follows_intensity:
            raise ValueError(
                f"varying={varying} does not fit noise={self.model.kind!r}, which varies with the image; leave it out"
            )
        self.varying = varying
        self.strength = self.strength_range[0]
        self.seed = 0

    def randomize(self, data: Any | None = None) -> None:
        """Draw whether to add noise, its strength, and the seed of the noise. `data` is not used."""
        super().randomize(None)
        if self._do_transform:
            self.strength = self.R.uniform(*self.strength_range)
            self.seed = int(self.R.randint(2**31))

    def __call__(self, img: NdarrayOrTensor, sigma: levels.SigmaOfCall | None = None, randomize: bool = True) -> Tensor:
        """Add noise with probability `prob`; otherwise return the image unchanged.

        Args:
            img: (C, H, W) or (C, D, H, W), any real dtype; never written to. Each channel gets noise of its own.
            sigma: sigma of this image instead of that of the model: one number, one per channel, or a map of the
                spatial shape, ``(1, *spatial shape)``, or the shape of the image.
            randomize: False to repeat the last draw.

        Returns:
            A `MetaTensor`, or a tensor if MONAI does not track metadata, in the dtype of the image; integers are
            rounded and clipped. What `EstimateNoise` wrote is no longer in its metadata.

        Raises:
            ValueError, TypeError: the image or sigma has the wrong shape or type, is not finite, or does not fit the
                kind of noise.
        """
        if randomize:
            self.randomize()
        if not self._do_transform:
            return images.tracked_tensor(img)
        image, values = images.image_and_values(img)
        models = levels.models_in_metadata_of(img, image) if self.model is None else [self.model] * len(values)
        if self.model is None:
            models = [model_of(model, self.more) for model in models]
        level = None if sigma is None else levels.sigma_of_image(sigma, image)

        def noisy(channel: int, generator: torch.Generator) -> Tensor:
            return self.noisy(in_floats(values[channel]), models[channel], of_channel(level, channel), generator)

        return without_noise_entries(images.with_metadata_of(image, each_channel(values, self.seed, noisy)))

    def noisy(
        self, signal: Tensor, model: NoiseModel, level: float | Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """Add noise to one channel."""
        if self.filter is not None:
            correlation = scanner_correlation(self.filter, signal.ndim)
            model = dataclasses.replace(model, correlation=correlation)
        if model.follows_intensity:
            if level is not None:
                raise ValueError(
                    f"sigma of a call does not fit noise={model.kind!r}, whose strength follows from the image"
                )
            return with_noise(signal, model.times(self.strength), generator)
        known = model.sigma if level is None else level
        if known is None:
            raise ValueError(
                f"sigma=None, and the noise model, {model}, has none; give sigma, or a model of nlmeans.estimate_noise"
            )
        scale = self.strength * torch.as_tensor(known).to(signal)
        if self.varying:
            scale = scale * smooth_factor(signal.shape, self.varying, generator).to(signal)
        return with_noise(signal, model, generator, scale)


def each_channel(values: Tensor, seed: int, noisy: Callable[[int, torch.Generator], Tensor]) -> Tensor:
    """Return the image with noise that is drawn for each channel, in its dtype."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([arrays.to_dtype(noisy(channel, generator), values.dtype) for channel in range(len(values))])


def in_floats(values: Tensor) -> Tensor:
    """Return floating-point values as they are, and others as float32."""
    return values if values.is_floating_point() else values.float()


def of_channel(level: levels.SigmaOfImage | None, channel: int) -> float | Tensor | None:
    """Return the sigma of one channel."""
    if isinstance(level, tuple):
        return level[channel]
    return level[channel] if isinstance(level, Tensor) and level.ndim > 3 else level


def without_noise_entries(image: Tensor) -> Tensor:
    """Remove what `EstimateNoise` wrote to the metadata of a new image, as it is no longer true."""
    if isinstance(image, MetaTensor):
        for name in (levels.NOISE_SIGMA, levels.NOISE_MODEL):
            image.meta.pop(name, None)
    return image


class RandScannerNoised(RandomizableTransform, MapTransform):
    """Apply `RandScannerNoise` to the images at `keys`: to all of them or to none, with the same strength.

    Each image gets noise of its own.

    Args:
        keys: keys of the images, channel first: (C, H, W) or (C, D, H, W).
        prob, noise, sigma, strength, gain, offset, coils, curve, correlation, varying: as for `RandScannerNoise`.
        sigma_key: key of a sigma that replaces that of the model, one for all images or one for each, as
            `EstimateNoised` writes it: a number, one per channel, or a map.
        allow_missing_keys: True to skip images that are missing; otherwise they are a ``KeyError``.

    Raises:
        ValueError, TypeError: an argument is out of range or has the wrong type; the message names a remedy.

    Example:
        >>> add = RandScannerNoised(["a", "b"], 1.0, "gaussian", sigma=5.0).set_random_state(seed=0)
        >>> data = add({"a": torch.zeros(1, 64, 64), "b": torch.zeros(1, 64, 64)})
        >>> round(float(data["a"].std()), 1), bool((data["a"] == data["b"]).any())
        (5.0, False)
    """

    backend = RandScannerNoise.backend

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.1,
        noise: GivenModel = "gaussian",
        sigma: float | None = None,
        strength: Sequence[float] = (1.0, 1.0),
        *,
        gain: float | None = None,
        offset: float | None = None,
        coils: float | None = None,
        curve: Any = None,
        correlation: Any = None,
        varying: float = 0.0,
        sigma_key: KeysCollection | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.sigma_keys = levels.sigma_key_for_each(sigma, sigma_key, self.keys)
        self.converter = RandScannerNoise(
            1.0,
            noise,
            sigma,
            strength,
            gain=gain,
            offset=offset,
            coils=coils,
            curve=curve,
            correlation=correlation,
            varying=varying,
        )

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> RandScannerNoised:
        """Set the state of the random numbers, for the decision to add noise, its strength and the noise."""
        super().set_random_state(seed, state)
        self.converter.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the dictionary in which all images have noise, or none. `data` stays unchanged.

        Raises:
            KeyError: an image or a sigma is missing.
            ValueError, TypeError: as for `RandScannerNoise`.
        """
        d = dict(data)
        self.randomize(None)
        if self._do_transform:
            self.converter.randomize(None)
        for key, sigma_key in self.key_iterator(d, self.sigma_keys):
            if self._do_transform:
                d[key] = self.converter(d[key], images.value_at(data, "sigma_key", sigma_key), randomize=False)
                self.converter.seed += 1  # each image has noise of its own
            else:
                d[key] = images.tracked_tensor(d[key])
        return d


RandScannerNoiseD = RandScannerNoiseDict = RandScannerNoised
