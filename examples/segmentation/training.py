"""Train, stop and resume a network with MONAI's engines and handlers."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint, DiskSaver, EarlyStopping
from ignite.metrics import Average
from loading import evaluation_data, loader, training_data
from monai.engines import SupervisedTrainer
from monai.handlers import (
    CheckpointLoader,
    LrScheduleHandler,
    StatsHandler,
    TensorBoardStatsHandler,
    ValidationHandler,
    from_engine,
)
from monai.losses import DiceLoss
from monai.utils import set_determinism
from networks import build
from pairs import Pair
from settings import FILE, Settings
from testing import AMP, best_network, evaluator
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, ReduceLROnPlateau


class Run:
    """Training run in a folder with ``settings.json``, ``last_*.pt`` to resume from, and the best model ``best.pt``.

    Args:
        folder: where to keep it.
        settings: how to train.
        parts: pairs for ``"train"`` and ``"val"``; other parts are noted with the settings.
        resume: whether to continue a run that the folder holds.
        tensorboard: whether to log metrics for TensorBoard, in the same folder.

    Raises:
        ValueError: the folder holds a run and `resume` is False, the run has other settings or data, or a package is
            missing.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        parts: dict[str, list[Pair]],
        resume: bool = False,
        tensorboard: bool = False,
    ) -> None:
        if tensorboard and find_spec("tensorboard") is None:
            raise ValueError("--tensorboard needs tensorboard: pip install 'nlmeans[examples]', or leave it out")
        self.folder, self.settings = folder, settings
        set_determinism(settings.seed)
        self.network = build(settings.model, settings.dims, settings.channels, settings.classes, settings.non_local).to(
            settings.device
        )
        self.claim(parts, resume)
        self.train_data = training_data(settings, parts["train"])
        self.evaluator = evaluator(self.network, settings, evaluation_data(settings, parts["val"]))
        self.trainer = SupervisedTrainer(
            device=torch.device(settings.device),
            max_epochs=settings.epochs,
            train_data_loader=loader(self.train_data, settings, training=True),
            network=self.network,
            optimizer=torch.optim.Adam(self.network.parameters(), settings.learning_rate),
            loss_function=DiceLoss(to_onehot_y=True, softmax=True),
            key_train_metric={"train_loss": Average(from_engine("loss", first=True))},
            amp=settings.amp,
            amp_kwargs=AMP,
        )
        self.add_handlers(tensorboard)

    def claim(self, parts: dict[str, list[Pair]], resume: bool) -> None:
        """Write settings and split to the folder, or compare them with those of the run to resume."""
        names = {part: [pair["name"] for pair in pairs] for part, pairs in parts.items()}
        ours = {"settings": self.settings.fixed(), "parts": names}
        path = self.folder / FILE
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
            f"{name}={value!r}, now {ours['settings'].get(name)!r}"
            for name, value in theirs["settings"].items()
            if value != ours["settings"].get(name)
        ]
        if other:
            raise ValueError(f"{self.folder} was trained with {'; '.join(other)}; take another folder")

    def add_handlers(self, tensorboard: bool) -> None:
        """Let the trainer validate, note, stop, save and resume, in this order at the end of each epoch."""
        trainer, settings = self.trainer, self.settings
        sign = {"max": 1.0, "min": -1.0}[settings.mode]

        def score(engine: Engine) -> float:
            return sign * engine.state.metrics[settings.monitor]

        # ignite's handlers instead of MONAI's EarlyStopHandler and CheckpointSaver, which do not expose their state: a
        # resumed run would count its patience from 0 and take its first epoch for the best
        self.stopping = EarlyStopping(settings.patience, score, trainer, settings.min_delta)
        best = Checkpoint(
            {"network": self.network},
            DiskSaver(self.folder, require_empty=False),
            filename_pattern="best.pt",
            score_function=score,
        )
        trainer.state.curves = []
        trainer.state_dict_user_keys.append("curves")
        self.schedule = learning_rates(trainer.optimizer, settings)
        state = {
            "trainer": trainer,
            "network": self.network,
            "optimizer": trainer.optimizer,
            "schedule": self.schedule,
            "stopping": self.stopping,
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
        monitored = (lambda _: self.evaluator.state.metrics[settings.monitor]) if self.waits else (lambda _: ())
        LrScheduleHandler(self.schedule, print_lr=False, step_transform=monitored).attach(trainer)
        StatsHandler(iteration_log=False, epoch_print_logger=self.say).attach(trainer)
        if tensorboard:
            TensorBoardStatsHandler(log_dir=str(self.folder), output_transform=from_engine("loss", first=True)).attach(
                trainer
            )
            TensorBoardStatsHandler(
                log_dir=str(self.folder), iteration_log=False, global_epoch_transform=lambda _: trainer.state.epoch
            ).attach(self.evaluator)
        self.evaluator.add_event_handler(Events.COMPLETED, self.stopping)
        self.evaluator.add_event_handler(Events.COMPLETED, best)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, last)
        if checkpoint := self.last_checkpoint():
            restored = {**state, "checkpointer": last}
            CheckpointLoader(str(checkpoint), restored, map_location=settings.device)(trainer)

    @property
    def waits(self) -> bool:
        """Whether the learning rate depends on the metric, not on the epoch."""
        return isinstance(self.schedule, ReduceLROnPlateau)

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
                "learning_rate": trainer.optimizer.param_groups[0]["lr"],
            }
        )

    def say(self, _: Engine) -> None:
        print(", ".join(f"{name} {value:.4g}" for name, value in self.curves[-1].items()), flush=True)

    @property
    def curves(self) -> list[dict[str, float]]:
        """A row per epoch: ``"epoch"``, ``"train_loss"``, ``"val_loss"``, ``"val_dice"`` and ``"learning_rate"``."""
        return self.trainer.state.curves

    def train(self) -> nn.Module:
        """Train from the current state to the end; return the best network."""
        patient = self.stopping.counter < self.settings.patience
        if patient and self.trainer.state.epoch < self.settings.epochs:
            self.trainer.run()
        return best_network(self.folder, self.settings)


def learning_rates(optimizer: torch.optim.Optimizer, settings: Settings) -> LRScheduler | ReduceLROnPlateau:
    """Build the schedule that the settings name."""
    if settings.schedule == "plateau":
        kept: dict[str, Any] = {"threshold": settings.min_delta, "threshold_mode": "abs"}
        return ReduceLROnPlateau(optimizer, settings.mode, 0.5, settings.patience // 2, **kept)
    if settings.schedule == "cosine":
        return CosineAnnealingLR(optimizer, settings.epochs)
    return LambdaLR(optimizer, lambda _: 1.0)
