"""Result layers: what a run made, where it lies, and how it was made."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from napari.components import ViewerModel
from napari.layers import Image

import nlmeans
from napari_nlm.denoising import Denoising, parts
from napari_nlm.geometry import appearance
from napari_nlm.layer_source import LayerBox, VolumeIndex
from napari_nlm.preview_layers import SHOWN_DEVIATIONS
from napari_nlm.volume_view import LayerArray
from nlmeans.core.arrays import standard_deviation
from nlmeans.core.progress import Report

PROVENANCE_KEY = "nlmeans"
"""Key in a layer's metadata: how the layer was made."""


@dataclass(frozen=True, eq=False)
class LayerResult:
    """What a run made of one volume of a layer, or of all volumes."""

    denoising: Denoising
    volume: VolumeIndex | None
    """None for all volumes."""
    data: LayerArray
    provenance: dict[str, Any]
    removed: npt.NDArray[np.float32] | None
    """Image minus result, if it was asked for."""

    @property
    def start(self) -> tuple[int, ...]:
        """The first voxel of the result, along the axes of the layer."""
        source, first = self.denoising.source, [0] * self.denoising.source.layer.ndim
        for axis, number in zip(source.axes.separate, self.volume or (), strict=False):
            first[axis] = number
        return tuple(first)

    def cut(self, box: LayerBox) -> LayerArray | None:
        """A box of the layer; None if it is not all in this result."""
        moved = [slice(side.start - at, side.stop - at) for side, at in zip(box, self.start, strict=True)]
        inside = all(s.start >= 0 and s.stop <= n for s, n in zip(moved, self.data.shape, strict=False))
        return self.data[tuple(moved)] if inside else None


def denoise_layer(
    denoising: Denoising, volume: VolumeIndex | None, with_removed: bool, progress: Report
) -> LayerResult:
    """Denoise one volume, or all volumes if `volume` is None or if they are denoised together."""
    began = time.perf_counter()
    denoising = denoising.resolved()
    source, axes = denoising.source, denoising.source.axes
    volume = volume if axes.separate else None
    volumes = source.volumes if volume is None else [volume]
    shape = list(source.shape)
    if volume is not None:
        for axis in axes.separate:
            shape[axis] = 1
    data = np.empty(shape, denoising.parameters.dtype or np.dtype(source.data.dtype))
    removed = np.zeros(shape, np.float32) if with_removed else None
    for number, report in zip(volumes, parts(progress, len(volumes)), strict=True):
        piece = denoising.denoised(number, None, report)
        place = number if volume is None else (0,) * len(number)
        if source.alpha or removed is not None:
            index: list[int | slice] = list(source.everywhere())
            here: list[int | slice] = [slice(None)] * data.ndim
            for axis, at, to in zip(axes.separate, number, place, strict=True):
                index[axis], here[axis] = at, to
            original = np.asarray(source.data[tuple(index)])
            data[tuple(here)] = original
        denoising.put(data, piece, place, source.everywhere())
        if removed is not None:
            removed[tuple(here)] = original.astype(np.float32) - data[tuple(here)].astype(np.float32)
    return LayerResult(denoising, volume, data, provenance(denoising, volumes, volume, began), removed)


def provenance(
    denoising: Denoising, volumes: list[VolumeIndex], volume: VolumeIndex | None, began: float
) -> dict[str, Any]:
    """How a result was made, for the metadata of its layer. Of several volumes, the settings are those of the last."""
    source, axes = denoising.source, denoising.source.axes
    surveys = [denoising.survey(number) for number in volumes]
    levels = [survey.facts.sigma for survey in surveys]
    several = axes.channels is not None and not denoising.joint
    return {
        "settings": denoising.record(volumes[-1], surveys[-1]).to_dict(),
        "sigma": [level if several else level[0] for level in levels],
        "sigma_estimated": denoising.parameters.sigma is None,
        "axes": {"spatial": axes.spatial, "channels": axes.channels, "separate": axes.separate},
        "volume": volume,
        "source": source.layer.name,
        "path": None if source.path is None else str(source.path),
        "seconds": round(time.perf_counter() - began, 2),
        "nlmeans": nlmeans.__version__,
        "torch": torch.__version__,
    }


