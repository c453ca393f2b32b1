"""Result layers: what a run made, where it lies, and how it came about."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from napari.components import ViewerModel
from napari.layers import Image

import nlmeans
from napari_nlm.compute import Array, Plan, Volume, parts
from napari_nlm.geometry import appearance
from napari_nlm.preview import REACH
from napari_nlm.source import Box
from nlmeans.core.arrays import deviation
from nlmeans.core.progress import Report

KEY = "nlmeans"
"""Of the provenance in a layer's metadata."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a run made of a plan: one volume or all of them."""

    plan: Plan
    volume: Volume | None
    """None for all."""
    data: Array
    provenance: dict[str, Any]
    removed: npt.NDArray[np.float32] | None

    @property
    def start(self) -> tuple[int, ...]:
        """Where the result begins, along the axes of the layer."""
        first = [0] * self.plan.source.layer.ndim
        for axis, number in zip(self.plan.source.axes.separate, self.volume or (), strict=False):
            first[axis] = number
        return tuple(first)

    def cut(self, box: Box) -> Array | None:
        """A box of the source, if it lies in this result."""
        moved = [slice(side.start - at, side.stop - at) for side, at in zip(box, self.start, strict=True)]
        inside = all(s.start >= 0 and s.stop <= n for s, n in zip(moved, self.data.shape, strict=False))
        return self.data[tuple(moved)] if inside else None


def compute(plan: Plan, volume: Volume | None, with_removed: bool, progress: Report) -> Outcome:
    """Denoise one volume, or all if it is None."""
    source, axes = plan.source, plan.source.axes
    began = time.perf_counter()
    volumes = source.volumes if volume is None else [volume]
    shape = list(source.shape)
    if volume is not None:
        for axis in axes.separate:
            shape[axis] = 1
    data = np.empty(shape, plan.parameters.dtype or np.dtype(source.data.dtype))
    removed = np.zeros(shape, np.float32) if with_removed else None
    for number, report in zip(volumes, parts(progress, len(volumes)), strict=True):
        piece = plan.denoised(number, None, report)
        place = number if volume is None else (0,) * len(number)
        if source.alpha or removed is not None:
            index: list[int | slice] = list(source.everywhere())
            here: list[int | slice] = [slice(None)] * data.ndim
            for axis, at, to in zip(axes.separate, number, place, strict=True):
                index[axis], here[axis] = at, to
            original = np.asarray(source.data[tuple(index)])
            data[tuple(here)] = original
        plan.put(data, piece, place, source.everywhere())
        if removed is not None:
            removed[tuple(here)] = original.astype(np.float32) - data[tuple(here)].astype(np.float32)
    levels = [plan.level(number).sigma for number in volumes]
    facts = {
        "settings": plan.settings(plan.level(number)).to_dict(),
        "sigma": [level if axes.channels is not None else level[0] for level in levels],
        "sigma_estimated": plan.parameters.sigma is None,
        "axes": {"spatial": axes.spatial, "channels": axes.channels, "separate": axes.separate},
        "volume": volume,
        "source": source.layer.name,
        "path": None if source.path is None else str(source.path),
        "seconds": round(time.perf_counter() - began, 2),
        "nlmeans": nlmeans.__version__,
        "torch": torch.__version__,
    }
    return Outcome(plan, volume, data, facts, removed)


class Results:
    """The result layers of a session: one per source and volume, updated by every further run."""

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer = viewer
        self.layers: dict[tuple[int, Volume | None, str], Image] = {}
        self.outcomes: dict[int, Outcome] = {}
        """The latest of each source, by the identity of its layer."""

    def show(self, outcome: Outcome) -> Image:
        """Add the result as a layer, or bring its layer up to date."""
        source = outcome.plan.source.layer
        self.outcomes[id(source)] = outcome
        layer = self.put(outcome, "denoised", outcome.data, {})
        if outcome.removed is not None and not source.rgb:
            reach = REACH * deviation(outcome.removed) or 1.0
            look = {"contrast_limits": (-reach, reach), "colormap": "gray", "gamma": 1.0}
            self.put(outcome, "removed", outcome.removed, look).visible = False
        return layer

    def put(self, outcome: Outcome, kind: str, data: npt.NDArray[Any], look: dict[str, Any]) -> Image:
        source = outcome.plan.source.layer
        key = (id(source), outcome.volume, kind)
        metadata = {**source.metadata, KEY: outcome.provenance}
        old = self.layers.get(key)
        if old is not None and old in self.viewer.layers and old.data.shape == data.shape:
            old.data, old.metadata, old.visible = data, metadata, True
            if look:
                old.contrast_limits = look["contrast_limits"]
            return old
        if old is not None and old in self.viewer.layers:
            self.viewer.layers.remove(old)
        volume = "" if outcome.volume is None else f" {list(outcome.volume)}"
        looks = appearance(source) | look
        if any(outcome.start):
            looks["translate"] = translate(source, outcome.start)
        layer = Image(data, name=f"{source.name} {kind}{volume}", metadata=metadata, **looks)
        self.viewer.add_layer(layer)
        self.layers[key] = layer
        return layer

    def latest(self, plan: Plan) -> Outcome | None:
        """The last result of this source, if it is what `plan` would give and still in the viewer."""
        outcome = self.outcomes.get(id(plan.source.layer))
        if outcome is None or not outcome.plan.same_as(plan) or self.layer_of(outcome) is None:
            return None
        return outcome

    def layer_of(self, outcome: Outcome) -> Image | None:
        layer = self.layers.get((id(outcome.plan.source.layer), outcome.volume, "denoised"))
        return layer if layer is not None and layer in self.viewer.layers else None

    def forget(self, layer: Any) -> None:
        """A layer was removed from the viewer."""
        self.outcomes.pop(id(layer), None)
        self.layers = {key: own for key, own in self.layers.items() if own is not layer and key[0] != id(layer)}


def translate(layer: Image, start: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """The `translate` of a part of the layer's data that begins at these voxels."""
    inner = np.array(layer.data_to_world(tuple(map(float, start)))) - np.array(layer.data_to_world((0,) * layer.ndim))
    outer = np.asarray(layer.affine.affine_matrix)[:-1, :-1]
    return np.asarray(layer.translate, dtype=float) + np.linalg.solve(outer, inner)
