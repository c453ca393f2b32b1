"""What the engine found in every volume of a layer, kept for as long as the layer and its mask stay the same."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from napari_nlm.layer_mask import LayerMask
from napari_nlm.layer_source import LayerSource, VolumeIndex
from napari_nlm.parameters import Parameters, is_poisson
from napari_nlm.volume_view import LayerArray, read_all
from nlmeans.core import arrays
from nlmeans.engine.choices import Choices
from nlmeans.engine.plan import Plan
from nlmeans.engine.settings import device_or_gpu
from nlmeans.engine.survey import Facts


class VolumeSurvey(NamedTuple):
    """What is known of one volume."""

    facts: Facts
    sigma_map: LayerArray | None = None
    stated: bool = False
    """Whether the user gave sigma and h, so that nothing has been read yet."""


def choices_for(source: LayerSource, parameters: Parameters) -> Choices:
    """What the engine chooses for the volumes of a source: on the GPU if there is one, and with its own h.

    Raises:
        ValueError, TypeError: the parameters do not fit the axes of the source.
    """
    layout = source.layout
    settings = parameters.settings(source.spacing, layout.channels)
    return Choices.of(dataclasses.replace(settings, device=device_or_gpu(settings.device)), layout)


class Surveys:
    """The surveys of a source. A volume is read when somebody first asks for it."""

    def __init__(self, source: LayerSource, mask: LayerMask | None) -> None:
        self.source, self.mask = source, mask
        self.known: dict[tuple[object, ...], VolumeSurvey] = {}

    @staticmethod
    def key(volume: VolumeIndex, parameters: Parameters) -> tuple[object, ...]:
        """Everything that a survey depends on."""
        p = parameters
        return volume, p.noise, p.sigma, p.maps_sigma, p.despeckle, p.gain, p.offset, p.dtype

    def peek(self, volume: VolumeIndex, parameters: Parameters) -> VolumeSurvey | None:
        """The survey of a volume, if it is known without reading anything."""
        if parameters.sigma is not None and parameters.h is not None and not is_poisson(parameters):
            channels = self.source.layout.channel_count
            noise = dataclasses.replace(parameters.settings().stated, sigma=parameters.sigma)
            return VolumeSurvey(Facts((parameters.sigma,) * channels, (0.0,) * channels, 0.0, noise), stated=True)
        return self.known.get(self.key(volume, parameters))

    def of(self, volume: VolumeIndex, parameters: Parameters) -> VolumeSurvey:
        """The survey of a volume. If it is not known yet, the engine looks at the whole volume in memory."""
        found = self.peek(volume, parameters)
        if found is None:
            found = self.known[self.key(volume, parameters)] = self.measure(volume, parameters)
        return found

    def measure(self, volume: VolumeIndex, parameters: Parameters) -> VolumeSurvey:
        data = arrays.readable(self.source.read(volume), "volume")
        mask = None if self.mask is None else read_all(self.mask.view(volume))
        plan = Plan.of(data, 0, self.source.layout, choices_for(self.source, parameters), mask=mask)
        return VolumeSurvey(plan.facts, None if plan.sigma_map is None else np.asarray(plan.sigma_map))
