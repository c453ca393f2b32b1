"""Train and test a network for segmentation, with or without denoising, on images and masks in two folders.

Usage: python examples/segmentation/train.py [DATA] [--denoise none --denoise bayes] [--out FOLDER] [--resume]
       python examples/segmentation/train.py --quick

DATA holds images in frames/ and, for each image, a mask of the same name in masks/. They can be NIfTI, PNG or any other
format that MONAI reads, 2D or 3D, grey or RGB. A mask has one whole number per class and 0 for the background; it must
not be a JPEG, which would change the numbers. Files without a partner are listed and skipped. Volumes are brought to
one orientation and voxel size. Without DATA, the script makes a set of noisy phantoms.

The script trains one network for each kind of denoising, with everything else equal, and tests it on images that it has
not seen. The folder OUT/KIND then holds the best network (best.pt), its settings, learning curves and example
segmentations; predict.py applies it to new images.

--quick shows where denoising helps: a network that was trained on clean phantoms is tested on noisy ones, with and
without denoising before the network. It takes about a minute.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import kinds
import loading
import networks
import pairs
import phantoms
import pictures
import testing
from comparing import table, verdict
from settings import MONITORED, SCHEDULES, Settings
from training import Run


def train(
    folder: Path, settings: Settings, parts: dict[str, list[pairs.Pair]], resume: bool, tensorboard: bool
) -> testing.Scores:
    """Train, draw and test; return the scores of the test images."""
    run = Run(folder, settings, parts, resume, tensorboard)
    network = run.train()
    pictures.learning_curves(run).savefig(folder / "curves.png", dpi=120)
    data = loading.evaluation_data(settings, parts["test"])
    names = [pair["name"] for pair in parts["test"]]
    pictures.segmentations(network, settings, data, names).savefig(folder / "test.png", dpi=120)
    scores = testing.test(network, settings, data)
    result = {
        "dice": dict(zip(names, scores.dice.tolist(), strict=True)),
        "hd95": dict(zip(names, scores.distance.tolist(), strict=True)),
        "epochs": len(run.curves),
    }
    (folder / "test.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    return scores


def phantom_data(folder: Path, count: int, noise: float, seed: int, first: int = 0) -> Path:
    """Fill a folder with phantoms, unless it has them already."""
    made = {"count": count, "noise": noise, "seed": seed, "first": first}
    record = folder / "phantoms.json"
    if not record.exists():
        phantoms.write(folder, **made)
        record.write_text(json.dumps(made), encoding="utf-8")
    elif json.loads(record.read_text(encoding="utf-8")) != made:
        raise ValueError(f"{folder} holds other phantoms; take another --out")
    return folder


def checked_data(place: Path) -> tuple[list[pairs.Pair], kinds.Kind]:
    """Pair the files of a folder and read all of them once."""
    found, remarks = pairs.find(place)
    for remark in remarks:
        click.echo(remark, err=True)
    return found, kinds.kind(found)


def settings_for(kind: kinds.Kind, options: dict[str, Any]) -> Settings:
    """Combine what the data are with what was asked for."""
    pixdim = options.pop("pixdim")
    if pixdim and not kind.pixdim:
        raise ValueError("--pixdim is for volumes whose files say how large their voxels are; leave it out")
    return Settings(**kind._asdict() | options | ({"pixdim": pixdim} if pixdim else {}))


def compare_trainings(
    place: Path, denoise: tuple[str, ...], out: Path, resume: bool, names: Sequence[str], options: dict[str, Any]
) -> None:
    """Train and test one network for each kind of denoising, and print a table."""
    tensorboard = options.pop("tensorboard")
    found, kind = checked_data(place)
    settings = settings_for(kind, options)
    parts = pairs.split(found, settings.seed)
    click.echo(f"{len(found)} pairs: " + ", ".join(f"{len(part)} {name}" for name, part in parts.items()))
    each = {one: dataclasses.replace(settings, denoise=one) for one in denoise or ("none",)}
    results = {}
    for one, chosen in each.items():
        click.echo(f"\ndenoising: {one}")
        results[one] = train(out / one, chosen, parts, resume, tensorboard)
    names = names or [f"class {value}" for value in kind.values[1:]]
    show(results, names, settings, f"{len(parts['test'])} test images")
    for one in results:
        click.echo(f"Model: {out / one / 'best.pt'} (curves.png and test.png are in the same folder)")


QUICK_TEST, QUICK_NOISE = 12, 20
"""Phantoms that --quick tests on, and their noise in per cent of the brightness."""


def show_where_it_helps(denoise: tuple[str, ...], out: Path, count: int, resume: bool, options: dict[str, Any]) -> None:
    """Train one network on clean phantoms; test it on noisy ones with each kind of denoising, and print a table."""
    tensorboard = options.pop("tensorboard")
    found, kind = checked_data(phantom_data(out / "clean", count, 0, options["seed"]))
    settings = settings_for(kind, options)
    noisy, _ = checked_data(phantom_data(out / "noisy", QUICK_TEST, QUICK_NOISE, settings.seed, first=count))
    parts = pairs.split(found, settings.seed)
    click.echo(f"training on {len(parts['train'])} phantoms without noise")
    run = Run(out / "none", settings, parts, resume, tensorboard)
    network = run.train()
    pictures.learning_curves(run).savefig(out / "none" / "curves.png", dpi=120)
    results = {}
    for one in dict.fromkeys(("none", *(denoise or ("classic", "bayes")))):
        prepared = dataclasses.replace(settings, denoise=one)
        data = loading.evaluation_data(prepared, noisy)
        results[one] = testing.test(network, prepared, data)
        drawn = pictures.segmentations(network, prepared, data, [pair["name"] for pair in noisy])
        drawn.savefig(out / "none" / f"test-{one}.png", dpi=120)
    images = f"{len(noisy)} phantoms with {QUICK_NOISE} % noise"
    show(results, phantoms.STRUCTURES, settings, images, one_network=True)
    click.echo("A network that was trained on such noise gains nothing, or loses: see docs/segmentation.md.")
    click.echo(f"Model: {out / 'none' / 'best.pt'} (curves.png and test-*.png are in the same folder)")


def show(
    results: dict[str, testing.Scores],
    names: Sequence[str],
    settings: Settings,
    images: str,
    one_network: bool = False,
) -> None:
    click.echo(f"\nDice and surface distance of {images}, mean ± standard deviation\n")
    click.echo(f"{table(results, names, 'mm' if settings.pixdim else 'voxels')}\n\n{verdict(results, one_network)}\n")


@click.command(help=__doc__)
@click.argument("data", type=click.Path(path_type=Path), required=False)
@click.option("--denoise", type=click.Choice(loading.DENOISE), multiple=True, help="Repeatable.  [default: none]")
@click.option(
    "--noise", type=click.Choice(["auto", "gaussian", "rician", "poisson"]), default="auto", show_default=True
)
@click.option("--match", type=click.FloatRange(0, min_open=True), nargs=2, help="Raise noise to between these sigmas.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/segmentation"), show_default=True)
@click.option("--resume", is_flag=True, help="Continue from the last checkpoint, as if never interrupted.")
@click.option("--tensorboard", is_flag=True, help="Log metrics; look at them with: tensorboard --logdir OUT.")
@click.option("--model", type=click.Choice(list(networks.MODELS)), default="unet", show_default=True)
@click.option("--non-local", is_flag=True, help="Put a non-local block at the bottom of the network.")
@click.option("--pixdim", type=float, nargs=3, help="Voxel size in mm.  [default: median of the images]")
@click.option("--epochs", type=click.IntRange(1), default=40, show_default=True, help="Maximum number of epochs.")
@click.option("--patience", type=click.IntRange(1), default=10, show_default=True, help="Epochs without improvement.")
@click.option("--min-delta", type=click.FloatRange(0), default=0.002, show_default=True, help="Least improvement.")
@click.option("--monitor", type=click.Choice(list(MONITORED)), default="val_dice", show_default=True)
@click.option("--mode", type=click.Choice(["max", "min"]), help="Goal for --monitor.  [default: max for Dice]")
@click.option("--crop", type=click.IntRange(8), help="Edge in voxels.  [default: 24; 64 for swinunetr]")
@click.option("--batch-size", type=click.IntRange(1), default=2, show_default=True, help="Crops per step.")
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True), help="Of Adam.  [default: by the model]")
@click.option("--schedule", type=click.Choice(SCHEDULES), default="plateau", show_default=True)
@click.option("--amp", is_flag=True, help="Mixed precision, on a GPU.")
@click.option("--workers", type=click.IntRange(0), default=0, show_default=True, help="Processes that load data.")
@click.option("--seed", default=0, show_default=True, help="Random seed of split, weights, augmentation and phantoms.")
@click.option("--phantoms", "count", type=click.IntRange(3), default=40, show_default=True, help="Number of phantoms.")
@click.option("--level", type=click.FloatRange(0), default=20, show_default=True, help="Noise of phantoms in per cent.")
@click.option("--device", default="cpu", show_default=True, help="Device of the network, for example cuda.")
@click.option("--quick", is_flag=True, help="Show where denoising helps.")
def main(
    data: Path | None,
    denoise: tuple[str, ...],
    out: Path,
    resume: bool,
    count: int,
    level: float,
    quick: bool,
    **options: Any,
) -> None:
    options["mode"] = options["mode"] or MONITORED[options["monitor"]]
    options["learning_rate"] = options["learning_rate"] or networks.LEARNING_RATE[options["model"]]
    options["crop"] = options["crop"] or max(24, 2 * networks.MULTIPLE[options["model"]])
    try:
        if quick:
            if data:
                raise ValueError("--quick makes phantoms of its own; leave out DATA, or --quick")
            show_where_it_helps(denoise, out, count, resume, options)
        else:
            place = data or phantom_data(out / "data", count, level, options["seed"])
            compare_trainings(place, denoise, out, resume, () if data else phantoms.STRUCTURES, options)
    except ValueError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
