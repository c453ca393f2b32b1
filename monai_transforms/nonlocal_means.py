"""Denoising as a transform: with fixed arguments, or with a strength that is drawn at random for each image."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Unpack, cast

import numpy as np
import torch
from monai.config.type_definitions import KeysCollection, NdarrayOrTensor
from monai.transforms import MapTransform, RandomizableTransform, Transform
from torch import Tensor

from monai_transforms import images, levels
from monai_transforms.arguments import (
    RANDOM_DEFAULTS,
    RandomArguments,
    TransformArguments,
    checked_pair,
    spell_out_arguments,
    spell_out_random,
)
from nlmeans import Settings
from nlmeans.core import checks
from nlmeans.core.layout import Layout
from nlmeans.core.progress import silent
from nlmeans.engine.arguments import check_names
from nlmeans.engine.choices import FEWEST_VOLUMES, Choices
from nlmeans.engine.maps import as_tensor, noise_map, residual_of
from nlmeans.engine.plan import Plan
from nlmeans.engine.run import denoise_array
from nlmeans.engine.settings import checked_strength, settings_from
from nlmeans.engine.survey import settled
from nlmeans.methods.registry import METHODS

Level = levels.SigmaOfImage | Literal["map"] | None
"""Sigma as it is known before an image is denoised."""

MAPS = ("residual", "noise_map", "rank_map")
"""What `NonLocalMeansd` can store beside an image."""


class Prepared(NamedTuple):
    """A checked image, and how to denoise it."""

    image: Tensor
    """With its metadata."""
    values: Tensor
    settings: Settings
    level: Level
    mask: Tensor | None


class NonLocalMeans(Transform):
    """Denoise an image by `nlmeans.denoise`. The arguments mean the same as there.

    Put it after `EnsureChannelFirst`, and before `Spacing` or any other transform that interpolates: interpolation
    correlates the noise of neighbouring voxels. For Rician and Poisson noise, put it before intensities are shifted or
    scaled. Put it before the first random transform, so that a cache can hold its result.

    Args:
        sigma: standard deviation of the noise, in image units: one number, or one per channel. None estimates it from
            each image, ``"map"`` estimates it for every voxel, and ``"meta"`` reads what `EstimateNoise` wrote to the
            metadata.
        method: a name in `nlmeans.METHODS`, or ``"auto"``: `best` for volumes of up to 2²⁰ voxels, which takes
            seconds; else `bayes`, unless the image would take more than ten minutes or more memory than is free.
        noise: ``"auto"`` finds the kind in each image; if `sigma` is given, it stands for white Gaussian noise.
            ``"gaussian"``; ``"rician"`` for MR magnitude images; ``"chi"`` for the sum of squares of several coils; or
            ``"poisson"`` for counts of photons or decays. For Poisson noise, `sigma` is the read noise of the detector,
            and None means none. ``"curve"`` for noise whose sigma is the `curve` over intensity. Or a
            `nlmeans.NoiseModel`.
        gain: image units per photon, for Poisson noise; ``"auto"`` finds gain, offset and read noise.
        offset: image value where no photon arrives, for Poisson noise.
        coils: effective number of coils, for chi noise; None reads it from the air.
        curve: pairs of intensity and sigma, for noise that is a curve; None finds the curve in each image.
        correlation: ``"auto"`` looks for noise that neighbouring voxels have in common if `sigma` is not given either;
            None takes the noise for white; or the autocovariance in units of sigma², as in a `nlmeans.NoiseModel`.
        variation: ``"auto"`` looks for noise that is stronger in some places than in others if `sigma` is not given
            either; None takes it for equally strong everywhere; or the level relative to `sigma` at the points of an
            even grid over the image, as in a `nlmeans.NoiseModel`.
        modality: DICOM's code of what made the images, such as ``"MR"`` or ``"CT"``, which limits the kinds of noise to
            look for.
        strength: how strong the method takes the noise to be, relative to what it is: 1 is the method's own choice, 0.5
            removes less, 2 removes more. From 0.01 to 100.
        h: filter strength in image units; larger values smooth more. None for the method's own multiple of sigma.
        patch_radius: voxels, one number for all axes or one per axis; a patch is 2r + 1 voxels wide. None for the
            method's own.
        search_radius: voxels, one number for all axes or one per axis; the search window is 2r + 1 voxels wide. None
            for the method's own.
        despeckle: True to replace impulses and dead voxels first.
        seed: random seed for the method ``"stochastic"``; the same seed repeats the same result.
        backend: ``"auto"``, ``"cpu"``, ``"gpu"``, ``"loop"``, ``"full"`` or ``"windowed"``, which approximates.
        device: where to compute, such as ``"cuda"``; None for the device of the image. The result returns to the
            device of the image.
        memory: bytes to work in, or text such as ``"2GB"``; larger images are cut into tiles. None for half the free
            memory.
        dtype: ``"float16"``, ``"float32"`` or ``"float64"`` for a result of that type. None for the dtype of the image,
            where integers are rounded and clipped.
        spacing: voxel size in mm, one number per spatial axis, so that thick slices get a flat window; ``"affine"``
            reads it from each image.
        channel_wise: True to denoise the channels one by one. False to compare them together, such as the channels of
            a colour image or the volumes of a 4D scan, so that they share their weights.

    Raises:
        ValueError: an argument is out of range; the message names a remedy.
        TypeError: an argument does not exist, or it has the wrong type.

    Example:
        >>> noisy = 100 + 5 * torch.randn(1, 24, 24, 24, generator=torch.Generator().manual_seed(0))
        >>> denoised = NonLocalMeans(sigma=5.0)(noisy)
        >>> type(denoised).__name__, tuple(denoised.shape), bool(denoised.std() < 0.3 * noisy.std())
        ('MetaTensor', (1, 24, 24, 24), True)
    """

    backend = images.BACKEND

    @spell_out_arguments
    def __init__(
        self, sigma: float | Sequence[float] | str | None = None, **arguments: Unpack[TransformArguments]
    ) -> None:
        check_names(arguments, inspect.signature(NonLocalMeans).parameters)
        spacing, channel_wise = arguments.get("spacing"), arguments.pop("channel_wise", True)
        if isinstance(spacing, str):
            checks.choice("spacing", spacing, ("affine",))
        if not isinstance(channel_wise, bool):
            raise TypeError(f"channel_wise={channel_wise!r} must be True or False")
        self.spacing_from_affine = isinstance(spacing, str)
        self.sigma_in_metadata = levels.is_in_metadata(sigma)
        noise = arguments.get("noise", "auto")
        self.settings, _ = settings_from(
            levels.sigma_of_transform(sigma, noise if isinstance(noise, str) else noise.kind, "map"),
            {
                **arguments,
                "spacing": None if isinstance(spacing, str) else spacing,
                "channels": None if channel_wise else 0,
                "series": 0 if channel_wise else None,
            },
        )

    def __call__(
        self, img: NdarrayOrTensor, mask: NdarrayOrTensor | None = None, sigma: levels.SigmaOfCall | None = None
    ) -> Tensor:
        """Denoise an image.

        Args:
            img: (C, H, W) or (C, D, H, W), any real dtype; never written to.
            mask: where to denoise, (H, W) or (D, H, W), or the same with a first axis of 1. Voxels where it is zero
                come back unchanged. If image and mask have affines, a volume stored in another orientation is turned,
                and one of another grid refused.
            sigma: sigma of this image, which replaces that of the transform: one number, one per channel, or a map of
                the spatial shape, ``(1, *spatial shape)``, or the shape of the image.

        Returns:
            A `MetaTensor`, or a tensor if MONAI does not track metadata, with the shape, device and metadata of the
            image, and with its dtype unless `dtype` was given.

        Raises:
            ValueError, TypeError: the image, the mask or sigma has the wrong shape, type or range, or the image is not
                finite; the message names a remedy.
            RuntimeError: the device is a GPU, and this process is a forked worker.
        """
        return self.denoise_with_strength(img, mask, sigma, self.settings.strength)

    @images.quietly()
    def denoise_with_strength(
        self,
        img: NdarrayOrTensor,
        mask: NdarrayOrTensor | None,
        sigma: levels.SigmaOfCall | None,
        strength: float,
        in_middle: bool = False,
    ) -> Tensor:
        """Denoise an image with this strength instead of the transform's.

        Args:
            img: (C, H, W) or (C, D, H, W), any real dtype; never written to.
            mask: where to denoise, as for `__call__`.
            sigma: sigma of this image, as for `__call__`.
            strength: as for `NonLocalMeans`.
            in_middle: whether the noise is found in the middle of the image, if it is not known.

        Raises:
            ValueError, TypeError, RuntimeError: as for `__call__`.
        """
        image, values, settings, level, where = self.prepared(img, mask, sigma)
        settings = dataclasses.replace(settings, strength=strength)
        if in_middle and level is None and settings.finds_noise:
            if settings.series is not None and len(values) > 1:
                each = [self.denoise_with_strength(one[None], mask, sigma, strength, in_middle) for one in values]
                return images.with_metadata_of(image, torch.cat([images.without_metadata(one) for one in each]))
            settings, level = found_in_middle(settings, values, where)
        return images.with_metadata_of(image, denoise_values(values, settings, level, where))

    @images.quietly()
    def denoise_with_maps(
        self, img: NdarrayOrTensor, mask: NdarrayOrTensor | None = None, sigma: levels.SigmaOfCall | None = None
    ) -> dict[str, Tensor]:
        """Denoise an image, and return what was removed and what was found along with it.

        Args:
            img: (C, H, W) or (C, D, H, W), any real dtype; never written to.
            mask: where to denoise, as for `__call__`.
            sigma: sigma of this image, as for `__call__`.

        Returns:
            ``"image"``, as `__call__` returns it; ``"residual"``, the image minus the result; ``"noise_map"``, sigma at
            every voxel, of the shape of the image, or with one channel if all were denoised together as a series; and
            in that case ``"rank_map"``, the components kept around every voxel, with one channel. The maps are float32,
            with the metadata of the image.

        Raises:
            ValueError, TypeError, RuntimeError: as for `__call__`.
        """
        image, values, settings, level, where = self.prepared(img, mask, sigma)
        plans: list[Plan] = []
        rank = torch.zeros(values.shape[1:]).reshape(1, *values.shape[1:])
        result = denoise_values(values, settings, level, where, plans, rank[0] if values.ndim == 4 else rank)
        joint = plans[0].choices.method.joint
        noise = as_tensor(noise_map(plans, result))
        maps = {
            "image": result,
            "residual": as_tensor(residual_of(values, result)).float(),
            "noise_map": noise[None] if joint else noise,
        }
        if joint:
            maps["rank_map"] = rank.to(result.device)
        return {name: images.with_metadata_of(image, values) for name, values in maps.items()}

    def prepared(
        self, img: NdarrayOrTensor, mask: NdarrayOrTensor | None, sigma: levels.SigmaOfCall | None
    ) -> Prepared:
        """Check an image, its mask and its sigma."""
        image, values = images.image_and_values(img)
        images.check_device(torch.device(self.settings.device or values.device))
        settings = self.settings
        if self.spacing_from_affine:
            settings = dataclasses.replace(settings, spacing=images.voxel_size(img))
        if settings.method != "auto" and METHODS[settings.method].joint and len(values) < FEWEST_VOLUMES:
            raise ValueError(
                f"method={settings.method!r} is for {FEWEST_VOLUMES} channels or more, the volumes of a series, but "
                f"the image has {len(values)}; use another method"
            )
        where = None if mask is None else images.spatial_array(mask, "mask", image)
        level: Level = settings.sigma
        if sigma is not None:
            level = levels.sigma_of_image(sigma, image)
        elif self.sigma_in_metadata:
            level = levels.sigma_in_metadata_of(img, image)
        elif isinstance(level, tuple):
            level = levels.one_per_channel(level, image)
        return Prepared(image, values, settings, level, where)


def denoise_values(
    values: Tensor,
    settings: Settings,
    level: Level,
    mask: Tensor | None,
    plans: list[Plan] | None = None,
    rank: Tensor | None = None,
) -> Tensor:
    """Denoise (C, H, W) or (C, D, H, W) with this sigma, which replaces that of the settings.

    Args:
        values: the image.
        settings: how to denoise.
        level: sigma.
        mask: where to denoise.
        plans: a list to which the plans are added.
        rank: where to write the components that are kept around every voxel, (D, H, W).

    Raises:
        ValueError: each channel has its own map, but the settings compare the channels together.
    """
    more: dict[str, Any] = {"mask": mask, "progress": silent, "plans": plans, "rank": rank}
    if not isinstance(level, Tensor):
        return denoise_array(values, dataclasses.replace(settings, sigma=level), **more)
    if level.ndim < values.ndim:
        return denoise_array(values, settings, sigma_map=level, **more)
    if settings.channels is not None:
        raise ValueError(
            f"sigma has shape {tuple(level.shape)}, a map for each channel, which channel_wise=False cannot use: "
            f"give one for all, {tuple(level.shape[1:])}, or channel_wise=True"
        )
    pairs = zip(values, level, strict=True)
    return torch.cat([denoise_array(v[None], settings, sigma_map=s, **more) for v, s in pairs])


def found_in_middle(settings: Settings, values: Tensor, mask: Tensor | None) -> tuple[Settings, Level]:
    """Find the noise of an image of one channel in its middle; return settings that state it, and sigma."""
    searched, inside = middle_of(values, mask)
    layout = Layout.of(searched, settings.channels, settings.series)
    choices = Choices.of(dataclasses.replace(settings, variation=None), layout)  # of a middle that is small
    settings = settled(settings, Plan.of(searched, 0, choices.layout, choices, mask=inside).facts)
    return settings, cast(Level, settings.sigma)


MIDDLE = {2: 256**2, 3: 40**3}
"""Voxels of an image and of a volume in which an augmentation looks for the noise."""


def middle_of(values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return the middle of an image, (C, ...), and of its mask; all of it if the middle shows nothing but constants."""
    lengths = list(values.shape[1:])
    left = MIDDLE[len(lengths)]
    for done, axis in enumerate(sorted(range(len(lengths)), key=lengths.__getitem__)):  # thin volumes are cut wider
        lengths[axis] = min(lengths[axis], max(1, round(left ** (1 / (len(lengths) - done)))))
        left //= lengths[axis]
    place = tuple(slice((n - m) // 2, (n - m) // 2 + m) for n, m in zip(values.shape[1:], lengths, strict=True))
    middle = values[:, *place]
    if mask is not None and not bool((mask[place] != 0).any()):
        return values, mask
    if bool((middle.flatten(1).amax(1) == middle.flatten(1).amin(1)).any()):
        return values, mask
    return middle, None if mask is None else mask[place]


class NonLocalMeansd(MapTransform):
    """Apply `NonLocalMeans` to the images at `keys`.

    Args:
        keys: keys of the images, channel first: (C, H, W) or (C, D, H, W).
        sigma: as for `NonLocalMeans`.
        mask_key: key of a mask that says where to denoise, one for all images or one for each.
        sigma_key: key of sigma, one for all images or one for each, as `EstimateNoised` writes it: a number, one per
            channel, or a map. Give either `sigma` or `sigma_key`.
        maps: what to store beside each image, under its key with this at the end: ``"residual"``, ``"noise_map"``, and,
            of volumes that are denoised together, ``"rank_map"``; see `NonLocalMeans.denoise_with_maps`.
        allow_missing_keys: True to skip images that are missing; otherwise they are a ``KeyError``.
        arguments: all other arguments of `NonLocalMeans`.

    Raises:
        ValueError: an argument is out of range; the message names a remedy.
        TypeError: an argument does not exist, or it has the wrong type.

    Example:
        >>> noisy = 100 + 5 * torch.randn(1, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> data = NonLocalMeansd("image", method="classic")({"image": noisy, "label": noisy > 100})
        >>> bool(data["image"].std() < 3), data["label"].dtype
        (True, torch.bool)
    """

    backend = NonLocalMeans.backend

    @spell_out_arguments
    def __init__(
        self,
        keys: KeysCollection,
        sigma: float | Sequence[float] | str | None = None,
        *,
        mask_key: KeysCollection | None = None,
        sigma_key: KeysCollection | None = None,
        maps: str | Sequence[str] = (),
        allow_missing_keys: bool = False,
        **arguments: Unpack[TransformArguments],
    ) -> None:
        check_names(arguments, inspect.signature(NonLocalMeansd).parameters)
        super().__init__(keys, allow_missing_keys)
        self.mask_keys = images.key_for_each("mask_key", mask_key, self.keys)
        self.sigma_keys = levels.sigma_key_for_each(sigma, sigma_key, self.keys)
        self.maps = (maps,) if isinstance(maps, str) else tuple(maps)
        for name in self.maps:
            checks.choice("maps", name, MAPS)
        self.converter = NonLocalMeans(sigma, **arguments)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the dictionary in which the images are denoised. `data` and its arrays stay unchanged.

        Raises:
            KeyError: an image, a mask or a sigma is missing.
            ValueError, TypeError, RuntimeError: as for `NonLocalMeans`.
        """
        d = dict(data)
        for key, mask_key, sigma_key in self.key_iterator(d, self.mask_keys, self.sigma_keys):
            mask = images.value_at(data, "mask_key", mask_key)
            sigma = images.value_at(data, "sigma_key", sigma_key)
            if not self.maps:
                d[key] = self.converter(d[key], mask, sigma)
                continue
            found = self.converter.denoise_with_maps(d[key], mask, sigma)
            if "rank_map" in self.maps and "rank_map" not in found:
                raise ValueError(
                    f"maps={self.maps}: {key!r} has no rank_map, as its channels were not denoised together; leave it "
                    "out, or give method='series'"
                )
            d[key] = found["image"]
            d |= {f"{key}_{name}": found[name] for name in self.maps}
        return d


class RandNonLocalMeans(RandomizableTransform):
    """Denoise an image with probability `prob` and a random strength, so that training sees many noise levels.

    Args:
        prob: probability to denoise, 0 to 1.
        strength: smallest and largest strength, from 0.01 to 100; one is drawn uniformly for each image. The noise is
            removed as if it were so many times as strong as it is. A strength below 1 leaves some noise; above 1 it
            also removes fine detail.
        sigma: as for `NonLocalMeans`. None finds the noise in the middle of each image, 40³ voxels of a volume or 256²
            of an image, anew in each call. ``"meta"`` reads what `EstimateNoise` found once for the whole image: the
            way for training, as it is more exact and costs nothing in later epochs.
        arguments: all other arguments of `NonLocalMeans`, but for its strength. By default the method is `classic`,
            which an augmentation can afford in every epoch.

    Raises:
        ValueError: an argument is out of range; the message names a remedy.
        TypeError: an argument does not exist, or it has the wrong type.

    Example:
        >>> noisy = 100 + 5 * torch.randn(1, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> augment = RandNonLocalMeans(prob=1.0, sigma=5.0, method="classic").set_random_state(seed=0)
        >>> [bool(augment(noisy).std() < 4) for _ in range(3)]
        [True, True, True]
    """

    backend = NonLocalMeans.backend

    @spell_out_random
    def __init__(
        self,
        prob: float = 0.1,
        strength: tuple[float, float] = (0.5, 1.5),
        sigma: float | Sequence[float] | str | None = None,
        **arguments: Unpack[RandomArguments],
    ) -> None:
        check_names(arguments, inspect.signature(RandNonLocalMeans).parameters)
        super().__init__(prob)
        chosen: RandomArguments = {**RANDOM_DEFAULTS, **arguments}
        self.converter = NonLocalMeans(sigma, **chosen)
        low, high = checked_pair("strength", strength)
        self.strength_range = checked_strength("strength", low), checked_strength("strength", high)
        self.strength = low

    def randomize(self, data: Any | None = None) -> None:
        """Draw whether to denoise, and the strength. `data` is not used."""
        super().randomize(None)
        if self._do_transform:
            self.strength = self.R.uniform(*self.strength_range)

    def __call__(
        self,
        img: NdarrayOrTensor,
        mask: NdarrayOrTensor | None = None,
        sigma: levels.SigmaOfCall | None = None,
        randomize: bool = True,
    ) -> Tensor:
        """Denoise an image with probability `prob`; otherwise return it unchanged.

        Args:
            img: (C, H, W) or (C, D, H, W), any real dtype; never written to.
            mask: where to denoise, as for `NonLocalMeans`.
            sigma: sigma of this image, as for `NonLocalMeans`.
            randomize: False to repeat the last draw.

        Returns:
            As for `NonLocalMeans`. An image that is not denoised shares memory with `img`.

        Raises:
            ValueError, TypeError, RuntimeError: as for `NonLocalMeans`.
        """
        if randomize:
            self.randomize()
        if self._do_transform:
            return self.converter.denoise_with_strength(img, mask, sigma, self.strength, in_middle=True)
        return images.tracked_tensor(img)


class RandNonLocalMeansd(RandomizableTransform, MapTransform):
    """Apply `RandNonLocalMeans` to the images at `keys`: to all of them or to none, with the same strength.

    Args:
        keys: keys of the images, channel first: (C, H, W) or (C, D, H, W).
        prob: as for `RandNonLocalMeans`.
        strength: as for `RandNonLocalMeans`.
        sigma: as for `RandNonLocalMeans`.
        mask_key: as for `NonLocalMeansd`.
        sigma_key: as for `NonLocalMeansd`.
        allow_missing_keys: True to skip images that are missing; otherwise they are a ``KeyError``.
        arguments: as for `RandNonLocalMeans`.

    Raises:
        ValueError: an argument is out of range; the message names a remedy.
        TypeError: an argument does not exist, or it has the wrong type.

    Example:
        >>> noisy = 100 + 5 * torch.randn(1, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> augment = RandNonLocalMeansd(["a", "b"], prob=1.0, sigma=5.0, method="classic").set_random_state(seed=0)
        >>> data = augment({"a": noisy, "b": noisy})
        >>> bool(data["a"].std() < 4), torch.equal(data["a"], data["b"])
        (True, True)
    """

    backend = NonLocalMeans.backend

    @spell_out_random
    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.1,
        strength: tuple[float, float] = (0.5, 1.5),
        sigma: float | Sequence[float] | str | None = None,
        *,
        mask_key: KeysCollection | None = None,
        sigma_key: KeysCollection | None = None,
        allow_missing_keys: bool = False,
        **arguments: Unpack[RandomArguments],
    ) -> None:
        check_names(arguments, inspect.signature(RandNonLocalMeansd).parameters)
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.mask_keys = images.key_for_each("mask_key", mask_key, self.keys)
        self.sigma_keys = levels.sigma_key_for_each(sigma, sigma_key, self.keys)
        self.converter = RandNonLocalMeans(1.0, strength, sigma, **arguments)

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> RandNonLocalMeansd:
        """Set the state of the random numbers, for the decision to denoise and for the strength."""
        super().set_random_state(seed, state)
        self.converter.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the dictionary in which all images are denoised, or none. `data` stays unchanged.

        Raises:
            KeyError: an image, a mask or a sigma is missing.
            ValueError, TypeError, RuntimeError: as for `NonLocalMeans`.
        """
        d = dict(data)
        self.randomize(None)
        if self._do_transform:
            self.converter.randomize(None)
        for key, mask_key, sigma_key in self.key_iterator(d, self.mask_keys, self.sigma_keys):
            if self._do_transform:
                mask = images.value_at(data, "mask_key", mask_key)
                sigma = images.value_at(data, "sigma_key", sigma_key)
                d[key] = self.converter(d[key], mask, sigma, randomize=False)
            else:
                d[key] = images.tracked_tensor(d[key])
        return d


NonLocalMeansD = NonLocalMeansDict = NonLocalMeansd
RandNonLocalMeansD = RandNonLocalMeansDict = RandNonLocalMeansd
