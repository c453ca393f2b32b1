"""The run as it would be now: the chosen image, the user's parameters, and what follows from them."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image
from psygnal import Signal

from napari_nlm.chosen import ChosenImage
from napari_nlm.denoising import Denoising
from napari_nlm.devices import free_on
from napari_nlm.known import Known, MemoryNeed
from napari_nlm.layer_source import LayerSource, VolumeIndex, unwrapped
from napari_nlm.maps import MAP_BYTES, MAP_NAMES, axis_of_series, why_no_map
from napari_nlm.parameters import CONTROLS, NOT_APPLIED, Parameters, follows_intensity
from napari_nlm.streaming import streams
from napari_nlm.surveys import Surveys, VolumeSurvey


class NextRun:
    """The parameters for the chosen image, and what is known before a run. Nothing here reads the data of a layer."""

    changed = Signal()
    """A parameter has another value."""

    def __init__(self, viewer: ViewerModel, chosen: ChosenImage, parameters: Parameters) -> None:
        self.viewer, self.chosen, self.parameters = viewer, chosen, parameters
        self.maps: frozenset[str] = frozenset()
        """Names of the maps that a run also adds as layers, if it has them."""

    def set(self, **changes: Any) -> None:
        """Change parameters."""
        before = self.parameters
        if changes == {"noise": "poisson"} and before.noise == "auto":
            changes |= self.found_counts()
        if {"noise", "sigma"} & changes.keys():  # whoever changes one of these states other noise than was applied
            changes = NOT_APPLIED | changes
        self.parameters = replace(before, **changes)
        meanings = {one.noise if follows_intensity(one) else "" for one in (before, self.parameters)}
        if len(meanings) > 1 and "sigma" not in changes:
            self.parameters = replace(
                self.parameters, sigma=None
            )  # sigma is the read noise for poisson, nothing for a curve, and the noise itself otherwise
        if before != self.parameters:
            self.changed.emit()

    def found_counts(self) -> dict[str, Any]:
        """The detector of the volume that is shown, if it was found to count photons or decays."""
        found = None
        with contextlib.suppress(ValueError, TypeError):  # the preview shows the error
            found = self.survey
        if found is None or found.facts.noise.kind != "poisson":
            return {}
        noise = found.facts.noise
        return {"gain": noise.gain, "offset": noise.offset, "sigma": noise.sigma}

    def set_maps(self, names: Collection[str]) -> None:
        self.maps = frozenset(names)

    def forget_image(self) -> None:
        """Reset the parameters that describe the noise of one image."""
        default = Parameters()
        own = {name: getattr(default, name) for name, control in CONTROLS.items() if not control.kept}
        self.parameters = replace(self.parameters, **own)

    def denoising(self) -> Denoising | None:
        """The chosen image with the current parameters; None if there is no image.

        As soon as it is known that its volumes are denoised together, it has them as one series.
        """
        chosen = self.chosen
        if chosen.source is None or chosen.surveys is None:
            return None
        denoising = Denoising(chosen.source, self.parameters, chosen.mask, chosen.surveys)
        return denoising.resolved() if denoising.judged else denoising

    def denoising_of(self, layer: Image) -> Denoising:
        """Another layer with the current parameters, its own axes and sigma, and no mask."""
        source = LayerSource.of(unwrapped(layer))
        return Denoising(source, self.parameters.without_sigma, None, Surveys(source, None))

    @property
    def volume(self) -> VolumeIndex:
        """The volume that the viewer shows, of those that are denoised one by one."""
        denoising = self.denoising()
        return () if denoising is None else denoising.source.volume_at(self.viewer.dims.point)

    @property
    def survey(self) -> VolumeSurvey | None:
        """What was found in the volume that is shown; None until it has been surveyed."""
        denoising = self.denoising()
        return None if denoising is None else denoising.surveys.peek(self.volume, denoising.parameters)

    def known(self) -> Known | None:
        """What is known of a run of the volume that is shown; None if there is no image.

        Raises:
            ValueError, TypeError: the parameters do not fit the image.
        """
        denoising, survey = self.denoising(), self.survey
        if denoising is None:
            return None
        source, choices = denoising.source, denoising.choices
        facts, h, varies, provisional = None, None, False, False
        if survey is not None:
            facts, h = survey.facts, denoising.plan(self.volume, survey).h
            varies, provisional = survey.sigma_map is not None, survey.provisional
        unit = str(source.layer.units[source.axes.spatial[0]])
        spacing, judged = source.spacing, denoising.judged
        return Known(self.parameters, choices, facts, h, spacing, unit, varies, provisional, judged)

    def streams(self, all_volumes: bool) -> bool:
        """Whether the result is so large that it should go to a file. Raises like `known`."""
        denoising = self.denoising()
        if denoising is None:
            return False
        source = denoising.source
        voxels = np.prod(source.shape, dtype=float) / (1 if all_volumes else max(len(source.volumes), 1))
        return streams(source, voxels, denoising.parameters.dtype or source.data.dtype)

    def no_maps(self) -> dict[str, str]:
        """Why the next run does not have some of the maps, by name. Raises like `known`."""
        denoising = self.denoising()
        if denoising is None:
            return {}
        return {name: why for name in MAP_NAMES if (why := why_no_map(name, denoising))}

    def memory(self, all_volumes: bool) -> MemoryNeed | None:
        """What a run needs; None if there is no image. Raises like `known`."""
        denoising = self.denoising()
        if denoising is None:
            return None
        source, settings = denoising.source, denoising.choices.settings
        device = settings.device or "cpu"
        volumes = max(len(source.volumes), 1)
        voxels = np.prod(source.shape) / volumes * (volumes if all_volumes else 1)
        result = voxels * np.dtype(settings.dtype or source.data.dtype).itemsize
        for name in self.maps - self.no_maps().keys():
            shared = axis_of_series(denoising, name)
            result += MAP_BYTES * voxels / (1 if shared is None else source.shape[shared])
        return MemoryNeed(device, denoising.needed_memory, float(result), free_on(device), free_on("cpu"))
