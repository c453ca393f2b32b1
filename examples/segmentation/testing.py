"""Apply a trained network by a sliding window, and measure Dice and surface distances."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from loading import loader
from monai.data import CacheDataset
from monai.engines import SupervisedEvaluator
from monai.handlers import IgniteMetricHandler, MeanDice, from_engine
from monai.inferers import SlidingWindowInferer
from monai.losses import DiceLoss
from monai.metrics import DiceMetric, HausdorffDistanceMetric
from monai.networks import one_hot
from monai.transforms import AsDiscreted, Compose, CopyItemsd, EnsureTyped
from networks import build
from numpy.typing import NDArray
from settings import Settings
from torch import nn

AMP = {"dtype": torch.bfloat16}
"""Mixed precision with the range of float32, so that a resumed run needs no scale of gradients, which MONAI forgets."""


class Scores(NamedTuple):
    """Scores of each image (rows) and structure (columns); NaN where the image does not contain the structure."""

    dice: NDArray[np.float64]
    """Overlap with the mask, from 0 to 1."""
    distance: NDArray[np.float64]
    """95 % of the surface lie within this distance of the mask's, in mm if the voxel size is known, otherwise in
    voxels; infinite where the structure was not found at all."""


def best_network(folder: Path, settings: Settings) -> nn.Module:
    """Load the best network of a run, ready to predict."""
    network = build(settings.model, settings.dims, settings.channels, settings.classes, settings.non_local)
    state = torch.load(folder / "best.pt", map_location=settings.device, weights_only=True)
    network.load_state_dict(state)
    return network.to(settings.device).eval()


def predictor(settings: Settings) -> SlidingWindowInferer:
    """Predict images of any size by a sliding window of the training crop's size."""
    return SlidingWindowInferer((settings.crop,) * settings.dims, sw_batch_size=4, overlap=0.25, mode="gaussian")


def evaluator(network: nn.Module, settings: Settings, data: CacheDataset) -> SupervisedEvaluator:
    """Build the evaluator of the mean Dice of the structures, ``"val_dice"``, and the loss, ``"val_loss"``."""
    post = [
        EnsureTyped("pred", dtype=torch.float32),
        CopyItemsd("pred", names="logits"),
        AsDiscreted("pred", argmax=True),
    ]
    loss_fn = DiceLoss(to_onehot_y=True, softmax=True)
    dice = MeanDice(False, num_classes=settings.classes, output_transform=from_engine(["pred", "label"]))
    return SupervisedEvaluator(
        device=torch.device(settings.device),
        val_data_loader=loader(data, settings),
        network=network,
        inferer=predictor(settings),
        postprocessing=Compose(post),
        key_val_metric={"val_dice": dice},
        additional_metrics={
            "val_loss": IgniteMetricHandler(loss_fn=loss_fn, output_transform=from_engine(["logits", "label"]))
        },
        amp=settings.amp,
        amp_kwargs=AMP,
    )


@torch.inference_mode()
def segment(network: nn.Module, settings: Settings, image: torch.Tensor) -> torch.Tensor:
    """Return the number of the class of each voxel, (B, 1, ...), for prepared images, (B, C, ...)."""
    with torch.autocast(torch.device(settings.device).type, enabled=settings.amp, **AMP):
        logits = predictor(settings)(image.to(settings.device), network)
    return logits.argmax(1, keepdim=True)


def test(network: nn.Module, settings: Settings, data: CacheDataset) -> Scores:
    """Measure a network on images with masks, on the grid on which it was trained."""
    dice = DiceMetric(include_background=False, num_classes=settings.classes)
    distance = HausdorffDistanceMetric(percentile=95)
    for batch in loader(data, settings):
        found, label = segment(network, settings, batch["image"]).cpu(), batch["label"]
        dice(found, label)
        one_channel_each = (one_hot(classes, settings.classes) for classes in (found, label))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of empty masks, for which the result stands; of MONAI's own old arguments
            distance(*one_channel_each, spacing=settings.pixdim)
    overlaps, distances = (metric.aggregate("none").double().numpy() for metric in (dice, distance))
    return Scores(overlaps, np.where(np.isnan(overlaps), np.nan, np.nan_to_num(distances, nan=np.inf)))
