"""Result layers: what a run made, where it lies, and how it was made."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from napari.components import ViewerModel
from napari.layers import Image

import nlmeans
from napari_nlm.canvas import hold_canvas
from napari_nlm.collector import new_objects_alone, no_collection
from napari_nlm.denoising import Denoising, parts
from napari_nlm.geometry import appearance, translate_from
from napari_nlm.layer_source import LayerBox, VolumeIndex, unwrapped
from napari_nlm.maps import (
    MAP_MARK,
    MAPPED_IMAGE,
    FloatMap,
    RunMaps,
    image_under_map,
    look_of_map,
    placed_map,
)
from napari_nlm.marks import PROVENANCE_KEY
from napari_nlm.saving import TIFF_ENDINGS, ZARR_ENDING
from napari_nlm.streaming import denoise_to_zarr
from napari_nlm.volume_view import LayerArray
from nlmeans.core.progress import Report
from nlmeans.engine.survey import Judgement
from nlmeans.files.formats.registry import ending_of


def is_map(layer: Any) -> bool:
    """Whether a layer is a map that a run has added."""
    return MAP_MARK in (layer.metadata.get(PROVENANCE_KEY) or {})


def is_result(layer: Any) -> bool:
    """Whether a run has made a layer."""
    return "settings" in (layer.metadata.get(PROVENANCE_KEY) or {})


@dataclass(frozen=True, eq=False)
class LayerResult:
    """What a run made of one volume of a layer, or of all volumes."""

    denoising: Denoising
    volume: VolumeIndex | None
    """None for all volumes."""
    data: LayerArray
    provenance: dict[str, Any]
    maps: dict[str, FloatMap]
    """Those that were asked for, by name; see `RunMaps`."""
    judgements: dict[VolumeIndex, Judgement | None]
    """What was removed from each volume."""
    coarser: tuple[Any, ...] = ()
    """The coarser levels of the pyramid that a file holds."""

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
    denoising: Denoising,
    volume: VolumeIndex | None,
    maps: Collection[str],
    progress: Report,
    store: Path | None = None,
) -> LayerResult:
    """Denoise one volume, or all volumes if `volume` is None or if they are denoised together.

    Args:
        denoising: how.
        volume: which one.
        maps: names of the maps to make, if there are such.
        progress: called with the fraction done.
        store: where to write the result as an OME-Zarr image, block by block, without maps; None keeps it in memory.
    """
    began = time.perf_counter()
    denoising = denoising.resolved()
    source, axes = denoising.source, denoising.source.axes
    volume = volume if axes.separate else None
    volumes = source.volumes if volume is None else [volume]
    shape = list(source.shape)
    if volume is not None:
        for axis in axes.separate:
            shape[axis] = 1
    if store is not None:
        places = [(number, number if volume is None else (0,) * len(number)) for number in volumes]
        made = RunMaps(denoising, (), tuple(shape))
        stored, *coarser = denoise_to_zarr(denoising.streamed, store, tuple(shape), places, progress, made.judge)
        left_out = dict.fromkeys(maps, "the result was written to a file, block by block")
        record = provenance(denoising, volumes, volume, began, made)
        record |= {"left_out": left_out, "result": str(store)}
        return LayerResult(denoising, volume, stored, record, {}, made.judgements, tuple(coarser))
    data = np.empty(shape, denoising.parameters.dtype or np.dtype(source.data.dtype))
    made = RunMaps(denoising, maps, tuple(shape))
    for number, report in zip(volumes, parts(progress, len(volumes)), strict=True):
        place = number if volume is None else (0,) * len(number)
        index: list[int | slice] = list(source.everywhere())
        here: list[int | slice] = [slice(None)] * data.ndim
        for axis, at, to in zip(axes.separate, number, place, strict=True):
            index[axis], here[axis] = at, to
        piece = made.denoised(number, tuple(here), report)
        if source.alpha:
            data[tuple(here)] = np.asarray(source.data[tuple(index)])
        denoising.put(data, piece, place, source.everywhere())
        made.remove(tuple(here), tuple(index), data)
    return LayerResult(
        denoising, volume, data, provenance(denoising, volumes, volume, began, made), made.values, made.judgements
    )


def provenance(
    denoising: Denoising, volumes: list[VolumeIndex], volume: VolumeIndex | None, began: float, made: RunMaps
) -> dict[str, Any]:
    """How a result was made, for the metadata of its layer. Of several volumes, the settings are those of the last."""
    source, axes = denoising.source, denoising.source.axes
    surveys = [denoising.survey(number) for number in volumes]
    levels = [survey.facts.sigma for survey in surveys]
    several = axes.channels is not None and not denoising.joint
    return {
        "settings": denoising.record(volumes[-1], surveys[-1]).to_dict(),
        "sigma": [level if several else level[0] for level in levels],
        "sigma_estimated": denoising.parameters.sigma is None and denoising.parameters.curve is None,
        "axes": {"spatial": axes.spatial, "channels": axes.channels, "separate": axes.separate},
        "volume": volume,
        "source": source.layer.name,
        "path": None if source.path is None else str(source.path),
        "maps": list(made.values),
        "left_out": made.left_out,
        "doubts": made.doubts,
        "seconds": round(time.perf_counter() - began, 2),
        "nlmeans": nlmeans.__version__,
        "torch": torch.__version__,
    }


def proposed_file(layer: Image) -> Path:
    """Where the dialog proposes to save a result: next to the file of its source, else in the home folder."""
    facts = layer.metadata.get(PROVENANCE_KEY, {})
    if not facts.get("path"):
        return Path.home() / f"{layer.name.replace(' ', '_')}.nii.gz"
    source, kind = Path(facts["path"]), facts.get(MAP_MARK, "denoised")
    ending = ending_of(source, (*TIFF_ENDINGS, ZARR_ENDING)) or ".nii.gz"
    return source.parent / f"{source.name.split('.')[0]}_{kind.replace(' ', '_')}{ending}"


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
        looks = appearance(source)
        if any(result.start):
            looks["translate"] = translate_from(source, result.start)
        data = [result.data, *result.coarser] if result.coarser else result.data
        layer = self.put(result, "denoised", data, looks, {PROVENANCE_KEY: result.provenance})
        layer.visible = True
        selection = {unwrapped(chosen) for chosen in self.viewer.layers.selection}
        for name, values in result.maps.items():
            self.put_map(result, name, values)
        self.viewer.layers.selection = selection
        return layer

    def put_map(self, result: LayerResult, name: str, values: FloatMap) -> None:
        """Add a map as a layer that is hidden at first, or update its layer."""
        data, looks = placed_map(result.denoising, name, values, result.start)
        look = look_of_map(name, values)
        metadata = {
            PROVENANCE_KEY: {**result.provenance, MAP_MARK: name},
            MAPPED_IMAGE: image_under_map(result.denoising, name, result.data),
        }
        layer = self.put(result, name, data, {**looks, **look, "visible": False}, metadata)
        layer.contrast_limits = look["contrast_limits"]

    def put(
        self,
        result: LayerResult,
        kind: str,
        data: LayerArray | list[Any],
        looks: dict[str, Any],
        metadata: dict[str, Any],
    ) -> Image:
        """Add a layer, or give its layer other data. A list holds the levels of a pyramid."""
        source = result.denoising.source.layer
        key = (id(source), result.volume, kind)
        metadata = {**source.metadata, **metadata}
        old = self.layers.get(key)
        if old is not None and old in self.viewer.layers:
            if isinstance(data, np.ndarray) and not old.multiscale and old.data.shape == data.shape:
                old.data, old.metadata = data, metadata
                return old
            hold_canvas(self.viewer)
            with new_objects_alone():  # napari collects garbage now
                self.viewer.layers.remove(old)
        volume = "" if result.volume is None else f" {list(result.volume)}"
        layer = Image(data, name=f"{source.name} {kind}{volume}", metadata=metadata, **looks)
        with no_collection():
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

    def forget(self, layer: Any) -> None:
        """Drop what belongs to a layer that was removed from the viewer."""
        self.results.pop(id(layer), None)
        self.layers = {key: own for key, own in self.layers.items() if own is not layer and key[0] != id(layer)}
