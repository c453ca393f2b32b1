"""Denoise the volumes of a layer: makes a plan of the engine for each volume, and asks the plan for boxes."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from napari_nlm.layer_mask import LayerMask
from napari_nlm.layer_source import LayerBox, LayerSource, VolumeIndex
from napari_nlm.parameters import Parameters
from napari_nlm.surveys import Surveys, VolumeSurvey, choices_for
from napari_nlm.volume_view import LayerArray
from nlmeans import Settings
from nlmeans.core import arrays
from nlmeans.core.memory import allowed
from nlmeans.core.progress import Report, part
from nlmeans.engine.choices import Choices
from nlmeans.engine.plan import Plan
from nlmeans.engine.survey import settled

FAR = 16
"""Voxels. A method whose halo is wider needs seconds for one slice, because it computes a thick slab around it."""


@dataclass(frozen=True, eq=False)
class Denoising:
    """Everything that decides the numbers of a result: the layer, the parameters, the mask and the surveys."""

    source: LayerSource
    parameters: Parameters
    mask: LayerMask | None
    surveys: Surveys

    @cached_property
    def choices(self) -> Choices:
        """Method and radii. Picked once, so that all volumes of a run get the same method."""
        return choices_for(self.source, self.parameters)

    def survey(self, volume: VolumeIndex) -> VolumeSurvey:
        return self.surveys.of(volume, self.parameters)

    def plan(self, volume: VolumeIndex, survey: VolumeSurvey) -> Plan:
        """The engine's plan for a volume. Making it reads nothing.

        The engine takes h in image units, while the user gives it as a multiple of sigma.
        """
        choices = self.choices
        if self.parameters.h is not None:
            settings = dataclasses.replace(choices.settings, h=self.parameters.h * survey.facts.unit)
            choices = dataclasses.replace(choices, settings=settings)
        mask = None if self.mask is None else self.mask.view(volume)
        return Plan.of(
            self.source.view(volume),
            0,
            self.source.layout,
            choices,
            mask=mask,
            sigma_map=survey.sigma_map,
            facts=survey.facts,
        )

    def record(self, volume: VolumeIndex, survey: VolumeSurvey) -> Settings:
        """Settings that repeat the denoising of a volume: method, radii, device, sigma and h as numbers."""
        plan, facts = self.plan(volume, survey), survey.facts
        return settled(dataclasses.replace(plan.choices.record, h=plan.h * facts.unit), facts)

    def denoised(self, volume: VolumeIndex, spatial: LayerBox | None, progress: Report) -> LayerArray:
        """Denoise a box of one volume, with all its channels. Equals that box of the whole result.

        Args:
            volume: which volume.
            spatial: one slice per spatial axis; None for the whole volume.
            progress: called with the fraction done.
        """
        survey, layout = self.survey(volume), self.source.layout
        plan = self.plan(volume, survey)
        arrays.readable(plan.volume, "volume")
        box = layout.everywhere if spatial is None else layout.piece(spatial)
        if survey.stated:  # the engine has not checked the voxels of this box yet
            plan = Plan.of(plan.volume, 0, layout, plan.choices, mask=plan.mask, region=box)
        return np.asarray(plan.run(box, progress))

    def same_as(self, other: Denoising) -> bool:
        """Whether both give the same numbers. Where and in how much memory they are computed does not matter."""
        ours, theirs = (dataclasses.replace(one.parameters, device=None, memory=None) for one in (self, other))
        masks = [None if one.mask is None else id(one.mask.data) for one in (self, other)]
        same_data = self.source.data is other.source.data and self.source.axes == other.source.axes
        return same_data and ours == theirs and masks[0] == masks[1]

    def before_and_after(self, box: LayerBox, progress: Report) -> tuple[LayerArray, LayerArray]:
        """A box of the layer, of one or several volumes, as it is and denoised."""
        axes, source = self.source.axes, self.source
        spatial = tuple(box[axis] for axis in axes.spatial)
        before = np.asarray(source.data[box])
        after = np.empty(before.shape, self.parameters.dtype or before.dtype)
        after[...] = before  # keeps the opacity
        numbers = [range(box[axis].start, box[axis].stop) for axis in axes.separate]
        volumes = list(itertools.product(*numbers))
        for volume, report in zip(volumes, parts(progress, len(volumes)), strict=True):
            piece = self.denoised(volume, spatial, report)
            place = tuple(number - box[axis].start for axis, number in zip(axes.separate, volume, strict=True))
            self.put(after, piece, place, box)
        return before, after

    def put(self, after: LayerArray, piece: LayerArray, place: VolumeIndex, box: LayerBox) -> None:
        """Store the denoised channels of one volume in an array with all axes of the layer.

        Args:
            after: where to store.
            piece: the volume, with all its channels.
            place: where it lies along the separate axes of `after`.
            box: the box of the layer that `after` holds.
        """
        axes, rgb = self.source.axes, bool(self.source.layer.rgb)
        index: list[int | slice] = [slice(None)] * after.ndim
        for axis, number in zip(axes.separate, place, strict=True):
            index[axis] = number
        if self.source.alpha:
            index[-1] = slice(0, 3)
        if axes.channels is not None and not rgb:
            kept = [axis for axis in range(after.ndim) if axis not in axes.separate]
            wanted = [slice(None)] * len(kept)
            wanted[kept.index(axes.channels)] = box[axes.channels]
            piece = piece[tuple(wanted)]
        after[tuple(index)] = piece

    @property
    def draft(self) -> Denoising:
        """The same by the method classic, which takes a fraction of the time."""
        return dataclasses.replace(self, parameters=dataclasses.replace(self.parameters, method="classic"))

    @property
    def is_slow(self) -> bool:
        """Whether one slice takes seconds."""
        return max(self.choices.halo_for(False)) > FAR

    @property
    def needed_memory(self) -> float:
        """Bytes that the engine works in for one volume, at most what it may use."""
        layout, settings = self.source.layout, self.choices.settings
        everything = self.choices.bytes_per_voxel(layout.channel_count) * math.prod(layout.shape)
        return min(everything, allowed(torch.device(settings.device or "cpu"), settings.memory))


def parts(progress: Report, count: int) -> list[Report]:
    """Progress callbacks for equal parts of the work."""
    return [part(progress, index / count, (index + 1) / count) for index in range(count)]
