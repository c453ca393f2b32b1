"""Train and test a UNet for segmentation, with or without denoising, on images and masks in two folders.

Usage: python examples/segmentation/train.py [DATA] [--denoise none --denoise bayes] [--out FOLDER] [--resume]
       python examples/segmentation/train.py --quick

DATA holds images in frames/ and, for each image, a mask of the same name in masks/. They can be NIfTI, PNG or any other
format that MONAI reads, 2D or 3D, grey or RGB. A mask has one whole number per class and 0 for the background; it must
not be a JPEG, which would change the numbers. Files without a partner are listed and skipped. Without DATA, the script
makes a set of noisy phantoms.

The script trains one network for each kind of denoising, with everything else equal, and tests it on images that it has
not seen. The folder OUT/KIND then holds the best network (best.pt), its settings, learning curves and example
segmentations. --quick is a small run with none and classic; it takes about a minute on two cores.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import loading
import numpy as np
import pairs
import phantoms
import pictures
import training
from numpy.typing import NDArray


def train(folder: Path, settings: training.Settings, parts: dict[str, list[pairs.Pair]], resume: bool) -> NDArray:
    """Train, draw and test; return the Dice of each test image (rows) and structure (columns)."""
    run = training.Run(folder, settings, parts, resume)
    network = run.train()
    pictures.learning_curves(run).savefig(folder / "curves.png", dpi=120)
    data = training.evaluation_data(settings, parts["test"])
    names = [pair["name"] for pair in parts["test"]]
    pictures.segmentations(network, settings, data, names).savefig(folder / "test.png", dpi=120)
    dice = training.test(network, settings, data)
    result = {"dice": dict(zip(names, dice.tolist(), strict=True)), "epochs": len(run.curves)}
    (folder / "test.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    return dice


def table(results: dict[str, NDArray], structures: list[str]) -> str:
    """Table of Dice on the test part: mean ± standard deviation over images, for each structure and their mean."""
    head = ["denoising", *structures, "mean"]
    rows = [head, ["-" * len(word) for word in head]]
    for denoise, dice in results.items():
        means = np.array([known(image).mean() for image in dice if known(image).size])
        rows.append([denoise, *map(spread, [*dice.T, means])])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    )


def known(dice: NDArray) -> NDArray:
    """Drop undefined values: images without the structure."""
    return dice[~np.isnan(dice)]


def spread(dice: NDArray) -> str:
    there = known(dice)
    return f"{there.mean():.3f} ± {there.std():.3f}" if there.size else "–"


def phantom_data(folder: Path, count: int, noise: float, seed: int) -> Path:
    """Fill a folder with phantoms, unless it has them already."""
    made = {"count": count, "noise": noise, "seed": seed}
    record = folder / "phantoms.json"
    if not record.exists():
        phantoms.write(folder, **made)
        record.write_text(json.dumps(made), encoding="utf-8")
    elif json.loads(record.read_text(encoding="utf-8")) != made:
        raise ValueError(f"{folder} holds other phantoms; take another --out")
    return folder


@click.command(help=__doc__)
@click.argument("data", required=False, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--denoise", multiple=True, type=click.Choice(loading.DENOISE), help="Denoising; repeatable.")
@click.option("--noise", type=click.Choice(["gaussian", "rician", "poisson"]), help="Noise of DATA; default: gaussian.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/segmentation"), show_default=True)
@click.option("--resume", is_flag=True, help="Continue from the last checkpoint, as if never interrupted.")
@click.option("--epochs", type=click.IntRange(1), default=40, show_default=True, help="Maximum number of epochs.")
@click.option("--patience", type=click.IntRange(1), default=10, show_default=True, help="Epochs without improvement.")
@click.option("--min-delta", type=click.FloatRange(0), default=0.002, show_default=True, help="Least improvement.")
@click.option("--monitor", type=click.Choice(list(training.MONITORED)), default="val_dice", show_default=True)
@click.option(
    "--mode", type=click.Choice(["max", "min"]), help="Goal for --monitor.  [default: max for Dice, min for loss]"
)
@click.option("--crop", type=click.IntRange(8), default=24, show_default=True, help="Edge in voxels, a multiple of 4.")
@click.option("--batch-size", type=click.IntRange(1), default=2, show_default=True, help="Crops per step.")
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True), default=0.01, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Random seed of split, weights, augmentation and phantoms.")
@click.option("--phantoms", "count", type=click.IntRange(3), default=40, show_default=True, help="Number of phantoms.")
@click.option("--level", type=click.FloatRange(0), default=20, show_default=True, help="Noise of phantoms in per cent.")
@click.option("--device", default="cpu", show_default=True, help="Device of the network, for example cuda.")
@click.option("--quick", is_flag=True, help="Small run: 20 phantoms, 20 epochs, none and classic.")
def main(
    data: Path | None,
    denoise: tuple[str, ...],
    noise: str | None,
    out: Path,
    resume: bool,
    mode: str | None,
    seed: int,
    count: int,
    level: float,
    quick: bool,
    **options,
) -> None:
    if quick:
        count, denoise = min(count, 20), denoise or ("none", "classic")
        options["epochs"] = min(options["epochs"], 20)
    try:
        place = data or phantom_data(out / "data", count, level, seed)
        found, remarks = pairs.find(place)
        for remark in remarks:
            click.echo(remark, err=True)
        parts = pairs.split(found, seed)
        data_kind = loading.kind(found)
        click.echo(f"{len(found)} pairs: " + ", ".join(f"{len(part)} {name}" for name, part in parts.items()))
        results = {}
        for kind in dict.fromkeys(denoise or ("none",)):
            settings = training.Settings(
                denoise=kind,
                noise=noise or ("gaussian" if data else "rician"),
                **data_kind._asdict(),
                mode=mode or training.MONITORED[options["monitor"]],
                seed=seed,
                **options,
            )
            click.echo(f"\ndenoising: {kind}")
            results[kind] = train(out / kind, settings, parts, resume)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    names = [f"class {value}" for value in data_kind.values[1:]] if data else list(phantoms.STRUCTURES)
    click.echo(
        f"\nDice of the {len(parts['test'])} test images, mean ± standard deviation\n\n{table(results, names)}\n"
    )
    for kind in results:
        click.echo(f"Model: {out / kind / 'best.pt'} (curves.png and test.png are in the same folder)")


if __name__ == "__main__":
    main()
