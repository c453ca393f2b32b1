"""Conversion between MONAI's images and the plain tensors of the engine, and access to masks, maps and affines."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Hashable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from monai.config.type_definitions import KeysCollection, NdarrayOrTensor
from monai.data import MetaTensor, get_track_meta
from monai.data.utils import affine_to_spacing, is_no_channel
from monai.utils import MetaKeys, TransformBackends, convert_to_dst_type, convert_to_tensor, ensure_tuple
from torch import Tensor

log = logging.getLogger("nlmeans")

QUIET: ContextVar[bool] = ContextVar("QUIET", default=False)
"""Whether a transform is computing, whose messages below a warning are details, as there is one for each image."""


def as_detail(record: logging.LogRecord) -> bool:
    """Lower a message of the engine to level DEBUG while a transform computes."""
    if QUIET.get() and record.levelno < logging.WARNING:
        record.levelno, record.levelname = logging.DEBUG, logging.getLevelName(logging.DEBUG)
    return log.isEnabledFor(record.levelno)


log.addFilter(as_detail)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Compute with the engine such that a root logger at level INFO, as bundles have it, gets nothing but warnings."""
    before = QUIET.set(True)
    try:
        yield
    finally:
        QUIET.reset(before)


BACKEND = [TransformBackends.TORCH]
"""The array library of every transform here, which MONAI reads from the class attribute ``backend``."""


def image_and_values(img: NdarrayOrTensor) -> tuple[Tensor, Tensor]:
    """Check an image and split it into the tensor that carries its metadata and its plain values.

    Args:
        img: (C, H, W) or (C, D, H, W), any dtype. Both results share its memory.

    Raises:
        TypeError: `img` is not an array.
        ValueError: `img` has another number of axes, or was loaded from a file and has no channel axis yet.
    """
    if not isinstance(img, np.ndarray | Tensor):
        raise TypeError(f"img is a {type(img).__name__}; give an array or a tensor, as LoadImage(d) makes it")
    if img.ndim not in (3, 4):
        raise ValueError(
            f"img has shape {tuple(img.shape)}; give one image, channel first: (C, H, W) or (C, D, H, W). "
            "EnsureChannelFirst(d) adds a missing channel, and decollate_batch splits a batch into images; "
            "in a network, nlmeans.nn.NonLocalMeansFilter takes batches"
        )
    if isinstance(img, MetaTensor) and is_without_channel(img):
        raise ValueError(
            f"img has shape {tuple(img.shape)}, as in its file, which does not say that an axis holds channels; "
            f"put EnsureChannelFirst(d) before this transform, with channel_dim=0 if the {len(img)} along its first "
            "axis are channels, and with channel_dim='no_channel' if they are slices"
        )
    image = tracked_tensor(img)
    return image, without_metadata(image)


def tracked_tensor(img: NdarrayOrTensor) -> Tensor:
    """Return the image as a `MetaTensor`, or as a tensor if MONAI does not track metadata. The memory is shared."""
    image: Tensor = convert_to_tensor(img, track_meta=get_track_meta())
    return image


def is_without_channel(img: MetaTensor) -> bool:
    """Whether the image has no channel axis yet, by its metadata. Its slices would be mistaken for channels."""
    shape, channel = img.meta.get(MetaKeys.SPATIAL_SHAPE, ()), img.meta.get(MetaKeys.ORIGINAL_CHANNEL_DIM, 0)
    return len(img) > 1 and is_no_channel(channel) and list(img.shape) == np.asarray(shape).tolist()


def without_metadata(tensor: Tensor) -> Tensor:
    """Return a plain tensor that shares memory. Metadata would cost about 10 µs per operation."""
    return tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor


def with_metadata_of(image: Tensor, values: Tensor) -> Tensor:
    """Return the values with a copy of the metadata of the image, on its device. The dtype stays that of the values."""
    result: Tensor = convert_to_dst_type(values, dst=image, dtype=values.dtype)[0]
    return result


def check_device(device: torch.device) -> None:
    """Raise ``RuntimeError`` if this process is a forked worker that cannot use the GPU."""
    if device.type != "cuda":
        return
    try:
        torch.cuda.init()
    except RuntimeError as error:
        if "fork" not in str(error):
            raise
        raise RuntimeError(
            f"device={str(device)!r} cannot be used in a forked worker of a process that uses CUDA. Fill a "
            "CacheDataset or PersistentDataset before the workers start, or load with ThreadDataLoader, "
            "num_workers=0 or multiprocessing_context='spawn', or compute with device='cpu'"
        ) from error


