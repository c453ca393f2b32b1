"""The standard deviation of the noise: as given to a call, kept in the metadata, or estimated."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import torch
from monai.config.type_definitions import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor
from torch import Tensor

from monai_transforms import images
from nlmeans import checks, estimate_sigma

NOISE_SIGMA = "noise_sigma"
"""Where `EstimateNoise` writes in the metadata."""

IN_METADATA = "meta"
"""What sigma is given as where it is to be read from there."""

Given = float | Sequence[float] | NdarrayOrTensor

Level = float | tuple[float, ...] | Tensor
"""Of the image; one per channel; or a map, of the spatial shape or of the shape of the image."""


def own(sigma: float | Sequence[float] | str | None, noise: str, *words: str) -> float | Sequence[float] | str | None:
    """What a transform was given as sigma, a number or one of the words; None if it is to look into the metadata."""
    if isinstance(sigma, np.ndarray | Tensor) and sigma.ndim > 1:
        raise TypeError(
            f"sigma is a map of shape {tuple(sigma.shape)}, which belongs to one image: give it to the call beside the "
            "image, or name its place in sigma_key"
        )
    if isinstance(sigma, str):
        checks.choice("sigma", sigma, (IN_METADATA, *words))
        if noise == "poisson":
            raise ValueError(
                f"sigma={sigma!r} is all of the noise; where noise='poisson' sigma is the read noise alone"
            )
    return None if is_in_metadata(sigma) else sigma


def is_in_metadata(sigma: object) -> bool:
    return isinstance(sigma, str) and sigma == IN_METADATA


def level_of(sigma: Given, image: Tensor) -> Level:
    """Sigma as it was given to a call, or lies beside the image."""
    values = images.plain(sigma) if isinstance(sigma, Tensor) else torch.as_tensor(np.asarray(sigma))
    if values.ndim > 1:
        return values if values.shape == image.shape and len(image) > 1 else images.beside(values, "sigma", image)
    return float(values) if values.numel() == 1 else tuple(values.tolist())


def level_in_metadata(img: NdarrayOrTensor, image: Tensor) -> Level:
    if not isinstance(img, MetaTensor) or NOISE_SIGMA not in img.meta:
        raise ValueError(
            f"sigma='meta' needs what EstimateNoise(d) leaves at {NOISE_SIGMA!r} in the metadata, but this image has "
            "nothing there; put EstimateNoise(d) before, and let no cache drop the metadata"
        )
    return level_of(img.meta[NOISE_SIGMA], image)


def estimated(values: Tensor, noise: str, mask: Tensor | None) -> float | tuple[float, ...]:
    """One number, or one per channel if there are several."""
    each = np.ravel(estimate_sigma(values, noise=noise, mask=mask, series=0)).tolist()
    return each[0] if len(each) == 1 else tuple(each)


def estimated_map(values: Tensor, noise: str, mask: Tensor | None) -> Tensor:
    """Of the shape of the image."""
    return torch.from_numpy(estimate_sigma(values, noise=noise, mask=mask, map=True, series=0)).to(values.device)


def sigma_keys(
    sigma: object, sigma_key: KeysCollection | None, keys: tuple[Hashable, ...]
) -> tuple[Hashable | None, ...]:
    if sigma is not None and sigma_key is not None:
        raise ValueError(f"sigma={sigma!r} and sigma_key={sigma_key!r} both say what the noise is; give one of them")
    return images.keys_beside("sigma_key", sigma_key, keys)
