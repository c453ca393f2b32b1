"""Denoising as a transform: the same for every image, or of a strength that is drawn anew for each."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from monai.config.type_definitions import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, RandomizableTransform, Transform
from torch import Tensor

from monai_transforms import images, levels
from nlmeans import Settings
from nlmeans.core import checks
from nlmeans.noise import outliers
from nlmeans.core.checks import Radius
from nlmeans.api import gather, run
from nlmeans.core.progress import silent


class NonLocalMeans(Transform):
    """Denoise an image by `nlmeans.denoise`: the arguments mean what they mean there.

    It belongs after `EnsureChannelFirst`; before `Spacing` or anything else that interpolates, which makes the noise
    of neighbours alike; for Rician and Poisson noise before intensities are shifted or scaled; and before the first
    random transform, so that a cache holds what it makes.

    Args:
        sigma: standard deviation of the noise, in image units: one number, or one per channel. None estimates it from
            each image, ``"map"`` one for every voxel; ``"meta"`` takes what `EstimateNoise` wrote to the metadata.
        method: ``"auto"`` or a name in `nlmeans.METHODS`.
        noise: ``"gaussian"``; ``"rician"`` for MR magnitude images; ``"poisson"`` for counts, where sigma is the read
            noise of the detector, None for none.
        gain: image units per photon, for Poisson noise.
        offset: image value without any photon, for Poisson noise.
        h: filter strength in image units; None for the method's own multiple of sigma.
        patch_radius: voxels, for all axes or one per axis; None for the method's own.
        search_radius: voxels, likewise.
        spacing: voxel size in mm, one number per spatial axis, so that thick slices get a flat window; ``"affine"``
            for that of each image.
        channel_wise: whether channels are denoised one by one. If not, they are compared together, such as those of a
            colour image or the volumes of a 4D scan, and share their weights.
        despeckle: whether to replace impulses and dead voxels first.
        seed: of the method ``"stochastic"``, which repeats exactly with the same seed.
        backend: ``"auto"`` or a name in `nlmeans.backends.BACKENDS`.
        device: where to compute, such as ``"cuda"``; None for where the image lies. The result lies there in any case.
        memory: bytes to work in (or text, ``"2GB"``): larger images are cut into tiles. None for half the free memory.
        dtype: ``"float16"``, ``"float32"`` or ``"float64"`` for a result of that type; None for the image's own, where
            integers are rounded.

    Raises:
        ValueError, TypeError: an argument is out of range; the message names a remedy.

    Example:
        >>> noisy = 100 + 5 * torch.randn(1, 24, 24, 24, generator=torch.Generator().manual_seed(0))
        >>> denoised = NonLocalMeans(sigma=5.0)(noisy)
        >>> type(denoised).__name__, tuple(denoised.shape), bool(denoised.std() < 0.3 * noisy.std())
        ('MetaTensor', (1, 24, 24, 24), True)
    """

    backend = images.BACKEND

    def __init__(
        self,
        sigma: float | Sequence[float] | str | None = None,
        method: str = "auto",
        noise: str = "gaussian",
        gain: float = 1.0,
        offset: float = 0.0,
        h: float | None = None,
        patch_radius: Radius | None = None,
        search_radius: Radius | None = None,
        spacing: Sequence[float] | str | None = None,
        channel_wise: bool = True,
        despeckle: bool = False,
        seed: int = 0,
        backend: str = "auto",
        device: str | torch.device | None = None,
        memory: int | str | None = None,
        dtype: str | None = None,
    ) -> None:
        if isinstance(spacing, str):
            checks.choice("spacing", spacing, ("affine",))
        self.spacing_from_affine = isinstance(spacing, str)
        self.sigma_in_metadata = levels.is_in_metadata(sigma)
        self.settings, _ = gather(
            levels.own(sigma, noise, "map"),
            method=method,
            noise=noise,
            gain=gain,
            offset=offset,
            h=h,
            patch_radius=patch_radius,
            search_radius=search_radius,
            spacing=None if isinstance(spacing, str) else spacing,
            channels=None if channel_wise else 0,
            series=0 if channel_wise else None,
            despeckle=despeckle,
            seed=seed,
            backend=backend,
            device=device,
            memory=memory,
            dtype=dtype,
        )

    def __call__(
        self, img: NdarrayOrTensor, mask: NdarrayOrTensor | None = None, sigma: levels.Given | None = None
    ) -> Tensor:
        """Denoise an image.

        Args:
            img: (C, H, W) or (C, D, H, W), any real dtype; never written to.
            mask: where to denoise, (H, W) or (D, H, W), or with a first axis of 1; elsewhere voxels stay as they are.
            sigma: for this image, in place of the transform's own: one number, one per channel, or a map, which has
                the spatial shape, ``(1, *spatial shape)``, or the shape of the image.

        Returns:
            A `MetaTensor`, or a tensor if metadata are not tracked, of the image's shape, device and metadata.
        """
        return self.denoised(img, mask, sigma)

    def denoised(
        self, img: NdarrayOrTensor, mask: NdarrayOrTensor | None, sigma: levels.Given | None, strength: float = 1.0
    ) -> Tensor:
        """Likewise, as if the noise were `strength` times as strong."""
        image, values = images.opened(img)
        images.check_device(torch.device(self.settings.device or values.device))
        settings = self.settings
        if self.spacing_from_affine:
            settings = dataclasses.replace(settings, spacing=images.spacing_of(img))
        where = None if mask is None else images.beside(mask, "mask", image)
        level: levels.Level | Literal["map"] | None = settings.sigma
        if sigma is not None:
            level = levels.level_of(sigma, image)
        elif self.sigma_in_metadata:
            level = levels.level_in_metadata(img, image)
        if strength != 1:
            settings, level = exaggerated(settings, level, values, where, strength)
        if not isinstance(level, Tensor):
            result = run(values, dataclasses.replace(settings, sigma=level), mask=where, progress=silent)
        elif level.ndim < values.ndim:
            result = run(values, settings, mask=where, sigma_map=level, progress=silent)
        elif settings.channels is None:
            pairs = zip(values, level, strict=True)
            result = torch.cat([run(v[None], settings, mask=where, sigma_map=s, progress=silent) for v, s in pairs])
        else:
            raise ValueError(
                f"sigma has shape {tuple(level.shape)}, a map for each channel, which channel_wise=False cannot use: "
                f"give one for all, {tuple(level.shape[1:])}, or channel_wise=True"
            )
        return images.closed(result, image)


def exaggerated(
    settings: Settings,
    level: levels.Level | Literal["map"] | None,
    values: Tensor,
    mask: Tensor | None,
    strength: float,
) -> tuple[Settings, levels.Level | Literal["map"] | None]:
    """Settings and sigma that take the noise to be `strength` times what it is. Counts vary by √(gain × signal)."""
    if settings.noise == "poisson":
        settings = dataclasses.replace(settings, gain=settings.gain * strength**2)
        if level is None:
            return settings, None
    else:  # there h is in image units
        settings = dataclasses.replace(settings, h=None if settings.h is None else settings.h * strength)
    if level is None or isinstance(level, str):
        estimate = levels.estimated if level is None else levels.estimated_map
        if settings.despeckle:
            values = outliers.despeckle(values, channels=settings.channels, series=settings.series)
        level = estimate(values, settings.noise, mask)
    return settings, tuple(strength * sigma for sigma in level) if isinstance(level, tuple) else strength * level


class NonLocalMeansd(MapTransform):
    """`NonLocalMeans` of the images at `keys`.

    Args:
        keys: of the images.
        mask_key: of the mask of where to denoise, one for all images or one for each.
        sigma_key: of sigma, likewise, as `EstimateNoised` writes it or as a map; instead of `sigma`.
        allow_missing_keys: whether to go on where an image is missing.
        sigma: as all other arguments, those of `NonLocalMeans`.

    Example:
        >>> noisy = 100 + 5 * torch.randn(1, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> data = NonLocalMeansd("image", method="classic")({"image": noisy, "label": noisy > 100})
        >>> bool(data["image"].std() < 3), data["label"].dtype
        (True, torch.bool)
    """

    backend = NonLocalMeans.backend

    def __init__(
        self,
        keys: KeysCollection,
        sigma: float | Sequence[float] | str | None = None,
        method: str = "auto",
        noise: str = "gaussian",
        gain: float = 1.0,
        offset: float = 0.0,
        h: float | None = None,
        patch_radius: Radius | None = None,
        search_radius: Radius | None = None,
        spacing: Sequence[float] | str | None = None,
        channel_wise: bool = True,
        despeckle: bool = False,
        seed: int = 0,
        backend: str = "auto",
        device: str | torch.device | None = None,
        memory: int | str | None = None,
        dtype: str | None = None,
        mask_key: KeysCollection | None = None,
        sigma_key: KeysCollection | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.mask_keys = images.keys_beside("mask_key", mask_key, self.keys)
        self.sigma_keys = levels.sigma_keys(sigma, sigma_key, self.keys)
        self.converter = NonLocalMeans(
            sigma=sigma,
            method=method,
            noise=noise,
            gain=gain,
            offset=offset,
            h=h,
            patch_radius=patch_radius,
            search_radius=search_radius,
            spacing=spacing,
            channel_wise=channel_wise,
            despeckle=despeckle,
            seed=seed,
            backend=backend,
            device=device,
            memory=memory,
            dtype=dtype,
        )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key, mask_key, sigma_key in self.key_iterator(d, self.mask_keys, self.sigma_keys):
            mask, sigma = images.at(data, "mask_key", mask_key), images.at(data, "sigma_key", sigma_key)
            d[key] = self.converter(d[key], mask, sigma)
        return d


class RandNonLocalMeans(RandomizableTransform):
    """Denoise an image, now and then, by a strength drawn anew each time: training data of many noise levels.

    Args:
        prob: probability to denoise.
        strength: smallest and largest strength, drawn evenly: the noise is removed as if it were so many times as
            strong as it is (sigma and h times the strength; with Poisson noise gain times its square). Below 1 some
            of it stays, above 1 fine detail goes with it.
        sigma: as all other arguments, those of `NonLocalMeans`. None estimates it anew each time.

    Example:
        >>> noisy = 100 + 5 * torch.randn(1, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> augment = RandNonLocalMeans(prob=1.0, sigma=5.0, method="classic").set_random_state(seed=0)
        >>> [bool(augment(noisy).std() < 4) for _ in range(3)]
        [True, True, True]
    """

    backend = NonLocalMeans.backend

    def __init__(
        self,
        prob: float = 0.1,
        strength: tuple[float, float] = (0.5, 1.5),
        sigma: float | Sequence[float] | str | None = None,
        method: str = "auto",
        noise: str = "gaussian",
        gain: float = 1.0,
        offset: float = 0.0,
        h: float | None = None,
        patch_radius: Radius | None = None,
        search_radius: Radius | None = None,
        spacing: Sequence[float] | str | None = None,
        channel_wise: bool = True,
        despeckle: bool = False,
        seed: int = 0,
        backend: str = "auto",
        device: str | torch.device | None = None,
        memory: int | str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(prob)
        low, high = (checks.positive("strength", s) for s in strength)
        if low > high:
            raise ValueError(f"strength={strength} must be the smallest and the largest, in this order")
        if sigma == "map" and not channel_wise:
            raise ValueError(
                "sigma='map' with channel_wise=False cannot be of a drawn strength; let EstimateNoised make the map "
                "and give it by sigma_key"
            )
        self.strength_range = low, high
        self.strength = low
        self.converter = NonLocalMeans(
            sigma=sigma,
            method=method,
            noise=noise,
            gain=gain,
            offset=offset,
            h=h,
            patch_radius=patch_radius,
            search_radius=search_radius,
            spacing=spacing,
            channel_wise=channel_wise,
            despeckle=despeckle,
            seed=seed,
            backend=backend,
            device=device,
            memory=memory,
            dtype=dtype,
        )

    def randomize(self, data: Any | None = None) -> None:
        super().randomize(None)
        if self._do_transform:
            self.strength = self.R.uniform(*self.strength_range)

    def __call__(
        self,
        img: NdarrayOrTensor,
        mask: NdarrayOrTensor | None = None,
        sigma: levels.Given | None = None,
        randomize: bool = True,
    ) -> Tensor:
        """As `NonLocalMeans`, or the image as it is; without `randomize`, by what was drawn last."""
        if randomize:
            self.randomize()
        if self._do_transform:
            return self.converter.denoised(img, mask, sigma, self.strength)
        return images.untouched(img)


class RandNonLocalMeansd(RandomizableTransform, MapTransform):
    """`RandNonLocalMeans` of the images at `keys`: all of them or none, with the same strength.

    Args:
        keys: of the images.
        prob: as all other arguments, those of `RandNonLocalMeans` and `NonLocalMeansd`.

    Example:
        >>> noisy = 100 + 5 * torch.randn(1, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> augment = RandNonLocalMeansd(["a", "b"], prob=1.0, sigma=5.0, method="classic").set_random_state(seed=0)
        >>> data = augment({"a": noisy, "b": noisy})
        >>> bool(data["a"].std() < 4), torch.equal(data["a"], data["b"])
        (True, True)
    """

    backend = NonLocalMeans.backend

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.1,
        strength: tuple[float, float] = (0.5, 1.5),
        sigma: float | Sequence[float] | str | None = None,
        method: str = "auto",
        noise: str = "gaussian",
        gain: float = 1.0,
        offset: float = 0.0,
        h: float | None = None,
        patch_radius: Radius | None = None,
        search_radius: Radius | None = None,
        spacing: Sequence[float] | str | None = None,
        channel_wise: bool = True,
        despeckle: bool = False,
        seed: int = 0,
        backend: str = "auto",
        device: str | torch.device | None = None,
        memory: int | str | None = None,
        dtype: str | None = None,
        mask_key: KeysCollection | None = None,
        sigma_key: KeysCollection | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.mask_keys = images.keys_beside("mask_key", mask_key, self.keys)
        self.sigma_keys = levels.sigma_keys(sigma, sigma_key, self.keys)
        self.converter = RandNonLocalMeans(
            prob=1.0,
            strength=strength,
            sigma=sigma,
            method=method,
            noise=noise,
            gain=gain,
            offset=offset,
            h=h,
            patch_radius=patch_radius,
            search_radius=search_radius,
            spacing=spacing,
            channel_wise=channel_wise,
            despeckle=despeckle,
            seed=seed,
            backend=backend,
            device=device,
            memory=memory,
            dtype=dtype,
        )

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> RandNonLocalMeansd:
        super().set_random_state(seed, state)
        self.converter.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        self.randomize(None)
        if self._do_transform:
            self.converter.randomize(None)
        for key, mask_key, sigma_key in self.key_iterator(d, self.mask_keys, self.sigma_keys):
            if self._do_transform:
                mask, sigma = images.at(data, "mask_key", mask_key), images.at(data, "sigma_key", sigma_key)
                d[key] = self.converter(d[key], mask, sigma, randomize=False)
            else:
                d[key] = images.untouched(d[key])
        return d


NonLocalMeansD = NonLocalMeansDict = NonLocalMeansd
RandNonLocalMeansD = RandNonLocalMeansDict = RandNonLocalMeansd
