"""Steps between an image file and the network: loading, denoising, scaling, augmentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from monai.data import CacheDataset, DataLoader, MetaTensor, PILReader
from monai.transforms import (
    AsDiscreted,
    Compose,
    EnsureChannelFirstd,
    EnsureTyped,
    GaussianSmoothd,
    LoadImaged,
    MapLabelValued,
    NormalizeIntensityd,
    RandAffined,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandScaleIntensityd,
    SpatialPadd,
    SqueezeDimd,
    Transform,
)
from pairs import Pair
from PIL import Image

from monai_transforms import NonLocalMeansd

BOTH = ("image", "label")

DENOISE = ("none", "gaussian", "classic", "bayes")

MOST_CLASSES = 64


def denoising(method: str, noise: str, spacing: str | None) -> list[Transform]:
    """Return the only step that differs: none, Gaussian smoothing, or a method of nlmeans.

    `noise` is the noise model of nlmeans, which estimates the level from each image.
    """
    if method == "none":
        return []
    if method == "gaussian":
        return [GaussianSmoothd("image", sigma=1.0)]
    return [NonLocalMeansd("image", method=method, noise=noise, spacing=spacing)]


def opaque(picture: Image.Image) -> Image.Image:
    """Convert an image to grey or RGB, without transparency or palette."""
    if picture.mode in ("LA", "La"):
        return picture.convert("L")
    return picture.convert("RGB") if picture.mode in ("RGBA", "RGBa", "P", "PA", "CMYK", "YCbCr") else picture


def labelled(picture: Image.Image) -> Image.Image:
    """Convert a grey mask stored as RGB or RGBA back to grey; the indices of a palette are kept."""
    if picture.mode not in ("RGB", "RGBA", "LA"):
        return picture
    red, *others = picture.convert("RGB").split()
    return red if all(np.array_equal(red, other) for other in others) else picture


def reading(key: str, converter: Callable[[Image.Image], Image.Image]) -> LoadImaged:
    step = LoadImaged(key)
    step.register(PILReader(converter=converter))
    return step


LOADING = (reading("image", opaque), reading("label", labelled), EnsureChannelFirstd(BOTH))


def preparation(method: str, noise: str, spacing: str | None, flat: bool, values: Sequence[int]) -> list[Transform]:
    """Return the deterministic steps, the same for all parts. `values` are the mask values, background first."""
    return [
        *LOADING,
        EnsureTyped("image", dtype="float32"),
        *denoising(method, noise, spacing),
        *([SqueezeDimd(BOTH, -1)] if flat else []),
        NormalizeIntensityd("image"),
        MapLabelValued("label", values, range(len(values)), dtype="uint8"),
    ]


def augmentation(crop: int, dims: int) -> list[Transform]:
    """Return the random steps, drawn again for every image and epoch. A crop has an edge of `crop` voxels."""
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
    """Cache all steps up to the first random one, so images are denoised once. Labels get one channel per class."""
    steps = [*steps, AsDiscreted("label", to_onehot=classes)]
    return CacheDataset(pairs, Compose(steps), num_workers=1)


def loader(data: CacheDataset, batch_size: int = 1, shuffle: bool = False) -> DataLoader:
    return DataLoader(data, batch_size=batch_size, shuffle=shuffle)


class Kind(NamedTuple):
    """Properties of a data set.

    Attributes:
        dims: number of spatial axes, not counting the last axis of single slices.
        channels: number of channels of the images.
        values: values in the masks, background (0) first; one class each.
        spacing: ``"affine"`` if the files give the voxel size, None otherwise.
        flat: whether the files are volumes of a single slice; their last axis is removed.
    """

    dims: int
    channels: int
    values: tuple[int, ...]
    spacing: str | None
    flat: bool


def kind(pairs: list[Pair]) -> Kind:
    """Read all pairs and determine their common properties.

    Raises:
        ValueError: a file cannot be read, images differ in axes or channels, a mask and its image are at different
            places, a mask has invalid values, or all masks are empty.
    """
    read = Compose(LOADING)
    kinds: dict[tuple[int, int, bool], str] = {}
    values = {0}
    spacing: str | None = "affine"
    for pair in pairs:
        try:
            loaded = read(pair)
        except Exception as error:
            raise ValueError(f"{pair['image']} or {pair['label']} cannot be read: {reason(error)}") from error
        image, label = loaded["image"], loaded["label"]
        kinds.setdefault((image.ndim - 1, len(image), image.ndim == 4 and image.shape[-1] == 1), pair["image"])
        if "original_affine" not in image.meta:
            spacing = None
        check_place(pair, image, label)
        found = np.unique(label)
        values.update(found.astype(int).tolist())
        if len(values) > MOST_CLASSES or (found != found.astype(int)).any():
            raise ValueError(f"{pair['label']}: a mask holds one whole number per class, {MOST_CLASSES} at most")
    if len(kinds) > 1:
        described = ", ".join(
            f"{path}: {axes - flat} axes, {count} {'channel' if count == 1 else 'channels'}"
            for (axes, count, flat), path in kinds.items()
        )
        raise ValueError(f"images must have the same number of axes and channels ({described})")
    if len(values) == 1:
        raise ValueError("all masks are empty; there is nothing to learn")
    ((dims, channels, flat),) = kinds
    return Kind(dims - flat, channels, tuple(sorted(values, key=lambda value: (value != 0, value))), spacing, flat)


def reason(error: BaseException) -> str:
    """First cause of an error in one line; MONAI wraps it in errors that name the step of the pipeline."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__


def check_place(pair: Pair, image: MetaTensor, label: MetaTensor) -> None:
    if label.shape != (1, *image.shape[1:]):
        raise ValueError(
            f"{pair['label']}: has channels and shape {tuple(label.shape)}, its image {tuple(image.shape)}; "
            "a mask has one channel (no colours) and the shape of its image"
        )
    placed = "original_affine" in image.meta and "original_affine" in label.meta
    if placed and not np.allclose(image.affine, label.affine, rtol=1e-3, atol=1e-2):
        raise ValueError(f"{pair['label']}: lies elsewhere in space than its image; resample one onto the other's grid")
