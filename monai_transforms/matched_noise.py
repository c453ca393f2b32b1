"""Noise that an image lacks, so that it has a wanted level or the noise of another scan."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config.type_definitions import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, RandomizableTransform
from torch import Tensor

from monai_transforms import images, levels
from monai_transforms.arguments import checked_pair
from monai_transforms.scanner_noise import GivenModel, each_channel, in_floats, model_of, without_noise_entries
from nlmeans import NoiseModel
from nlmeans.core import checks
from nlmeans.noise.drawn.noisy import missing_noise, with_noise

log = logging.getLogger("nlmeans")


class RandMatchNoise(RandomizableTransform):
    """Add the noise that an image lacks, so that it has a wanted level, or the noise of another scan.

    Variances add: an image with sigma 3 gets noise of sigma 4 to have one of 5. An image that has as much noise or more
    comes back unchanged, which a warning says once.

    Args:
        prob: probability to add noise, 0 to 1.
        target: sigma wanted, in image units; the smallest and the largest, between which one is drawn uniformly for
            each image; or a `nlmeans.NoiseModel` of another scan, or its values by name, which has a sigma or a curve.
        noise: the noise that the image has: ``"auto"`` or the name of its kind, which is measured in each image;
            ``"meta"`` for what `EstimateNoise` found; or a `nlmeans.NoiseModel`, or its values by name.

    Raises:
        ValueError, TypeError: an argument is out of range or has the wrong type; the message names a remedy.

    Example:
        >>> quiet = 100 + 3 * torch.randn(1, 48, 48, 48, generator=torch.Generator().manual_seed(0))
        >>> match = RandMatchNoise(1.0, target=5.0).set_random_state(seed=0)
        >>> round(float(match(quiet).std()), 1)
        5.0
    """

    backend = images.BACKEND

    def __init__(
        self, prob: float = 1.0, target: float | Sequence[float] | GivenModel = 1.0, noise: GivenModel = "auto"
    ) -> None:
        super().__init__(prob)
        self.target_model: NoiseModel | None = None
        self.target_range = (1.0, 1.0)
        if isinstance(target, NoiseModel | Mapping):
            self.target_model = model_of(target, {})
            missing_noise(NoiseModel(sigma=0.0), self.target_model)  # raises if it has no level
        elif isinstance(target, int | float):
            self.target_range = (checks.positive("target", target),) * 2
        else:
            self.target_range = checked_pair("target", target)  # type: ignore[arg-type]
        self.noise = noise if isinstance(noise, str) else None
        if self.noise is not None:
            checks.choice("noise", self.noise, (levels.IN_METADATA, *levels.MEASURED_KINDS))
        self.model = None if self.noise is not None else model_of(noise, {})
        if self.model is not None and self.model.kind == "curve" and self.target_model is None:
            raise ValueError(
                f"target={target} is one level, but the image has {self.model}; give a noise model as target"
            )
        self.target = self.target_range[0]
        self.seed = 0

    def randomize(self, data: Any | None = None) -> None:
        """Draw whether to add noise, the level wanted, and the seed of the noise. `data` is not used."""
        super().randomize(None)
        if self._do_transform:
            self.target = self.R.uniform(*self.target_range)
            self.seed = int(self.R.randint(2**31))

    def __call__(self, img: NdarrayOrTensor, randomize: bool = True) -> Tensor:
        """Add noise with probability `prob`; otherwise return the image unchanged.

        Args:
            img: (C, H, W) or (C, D, H, W), any real dtype; never written to. Each channel is matched by itself.
            randomize: False to repeat the last draw.

        Returns:
            A `MetaTensor`, or a tensor if MONAI does not track metadata, in the dtype of the image; integers are
            rounded and clipped. What `EstimateNoise` wrote is no longer in its metadata.

        Raises:
            ValueError, TypeError: the image has the wrong shape or type, is not finite, or does not fit the noise.
        """
        if randomize:
            self.randomize()
        if not self._do_transform:
            return images.tracked_tensor(img)
        image, values = images.image_and_values(img)
        if self.noise == levels.IN_METADATA:
            models = levels.models_in_metadata_of(img, image)
        elif self.noise is not None:
            models = levels.models_per_channel(values, self.noise, None)
        else:
            models = [self.model or NoiseModel()] * len(values)

        def matched(channel: int, generator: torch.Generator) -> Tensor:
            own, signal = models[channel], in_floats(values[channel])
            target = self.target_model or dataclasses.replace(own, sigma=self.target)
            missing = missing_noise(own, target)
            if missing is None:
                warn_of_more_noise()
                return signal
            return with_noise(signal, missing, generator)

        return without_noise_entries(images.with_metadata_of(image, each_channel(values, self.seed, matched)))


@functools.cache
def warn_of_more_noise() -> None:
    """Log once per process that noise cannot be taken away by adding some."""
    log.warning(
        "RandMatchNoise leaves images unchanged that have as much noise as the target or more; denoise them first"
    )


class RandMatchNoised(RandomizableTransform, MapTransform):
    """Apply `RandMatchNoise` to the images at `keys`: to all of them or to none, with the same target.

    Args:
        keys: keys of the images, channel first: (C, H, W) or (C, D, H, W).
        prob, target, noise: as for `RandMatchNoise`.
        allow_missing_keys: True to skip images that are missing; otherwise they are a ``KeyError``.

    Raises:
        ValueError, TypeError: an argument is out of range or has the wrong type; the message names a remedy.

    Example:
        >>> quiet = 100 + 3 * torch.randn(1, 48, 48, 48, generator=torch.Generator().manual_seed(0))
        >>> other_scan = NoiseModel(sigma=5.0)
        >>> data = RandMatchNoised("image", target=other_scan)({"image": quiet})
        >>> round(float(data["image"].std()), 1)
        5.0
    """

    backend = RandMatchNoise.backend

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 1.0,
        target: float | Sequence[float] | GivenModel = 1.0,
        noise: GivenModel = "auto",
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.converter = RandMatchNoise(1.0, target, noise)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandMatchNoised:
        """Set the state of the random numbers, for the decision to add noise, its level and the noise."""
        super().set_random_state(seed, state)
        self.converter.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the dictionary in which all images are matched, or none. `data` stays unchanged.

        Raises:
            KeyError: an image is missing.
            ValueError, TypeError: as for `RandMatchNoise`.
        """
        d = dict(data)
        self.randomize(None)
        if self._do_transform:
            self.converter.randomize(None)
        for key in self.key_iterator(d):
            if self._do_transform:
                d[key] = self.converter(d[key], randomize=False)
                self.converter.seed += 1  # each image has noise of its own
            else:
                d[key] = images.tracked_tensor(d[key])
        return d


RandMatchNoiseD = RandMatchNoiseDict = RandMatchNoised
