"""Transforms that estimate noise, and that make noise of other kinds Gaussian before a filter and back after it."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, cast

import torch
from monai.config.type_definitions import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from torch import Tensor

from monai_transforms import images, levels
from nlmeans.core import arrays, checks
from nlmeans.engine.settings import settings_from
from nlmeans.noise.kinds import FOLLOWING, check_counts, possible_kind
from nlmeans.noise.poisson import restore_counts, stabilise_counts
from nlmeans.noise.rician_transform import restore_magnitude, stabilise_magnitude

log = logging.getLogger("nlmeans")


class EstimateNoise(Transform):
    """Write sigma, the standard deviation of the noise, to ``"noise_sigma"`` in the metadata of an image.

    `nlmeans.estimate_sigma` estimates it, in image units: one number, or a list with one per channel if there are
    several. The whole `nlmeans.NoiseModel` is written to ``"noise_model"``, as JSON text, with its kind and the
    correlation of neighbouring voxels. The image stays unchanged. The other transforms of this package read the entries
    with ``sigma="meta"`` and ``noise="meta"``. A transform that scales the image later does not scale them.

    Args:
        noise: ``"gaussian"``; ``"rician"`` or ``"chi"`` for MR magnitude images; or ``"auto"`` for whichever of these
            the image speaks for.

    Raises:
        ValueError: `noise` is not known.

    Example:
        >>> noisy = 100 + 5 * torch.randn(1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> round(EstimateNoise()(noisy).meta["noise_sigma"], 1)
        5.0
    """

    backend = images.BACKEND

    def __init__(self, noise: str = "gaussian") -> None:
        self.noise = checks.choice("noise", noise, levels.MEASURED_KINDS)

    def __call__(self, img: NdarrayOrTensor, mask: NdarrayOrTensor | None = None) -> MetaTensor:
        """Estimate sigma and write it to the metadata.

        Args:
            img: (C, H, W) or (C, D, H, W), any real dtype.
            mask: where to look, (H, W) or (D, H, W), or the same with a first axis of 1; None for the whole object.

        Returns:
            The same image with its own copy of the metadata and the new entry in it.

        Raises:
            ValueError, TypeError: the image or the mask has the wrong shape or type, or the image is not finite.
            RuntimeError: MONAI does not track metadata.
        """
        image, values = images.image_and_values(img)
        where = None if mask is None else images.spatial_array(mask, "mask", image)
        with images.quietly():
            models = levels.models_per_channel(values, self.noise, where)
        sigma = [model.sigma or 0.0 for model in models]
        result = images.with_metadata_of(image, values)  # a copy: the metadata of the input stay unchanged
        if isinstance(result, MetaTensor):
            result.meta[levels.NOISE_SIGMA] = sigma[0] if len(sigma) == 1 else sigma
            result.meta[levels.NOISE_MODEL] = levels.model_text(models)
            return result
        raise RuntimeError(
            "MONAI does not track metadata, so there is nowhere to write sigma; call monai.data.set_track_meta(True), "
            "or use EstimateNoised with a sigma_key"
        )

    @images.quietly()
    def estimate(
        self, img: NdarrayOrTensor, mask: NdarrayOrTensor | None = None, map: bool = False
    ) -> float | list[float] | Tensor:
        """Return sigma without writing it anywhere.

        Args:
            img: (C, H, W) or (C, D, H, W), any real dtype.
            mask: where to look, (H, W) or (D, H, W), or the same with a first axis of 1; None for the whole object.
            map: True for noise that varies in space: sigma of every voxel.

        Returns:
            A number, or a list with one per channel; with `map` a float32 image with the shape, device and metadata of
            `img`. In image units.

        Raises:
            ValueError, TypeError: the image or the mask has the wrong shape or type, or the image is not finite.
        """
        image, values = images.image_and_values(img)
        where = None if mask is None else images.spatial_array(mask, "mask", image)
        if map:
            return images.with_metadata_of(image, levels.estimate_per_voxel(values, self.noise, where))
        sigma = levels.estimate_per_channel(values, self.noise, where)
        return list(sigma) if isinstance(sigma, tuple) else sigma


class EstimateNoised(MapTransform):
    """Apply `EstimateNoise` to the images at `keys`; write sigma to their metadata or to other keys.

    Args:
        keys: keys of the images, channel first: (C, H, W) or (C, D, H, W).
        noise: as for `EstimateNoise`.
        sigma_key: key to write sigma to, one for each image; None to write to the metadata.
        map: True to write a map, for noise that varies in space: a float32 image of the same shape. It needs a
            `sigma_key`.
        mask_key: key of a mask that says where to look, one for all images or one for each.
        allow_missing_keys: True to skip images that are missing; otherwise they are a ``KeyError``.

    Raises:
        ValueError: `noise` is not known, or the keys do not fit each other.

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
            raise ValueError("map=True makes an image, which cannot be written to metadata; give a sigma_key")
        self.map = map
        self.sigma_keys = images.key_for_each("sigma_key", sigma_key, self.keys)
        if sigma_key is not None and len(set(self.sigma_keys)) < len(self.keys):
            raise ValueError(f"sigma_key={sigma_key!r} must have a different name for each of keys={self.keys}")
        self.mask_keys = images.key_for_each("mask_key", mask_key, self.keys)
        self.converter = EstimateNoise(noise)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the dictionary to which sigma is added. `data` and its arrays stay unchanged.

        Raises:
            KeyError: an image or a mask is missing.
            ValueError, TypeError, RuntimeError: as for `EstimateNoise`.
        """
        d = dict(data)
        for key, sigma_key, mask_key in self.key_iterator(d, self.sigma_keys, self.mask_keys):
            mask = images.value_at(data, "mask_key", mask_key)
            if sigma_key is None:
                d[key] = self.converter(d[key], mask)
            else:
                d[sigma_key] = self.converter.estimate(d[key], mask, self.map)
        return d


class NoiseStabilise(Transform):
    """Make noise of another kind Gaussian with a standard deviation of 1; with `inverse` convert back.

    Put any filter for Gaussian noise between the two. The inverse is the exact unbiased one: it maps the mean of the
    stabilised values, which a filter estimates, to the image without noise. It therefore also removes the bias that
    noise adds to dark voxels of a magnitude image. Without a filter between them, the two do not cancel out.

    Where sigma was measured as 0, as in a blank slice, the image comes back unchanged, with a warning.

    Both need the same sigma: put `EstimateNoise` before the first, and give both ``sigma="meta"``.

    Args:
        noise: ``"rician"`` for MR magnitude images, ``"poisson"`` for counts of photons or decays, or ``"curve"`` for
            noise whose standard deviation is a curve over intensity.
        sigma: standard deviation of the noise, in image units: one number, or one per channel. ``"meta"`` reads what
            `EstimateNoise` wrote to the metadata. For Poisson noise, one number: the read noise of the detector; None
            means none.
        gain: image units per photon, for Poisson noise.
        offset: image value where no photon arrives, for Poisson noise.
        inverse: True to convert back.
        curve: pairs of intensity and sigma, for ``"curve"``, which has no `sigma`.

    Raises:
        ValueError, TypeError: an argument is out of range or has the wrong type; the message names a remedy.

    References:
        `nlmeans.noise.rician_transform.stabilise_magnitude`, `nlmeans.noise.poisson.stabilise_counts` and
        `nlmeans.noise.level_curve.stabilise_level` cite the papers.

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
        curve: Any = None,
    ) -> None:
        checks.choice("noise", noise, ("rician", *FOLLOWING))
        if noise == "curve" and curve is None:
            raise ValueError(
                "curve is missing: noise='curve' needs pairs of intensity and sigma, the same for both ways"
            )
        self.sigma_in_metadata = levels.is_in_metadata(sigma)
        detector = {"noise": noise, "gain": gain, "offset": offset, "curve": curve}
        self.settings, _ = settings_from(levels.sigma_of_transform(sigma, noise), detector)
        self.inverse = inverse

    def __call__(self, img: NdarrayOrTensor, sigma: levels.SigmaOfCall | None = None) -> Tensor:
        """Stabilise an image, or convert it back.

        Args:
            img: (C, H, W) or (C, D, H, W), any real dtype; never written to.
            sigma: sigma of this image, which replaces that of the transform. For Rician noise also a map: of the
                spatial shape, ``(1, *spatial shape)``, or the shape of the image.

        Returns:
            A `MetaTensor`, or a tensor if MONAI does not track metadata, with the shape, device and metadata of the
            image. Its dtype is that of the image if that is a floating-point type, otherwise float32.

        Raises:
            ValueError, TypeError: the image has the wrong shape or type, is not finite, or is negative as no
                magnitude and no count is; or sigma is missing, out of range, or of the wrong shape.
        """
        image, values = images.image_and_values(img)
        lowest, _ = arrays.value_range(values, "img")  # raises if a value is not finite
        level = cast(levels.SigmaOfImage | None, self.settings.sigma)  # sigma_of_transform refuses "map" here
        if sigma is not None:
            level = levels.sigma_of_image(sigma, image)
        elif self.sigma_in_metadata:
            level = levels.sigma_in_metadata_of(img, image)
        precise = values.to(arrays.precise_dtype(values))
        if not self.inverse and possible_kind(self.settings.noise, lowest) != self.settings.noise:
            raise ValueError(
                f"img has values down to {lowest:.4g}, but noise={self.settings.noise!r} is for magnitudes, which are "
                "never negative; put this transform before intensities are shifted or scaled, or leave it out, as "
                "such noise counts as Gaussian"
            )
        if self.settings.noise == "rician":
            magnitude = restore_magnitude if self.inverse else stabilise_magnitude
            scale = broadcast_sigma(level, precise, level is not self.settings.sigma)
            result = torch.where(scale > 0, magnitude(precise, torch.where(scale > 0, scale, 1)), precise)
        elif self.settings.noise == "curve":
            if level is not None:
                raise ValueError("sigma of a call does not fit noise='curve', whose level is the curve; leave it out")
            model = self.settings.stated
            result = model.restore(precise) if self.inverse else model.stabilise(precise)
        else:
            if level is not None and not isinstance(level, float):
                shown = f"has shape {tuple(level.shape)}" if isinstance(level, Tensor) else f"has {len(level)} numbers"
                raise ValueError(f"sigma {shown}, but it is the read noise where noise='poisson'; give one number")
            if not self.inverse:
                check_counts(lowest, self.settings.offset, level or 0.0)
            counts = restore_counts if self.inverse else stabilise_counts
            result = counts(precise, cast(float, self.settings.gain), self.settings.offset, level or 0.0)
        dtype = values.dtype if values.is_floating_point() else torch.float32
        return images.with_metadata_of(image, result.to(dtype))


