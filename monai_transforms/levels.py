"""Sigma, the standard deviation of the noise: given to a transform or call, read from the metadata, or estimated."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from monai.config.type_definitions import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor
from torch import Tensor

from monai_transforms import images
from nlmeans import NoiseModel, Settings, estimate_sigma
from nlmeans.core import arrays, checks
from nlmeans.core.layout import Layout
from nlmeans.engine.noise import noise_of

NOISE_SIGMA = "noise_sigma"
"""Name of the metadata entry that `EstimateNoise` writes."""

NOISE_MODEL = "noise_model"
"""Name of the metadata entry with the whole noise model as JSON text, or several, one per channel."""

MEASURED_KINDS = ("auto", "gaussian", "rician", "chi")
"""Kinds of noise that are measured; ``"auto"`` finds the kind."""

IN_METADATA = "meta"
"""Value of the argument `sigma` that stands for this entry."""

SigmaOfCall = float | Sequence[float] | NdarrayOrTensor
"""What a call accepts as sigma."""

SigmaOfImage = float | tuple[float, ...] | Tensor
"""One number; one per channel; or a map of the spatial shape or of the shape of the image. In image units."""


def sigma_of_transform(
    sigma: float | Sequence[float] | str | None, noise: str, *words: str
) -> float | Sequence[float] | str | None:
    """Check the sigma that a transform was constructed with, and return it; None for ``"meta"``.

    Args:
        sigma: a number, one per channel, ``"meta"``, one of `words`, or None.
        noise: kind of noise. With ``"poisson"`` sigma is only the read noise, which no word stands for, and with
            ``"curve"`` there is none.
        words: what the transform accepts in addition to ``"meta"``.

    Raises:
        TypeError: `sigma` is a map.
        ValueError: `sigma` is an unknown word, or any word with noise that follows the intensity.
    """
    if isinstance(sigma, np.ndarray | Tensor) and sigma.ndim > 1:
        raise TypeError(
            f"sigma is a map of shape {tuple(sigma.shape)}, but a transform serves many images; give the map to the "
            "call together with its image, or put it into the data and name its key in sigma_key"
        )
    if isinstance(sigma, str):
        checks.choice("sigma", sigma, (IN_METADATA, *words))
        if noise == "poisson":
            raise ValueError(
                f"sigma={sigma!r} stands for all of the noise, but with noise='poisson' sigma is the read noise alone; "
                "give the read noise as a number, or None if there is none"
            )
        if noise == "curve":
            raise ValueError(f"sigma={sigma!r} does not fit noise='curve', whose level is the curve; leave sigma out")
    return None if is_in_metadata(sigma) else sigma


def is_in_metadata(sigma: object) -> bool:
    """Whether the argument `sigma` of a transform refers to the metadata."""
    return isinstance(sigma, str) and sigma == IN_METADATA


def sigma_of_image(sigma: SigmaOfCall, image: Tensor) -> SigmaOfImage:
    """Convert the sigma of a call, or from the data, to plain numbers or a plain tensor.

    Args:
        sigma: a number, one per channel, or a map: of the spatial shape, ``(1, *spatial shape)``, or the shape of the
            image.
        image: (C, H, W) or (C, D, H, W).

    Raises:
        ValueError: a map has another shape, or there is neither one number nor one per channel.
    """
    values = images.without_metadata(sigma) if isinstance(sigma, Tensor) else torch.as_tensor(np.asarray(sigma))
    if values.ndim > 1:
        has_each_channel = values.shape == image.shape and len(image) > 1
        return values if has_each_channel else images.spatial_array(values, "sigma", image)
    return float(values) if values.numel() == 1 else one_per_channel(tuple(values.tolist()), image)


def one_per_channel(sigma: tuple[float, ...], image: Tensor) -> tuple[float, ...]:
    """Return sigma of each channel. Raise ``ValueError`` if there are more or fewer channels."""
    if len(sigma) != len(image):
        raise ValueError(
            f"sigma has {len(sigma)} numbers, but the image has {len(image)} channels; give one number, or one per "
            "channel"
        )
    return sigma


def sigma_in_metadata_of(img: NdarrayOrTensor, image: Tensor) -> SigmaOfImage:
    """Read the sigma that `EstimateNoise` wrote to the metadata.

    Args:
        img: the image as it was given to the transform.
        image: the same image, as a tensor.

    Raises:
        ValueError: the metadata have no such entry, or it is for another number of channels.
    """
    known = np.atleast_1d(np.asarray(written_to_metadata(img, NOISE_SIGMA, "sigma"), dtype=np.float64)).tolist()
    if len(known) != len(image):
        raise ValueError(
            f"sigma='meta' found {NOISE_SIGMA!r} in the metadata for {len(known)} channel(s), but the image has "
            f"{len(image)}: ConcatItems(d) keeps only the metadata of its first item, and SplitDim(d) does not split "
            "them; put EstimateNoise(d) after the transform that joins or splits channels"
        )
    return sigma_of_image(known, image)


def written_to_metadata(img: NdarrayOrTensor, entry: str, argument: str) -> Any:
    """Return what `EstimateNoise` wrote to the metadata under this entry, which ``argument="meta"`` asks for.

    Raises:
        ValueError: the metadata have no such entry.
    """
    if not isinstance(img, MetaTensor) or entry not in img.meta:
        raise ValueError(
            f"{argument}='meta' needs what EstimateNoise(d) writes to {entry!r} in the metadata, but this image has "
            "no such entry; put EstimateNoise(d) before this transform, and keep the metadata in caches"
        )
    return img.meta[entry]


def models_per_channel(values: Tensor, noise: str, mask: Tensor | None) -> list[NoiseModel]:
    """Find the noise of each channel, with its sigma.

    Args:
        values: (C, H, W) or (C, D, H, W), any real dtype.
        noise: one of `MEASURED_KINDS`.
        mask: where to look, (H, W) or (D, H, W).
    """
    source = arrays.readable(values, "img")
    settings = Settings(noise=noise, modality="MR", series=0)
    layout = Layout.of(source, None, 0)
    found = [noise_of(source, index, layout, settings, mask, None) for index in range(len(values))]
    return [dataclasses.replace(noise.model.without_variation(), sigma=noise.sigma[0]) for noise in found]


def models_in_metadata_of(img: NdarrayOrTensor, image: Tensor) -> list[NoiseModel]:
    """Read the noise models of all channels that `EstimateNoise` wrote to the metadata.

    Raises:
        ValueError: the metadata have no such entry, or it is for another number of channels.
    """
    found = json.loads(written_to_metadata(img, NOISE_MODEL, "noise"))
    models = [NoiseModel.from_dict(one) for one in (found if isinstance(found, list) else [found])]
    if len(models) != len(image):
        raise ValueError(
            f"noise='meta' found {NOISE_MODEL!r} in the metadata for {len(models)} channel(s), but the image has "
            f"{len(image)}; put EstimateNoise(d) after the transform that joins or splits channels"
        )
    return models


def model_text(models: list[NoiseModel]) -> str:
    """Return noise models as JSON text: one, or a list."""
    values = [model.to_dict() for model in models]
    return json.dumps(values[0] if len(values) == 1 else values)


def estimate_per_channel(values: Tensor, noise: str, mask: Tensor | None) -> float | tuple[float, ...]:
    """Estimate sigma: one number for an image with one channel, otherwise one per channel.

    Args:
        values: (C, H, W) or (C, D, H, W), any real dtype.
        noise: ``"gaussian"`` or ``"rician"``.
        mask: where to look, (H, W) or (D, H, W).
    """
    each = np.ravel(estimate_sigma(values, noise=noise, mask=mask, series=0)).tolist()
    return each[0] if len(each) == 1 else tuple(each)


def estimate_per_voxel(values: Tensor, noise: str, mask: Tensor | None) -> Tensor:
    """Estimate sigma of every voxel: a float32 map of the shape of `values`, on their device. Arguments as above."""
    return torch.from_numpy(estimate_sigma(values, noise=noise, mask=mask, map=True, series=0)).to(values.device)


def sigma_key_for_each(
    sigma: object, sigma_key: KeysCollection | None, keys: tuple[Hashable, ...]
) -> tuple[Hashable | None, ...]:
    """Return the key of sigma for each image. Raise ``ValueError`` if `sigma` is given too."""
    if sigma is not None and sigma_key is not None:
        raise ValueError(f"sigma={sigma!r} and sigma_key={sigma_key!r} both say what the noise is; give only one")
    return images.key_for_each("sigma_key", sigma_key, keys)
