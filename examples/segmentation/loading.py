"""What happens to an image between its file and the network: denoising, scaling, augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from monai.data import CacheDataset, DataLoader
from monai.transforms import (
    AsDiscreted,
    Compose,
    EnsureChannelFirstd,
    EnsureTyped,
    GaussianSmoothd,
    LoadImage,
    LoadImaged,
    MapLabelValued,
    NormalizeIntensityd,
    RandAffined,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandScaleIntensityd,
    SpatialPadd,
    Transform,
)
from pairs import Pair

from monai_transforms import NonLocalMeansd

BOTH = ("image", "label")

DENOISE = ("none", "gaussian", "classic", "bayes")


MOST_CLASSES = 64


def denoising(method: str, noise: str, spacing: str | None) -> list[Transform]:
    """The one step that differs: nothing, Gaussian smoothing, or non-local means by a method of nlmeans.

    `noise` is what non-local means takes it for; the level is estimated from each image.
    """
    if method == "none":
        return []
    if method == "gaussian":
        return [GaussianSmoothd("image", sigma=1.0)]
    return [NonLocalMeansd("image", method=method, noise=noise, spacing=spacing)]


def preparation(method: str, noise: str, spacing: str | None, values: Sequence[int]) -> list[Transform]:
    """What is the same every time, and for all parts. `values` are those in the masks, background first."""
    return [
        LoadImaged(BOTH),
        EnsureChannelFirstd(BOTH),
        EnsureTyped("image", dtype="float32"),
        *denoising(method, noise, spacing),
        NormalizeIntensityd("image"),
        MapLabelValued("label", values, range(len(values)), dtype="uint8"),
    ]


def augmentation(crop: int, dims: int) -> list[Transform]:
    """What is drawn anew for every image in every epoch. A crop has an edge of `crop` voxels."""
    size = (crop,) * dims
    return [
        SpatialPadd(BOTH, size),
        RandCropByPosNegLabeld(BOTH, label_key="label", spatial_size=size, pos=2, neg=1, num_samples=1),
        RandAffined(
            BOTH,
            prob=0.5,
            rotate_range=[0.2] * (3 if dims == 3 else 1),
            scale_range=[0.1] * dims,
            mode=("bilinear", "nearest"),
            padding_mode="border",
        ),
        *(RandFlipd(BOTH, prob=0.5, spatial_axis=axis) for axis in range(dims)),
        RandScaleIntensityd("image", factors=0.1, prob=0.5),
    ]


def dataset(pairs: list[Pair], steps: list[Transform], classes: int) -> CacheDataset:
    """Denoised once: the cache holds all up to the first random step. Labels get one channel per class, at the end."""
    steps = [*steps, AsDiscreted("label", to_onehot=classes)]
    return CacheDataset(pairs, Compose(steps), num_workers=1)


def loader(data: CacheDataset, batch_size: int = 1, shuffle: bool = False) -> DataLoader:
    return DataLoader(data, batch_size=batch_size, shuffle=shuffle)


class Kind(NamedTuple):
    """What sort of data it is.

    Attributes:
        dims: number of spatial axes.
        channels: of the images.
        values: in the masks, background (0) first; one class each.
        spacing: ``"affine"`` if the files say how large their voxels are, None otherwise.
    """

    dims: int
    channels: int
    values: tuple[int, ...]
    spacing: str | None


def kind(pairs: list[Pair]) -> Kind:
    """Read all of them and tell what they are.

    Raises:
        ValueError: images differ in axes or channels, a mask is not of the shape of its image, or it holds no labels.
    """
    read = LoadImage(ensure_channel_first=True)
    kinds: dict[tuple[int, int], str] = {}
    values = {0}
    spacing: str | None = "affine"
    for pair in pairs:
        image, label = read(pair["image"]), read(pair["label"])
        kinds.setdefault((image.ndim - 1, len(image)), pair["image"])
        if "original_affine" not in image.meta:
            spacing = None
        if label.shape != (1, *image.shape[1:]):
            raise ValueError(
                f"{pair['label']}: has channels and shape {tuple(label.shape)}, its image {tuple(image.shape)}; "
                "a mask has one channel and the shape of its image"
            )
        found = np.unique(label)
        values.update(found.astype(int).tolist())
        if len(values) > MOST_CLASSES or (found != found.astype(int)).any():
            raise ValueError(f"{pair['label']}: a mask holds one whole number per class, {MOST_CLASSES} at most")
    if len(kinds) > 1:
        described = ", ".join(f"{path}: {axes} axes, {count} channels" for (axes, count), path in kinds.items())
        raise ValueError(f"images must have the same number of axes and channels ({described})")
    if len(values) == 1:
        raise ValueError("all masks are empty; there is nothing to learn")
    ((dims, channels),) = kinds
    return Kind(dims, channels, tuple(sorted(values, key=lambda value: (value != 0, value))), spacing)
