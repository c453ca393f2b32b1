"""Steps between an image file and the network: loading, denoising, one grid, scaling, augmentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from monai.data import CacheDataset, DataLoader, PILReader
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    EnsureTyped,
    GaussianSmoothd,
    LoadImaged,
    MapLabelValued,
    NormalizeIntensityd,
    Orientationd,
    RandAffined,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandScaleIntensityd,
    Spacingd,
    SpatialPadd,
    SqueezeDimd,
    Transform,
)
from pairs import Pair
from PIL import Image
from settings import Settings

from monai_transforms import EstimateNoised, NonLocalMeansd, RandMatchNoised

BOTH = ("image", "label")

DENOISE = ("none", "gaussian", "classic", "bayes")


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


def reader(key: str, converter: Callable[[Image.Image], Image.Image]) -> LoadImaged:
    step = LoadImaged(key)
    step.register(PILReader(converter=converter))
    return step


READERS = {"image": reader("image", opaque), "label": reader("label", labelled)}


def reading(keys: Sequence[str] = BOTH) -> list[Transform]:
    """Return the steps that read files of any format, channel first."""
    return [*(READERS[key] for key in keys), EnsureChannelFirstd(keys)]


def denoising(settings: Settings) -> list[Transform]:
    """Return the only step that differs: none, Gaussian smoothing, or a method of nlmeans.

    It comes before any step that interpolates, and finds the noise in each image.
    """
    if settings.denoise == "none":
        return []
    if settings.denoise == "gaussian":
        return [GaussianSmoothd("image", sigma=1.0)]
    return [NonLocalMeansd("image", method=settings.denoise, noise=settings.noise, spacing=settings.spacing)]


def gridding(settings: Settings, keys: Sequence[str]) -> list[Transform]:
    """Return the steps to one orientation and voxel size, for files that know theirs; a slice loses its last axis."""
    if settings.flat:
        return [SqueezeDimd(keys, -1)]
    if settings.pixdim is None:
        return []
    modes = [{"image": "bilinear", "label": "nearest"}[key] for key in keys]
    return [Orientationd(keys, "RAS", labels=None), Spacingd(keys, settings.pixdim, mode=modes)]


def noise_matching(settings: Settings) -> list[Transform]:
    """Return the steps that raise the noise at random; the cache keeps what the first of them finds."""
    if settings.match is None:
        return []
    return [EstimateNoised("image", settings.noise), RandMatchNoised("image", target=settings.match, noise="meta")]


def preparation(settings: Settings, keys: Sequence[str] = BOTH, training: bool = False) -> list[Transform]:
    """Return the steps that all parts of the data have in common, and in training those that raise the noise.

    The mask holds one number per class, a byte per voxel in the cache; one channel per class would be four bytes times
    the number of classes. `keys` is ``("image",)`` where there are no masks.
    """
    classes = [MapLabelValued("label", settings.values, range(settings.classes), dtype="uint8")]
    return [
        *reading(keys),
        EnsureTyped("image", dtype="float32"),
        *denoising(settings),
        *gridding(settings, keys),
        *(classes if "label" in keys else []),
        *(noise_matching(settings) if training else []),
        NormalizeIntensityd("image"),
    ]


def augmentation(settings: Settings) -> list[Transform]:
    """Return the random steps, drawn again for every image and epoch."""
    dims, size = settings.dims, (settings.crop,) * settings.dims
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


def training_data(settings: Settings, pairs: list[Pair]) -> CacheDataset:
    """Cache all steps up to the first random one, so that each image is denoised once."""
    return dataset(pairs, [*preparation(settings, training=True), *augmentation(settings)])


def evaluation_data(settings: Settings, pairs: list[Pair]) -> CacheDataset:
    return dataset(pairs, preparation(settings))


def dataset(pairs: list[Pair], steps: list[Transform]) -> CacheDataset:
    return CacheDataset(pairs, Compose(steps), num_workers=1, progress=False)


def loader(data: CacheDataset, settings: Settings, training: bool = False) -> DataLoader:
    """Load single images in their order, or in training shuffled batches, by as many processes as the settings say.

    The processes start anew in each epoch, with seeds of that epoch, so that a resumed run draws the same numbers.
    """
    if not training:
        return DataLoader(data, batch_size=1)
    return DataLoader(data, batch_size=settings.batch_size, shuffle=True, num_workers=settings.workers)
