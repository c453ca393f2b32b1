"""Maps that a run adds as layers: which there are, what they hold, where they lie and how they look."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from napari_nlm.denoising import Denoising
from napari_nlm.geometry import appearance, translate_from
from napari_nlm.layer_source import LayerBox, VolumeIndex
from napari_nlm.pictures import REMOVED, SHOWN_DEVIATIONS
from napari_nlm.volume_view import LayerArray
from nlmeans.core.arrays import standard_deviation
from nlmeans.core.progress import Report
from nlmeans.engine.maps import noise_map
from nlmeans.engine.plan import Plan
from nlmeans.engine.survey import Judgement

FloatMap = npt.NDArray[np.float32]

NOISE_MAP, COMPONENTS = "noise map", "components kept"

MAP_NAMES = (NOISE_MAP, REMOVED, COMPONENTS)
"""All maps, by the end of the names of their layers."""

MAP_COLOURS = {NOISE_MAP: "inferno", REMOVED: "gray", COMPONENTS: "viridis"}
"""Colormap of each map."""

MAP_BYTES = 4
"""Bytes per voxel of a map, which is float32."""

MAP_MARK = "map"
"""Key in the record of how a layer was made: the name of the map that the layer is."""

MAPPED_IMAGE = "nlmeans image"
"""Key in the metadata of a map: the denoised image, of the same shape. It tells how the axes lie in the file."""


def why_no_map(name: str, denoising: Denoising) -> str:
    """Why a run has no such map; empty if it has one."""
    if denoising.source.layer.rgb:
        return "there are no maps of colour images"
    if name == COMPONENTS and not denoising.joint:
        return "only the method series keeps some of the components of a series"
    return ""


def axis_of_series(denoising: Denoising, name: str) -> int | None:
    """The axis along which a map is the same for all volumes, because they were denoised together; None if none."""
    return denoising.source.axes.channels if denoising.joint and name != REMOVED else None


class RunMaps:
    """The maps of a run, filled volume by volume.

    Args:
        denoising: the run.
        wanted: names of maps; those that the run does not have are left out.
        shape: the shape of the result, along all axes of the layer.
    """

    def __init__(self, denoising: Denoising, wanted: Collection[str], shape: tuple[int, ...]) -> None:
        self.denoising = denoising
        self.left_out = {name: why for name in wanted if (why := why_no_map(name, denoising))}
        """Why maps that were wanted are not there, by name."""
        self.values: dict[str, FloatMap] = {}
        """The maps by name, with all axes of the layer. The axis of a series has length 1 where all volumes share."""
        self.judgements: dict[VolumeIndex, Judgement | None] = {}
        """What was removed from each volume."""
        self.doubts: list[list[str]] = []
        """What speaks against the result of each volume."""
        for name in MAP_NAMES:
            if name in wanted and name not in self.left_out:
                shared = axis_of_series(denoising, name)
                own = tuple(1 if axis == shared else n for axis, n in enumerate(shape))
                self.values[name] = np.zeros(own, np.float32)

    def denoised(self, volume: VolumeIndex, here: tuple[int | slice, ...], progress: Report) -> LayerArray:
        """Denoise a whole volume, and fill its noise map and its components.

        Args:
            volume: which volume.
            here: where it lies in the maps.
            progress: called with the fraction done.
        """
        layout = self.denoising.source.layout
        plan = self.denoising.plan_for(volume, layout.everywhere)
        rank = torch.zeros(layout.shape) if COMPONENTS in self.values else None
        data = self.denoising.checked(volume, np.asarray(plan.run(layout.everywhere, progress, rank=rank)))
        self.judge(volume, plan)
        if NOISE_MAP in self.values:
            self.put(NOISE_MAP, here, np.asarray(noise_map([plan], data)))
        if rank is not None:
            self.put(COMPONENTS, here, rank.reshape(layout.spatial_shape).numpy())
        return data

    def judge(self, volume: VolumeIndex, plan: Plan) -> None:
        """Keep what the plan of a finished volume says about it."""
        self.judgements[volume] = plan.judgement()
        self.doubts.append(plan.verdict())

    def put(self, name: str, here: tuple[int | slice, ...], values: LayerArray) -> None:
        """Store a map of one volume."""
        layout = self.denoising.source.layout
        if axis_of_series(self.denoising, name) is not None and layout.channels is not None:
            values = np.expand_dims(values, layout.channels)
        self.values[name][here] = values

    def remove(self, here: tuple[int | slice, ...], index: tuple[int | slice, ...], result: LayerArray) -> None:
        """Fill the removed noise of one volume, if it is wanted.

        Args:
            here: where the volume lies in the maps and in the result.
            index: where it lies in the layer.
            result: the denoised layer, as far as it is computed.
        """
        if REMOVED in self.values:
            before = np.asarray(self.denoising.source.data[index])
            self.values[REMOVED][here] = before.astype(np.float32) - result[here].astype(np.float32)


def look_of_map(name: str, values: FloatMap) -> dict[str, Any]:
    """Colormap and limits: from zero to the largest value, or a few deviations around zero for the removed noise.

    A map with the same value everywhere has the middle of the colours. NaN, which is outside, does not count.
    """
    values = values[np.isfinite(values)]
    if name == REMOVED:
        reach = SHOWN_DEVIATIONS * standard_deviation(values) or 1.0
        limits = (-reach, reach)
    else:
        largest = float(values.max(initial=0.0))
        limits = (0.0, (largest if values.min(initial=largest) < largest else 2 * largest) or 1.0)
    return {"contrast_limits": limits, "colormap": MAP_COLOURS[name], "gamma": 1.0}


def placed_map(
    denoising: Denoising, name: str, values: LayerArray, start: tuple[int, ...]
) -> tuple[LayerArray, dict[str, Any]]:
    """A map as its layer holds it, and the place and look of its source, restricted to the axes of the map.

    A map that all volumes share lacks their axis if that is the first one. Otherwise napari would take another axis for
    it, so the map keeps the axis and has one voxel along it that is as long as the whole series.

    Args:
        denoising: the run.
        name: which map.
        values: with all axes of the layer.
        start: the voxel of the layer where they begin.
    """
    layer, shared = denoising.source.layer, axis_of_series(denoising, name)
    looks = appearance(layer)
    if shared == 0:
        return values[0], without_first_axis(looks)
    first: list[float] = list(start)
    if shared is not None:
        length = denoising.source.shape[shared]
        first[shared] = (length - 1) / 2
        scale = list(looks["scale"])
        scale[shared] *= length
        looks["scale"] = scale
    if any(first):
        looks["translate"] = translate_from(layer, tuple(first))
    return values, looks


def without_first_axis(looks: dict[str, Any]) -> dict[str, Any]:
    """The arguments for a layer without the first axis."""
    count, shear = len(looks["scale"]), np.asarray(looks["shear"])
    rest = {name: looks[name][1:] for name in ("scale", "translate", "units", "axis_labels")}
    rest |= {name: np.asarray(looks[name])[1:, 1:] for name in ("rotate", "affine")}
    rest["shear"] = shear[count - 1 :] if shear.ndim == 1 else shear[1:, 1:]
    return looks | rest


def image_under_map(denoising: Denoising, name: str, data: LayerArray) -> LayerArray:
    """The part of a denoised image that has the shape of a map: of a series, its first volume."""
    shared = axis_of_series(denoising, name)
    if shared is None:
        return data
    box: LayerBox = tuple(slice(0, 1 if axis == shared else None) for axis in range(data.ndim))
    return data[box][0] if shared == 0 else data[box]
