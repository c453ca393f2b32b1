"""Transforms for the noise itself: how much there is, and the same amount everywhere and back."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, cast

import torch
from monai.config.type_definitions import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from torch import Tensor

from monai_transforms import images, levels
from nlmeans.core import arrays
from nlmeans.core import checks
from nlmeans.noise import poisson
from nlmeans.noise import rician_transform
from nlmeans.api import gather


class EstimateNoise(Transform):
    """Write sigma, the standard deviation of the noise, to ``"noise_sigma"`` in the metadata of an image.

    It is a number, or a list with one for each of several channels, by `nlmeans.estimate_sigma`. The image stays as it
    is. Other transforms of this package take it by ``sigma="meta"``. It is in the units that the image has here: what
    scales the image later does not scale it.

    Args:
        noise: ``"gaussian"``, or ``"rician"`` for MR magnitude images.

    Raises:
        ValueError: there is no such noise.
        RuntimeError: metadata are not tracked.

    Example:
        >>> noisy = 100 + 5 * torch.randn(1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> round(EstimateNoise()(noisy).meta["noise_sigma"], 1)
        5.0
    """

    backend = images.BACKEND

    def __init__(self, noise: str = "gaussian") -> None:
        self.noise = checks.choice("noise", noise, ("gaussian", "rician"))

    def __call__(self, img: NdarrayOrTensor, mask: NdarrayOrTensor | None = None) -> MetaTensor:
        """Measure an image.

        Args:
            img: (C, H, W) or (C, D, H, W), any real dtype.
            mask: where to look, (H, W) or (D, H, W), or with a first axis of 1.

        Returns:
            The image with one entry more in its metadata.
        """
        sigma = self.estimate(img, mask)
        image, values = images.opened(img)
        result = images.closed(values, image)  # with metadata of its own: those of the input stay as they are
        if isinstance(result, MetaTensor):
            result.meta[levels.NOISE_SIGMA] = sigma
            return result
        raise RuntimeError(
            "metadata are not tracked, so there is nowhere to write sigma; call monai.data.set_track_meta(True), "
            "or let EstimateNoised write it to a sigma_key"
        )

    def estimate(
        self, img: NdarrayOrTensor, mask: NdarrayOrTensor | None = None, map: bool = False
    ) -> float | list[float] | Tensor:
        """Sigma alone; with `map` that of every voxel, where the noise varies in space, as an image of that shape."""
        image, values = images.opened(img)
        where = None if mask is None else images.beside(mask, "mask", image)
        if map:
            return images.closed(levels.estimated_map(values, self.noise, where), image)
        sigma = levels.estimated(values, self.noise, where)
        return list(sigma) if isinstance(sigma, tuple) else sigma


class EstimateNoised(MapTransform):
    """`EstimateNoise` of the images at `keys`, into their metadata or beside them.

    Args:
        keys: of the images.
        noise: as for `EstimateNoise`.
        sigma_key: where to write, one for each image; None for their metadata.
        map: whether to write a map of noise that varies in space, an image of the same shape. It needs a `sigma_key`.
        mask_key: of the mask of where to look, one for all images or one for each.
        allow_missing_keys: whether to go on where an image is missing.

    Example:
        >>> noisy = 100 + 5 * torch.randn(1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> round(EstimateNoised("image", sigma_key="sigma")({"image": noisy})["sigma"], 1)
        5.0
    """

    backend = EstimateNoise.backend

    def __init__(
        self,
        keys: KeysCollection,
        noise: str = "gaussian",
        sigma_key: KeysCollection | None = None,
        map: bool = False,
        mask_key: KeysCollection | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if map and sigma_key is None:
            raise ValueError("map=True makes an image, for which there is no room in metadata; give it a sigma_key")
        self.map = map
        self.sigma_keys = images.keys_beside("sigma_key", sigma_key, self.keys)
        if sigma_key is not None and len(set(self.sigma_keys)) < len(self.keys):
            raise ValueError(f"sigma_key={sigma_key!r} must have a name for the sigma of each of keys={self.keys}")
        self.mask_keys = images.keys_beside("mask_key", mask_key, self.keys)
        self.converter = EstimateNoise(noise)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key, sigma_key, mask_key in self.key_iterator(d, self.sigma_keys, self.mask_keys):
            mask = images.at(data, "mask_key", mask_key)
            if sigma_key is None:
                d[key] = self.converter(d[key], mask)
            else:
                d[sigma_key] = self.converter.estimate(d[key], mask, self.map)
        return d


class NoiseStabilise(Transform):
    """Make Rician or Poisson noise Gaussian, with a standard deviation of 1 everywhere; or go back.

    Any filter for Gaussian noise fits between the two. The way back is the exact unbiased inverse: from the mean of
    the stabilised values, which is what a filter finds, to the image without noise. So what noise adds to dark voxels
    of a magnitude image goes as well, and the two without a filter between them do not cancel out.

    Both need the same numbers: put `EstimateNoise` before the first, and let both have ``sigma="meta"``.

    Args:
        noise: ``"rician"`` for MR magnitude images, or ``"poisson"`` for counts.
        sigma: standard deviation of the noise, in image units; of Poisson noise that of the detector's read noise, None
            for none. One number, or one per channel; ``"meta"`` takes what `EstimateNoise` wrote to the metadata.
        gain: image units per photon, for Poisson noise.
        offset: image value without any photon, for Poisson noise.
        inverse: whether this is the way back.

    Raises:
        ValueError, TypeError: an argument is out of range; the message names a remedy.

    References:
        `nlmeans.noise.rician_transform` and `nlmeans.noise.poisson`.

    Example:
        >>> counts = torch.poisson(torch.full((1, 64, 64), 20.0), torch.Generator().manual_seed(0))
        >>> stabilised = NoiseStabilise("poisson")(counts)
        >>> round(float(counts.std()), 1), round(float(stabilised.std()), 1)
        (4.5, 1.0)
        >>> mean = stabilised.mean().expand(1, 64, 64)
        >>> bool(abs(NoiseStabilise("poisson", inverse=True)(mean).mean() - counts.mean()) < 0.1)
        True
    """

    backend = images.BACKEND

    def __init__(
        self,
        noise: str,
        sigma: float | Sequence[float] | str | None = None,
        gain: float = 1.0,
        offset: float = 0.0,
        inverse: bool = False,
    ) -> None:
        checks.choice("noise", noise, ("rician", "poisson"))
        self.sigma_in_metadata = levels.is_in_metadata(sigma)
        self.settings, _ = gather(levels.own(sigma, noise), noise=noise, gain=gain, offset=offset)
        self.inverse = inverse

    def __call__(self, img: NdarrayOrTensor, sigma: levels.Given | None = None) -> Tensor:
        """Stabilise an image, or bring it back.

        Args:
            img: (C, H, W) or (C, D, H, W), any real dtype; never written to.
            sigma: for this image, in place of the transform's own. For Rician noise also a map: of the spatial shape,
                ``(1, *spatial shape)``, or the shape of the image.

        Returns:
            A `MetaTensor`, or a tensor if metadata are not tracked, of the image's shape, device and metadata. Of its
            dtype if that is a floating one, else float32.
        """
        image, values = images.opened(img)
        arrays.value_range(values, "img")
        level = cast(levels.Level | None, self.settings.sigma)  # it is no "map"
        if sigma is not None:
            level = levels.level_of(sigma, image)
        elif self.sigma_in_metadata:
            level = levels.level_in_metadata(img, image)
        precise = values.to(arrays.precise_dtype(values))
        if self.settings.noise == "rician":
            result = (rician_transform.restore_magnitude if self.inverse else rician_transform.stabilise_magnitude)(precise, rician_sigma(level, precise))
        else:
            if level is not None and not isinstance(level, float):
                raise ValueError("sigma is the read noise where noise='poisson'; give one number")
            detector = self.settings.gain, self.settings.offset, level or 0.0
            result = (poisson.restore_counts if self.inverse else poisson.stabilise_counts)(precise, *detector)
        return images.closed(result.to(values.dtype if values.is_floating_point() else torch.float32), image)


def rician_sigma(level: levels.Level | None, values: Tensor) -> Tensor:
    """Sigma in a shape that broadcasts against the image."""
    if level is None:
        raise ValueError(
            "sigma=None: to stabilise Rician noise and to go back both need the same sigma; give it, or put "
            "EstimateNoise(d) before the first and take sigma='meta' or sigma_key in both"
        )
    sigma = torch.as_tensor(level).to(values)
    if sigma.ndim == 1:
        if len(sigma) != len(values):
            raise ValueError(f"sigma has {len(sigma)} numbers, but the image has {len(values)} channels")
        sigma = sigma.reshape(-1, *[1] * (values.ndim - 1))
    checks.positive("sigma", arrays.value_range(sigma, "sigma")[0])
    return sigma


class NoiseStabilised(MapTransform):
    """`NoiseStabilise` of the images at `keys`.

    Args:
        keys: of the images.
        noise: as for `NoiseStabilise`.
        sigma: likewise.
        gain: likewise.
        offset: likewise.
        inverse: likewise.
        sigma_key: of sigma, one for all images or one for each, as `EstimateNoised` writes it or as a map; instead of
            `sigma`.
        allow_missing_keys: whether to go on where an image is missing.

    Example:
        >>> from monai.transforms import Compose, GaussianSmoothd
        >>> smooth = Compose(
        ...     [
        ...         NoiseStabilised("image", noise="rician", sigma=5.0),
        ...         GaussianSmoothd("image", sigma=2.0),
        ...         NoiseStabilised("image", noise="rician", sigma=5.0, inverse=True),
        ...     ]
        ... )
        >>> background = 5 * torch.randn(2, 64, 64, 64, generator=torch.Generator().manual_seed(0)).norm(dim=0)
        >>> smoothed = smooth({"image": background[None]})["image"]
        >>> round(float(background.mean()), 1), bool(smoothed.mean() < 1)
        (6.3, True)
    """

    backend = NoiseStabilise.backend

    def __init__(
        self,
        keys: KeysCollection,
        noise: str,
        sigma: float | Sequence[float] | str | None = None,
        gain: float = 1.0,
        offset: float = 0.0,
        inverse: bool = False,
        sigma_key: KeysCollection | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.sigma_keys = levels.sigma_keys(sigma, sigma_key, self.keys)
        self.converter = NoiseStabilise(noise, sigma=sigma, gain=gain, offset=offset, inverse=inverse)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key, sigma_key in self.key_iterator(d, self.sigma_keys):
            d[key] = self.converter(d[key], images.at(data, "sigma_key", sigma_key))
        return d


EstimateNoiseD = EstimateNoiseDict = EstimateNoised
NoiseStabiliseD = NoiseStabiliseDict = NoiseStabilised
