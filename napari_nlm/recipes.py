"""What the widget would do, as text for Python, MONAI and the command line."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

from napari_nlm.compute import Plan, Volume
from napari_nlm.parameters import is_poisson
from nlmeans import Settings
from nlmeans.files import nifti
from nlmeans.cli import denoise as command
from nlmeans.engine.settings import device_or_gpu

KINDS = ("Python", "MONAI", "command line")

PLAIN = Settings()


def recipe(kind: str, plan: Plan, volume: Volume | None, mask_path: Path | None = None) -> str:
    """Text that does what a run of `plan` does, for one volume or, if it is None, for all.

    Raises ``ValueError`` where that way has no words for it, naming one that has.
    """
    texts = {"Python": python, "MONAI": monai, "command line": command_line}
    return texts[kind](plan, volume, mask_path)


def arguments(plan: Plan, volume: Volume | None) -> dict[str, Any]:
    """Settings that are not the engine's defaults. Sigma is given if it was, or if it is that of one volume."""
    parameters = plan.parameters
    settings = parameters.settings(plan.source.spacing, plan.source.axes.channels)
    if volume is not None or len(plan.source.volumes) == 1:
        level = plan.level(volume or plan.source.volumes[0])
        exact = plan.settings(level)
        sigma = settings.sigma if parameters.maps_sigma else exact.sigma
        settings = dataclasses.replace(settings, sigma=sigma, h=None if parameters.h is None else exact.h)
    elif parameters.h is not None and parameters.sigma is not None:
        settings = dataclasses.replace(settings, h=parameters.h * parameters.sigma)
    elif parameters.h is not None and is_poisson(parameters):
        settings = dataclasses.replace(settings, h=parameters.h)
    every = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    if every["spacing"] is not None and len(set(every["spacing"])) == 1:
        every["spacing"] = None  # the same along all axes changes nothing
    return {name: value for name, value in every.items() if value != getattr(PLAIN, name)}


def nifti_of(plan: Plan) -> Path | None:
    path = plan.source.path
    return path if path is not None and path.name.endswith(nifti.ENDINGS) else None


def python(plan: Plan, volume: Volume | None, mask_path: Path | None = None) -> str:
    """For the console of napari: it takes the data from the layer."""
    source, axes = plan.source, plan.source.axes
    given = arguments(plan, volume)
    if "device" not in given and device_or_gpu(PLAIN.device) != "cpu":
        given["device"] = device_or_gpu(PLAIN.device)
    lines = ["import numpy as np", "import nlmeans", ""]
    lines.append(
        f"volume = np.asarray(viewer.layers[{source.layer.name!r}].data{'[0]' if source.layer.multiscale else ''})"
    )
    if source.alpha:
        lines.append("volume = volume[..., :3]  # without opacity")
    if plan.mask is not None:
        name = plan.mask.name
        lines.append(f"mask = np.asarray(viewer.layers[{name!r}].data)")
    if volume is not None:
        index = dict(zip(axes.separate, map(str, volume), strict=True))
        lines.append(f"volume = volume[{', '.join(index.get(axis, ':') for axis in range(len(source.shape)))}]")
    own_mask = plan.mask is not None and tuple(plan.mask.data.shape) != source.spatial_shape
    if own_mask and volume is not None:
        index = dict(zip(axes.separate, map(str, volume), strict=True))
        kept = [axis for axis in range(len(source.shape)) if axis != axes.channels]
        lines.append(f"mask = mask[{', '.join(index.get(axis, ':') for axis in kept)}]")
    own_h = plan.parameters.h is not None and plan.parameters.sigma is None and not is_poisson(plan.parameters)
    if volume is not None or not axes.separate or (len(axes.separate) == 1 and not own_h and not own_mask):
        channels = source.layout.channels if volume is not None else axes.channels
        roles = {"channels": channels, "series": axes.separate[0] if axes.separate and volume is None else None}
        given |= {name: axis for name, axis in roles.items() if axis is not None}
        lines.append(f"denoised = {call('volume', given, plan)}")
        return "\n".join(lines) + "\n"
    return "\n".join([*lines, *one_by_one(plan, given, own_h)]) + "\n"


