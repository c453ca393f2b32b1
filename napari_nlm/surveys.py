"""What the engine found in every volume of a layer, kept for as long as the layer and its mask stay the same."""

from __future__ import annotations

import dataclasses
import math
from functools import cached_property
from typing import NamedTuple

import numpy as np
from torch import Tensor

from napari_nlm.layer_mask import LayerMask
from napari_nlm.layer_source import LayerSource, VolumeIndex
from napari_nlm.parameters import Parameters, follows_intensity, is_joint
from napari_nlm.sampling import joined_boxes, sampled_boxes
from napari_nlm.volume_view import LayerArray
from nlmeans import METHODS
from nlmeans.core import arrays
from nlmeans.core.layout import Layout
from nlmeans.core.tiles import Piece, Tile
from nlmeans.engine.choices import FEWEST_VOLUMES, Choices
from nlmeans.engine.plan import Plan
from nlmeans.engine.series import MANY_VOLUMES, is_one_series
from nlmeans.engine.settings import device_or_gpu
from nlmeans.engine.survey import Facts


class VolumeSurvey(NamedTuple):
    """What is known of one volume, or of all volumes of a series that are denoised together."""

    facts: Facts
    sigma_map: LayerArray | None = None
    basis: Tensor | None = None
    """What the volumes of a series have in common."""
    stated: bool = False
    """Whether the user gave sigma and h, so that nothing has been read yet."""
    sampled: bool = False
    """Whether it was found in parts of the volume alone, so that nobody has looked at the others."""
    provisional: bool = False
    """Whether it was found in few voxels, and a better one is to follow."""


class PreviewSlab(NamedTuple):
    """A box of one volume, denoised."""

    values: LayerArray
    plan: Plan
    box: Piece
    """The box, as slices of depth, height and width."""
    seconds: float
    """Time that it took."""

    @property
    def seconds_for_all(self) -> float:
        """Time that the whole volume takes, going by the voxels that the box depends on."""
        shape = self.plan.layout.shape
        outer = Tile.around(self.box, shape, self.plan.halo).outer
        computed: int = math.prod(side.stop - side.start for side in outer)
        return self.seconds * math.prod(shape) / computed


def choices_for(source: LayerSource, parameters: Parameters) -> Choices:
    """What the engine chooses for the volumes of a source: on the GPU if there is one, and with its own h.

    Raises:
        ValueError, TypeError: the parameters do not fit the axes of the source.
    """
    layout = source.layout
    if is_joint(parameters) and layout.channel_count < FEWEST_VOLUMES:
        raise ValueError(f"method {parameters.method} {NEEDS_A_SERIES}, or another method")
    settings = parameters.settings(source.spacing, layout.channels)
    return Choices.of(dataclasses.replace(settings, device=device_or_gpu(settings.device)), layout)


NEEDS_A_SERIES = (
    f"takes {FEWEST_VOLUMES} volumes or more along one axis together, with one mask for all of them; choose other axes "
    "or another mask"
)
"""What a method for series needs of an image, and what to do."""


FEW_VOXELS, MANY_VOXELS = 2**18, 2**22
"""Voxels in which the noise of a large volume is first looked for, and those in which that of a volume that is not in
memory is found in the end."""


