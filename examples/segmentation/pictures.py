"""Draw learning curves and example segmentations."""

from __future__ import annotations

import numpy as np
import torch
from loading import loader
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from monai.data import CacheDataset
from settings import Settings
from testing import segment
from torch import nn
from training import Run


def learning_curves(run: Run) -> Figure:
    """Plot losses and validation Dice of each epoch, and mark the epoch whose network was kept."""
    epochs = [int(row["epoch"]) for row in run.curves]
    best = {"max": max, "min": min}[run.settings.mode](run.curves, key=lambda row: row[run.settings.monitor])
    figure = Figure((8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in ("train_loss", "val_loss"):
        left.plot(epochs, [row[name] for row in run.curves], label=name.replace("_", " "))
    right.plot(epochs, [row["val_dice"] for row in run.curves], color="C2", label="val dice")
    left.set(xlabel="epoch", ylabel="Dice loss")
    right.set(xlabel="epoch", ylabel="Dice", ylim=(0, 1))
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.axvline(best["epoch"], color="grey", linestyle=":", label="kept")
        axes.legend()
    figure.suptitle(f"denoising: {run.settings.denoise}")
    return figure


def segmentations(
    network: nn.Module, settings: Settings, data: CacheDataset, names: list[str], rows: int = 3
) -> Figure:
    """Draw the middle slice of the first images: the network's input, with its mask, and with the segmentation."""
    rows = min(rows, len(data))
    figure = Figure((9, 3 * rows), layout="constrained")
    panels = figure.subplots(rows, 3, squeeze=False)
    for row, name, batch in zip(panels, names, loader(data, settings), strict=False):
        image = batch["image"]
        found = segment(network, settings, image).cpu()
        title = f"{name}, denoising: {settings.denoise}"
        for axes, labels, label in zip(row, (None, batch["label"], found), (title, "mask", "found"), strict=True):
            drawn = None if labels is None else slice_of(labels[0, 0])
            show(axes, slice_of(image[0, 0]), drawn, settings.classes)
            axes.set_title(label, fontsize=9)
    return figure


def slice_of(image: torch.Tensor) -> np.ndarray:
    """Return the middle slice along the last axis of a volume, or a 2D image unchanged; the first axis points right."""
    image = torch.as_tensor(image)
    return (image[..., image.shape[-1] // 2] if image.ndim == 3 else image).numpy().T


def show(axes: Axes, image: np.ndarray, labels: np.ndarray | None, classes: int) -> None:
    axes.imshow(image, cmap="gray", vmin=np.quantile(image, 0.01), vmax=np.quantile(image, 0.995))
    if labels is not None:
        axes.imshow(
            np.ma.masked_equal(labels, 0),
            cmap="tab10",
            vmin=1,
            vmax=max(classes, 10),
            alpha=0.5,
            interpolation="nearest",
        )
    axes.set_axis_off()