def one_by_one(plan: Plan, given: dict[str, Any], own_h: bool) -> list[str]:
    """A loop over the volumes, for what one call cannot say: an h that follows the sigma of each."""
    source, axes = plan.source, plan.source.axes
    place = ", ".join(f"at[{axes.separate.index(a)}]" if a in axes.separate else ":" for a in range(len(source.shape)))
    of_mask = ", ".join(part for axis, part in enumerate(place.split(", ")) if axis != axes.channels)
    lengths = tuple(source.shape[axis] for axis in axes.separate)
    channels = source.layout.channels
    if channels is not None:
        given["channels"] = channels
    lines = ["denoised = np.empty_like(volume)", f"for at in np.ndindex{lengths}:", f"    one = volume[{place}]"]
    if own_h:
        known: dict[str, Any] = {name: given[name] for name in ("noise", "channels") if name in given}
        largest = "np.mean(sigma)"
        if plan.parameters.maps_sigma:
            known["map"], largest = True, "np.max(sigma)"
        axis = "" if channels is None else f", channels={channels}"
        cleaned = f"nlmeans.despeckle(one{axis})" if plan.parameters.despeckle else "one"
        words = ", ".join([cleaned, *(f"{name}={value!r}" for name, value in known.items())])
        lines.append(f"    sigma = nlmeans.estimate_sigma({words})")
        lines.append(f"    h = {plan.parameters.h!r} * float({largest})")
        given = {name: value for name, value in given.items() if name not in ("sigma", "h")}
        given |= {"sigma": Word("sigma"), "h": Word("h")}
    if plan.mask is not None and tuple(plan.mask.data.shape) != source.spatial_shape:
        given = given | {"mask": Word(f"mask[{of_mask}]")}
    return [*lines, f"    denoised[{place}] = {call('one', given, plan)}"]


class Word(str):
    """A name in the text, not a string of it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def call(array: str, given: dict[str, Any], plan: Plan) -> str:
    if plan.mask is not None:
        given = {"mask": Word("mask")} | given
    return f"nlmeans.denoise({', '.join([array, *(f'{name}={value!r}' for name, value in given.items())])})"


def of_a_file(plan: Plan, volume: Volume | None, what: str) -> tuple[Path, dict[str, Any]]:
    """The file and the settings, for ways that begin with a file and take all of it."""
    path, axes = nifti_of(plan), plan.source.axes
    if path is None:
        raise ValueError(f"{what} begins with a NIfTI file, but this layer comes from none; copy it as Python")
    if (
        axes.channels is not None
        or len(axes.separate) > 1
        or len(axes.spatial) + len(axes.separate) != len(plan.source.shape)
    ):
        raise ValueError(f"{what} takes volumes and series of volumes only; copy it as Python")
    if volume is not None and plan.source.volumes != [volume]:
        raise ValueError(f"{what} denoises all volumes of a file; choose all volumes, or copy it as Python")
    given = arguments(plan, volume)
    if plan.parameters.h is not None and "h" not in given and not is_poisson(plan.parameters):
        raise ValueError(
            f"{what} has one h for all volumes; give sigma a value, leave h to the method, or copy it as Python"
        )
    return path, given


def monai(plan: Plan, volume: Volume | None, mask_path: Path | None = None) -> str:
    path, given = of_a_file(plan, volume, "MONAI")
    given.pop("channels", None)
    if "spacing" in given:
        given["spacing"] = "affine"
    if plan.mask is not None:
        if mask_path is None:
            raise ValueError("MONAI needs the mask as a file; save its layer first, or copy it as Python")
        given["mask_key"] = "mask"
    keys = ["image"] if plan.mask is None else ["image", "mask"]
    files = {"image": str(path)} | ({} if plan.mask is None else {"mask": str(mask_path)})
    words = ", ".join(['keys="image"', *(f"{key}={value!r}" for key, value in given.items())])
    return (
        "from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged\n"
        "from monai_transforms import NonLocalMeansd\n\n"
        "pipeline = Compose([\n"
        f"    LoadImaged(keys={keys!r}),\n"
        f"    EnsureChannelFirstd(keys={keys!r}),\n"
        f"    NonLocalMeansd({words}),\n"
        "])\n"
        f'denoised = pipeline({files!r})["image"]\n'
    )


def command_line(plan: Plan, volume: Volume | None, mask_path: Path | None = None) -> str:
    path, given = of_a_file(plan, volume, "The command line")
    if isinstance(given.get("sigma"), tuple):
        del given["sigma"]  # it estimates one for each volume, as was done here
    given.pop("spacing", None)  # it takes the one of the file
    known = {option for parameter in command.params for option in parameter.opts}
    words = ["nlmeans", "denoise", str(path), f"{path.name.removesuffix('.gz').removesuffix('.nii')}_denoised.nii.gz"]
    if given.pop("dtype", None) is not None:
        words.append("--float")
    if not plan.parameters.voxel_size:
        words.append("--voxel-radii")
    for name, value in given.items():
        option = f"--{name.replace('_', '-')}"
        if option not in known:
            raise ValueError(f"The command line has no option for {name}={value!r}; copy it as Python")
        words += [option] if value is True else [option, str(value)]
    if plan.mask is not None:
        if mask_path is None:
            raise ValueError("The command line needs the mask as a file; save its layer first, or copy it as Python")
        words += ["--mask", str(mask_path)]
    return shlex.join(words) + "\n"