def proposed_file(layer: Image) -> Path:
    """Where the dialog proposes to save a result: next to the file of its source, else in the home folder."""
    facts = layer.metadata.get(PROVENANCE_KEY, {})
    if not facts.get("path"):
        return Path.home() / f"{layer.name.replace(' ', '_')}.nii.gz"
    source = Path(facts["path"])
    return source.parent / f"{source.name.split('.')[0]}_denoised.nii.gz"


class ResultLayers:
    """The result layers of a session: one for each source and volume. A further run updates its layer."""

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer = viewer
        self.layers: dict[tuple[int, VolumeIndex | None, str], Image] = {}
        self.results: dict[int, LayerResult] = {}
        """The latest result of each source, by the identity of its layer."""

    def show(self, result: LayerResult) -> Image:
        """Add the result as a layer, or update its layer."""
        source = result.denoising.source.layer
        self.results[id(source)] = result
        layer = self.put(result, "denoised", result.data, {})
        if result.removed is not None and not source.rgb:
            reach = SHOWN_DEVIATIONS * standard_deviation(result.removed) or 1.0
            look = {"contrast_limits": (-reach, reach), "colormap": "gray", "gamma": 1.0}
            self.put(result, "removed", result.removed, look).visible = False
        return layer

    def put(self, result: LayerResult, kind: str, data: LayerArray, look: dict[str, Any]) -> Image:
        source = result.denoising.source.layer
        key = (id(source), result.volume, kind)
        metadata = {**source.metadata, PROVENANCE_KEY: result.provenance}
        old = self.layers.get(key)
        if old is not None and old in self.viewer.layers and old.data.shape == data.shape:
            old.data, old.metadata, old.visible = data, metadata, True
            if look:
                old.contrast_limits = look["contrast_limits"]
            return old
        if old is not None and old in self.viewer.layers:
            self.viewer.layers.remove(old)
        volume = "" if result.volume is None else f" {list(result.volume)}"
        looks = appearance(source) | look
        if any(result.start):
            looks["translate"] = translate_from(source, result.start)
        layer = Image(data, name=f"{source.name} {kind}{volume}", metadata=metadata, **looks)
        self.viewer.add_layer(layer)
        self.layers[key] = layer
        return layer

    def latest(self, denoising: Denoising) -> LayerResult | None:
        """The last result of a source, if it has the numbers of `denoising` and is still in the viewer."""
        result = self.results.get(id(denoising.source.layer))
        if result is None or not result.denoising.same_as(denoising) or self.layer_of(result) is None:
            return None
        return result

    def layer_of(self, result: LayerResult) -> Image | None:
        layer = self.layers.get((id(result.denoising.source.layer), result.volume, "denoised"))
        return layer if layer is not None and layer in self.viewer.layers else None

    def layer_for(self, source: Image) -> Image | None:
        """The layer with the latest result of a source layer, if it is still in the viewer."""
        result = self.results.get(id(source))
        return None if result is None else self.layer_of(result)

    def owns(self, layer: Any) -> bool:
        """Whether it is one of these result layers."""
        return any(layer is own for own in self.layers.values())

    def forget(self, layer: Any) -> None:
        """Drop what belongs to a layer that was removed from the viewer."""
        self.results.pop(id(layer), None)
        self.layers = {key: own for key, own in self.layers.items() if own is not layer and key[0] != id(layer)}


def translate_from(layer: Image, start: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """The `translate` of a part of the layer's data that begins at the voxel `start`."""
    inner = np.array(layer.data_to_world(tuple(map(float, start)))) - np.array(layer.data_to_world((0,) * layer.ndim))
    outer = np.asarray(layer.affine.affine_matrix)[:-1, :-1]
    return np.asarray(layer.translate, dtype=float) + np.linalg.solve(outer, inner)
