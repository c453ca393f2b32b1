"""Read all pairs once and determine what they have in common, before hours of training find out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from loading import reading
from monai.data import MetaTensor
from monai.transforms import Compose, Orientation
from pairs import Pair

MOST_CLASSES = 64


class Kind(NamedTuple):
    """Properties of a data set.

    Attributes:
        dims: number of spatial axes, not counting the last axis of single slices.
        channels: number of channels of the images.
        values: values in the masks, background (0) first; one class each.
        spacing: ``"affine"`` if the files give the voxel size, None otherwise.
        flat: whether the files are volumes of a single slice; their last axis is removed.
        pixdim: median voxel size in mm, from left to right, back to front and bottom to top, to which volumes are
            resampled; None for slices, pictures, and files that do not give it.
    """

    dims: int
    channels: int
    values: tuple[int, ...]
    spacing: str | None
    flat: bool
    pixdim: tuple[float, ...] | None


def kind(pairs: list[Pair]) -> Kind:
    """Read all pairs and determine their common properties.

    Raises:
        ValueError: a file cannot be read, images differ in axes or channels, a mask and its image are at different
            places, a mask has invalid values, or all masks are empty.
    """
    read = Compose(reading())
    kinds: dict[tuple[int, int, bool], str] = {}
    values = {0}
    sizes: list[np.ndarray] = []
    for pair in pairs:
        try:
            loaded = read(pair)
        except Exception as error:
            raise ValueError(f"{pair['image']} or {pair['label']} cannot be read: {reason(error)}") from error
        image, label = loaded["image"], loaded["label"]
        kinds.setdefault((image.ndim - 1, len(image), image.ndim == 4 and image.shape[-1] == 1), pair["image"])
        if "original_affine" in image.meta:
            sizes.append(Orientation("RAS", labels=None)(image).pixdim.numpy() if image.ndim == 4 else image.pixdim)
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
    classes = tuple(sorted(values, key=lambda value: (value != 0, value)))
    spacing = "affine" if len(sizes) == len(pairs) else None
    volumes = spacing is not None and dims == 3 and not flat
    pixdim = tuple(np.median(sizes, 0).round(4).tolist()) if volumes else None
    return Kind(dims - flat, channels, classes, spacing, flat, pixdim)


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
