"""Pair the images and masks of two folders, and split the pairs into training, validation and test."""

from __future__ import annotations

from pathlib import Path

from monai.data import partition_dataset

Pair = dict[str, str]
"""Paths of ``"image"`` and ``"label"``, and their common ``"name"``."""

ENDINGS = (".nii.gz", ".nii", ".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp", ".npy", ".mha", ".nrrd")
"""Image formats that MONAI reads; some need an optional package, which MONAI names in its error."""

LOSSY = (".jpg", ".jpeg")
"""Formats refused for masks: JPEG changes their numbers, most of all at the edges."""


def find(folder: Path) -> tuple[list[Pair], list[str]]:
    """Pair the files in ``folder/frames`` and ``folder/masks`` whose names without ending are equal.

    Returns:
        The pairs, sorted by name, and a remark for each file that has no partner or is not an image.

    Raises:
        ValueError: a folder is missing, two files claim the same name, a mask is a JPEG, or there is no pair.
    """
    remarks: list[str] = []
    frames, masks = (named(folder / part, remarks) for part in ("frames", "masks"))
    for path in masks.values():
        if path.name.lower().endswith(LOSSY):
            raise ValueError(f"{path}: JPEG changes the numbers of a mask; export the mask as PNG")
    remarks += [f"{path}: has no mask in {folder / 'masks'}" for name, path in frames.items() if name not in masks]
    remarks += [f"{path}: has no frame in {folder / 'frames'}" for name, path in masks.items() if name not in frames]
    pairs = [
        {"name": name, "image": str(path), "label": str(masks[name])} for name, path in frames.items() if name in masks
    ]
    if not pairs:
        raise ValueError("\n".join([f"no file in {folder / 'frames'} has a mask of the same name", *remarks]))
    return pairs, remarks


def named(folder: Path, remarks: list[str]) -> dict[str, Path]:
    """Map names without endings to the images of a folder, sorted; add a remark for each other file."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; put images into frames/ and their masks into masks/")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        ending = next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), None)
        if ending is None:
            remarks.append(f"{path}: left out, its name does not end in any of {', '.join(ENDINGS)}")
            continue
        name = path.name[: -len(ending)]
        if name in files:
            raise ValueError(f"{files[name]} and {path.name} have the same name; keep one of them")
        files[name] = path
    return files


def split(pairs: list[Pair], seed: int) -> dict[str, list[Pair]]:
    """Split into 70 % "train", 20 % "val" and 10 % "test", at least one pair each; depends only on seed and names.

    Raises:
        ValueError: fewer than three pairs.
    """
    if len(pairs) < 3:
        raise ValueError(f"{len(pairs)} pairs cannot be split into train, val and test; at least three are needed")
    val, test = (max(1, round(share * len(pairs))) for share in (0.2, 0.1))
    sizes = (len(pairs) - val - test, val, test)
    parts = partition_dataset(pairs, ratios=sizes, shuffle=True, seed=seed)
    return dict(zip(("train", "val", "test"), parts, strict=True))