def broadcast_sigma(level: levels.SigmaOfImage | None, values: Tensor, measured: bool = False) -> Tensor:
    """Convert sigma to a tensor that broadcasts against the image.

    Args:
        level: one number, one per channel, or a map of the spatial shape or of the shape of the image.
        values: (C, H, W) or (C, D, H, W), floating point; the result has their dtype and device.
        measured: whether sigma belongs to the image, so that 0 says that it has no noise, as a blank slice. A warning
            says so.

    Raises:
        ValueError: sigma is None, less than 0, or 0 if it was not measured, or the number of channels is another.
    """
    if level is None:
        raise ValueError(
            "sigma=None, but to stabilise Rician noise and to convert back both need the same sigma; give it to both, "
            "or put EstimateNoise(d) before the first and use sigma='meta' or sigma_key in both"
        )
    sigma = torch.as_tensor(level).to(values)
    if sigma.ndim == 1:
        if len(sigma) != len(values):
            raise ValueError(
                f"sigma has {len(sigma)} numbers, but the image has {len(values)} channels; "
                "give one number, or one per channel"
            )
        sigma = sigma.reshape(-1, *[1] * (values.ndim - 1))
    least, _ = arrays.value_range(sigma, "sigma")
    if measured and checks.not_negative("sigma", least) == 0:
        log.warning("sigma is 0, so there is no noise to stabilise: what has none, such as a blank slice, is unchanged")
    else:
        checks.positive("sigma", least)
    return sigma


