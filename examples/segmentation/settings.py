"""What a model depends on, as it is kept in the folder of its run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from networks import MODELS, MULTIPLE

MONITORED = {"val_dice": "max", "val_loss": "min"}
"""Metrics for best checkpoint and early stopping, and whether a high or a low value is better."""

SCHEDULES = ("plateau", "cosine", "constant")

FILE = "settings.json"


@dataclass(frozen=True)
class Settings:
    """Everything that a model depends on except its data.

    Attributes:
        denoise: one of `loading.DENOISE`.
        noise: kind of noise, for denoising and for `match`; ``"auto"`` finds it in each image.
        match: smallest and largest sigma, in image units, to which `RandMatchNoised` raises the noise of training
            images, drawn anew in each epoch; None to leave them as they are.
        dims, channels, values, spacing, flat, pixdim: as in `loading.Kind`.
        model: a name in `networks.MODELS`.
        non_local: whether a non-local block follows the bottom of the network.
        crop: edge of the training crops in voxels.
        batch_size: crops per step.
        learning_rate: learning rate of Adam.
        schedule: ``"plateau"`` halves the learning rate after half the patience without improvement, ``"cosine"``
            lowers it to 0 at the last epoch, ``"constant"`` keeps it.
        monitor: ``"val_dice"`` or ``"val_loss"``.
        mode: ``"max"`` or ``"min"``: whether a high or a low `monitor` is better.
        patience: epochs without improvement after which training ends.
        min_delta: the least change that counts as an improvement.
        epochs: maximum number of epochs.
        seed: random seed of weights, order and augmentation.
        amp: automatic mixed precision in bfloat16, on a GPU.
        workers: processes that load training data beside the training.
        device: for example ``"cpu"`` or ``"cuda"``.

    Raises:
        ValueError: an argument does not fit the others; the message names a remedy.
    """

    denoise: str = "none"
    noise: str = "auto"
    match: tuple[float, float] | None = None
    dims: int = 3
    channels: int = 1
    values: tuple[int, ...] = (0, 1)
    spacing: str | None = "affine"
    flat: bool = False
    pixdim: tuple[float, ...] | None = None
    model: str = "unet"
    non_local: bool = False
    crop: int = 24
    batch_size: int = 2
    learning_rate: float = 0.01
    schedule: str = "plateau"
    monitor: str = "val_dice"
    mode: str = "max"
    patience: int = 10
    min_delta: float = 0.002
    epochs: int = 40
    seed: int = 0
    amp: bool = False
    workers: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise ValueError(f"model={self.model!r} is none of {', '.join(MODELS)}")
        step = MULTIPLE[self.model]
        if self.crop % step or self.crop < 2 * step:  # the bottom of the network needs two voxels
            raise ValueError(f"crop is {self.crop}; {self.model} needs a multiple of {step}, at least {2 * step}")
        if self.amp and torch.device(self.device).type != "cuda":
            raise ValueError(
                f"amp is for a GPU, but the device is {self.device!r}; leave it out, or take device='cuda'"
            )
        if self.match and self.denoise != "none":
            raise ValueError(
                f"match={self.match} adds noise, and denoise={self.denoise!r} removes it; use one of the two"
            )
        if self.match and self.noise == "poisson":
            raise ValueError("match raises Gaussian and Rician noise; for photon counts leave it out")

    @property
    def classes(self) -> int:
        return len(self.values)

    def fixed(self) -> dict[str, Any]:
        """Return by name what must not change when a run is resumed, as JSON has it."""
        free = {"patience", "min_delta", "epochs", "workers", "device"}
        if self.schedule == "cosine":
            free.remove("epochs")  # the learning rate depends on it
        return json.loads(json.dumps({name: value for name, value in asdict(self).items() if name not in free}))


def saved_settings(folder: Path, device: str, **changes: Any) -> Settings:
    """Read the settings of a run, to use its network on any device.

    Raises:
        ValueError: the folder holds no run.
    """
    path = folder / FILE
    if not path.is_file():
        raise ValueError(f"{folder}: no {FILE}, so this is not the folder of a run, such as runs/segmentation/none")
    values = json.loads(path.read_text(encoding="utf-8"))["settings"]
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    values["amp"] = values["amp"] and torch.device(device).type == "cuda"
    return Settings(**{**values, "device": device, **changes})
