"""MONAI's images as the engine's plain tensors and back, what their affine says, and what lies beside them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config.type_definitions import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor, get_track_meta
from monai.data.utils import affine_to_spacing, is_no_channel
from monai.utils import MetaKeys, TransformBackends, convert_to_dst_type, convert_to_tensor, ensure_tuple
from torch import Tensor

BACKEND = [TransformBackends.TORCH]
"""What MONAI asks of every transform: which arrays it computes with."""


def opened(img: NdarrayOrTensor) -> tuple[Tensor, Tensor]:
    """The image as a tensor with the metadata to return, and its plain values. Both share memory with `img`."""
    if not isinstance(img, np.ndarray | Tensor):
        raise TypeError(f"img is a {type(img).__name__}; give an array or a tensor, as LoadImage(d) makes it")
    if img.ndim not in (3, 4):
        raise ValueError(
            f"img has shape {tuple(img.shape)}; give one image, channel first: (C, H, W) or (C, D, H, W). "
            "EnsureChannelFirst(d) adds a missing channel, decollate_batch takes a batch apart"
        )
    if isinstance(img, MetaTensor) and is_without_channel(img):
        raise ValueError(
            f"img has the shape {tuple(img.shape)} of its file, and so no channel; put EnsureChannelFirst(d) before"
        )
    image = untouched(img)
    return image, plain(image)


def untouched(img: NdarrayOrTensor) -> Tensor:
    """The image as MONAI returns it where a transform does nothing."""
    image: Tensor = convert_to_tensor(img, track_meta=get_track_meta())
    return image


def is_without_channel(img: MetaTensor) -> bool:
    """Whether it is as it was loaded from a file without channels, so that its slices would pass for them."""
    shape, channel = img.meta.get(MetaKeys.SPATIAL_SHAPE, ()), img.meta.get(MetaKeys.ORIGINAL_CHANNEL_DIM, 0)
    return len(img) > 1 and is_no_channel(channel) and list(img.shape) == np.asarray(shape).tolist()


def plain(tensor: Tensor) -> Tensor:
    """Without metadata, which cost time at every operation."""
    return tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor


def closed(values: Tensor, image: Tensor) -> Tensor:
    """The values with the metadata of the image, on its device."""
    result: Tensor = convert_to_dst_type(values, dst=image, dtype=values.dtype)[0]
    return result


def check_device(device: torch.device) -> None:
    """Raises ``RuntimeError`` in a forked worker that is to compute on the GPU."""
    if device.type != "cuda":
        return
    try:
        torch.cuda.init()
    except RuntimeError as error:
        if "fork" not in str(error):
            raise
        raise RuntimeError(
            f"device={str(device)!r} cannot be used in a forked worker of a process that uses CUDA. Let a CacheDataset "
            "or PersistentDataset hold the result before the workers start, or load with ThreadDataLoader, "
            "num_workers=0 or multiprocessing_context='spawn', or compute with device='cpu'"
        ) from error


def spacing_of(img: NdarrayOrTensor) -> tuple[float, ...]:
    """Voxel size in mm along the spatial axes, by the affine. Raises ``ValueError`` where nobody gave the image one.

    A `MetaTensor` made from a plain array has the affine of 1 mm. What was loaded keeps its first one in the metadata.
    """
    affine = torch.eye(4)
    if isinstance(img, MetaTensor):
        affine = plain(img.affine)
    if not isinstance(img, MetaTensor) or (
        torch.equal(affine, torch.eye(len(affine)).to(affine)) and "original_affine" not in img.meta
    ):
        raise ValueError(
            "spacing='affine' needs an image with an affine, as LoadImage(d) makes it; this one has none (without "
            "set_track_meta(True), or PersistentDataset(track_meta=True), it is lost). "
            "Give the voxel size in mm, such as spacing=(1, 1, 5)"
        )
    sizes = affine_to_spacing(affine, r=len(affine) - 1).tolist()
    # Radii are rounded to voxels: what the header says as 2 must not come back as 1.9999999
    return tuple(float(f"{size:.6g}") for size in sizes[: img.ndim - 1])


def beside(array: NdarrayOrTensor, name: str, image: Tensor) -> Tensor:
    """A mask or map of the spatial shape of the image; it may have a channel."""
    values = plain(torch.as_tensor(array))
    if values.ndim == image.ndim and len(values) == 1:
        values = values[0]
    if values.shape != image.shape[1:]:
        raise ValueError(
            f"{name} has shape {tuple(array.shape)}, but the image has the spatial shape {tuple(image.shape[1:])}"
        )
    return values


def keys_beside(name: str, beside: KeysCollection | None, keys: tuple[Hashable, ...]) -> tuple[Hashable | None, ...]:
    """For each image the key of what lies beside it."""
    found: tuple[Hashable | None, ...] = ensure_tuple(beside)
    if len(found) not in (1, len(keys)):
        raise ValueError(f"{name}={beside!r} must be one key for all of keys={keys}, or one for each")
    return found if len(found) == len(keys) else found * len(keys)


def at(data: Mapping[Hashable, Any], name: str, key: Hashable | None) -> Any:
    """What lies at a key; None for no key."""
    if key is not None and key not in data:
        raise KeyError(f"{name}={key!r} is not in the data, which have {', '.join(map(repr, data))}")
    return None if key is None else data[key]
