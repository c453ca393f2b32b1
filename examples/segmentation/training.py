"""Train, stop, resume and test a network with MONAI's engines and handlers."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint, DiskSaver, EarlyStopping
from ignite.metrics import Average
from loading import augmentation, dataset, loader, preparation
from monai.data import CacheDataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import CheckpointLoader, IgniteMetricHandler, MeanDice, StatsHandler, ValidationHandler, from_engine
from monai.inferers import SlidingWindowInferer
from monai.losses import DiceLoss
from monai.networks.nets import UNet
from monai.transforms import AsDiscreted, Compose, CopyItemsd
from monai.utils import set_determinism
from numpy.typing import NDArray
from pairs import Pair

MONITORED = {"val_dice": "max", "val_loss": "min"}
"""Metrics for best checkpoint and early stopping, and whether a high or a low value is better."""


@dataclass(frozen=True)
class Settings:
    """Everything that a model depends on except its data.

    Attributes:
        denoise: one of `loading.DENOISE`.
        noise: noise model of nlmeans.
        dims, channels, values, spacing, flat: as in `loading.Kind`.
        crop: edge of the training crops in voxels; a multiple of 4.
        batch_size: crops per step.
        learning_rate: learning rate of Adam.
        monitor: ``"val_dice"`` or ``"val_loss"``.
        mode: ``"max"`` or ``"min"``: whether a high or a low `monitor` is better.
        patience: epochs without improvement after which training ends.
        min_delta: the least change that counts as an improvement.
        epochs: maximum number of epochs.
        seed: random seed of weights, order and augmentation.
        device: for example ``"cpu"`` or ``"cuda"``.
    """

    denoise: str = "none"
    noise: str = "rician"
    dims: int = 3
    channels: int = 1
    values: tuple[int, ...] = (0, 1)
    spacing: str | None = "affine"
    flat: bool = False
    crop: int = 24
    batch_size: int = 2
    learning_rate: float = 0.01
    monitor: str = "val_dice"
    mode: str = "max"
    patience: int = 10
    min_delta: float = 0.002
    epochs: int = 40
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.crop % 4:
            raise ValueError(f"crop is {self.crop}; it must be a multiple of 4, as the network halves its input twice")

    @property
    def classes(self) -> int:
        return len(self.values)

    def preparation(self) -> list[Any]:
        return preparation(self.denoise, self.noise, self.spacing, self.flat, self.values)


UNTIL = ("patience", "min_delta", "epochs", "device")
"""Settings that may change when a run is resumed."""


class Run:
    """Training run in a folder with ``settings.json``, ``last_*.pt`` to resume from, and the best model ``best.pt``.

    Raises:
        ValueError: the folder holds a run and `resume` is False, or the run has other settings or data.
    """

    def __init__(self, folder: Path, settings: Settings, parts: dict[str, list[Pair]], resume: bool = False) -> None:
        self.folder, self.settings = folder, settings
        self.claim(parts, resume)
        set_determinism(settings.seed)
        self.network = unet(settings)
        self.train_data = dataset(
            parts["train"], [*settings.preparation(), *augmentation(settings.crop, settings.dims)], settings.classes
        )
        self.evaluator = evaluator(self.network, settings, evaluation_data(settings, parts["val"]))
        self.trainer = self.with_handlers(
            SupervisedTrainer(
                device=torch.device(settings.device),
                max_epochs=settings.epochs,
                train_data_loader=loader(self.train_data, settings.batch_size, shuffle=True),
                network=self.network,
                optimizer=torch.optim.Adam(self.network.parameters(), settings.learning_rate),
                loss_function=DiceLoss(softmax=True),
                key_train_metric={"train_loss": Average(from_engine("loss", first=True))},
            )
        )

    def claim(self, parts: dict[str, list[Pair]], resume: bool) -> None:
        """Write settings and split to the folder, or compare them with those of the run to resume."""
        names = {part: [pair["name"] for pair in pairs] for part, pairs in parts.items()}
        settings = {name: value for name, value in asdict(self.settings).items() if name not in UNTIL}
        ours = json.loads(json.dumps({"settings": settings, "parts": names}))
        path = self.folder / "settings.json"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(ours, indent=1), encoding="utf-8")
            return
        if not resume:
            raise ValueError(f"{self.folder} holds a run already; resume it (--resume) or take another folder (--out)")
        theirs = json.loads(path.read_text(encoding="utf-8"))
        if theirs["parts"] != names:
            raise ValueError(f"{self.folder} was trained on another split or other files; take another folder")
        other = [
            f"{name}={value!r}, now {settings[name]!r}"
            for name, value in theirs["settings"].items()
            if value != ours["settings"].get(name)
        ]
        if other:
            raise ValueError(f"{self.folder} was trained with {'; '.join(other)}; take another folder")

    def with_handlers(self, trainer: SupervisedTrainer) -> SupervisedTrainer:
        sign = {"max": 1.0, "min": -1.0}[self.settings.mode]

        def score(engine: Engine) -> float:
            return sign * engine.state.metrics[self.settings.monitor]

        # ignite's handlers instead of MONAI's EarlyStopHandler and CheckpointSaver, which do not expose their state: a
        # resumed run would count its patience from 0 and take its first epoch for the best
        self.stopping = stopping = EarlyStopping(self.settings.patience, score, trainer, self.settings.min_delta)
        best = Checkpoint(
            {"network": self.network},
            DiskSaver(self.folder, require_empty=False),
            filename_pattern="best.pt",
            score_function=score,
        )
        trainer.state.curves = []
        trainer.state_dict_user_keys.append("curves")
        state = {
            "trainer": trainer,
            "network": self.network,
            "optimizer": trainer.optimizer,
            "stopping": stopping,
            "best": best,
        }
        last = Checkpoint(
            state,
            DiskSaver(self.folder, require_empty=False),
            filename_prefix="last",
            global_step_transform=lambda *_: trainer.state.epoch,
            n_saved=2,  # the older is deleted before the newer is written
            include_self=True,
        )
        trainer.add_event_handler(Events.EPOCH_STARTED, self.seed_epoch)
        ValidationHandler(1, self.evaluator).attach(trainer)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self.note)
        StatsHandler(iteration_log=False, epoch_print_logger=self.say).attach(trainer)
        self.evaluator.add_event_handler(Events.COMPLETED, stopping)
        self.evaluator.add_event_handler(Events.COMPLETED, best)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, last)
        if checkpoint := self.last_checkpoint():
            restored = {**state, "checkpointer": last}
            CheckpointLoader(str(checkpoint), restored, map_location=self.settings.device)(trainer)
        return trainer

    def last_checkpoint(self) -> Path | None:
        epochs = {int(path.stem.rpartition("_")[2]): path for path in self.folder.glob("last_*.pt")}
        return epochs[max(epochs)] if epochs else None

    def seed_epoch(self, trainer: Engine) -> None:
        """Seed each epoch by its number, so that a resumed run draws the same random numbers."""
        seed = 1000 * self.settings.seed + trainer.state.epoch
        torch.manual_seed(seed)
        self.train_data.transform.set_random_state(seed)

    def note(self, trainer: Engine) -> None:
        metrics = self.evaluator.state.metrics
        trainer.state.curves.append(
            {
                "epoch": trainer.state.epoch,
                "train_loss": trainer.state.metrics["train_loss"],
                "val_loss": float(metrics["val_loss"]),
                "val_dice": float(metrics["val_dice"]),
            }
        )

    def say(self, _: Engine) -> None:
        print(", ".join(f"{name} {value:.4g}" for name, value in self.curves[-1].items()), flush=True)

    @property
    def curves(self) -> list[dict[str, float]]:
        """One row per epoch with ``"epoch"``, ``"train_loss"``, ``"val_loss"`` and ``"val_dice"``."""
        return self.trainer.state.curves

    def train(self) -> UNet:
        """Train from the current state to the end; return the best network."""
        patient = self.stopping.counter < self.settings.patience
        if patient and self.trainer.state.epoch < self.settings.epochs:
            self.trainer.run()
        return load(self.folder, self.settings)


def unet(settings: Settings) -> UNet:
    return UNet(
        settings.dims,
        settings.channels,
        settings.classes,
        (16, 32, 64),
        strides=(2, 2),
        num_res_units=1,
        norm="instance",
    ).to(settings.device)


def load(folder: Path, settings: Settings) -> UNet:
    """Load the best network of a run."""
    network = unet(settings)
    network.load_state_dict(torch.load(folder / "best.pt", map_location=settings.device, weights_only=True))
    return network.eval()


def predictor(settings: Settings) -> SlidingWindowInferer:
    """Predict images of any size by a sliding window of the training crop's size."""
    return SlidingWindowInferer((settings.crop,) * settings.dims, sw_batch_size=4, overlap=0.25)


