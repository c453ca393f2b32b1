"""Segment new images with a network that train.py has trained, and save the masks on the grids of the images.

Usage: python examples/segmentation/predict.py RUN IMAGE... [--out masks] [--denoise bayes]

RUN is the folder of a run, such as runs/segmentation/none. Each IMAGE is a file, or a folder whose images are all
segmented. Images get the same steps as in training, denoising included; --denoise chooses another, for example for
noisy images and a network that was trained on clean ones. OUT/NAME_mask.nii.gz, or .png for a picture, has the numbers
of the masks of the training. No file is overwritten.
"""

from __future__ import annotations

from pathlib import Path

import click
import nibabel
import numpy as np
import torch
from kinds import reason
from loading import DENOISE, preparation
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, MapLabelValued
from pairs import ENDINGS
from PIL import Image
from settings import Settings, saved_settings
from testing import best_network, segment
from torch import nn


def named(places: tuple[Path, ...], out: Path, ending: str) -> dict[Path, Path]:
    """Map each image to the file of its mask.

    Raises:
        ValueError: there is no image, two would have the same mask, or a mask exists already.
    """
    files = [file for place in places for file in (sorted(place.iterdir()) if place.is_dir() else [place])]
    targets: dict[Path, Path] = {}
    for file in files:
        known = next((known for known in ENDINGS if file.name.lower().endswith(known)), None)
        if known is None:
            if file in places:
                raise ValueError(f"{file}: its name does not end in any of {', '.join(ENDINGS)}")
            continue
        target = out / f"{file.name[: -len(known)]}_mask{ending}"
        if target.exists():
            raise ValueError(f"{target} exists already; take another --out")
        if target in targets.values():
            raise ValueError(f"{file}: another image has the same name; give one of them another --out")
        targets[file] = target
    if not targets:
        raise ValueError(f"no image in {', '.join(map(str, places))}")
    return targets


def mask_of(file: Path, network: nn.Module, settings: Settings) -> MetaTensor:
    """Segment an image; return the mask on the grid of its file, (1, ...), with the numbers of the training's masks.

    Raises:
        ValueError: the image cannot be read, or is of another kind than those of the training.
    """
    prepare = Compose(preparation(settings, keys=("image",)))
    try:
        image = prepare({"image": str(file)})["image"]
    except Exception as error:
        raise ValueError(f"{file} cannot be prepared as in training: {reason(error)}") from error
    if (image.ndim - 1, len(image)) != (settings.dims, settings.channels):
        raise ValueError(
            f"{file}: has {image.ndim - 1} axes and {len(image)} channel(s), but the network was trained on images "
            f"with {settings.dims} and {settings.channels}"
        )
    if settings.pixdim and "original_affine" not in image.meta:
        raise ValueError(f"{file}: does not say how large its voxels are, as the images of the training did")
    found = segment(network, settings, image[None])[0].cpu().to(torch.int32)
    data = {"image": image, "mask": MetaTensor(torch.as_tensor(found), meta=image.meta)}
    # the numbers of the classes go back to the grid, nearest neighbours; their scores would take four bytes per class
    back = [Invertd("mask", prepare, orig_keys="image", nearest_interp=True)] if settings.pixdim else []
    numbers = MapLabelValued("mask", range(settings.classes), settings.values, dtype="int32")
    mask = Compose([*back, numbers])(data)["mask"]
    return mask[..., None] if settings.flat else mask


def save(mask: MetaTensor, target: Path, dtype: type) -> None:
    """Write a mask, (1, ...). MONAI's SaveImage would drop the last axis of a single slice."""
    values = mask[0].numpy().astype(dtype)
    if target.suffix == ".png":
        Image.fromarray(values.T).save(target)  # the first axis points right, as MONAI reads pictures
    else:
        nibabel.save(nibabel.Nifti1Image(values, mask.meta.get("original_affine", np.eye(4))), target)


@click.command(help=__doc__)
@click.argument("run", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("images", type=click.Path(path_type=Path, exists=True), nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("masks"), show_default=True)
@click.option("--denoise", type=click.Choice(DENOISE), help="Before the network.  [default: as in training]")
@click.option("--device", default="cpu", show_default=True, help="Device of the network, for example cuda.")
def main(run: Path, images: tuple[Path, ...], out: Path, denoise: str | None, device: str) -> None:
    try:
        chosen = {"denoise": denoise, "match": None} if denoise else {}
        settings = saved_settings(run, device, **chosen)
        network = best_network(run, settings)
        small = max(settings.values) < 256 and min(settings.values) >= 0
        ending = ".png" if settings.dims == 2 and not settings.flat and small else ".nii.gz"
        targets = named(images, out, ending)
        out.mkdir(parents=True, exist_ok=True)
        for file, target in targets.items():
            mask = mask_of(file, network, settings)
            save(mask, target, np.uint8 if small else np.int32)
            counts = {value: int((mask == value).sum()) for value in settings.values[1:]}
            click.echo(f"{target}: " + ", ".join(f"{count} voxels of class {value}" for value, count in counts.items()))
    except ValueError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