class Surveys:
    """The surveys of a source. A volume is looked at when somebody first asks for it.

    Of a volume that is not in memory, only parts are read, unless sigma is wanted at every voxel or volumes are
    denoised together.
    """

    def __init__(self, source: LayerSource, mask: LayerMask | None) -> None:
        self.source, self.mask = source, mask
        self.known: dict[tuple[object, ...], VolumeSurvey] = {}
        self.judged: dict[tuple[object, ...], bool] = {}
        self.slab: tuple[tuple[object, ...], PreviewSlab] | None = None
        """The slab that was previewed last, and what it depends on; see `Denoising.slab`."""

    @cached_property
    def joined(self) -> Surveys | None:
        """Surveys of all volumes as one series; None if they are no series, or if each has a mask of its own."""
        series = self.source.joined
        if series is None or (self.mask is not None and tuple(self.mask.data.shape) != self.source.spatial_shape):
            return None
        return Surveys(series, self.mask)

    @property
    def impossible_methods(self) -> dict[str, str]:
        """The methods that cannot denoise these volumes, and why."""
        together = 0 if self.joined is None else self.joined.source.layout.channel_count
        if together >= FEWEST_VOLUMES:
            return {}
        return {name: NEEDS_A_SERIES for name, method in METHODS.items() if method.joint}

    def peek_joint(self, parameters: Parameters) -> bool | None:
        """Whether all volumes are denoised together; None if `are_joint` would have to look at them.

        As in the engine, ``"auto"`` looks only at what is in memory.
        """
        if self.joined is None or parameters.method != "auto":
            return self.joined is not None and is_joint(parameters)
        if self.joined.source.layout.channel_count < MANY_VOLUMES or not isinstance(self.source.data, np.ndarray):
            return False
        settings = parameters.settings()
        return self.judged.get((settings.backend, settings.may_be_correlated))

    def are_joint(self, parameters: Parameters) -> bool:
        """Whether all volumes are denoised together. If it is not known yet, the engine looks at some of them."""
        found = self.peek_joint(parameters)
        if found is None:
            series, settings = self.source.axes.separate[0], parameters.settings()
            settings = dataclasses.replace(settings, series=series)
            layout = Layout.of(self.source.data, None, series)
            found = is_one_series(self.source.data, layout, settings)
            self.judged[settings.backend, settings.may_be_correlated] = found
        return found

    @staticmethod
    def key(volume: VolumeIndex, parameters: Parameters) -> tuple[object, ...]:
        """Everything that a survey depends on."""
        p = parameters
        applied = p.coils, p.curve, p.correlation, p.variation
        stated = p.noise, p.modality, p.sigma, p.maps_sigma, p.gain, p.offset, *applied
        return volume, is_joint(p), p.despeckle, p.dtype, *stated

    def peek(self, volume: VolumeIndex, parameters: Parameters) -> VolumeSurvey | None:
        """The survey of a volume, if it is known without reading anything."""
        must_look = follows_intensity(parameters) or is_joint(parameters)
        if parameters.sigma is not None and parameters.h is not None and not must_look:
            channels = self.source.layout.channel_count
            noise = dataclasses.replace(parameters.settings().stated, sigma=parameters.sigma)
            return VolumeSurvey(Facts((parameters.sigma,) * channels, (0.0,) * channels, 0.0, noise), stated=True)
        return self.known.get(self.key(volume, parameters))

    def of(self, volume: VolumeIndex, parameters: Parameters) -> VolumeSurvey:
        """The survey of a volume. If it is not known yet, the engine looks at the volume."""
        found = self.peek(volume, parameters)
        if found is None or found.provisional:
            found = self.known[self.key(volume, parameters)] = self.measure(volume, parameters)
        return found

    def glance(self, volume: VolumeIndex, parameters: Parameters) -> bool:
        """Find a provisional survey in a few voxels of a large volume. Returns whether there is one now."""
        large = math.prod(self.source.layout.shape) > MANY_VOXELS
        if not large or self.needs_everything(parameters):
            return False
        if self.peek(volume, parameters) is not None:
            return True
        found = self.in_parts(volume, parameters, FEW_VOXELS)
        self.known[self.key(volume, parameters)] = found._replace(provisional=True)
        return True

    @staticmethod
    def needs_everything(parameters: Parameters) -> bool:
        """Whether parts of a volume are not enough."""
        return parameters.maps_sigma or is_joint(parameters)

    def measure(self, volume: VolumeIndex, parameters: Parameters) -> VolumeSurvey:
        in_memory = isinstance(self.source.data, np.ndarray)
        if not in_memory and not self.needs_everything(parameters):
            return self.in_parts(volume, parameters, MANY_VOXELS)
        mask = None if self.mask is None else self.mask.view(volume)
        data = arrays.readable(self.source.view(volume), "volume")
        plan = Plan.of(data, 0, self.source.layout, choices_for(self.source, parameters), mask=mask)
        return VolumeSurvey(plan.facts, None if plan.sigma_map is None else np.asarray(plan.sigma_map), plan.basis)

    def in_parts(self, volume: VolumeIndex, parameters: Parameters, voxels: int) -> VolumeSurvey:
        """Survey evenly spaced parts of a volume."""
        view, layout = self.source.view(volume), self.source.layout
        boxes = sampled_boxes(view, layout, voxels)
        data = joined_boxes(view, layout, boxes)
        mask = None
        if self.mask is not None:
            mask = joined_boxes(self.mask.view(volume), layout.spatial_alone, boxes)
            mask = mask if mask.any() else None  # no part of it is here
        choices = choices_for(self.source, parameters)
        plan = Plan.of(arrays.readable(data, "volume"), 0, Layout.of(data, layout.channels, None), choices, mask=mask)
        sampled = data.shape != tuple(view.shape)
        noise = plan.facts.noise.without_variation() if sampled else plan.facts.noise
        return VolumeSurvey(dataclasses.replace(plan.facts, noise=noise), sampled=sampled)