def evaluation_data(settings: Settings, pairs: list[Pair]) -> CacheDataset:
    return dataset(pairs, settings.preparation(), settings.classes)


def evaluator(network: UNet, settings: Settings, data: CacheDataset) -> SupervisedEvaluator:
    """Build the evaluator of the mean Dice of the structures, ``"val_dice"``, and the loss, ``"val_loss"``."""
    post = [CopyItemsd("pred", names="logits"), AsDiscreted("pred", argmax=True, to_onehot=settings.classes)]
    loss = IgniteMetricHandler(loss_fn=DiceLoss(softmax=True), output_transform=from_engine(["logits", "label"]))
    return SupervisedEvaluator(
        device=torch.device(settings.device),
        val_data_loader=loader(data),
        network=network,
        inferer=predictor(settings),
        postprocessing=Compose(post),
        key_val_metric={"val_dice": MeanDice(False, output_transform=from_engine(["pred", "label"]))},
        additional_metrics={"val_loss": loss},
    )


def test(network: UNet, settings: Settings, data: CacheDataset) -> NDArray[np.float64]:
    """Dice of each image (rows) and structure (columns); NaN if an image does not contain the structure."""
    engine = evaluator(network, settings, data)
    engine.run()
    return engine.state.metric_details["val_dice"].double().cpu().numpy()