class NoiseStabilised(MapTransform):
    """Apply `NoiseStabilise` to the images at `keys`.

    Args:
        keys: keys of the images, channel first: (C, H, W) or (C, D, H, W).
        noise: as for `NoiseStabilise`.
        sigma: as for `NoiseStabilise`.
        gain: as for `NoiseStabilise`.
        offset: as for `NoiseStabilise`.
        inverse: as for `NoiseStabilise`.
        sigma_key: key of sigma, one for all images or one for each, as `EstimateNoised` writes it: a number, one per
            channel, or a map. Give either `sigma` or `sigma_key`.
        allow_missing_keys: True to skip images that are missing; otherwise they are a ``KeyError``.
        curve: as for `NoiseStabilise`.

    Raises:
        ValueError, TypeError: an argument is out of range or has the wrong type; the message names a remedy.

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
        curve: Any = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.sigma_keys = levels.sigma_key_for_each(sigma, sigma_key, self.keys)
        self.converter = NoiseStabilise(noise, sigma, gain, offset, inverse, curve)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the dictionary with the images stabilised or converted back. `data` stays unchanged.

        Raises:
            KeyError: an image or a sigma is missing.
            ValueError, TypeError: as for `NoiseStabilise`.
        """
        d = dict(data)
        for key, sigma_key in self.key_iterator(d, self.sigma_keys):
            d[key] = self.converter(d[key], images.value_at(data, "sigma_key", sigma_key))
        return d


EstimateNoiseD = EstimateNoiseDict = EstimateNoised
NoiseStabiliseD = NoiseStabiliseDict = NoiseStabilised