def known_affine(img: NdarrayOrTensor) -> Tensor | None:
    """The affine of an image; None if it has none, or only the identity that MONAI makes up.

    A `MetaTensor` that was made from a plain array has the identity as its affine, as if its voxels were 1 mm wide.
    An image that was loaded from a file has an ``"original_affine"`` in its metadata, so 1 mm is accepted there.
    """
    if not isinstance(img, MetaTensor):
        return None
    affine = without_metadata(img.affine)
    made_up = torch.equal(affine, torch.eye(len(affine)).to(affine)) and "original_affine" not in img.meta
    return None if made_up else affine


def voxel_size(img: NdarrayOrTensor) -> tuple[float, ...]:
    """Read the voxel size in mm from the affine of an image, one number per spatial axis.

    Raises:
        ValueError: `img` has no affine, or only the identity that MONAI makes up.
    """
    affine = known_affine(img)
    if affine is None:
        raise ValueError(
            "spacing='affine' needs an image with an affine, as LoadImage(d) makes it; this image has none. "
            "Affines are lost without set_track_meta(True) or PersistentDataset(track_meta=True). "
            "Keep the affine, or give the voxel size in mm, such as spacing=(1, 1, 5)"
        )
    sizes = affine_to_spacing(affine, r=len(affine) - 1).tolist()
    # Radii are rounded to voxels: a size that the header gives as 2 must not become 1.9999999
    return tuple(float(f"{size:.6g}") for size in sizes[: img.ndim - 1])


def turned_to(image: Tensor, here: Tensor, values: Tensor, there: Tensor, name: str) -> Tensor:
    """Turn a volume to the orientation of an image, (C, D, H, W), by their affines.

    Raises:
        ValueError: the volume has another grid.
    """
    from nlmeans.files.formats.grid import difference, reoriented

    shape, before = tuple(image.shape[1:]), values.cpu().numpy()
    places = [np.asarray(affine.cpu(), np.float64) for affine in (there, here)]
    turned = reoriented(before, places[0], shape, places[1])
    if turned is None:
        raise ValueError(
            f"{name} has another grid than the image: {difference(places[0], before.shape, places[1], shape)}; put "
            "ResampleToMatch(d) before this transform, or, if its affine is wrong, give it as a plain tensor"
        )
    if not np.array_equal(turned, before):
        log.warning("%s was turned to the orientation of the image, by their affines", name)
    return torch.from_numpy(turned).to(values.device)


def spatial_array(array: NdarrayOrTensor, name: str, image: Tensor) -> Tensor:
    """Return a mask or map as a plain tensor of the spatial shape of the image.

    If both say where they lie, an array that is stored in another orientation is turned, which is logged.

    Args:
        array: (H, W) or (D, H, W) like the image, or the same with a first axis of 1.
        name: the argument that an error names.
        image: (C, H, W) or (C, D, H, W).

    Raises:
        ValueError: `array` has another shape, or lies elsewhere.
    """
    values = without_metadata(torch.as_tensor(array))
    if values.ndim == image.ndim and len(values) == 1:
        values = values[0]
    there, here = known_affine(array), known_affine(image)
    if there is not None and here is not None and values.ndim == 3 and not torch.equal(there, here):
        values = turned_to(image, here, values, there, name)
    if values.shape != image.shape[1:]:
        spatial = tuple(image.shape[1:])
        raise ValueError(
            f"{name} has shape {tuple(array.shape)}, but the image has the spatial shape {spatial}; "
            f"give {spatial} or {(1, *spatial)}"
        )
    return values


def key_for_each(name: str, given: KeysCollection | None, keys: tuple[Hashable, ...]) -> tuple[Hashable | None, ...]:
    """Return one key of a mask or map for each image; None where there is none.

    Args:
        name: the argument that an error names.
        given: one key for all images, or one for each.
        keys: keys of the images.

    Raises:
        ValueError: the number of keys is neither 1 nor the number of images.
    """
    found: tuple[Hashable | None, ...] = ensure_tuple(given)
    if len(found) not in (1, len(keys)):
        raise ValueError(f"{name}={given!r} has {len(found)} keys; give one for all of keys={keys}, or one for each")
    return found if len(found) == len(keys) else found * len(keys)


def value_at(data: Mapping[Hashable, Any], name: str, key: Hashable | None) -> Any:
    """Return the value at a key, or None if the key is None.

    Raises:
        KeyError: there is no such key; the message names the argument `name`.
    """
    if key is not None and key not in data:
        raise KeyError(f"{name}={key!r} is not in the data; the keys there are {', '.join(map(repr, data))}")
    return None if key is None else data[key]
