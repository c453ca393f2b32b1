"""Denoise the volumes of a layer: makes a plan of the engine for each volume, and asks the plan for boxes."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from napari_nlm.layer_mask import LayerMask
from napari_nlm.layer_source import LayerBox, LayerSource, VolumeIndex
from napari_nlm.parameters import Parameters, is_joint
from napari_nlm.surveys import PreviewSlab, Surveys, VolumeSurvey, choices_for
from napari_nlm.volume_view import LayerArray
from nlmeans import Settings
from nlmeans.core import arrays
from nlmeans.core.memory import allowed
from nlmeans.core.progress import Report, part
from nlmeans.core.tiles import Piece
from nlmeans.engine.choices import Choices
from nlmeans.engine.plan import Plan
from nlmeans.engine.survey import settled

FAR = 16
"""Voxels. A method whose halo is wider needs seconds for one slice, because it computes a thick slab around it."""


STREAMED_GB = 1.0
"""Memory that a run to a file works in, in GB. What is larger than memory leaves little of it for others."""


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

    @property
    def own_h(self) -> float | None:
        """The user's h as a multiple of sigma; None for the method's own, and where the method has no use for it."""
        return None if "h" in self.choices.method.without else self.parameters.h

    def survey(self, volume: VolumeIndex) -> VolumeSurvey:
        return self.surveys.of(volume, self.parameters)

    def plan(self, volume: VolumeIndex, survey: VolumeSurvey) -> Plan:
        """The engine's plan for a volume. Making it reads nothing.

        The engine takes h in image units, while the user gives it as a multiple of sigma.
        """
        choices = self.choices
        if self.own_h is not None:
            settings = dataclasses.replace(choices.settings, h=self.own_h * survey.facts.unit)
            choices = dataclasses.replace(choices, settings=settings)
        mask = None if self.mask is None else self.mask.view(volume)
        data, layout = self.source.view(volume), self.source.layout
        return Plan(data, 0, layout, choices, survey.facts, mask, survey.sigma_map, survey.basis)

    def record(self, volume: VolumeIndex, survey: VolumeSurvey) -> Settings:
        """Settings that repeat the denoising of a volume: method, radii, device, sigma and h as numbers."""
        plan, facts = self.plan(volume, survey), survey.facts
        settings = dataclasses.replace(plan.choices.record, h=plan.h * facts.unit)
        if survey.sigma_map is not None:
            settings = dataclasses.replace(settings, sigma="map")
        return settled(settings, facts)

    def denoised(
        self, volume: VolumeIndex, spatial: LayerBox | None, progress: Report, plans: list[Plan] | None = None
    ) -> LayerArray:
        """Denoise a box of one volume, with all its channels. Equals that box of the whole result.

        Args:
            volume: which volume.
            spatial: one slice per spatial axis; None for the whole volume.
            progress: called with the fraction done.
            plans: a list to which the plan is added, which knows what was removed.
        """
        layout = self.source.layout
        box = layout.everywhere if spatial is None else layout.piece(spatial)
        plan = self.plan_for(volume, box)
        if plans is not None:
            plans.append(plan)
        return self.checked(volume, np.asarray(plan.run(box, progress)))

    def checked(self, volume: VolumeIndex, result: LayerArray) -> LayerArray:
        """A result; an error if it is infinite, because a part of the volume that nobody has looked at is.

        NaN is no error: it counts as outside.
        """
        if self.survey(volume).sampled:
            arrays.known_range(result, "volume")
        return result

    def plan_for(self, volume: VolumeIndex, box: Piece) -> Plan:
        """The engine's plan for a box of a volume, whose noise and values it has looked at."""
        survey = self.survey(volume)
        plan = self.plan(volume, survey)
        arrays.readable(plan.volume, "volume")
        if survey.stated:  # the engine has not checked the voxels of this box yet
            plan = Plan.of(plan.volume, 0, plan.layout, plan.choices, mask=plan.mask, region=box)
        return plan

    def same_as(self, other: Denoising) -> bool:
        """Whether both give the same numbers. Where and in how much memory they are computed does not matter."""
        ours, theirs = (dataclasses.replace(one.parameters, device=None, memory=None) for one in (self, other))
        masks = [None if one.mask is None else id(one.mask.data) for one in (self, other)]
        same_data = self.source.data is other.source.data and self.source.axes == other.source.axes
        return same_data and ours == theirs and masks[0] == masks[1]

    def before_and_after(
        self, box: LayerBox, progress: Report, slabs: list[PreviewSlab] | None = None
    ) -> tuple[LayerArray, LayerArray]:
        """A box of the layer, of one or several volumes, as it is and denoised. Those of each are added to `slabs`."""
        axes, source = self.source.axes, self.source
        spatial = tuple(box[axis] for axis in axes.spatial)
        before = np.asarray(source.data[box])
        after = np.empty(before.shape, self.parameters.dtype or before.dtype)
        after[...] = before  # keeps the opacity
        numbers = [range(box[axis].start, box[axis].stop) for axis in axes.separate]
        volumes = list(itertools.product(*numbers))
        for volume, report in zip(volumes, parts(progress, len(volumes)), strict=True):
            slab = self.slab(volume, spatial, report)
            if slabs is not None:
                slabs.append(slab)
            place = tuple(number - box[axis].start for axis, number in zip(axes.separate, volume, strict=True))
            self.put(after, slab.values, place, box)
        return before, after

    def slab(self, volume: VolumeIndex, spatial: LayerBox, progress: Report) -> PreviewSlab:
        """A box of one volume, denoised, as `denoised` gives it.

        The last one is kept: if it holds all volumes of a series, the next picture is often of another one of them.
        """
        key, kept = (self.parameters, volume, spatial), self.surveys.slab
        if kept is None or kept[0] != key:
            plans, began = list[Plan](), time.perf_counter()
            values = self.denoised(volume, spatial, progress, plans)
            kept = key, PreviewSlab(values, plans[0], self.source.layout.piece(spatial), time.perf_counter() - began)
        if self.source.axes.channels is not None:
            self.surveys.slab = kept
        return kept[1]

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
    def judged(self) -> bool:
        """Whether it is known if the volumes are denoised one by one or together."""
        return self.surveys.peek_joint(self.parameters) is not None

    def resolved(self) -> Denoising:
        """The same, with all volumes as one series if the method takes them together. May have to look at them."""
        if self.surveys.joined is None or not self.surveys.are_joint(self.parameters):
            return self
        method = self.parameters.method if is_joint(self.parameters) else "series"
        parameters = dataclasses.replace(self.parameters, method=method)
        return Denoising(self.surveys.joined.source, parameters, self.mask, self.surveys.joined)

    @property
    def joint(self) -> bool:
        """Whether all volumes are denoised together."""
        return self.choices.method.joint

    @property
    def draft(self) -> Denoising:
        """The same by the method classic, which takes a fraction of the time."""
        return dataclasses.replace(self, parameters=dataclasses.replace(self.parameters, method="classic"))

    @property
    def is_slow(self) -> bool:
        """Whether one slice takes seconds."""
        return self.joint or max(self.choices.halo_for(False)) > FAR

    @property
    def streamed(self) -> Denoising:
        """The same for a run to a file: in little memory, unless that is stated or small tiles would overlap much."""
        settings = self.choices.settings
        if settings.memory is not None or self.is_slow or torch.device(settings.device or "cpu").type != "cpu":
            return self
        parameters = dataclasses.replace(self.parameters, method=self.choices.name, memory=STREAMED_GB)
        return dataclasses.replace(self, parameters=parameters)

    @property
    def needed_memory(self) -> float:
        """Bytes that the engine works in for one volume, at most what it may use."""
        layout, settings = self.source.layout, self.choices.settings
        everything = self.choices.bytes_per_voxel(layout.channel_count) * math.prod(layout.shape)
        return min(everything, allowed(torch.device(settings.device or "cpu"), settings.memory))


def parts(progress: Report, count: int) -> list[Report]:
    """Progress callbacks for equal parts of the work."""
    return [part(progress, index / count, (index + 1) / count) for index in range(count)]
