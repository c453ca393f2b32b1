"""Text that repeats a run of the widget in Python, MONAI or the command line."""

from __future__ import annotations

import dataclasses
import reprlib
import shlex
from collections.abc import Collection
from pathlib import Path
from typing import Any

from napari_nlm.denoising import Denoising
from napari_nlm.layer_source import VolumeIndex
from napari_nlm.maps import COMPONENTS, MAP_NAMES, NOISE_MAP, axis_of_series, why_no_map
from napari_nlm.parameters import ENGINE_DEFAULTS, follows_intensity
from napari_nlm.pictures import REMOVED
from nlmeans.cli.denoise import denoise_command as command
from nlmeans.engine.settings import device_or_gpu
from nlmeans.files.formats import nifti
from nlmeans.noise.level_curve import curve_as_text

RECIPE_KINDS = ("Python", "MONAI", "command line")


ENGINE_NAMES = {NOISE_MAP: "noise_map", REMOVED: "residual", COMPONENTS: "rank_map"}
"""What the engine calls each map."""


def recipe(
    kind: str,
    denoising: Denoising,
    volume: VolumeIndex | None,
    mask_path: Path | None = None,
    maps: Collection[str] = (),
) -> str:
    """Text that repeats a denoising of one volume, or of all volumes if `volume` is None.

    Args:
        kind: one of `RECIPE_KINDS`.
        denoising: what to repeat.
        volume: which volume.
        mask_path: the file that the layer of the mask was opened from.
        maps: names of the maps that are wanted too. Those that there are not are left out.

    Raises ``ValueError`` if this kind of text cannot say it. The message names a kind that can.
    """
    texts = {"Python": python, "MONAI": monai, "command line": command_line}
    made = [name for name in MAP_NAMES if name in maps and not why_no_map(name, denoising)]
    return texts[kind](denoising, volume, mask_path, made)


def arguments_of(denoising: Denoising, volume: VolumeIndex | None) -> dict[str, Any]:
    """Settings that differ from the engine's defaults.

    They have sigma as a number if the user gave it, or if there is only one volume, whose estimate it then is.
    """
    parameters = dataclasses.replace(denoising.parameters, h=denoising.own_h)
    settings = parameters.settings(denoising.source.spacing, denoising.source.axes.channels)
    if volume is not None or len(denoising.source.volumes) == 1:
        one = volume or denoising.source.volumes[0]
        exact = denoising.record(one, denoising.survey(one))
        settings = dataclasses.replace(settings, h=None if parameters.h is None else exact.h)
        if exact.correlation is None and exact.variation is None:  # else the text leaves it to be found again
            names = ("noise", "gain", "offset", "coils", "curve", "sigma")
            settings = dataclasses.replace(settings, **{name: getattr(exact, name) for name in names})
    elif parameters.h is not None and follows_intensity(parameters):  # the engine takes h in units of the noise
        settings = dataclasses.replace(settings, h=parameters.h)
    elif parameters.h is not None and parameters.sigma is not None:
        settings = dataclasses.replace(settings, h=parameters.h * (parameters.sigma or 1.0))
    every = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    if every["spacing"] is not None and len(set(every["spacing"])) == 1:
        every["spacing"] = None  # equal sizes have no effect
    return {name: value for name, value in every.items() if value != getattr(ENGINE_DEFAULTS, name)}


def nifti_of(denoising: Denoising) -> Path | None:
    """The NIfTI file that the layer was opened from; None if there is none."""
    path = denoising.source.path
    return path if path is not None and path.name.endswith(nifti.ENDINGS) else None


def python(denoising: Denoising, volume: VolumeIndex | None, mask_path: Path | None, maps: list[str]) -> str:
    """Python for the console of napari. It takes the data from the layer."""
    source, axes = denoising.source, denoising.source.axes
    given = arguments_of(denoising, volume)
    if "device" not in given and device_or_gpu(ENGINE_DEFAULTS.device) != "cpu":
        given["device"] = device_or_gpu(ENGINE_DEFAULTS.device)
    lines = ["import numpy as np", "import nlmeans", ""]
    lines.append(
        f"volume = np.asarray(viewer.layers[{source.layer.name!r}].data{'[0]' if source.layer.multiscale else ''})"
    )
    if source.alpha:
        lines.append("volume = volume[..., :3]  # without opacity")
    if denoising.mask is not None:
        name = denoising.mask.name
        lines.append(f"mask = np.asarray(viewer.layers[{name!r}].data)")
    if volume is not None:
        index = dict(zip(axes.separate, map(str, volume), strict=True))
        lines.append(f"volume = volume[{', '.join(index.get(axis, ':') for axis in range(len(source.shape)))}]")
    own_mask = denoising.mask is not None and tuple(denoising.mask.data.shape) != source.spatial_shape
    if own_mask and volume is not None:
        index = dict(zip(axes.separate, map(str, volume), strict=True))
        kept = [axis for axis in range(len(source.shape)) if axis != axes.channels]
        lines.append(f"mask = mask[{', '.join(index.get(axis, ':') for axis in kept)}]")
    own_h = (
        denoising.own_h is not None
        and denoising.parameters.sigma is None
        and not follows_intensity(denoising.parameters)
        and not denoising.joint
    )
    loops = len(axes.separate) > 1 or own_h or own_mask or denoising.joint
    if volume is not None or not axes.separate or not loops:
        channels = source.layout.channels if volume is not None else axes.channels
        given = with_roles(given, denoising, channels, axes.separate[0] if axes.separate and volume is None else None)
        if not maps:
            lines.append(f"denoised = {call('volume', given, denoising)}")
        else:
            lines += [f"found = {call('volume', given, denoising, 'denoise_with_maps')}", "denoised = found.volume"]
            lines += [f"{ENGINE_NAMES[name]} = found.{ENGINE_NAMES[name]}" for name in maps]
        return "\n".join(lines) + "\n"
    return "\n".join([*lines, *one_by_one(denoising, given, own_h, maps)]) + "\n"


def with_roles(given: dict[str, Any], denoising: Denoising, channels: int | None, series: int | None) -> dict[str, Any]:
    """Arguments with the roles of the axes; the volumes that a joint method takes together are a series."""
    if denoising.joint:
        channels, series = None, channels
    rest = {name: value for name, value in given.items() if name != "channels"}
    roles = {"channels": channels, "series": series}
    return rest | {name: axis for name, axis in roles.items() if axis is not None}


def one_by_one(denoising: Denoising, given: dict[str, Any], own_h: bool, maps: list[str]) -> list[str]:
    """A loop over the volumes, for what one call cannot do: an h that follows the sigma of each volume."""
    source, axes = denoising.source, denoising.source.axes
    place = ", ".join(f"at[{axes.separate.index(a)}]" if a in axes.separate else ":" for a in range(len(source.shape)))
    of_mask = ", ".join(part for axis, part in enumerate(place.split(", ")) if axis != axes.channels)
    lengths = tuple(source.shape[axis] for axis in axes.separate)
    channels = source.layout.channels
    given = with_roles(given, denoising, channels, None)
    lines = ["denoised = np.empty_like(volume)"]
    for name in maps:
        shared = axis_of_series(denoising, name)
        shape = "volume.shape" if shared is None else tuple(n for a, n in enumerate(source.shape) if a != shared)
        lines.append(f"{ENGINE_NAMES[name]} = np.empty({shape}, np.float32)")
    lines += [f"for at in np.ndindex{lengths}:", f"    one = volume[{place}]"]
    if own_h:
        known: dict[str, Any] = {"noise": "auto"} | {
            name: given[name] for name in ("noise", "channels") if name in given
        }
        largest = "np.mean(sigma)"
        if denoising.parameters.maps_sigma:
            known["map"], largest = True, "np.max(sigma)"
        axis = "" if channels is None else f", channels={channels}"
        cleaned = f"nlmeans.despeckle(one{axis})" if denoising.parameters.despeckle else "one"
        words = ", ".join([cleaned, *(f"{name}={value!r}" for name, value in known.items())])
        lines.append(f"    sigma = nlmeans.estimate_sigma({words})")
        lines.append(f"    h = {denoising.own_h!r} * float({largest}) or None")
        given = {name: value for name, value in given.items() if name not in ("sigma", "h")}
        given |= {"sigma": BareName("sigma"), "h": BareName("h")}
    if denoising.mask is not None and tuple(denoising.mask.data.shape) != source.spatial_shape:
        given = given | {"mask": BareName(f"mask[{of_mask}]")}
    if not maps:
        return [*lines, f"    denoised[{place}] = {call('one', given, denoising)}"]
    lines.append(f"    found = {call('one', given, denoising, 'denoise_with_maps')}")
    lines.append(f"    denoised[{place}] = found.volume")
    for name in maps:
        here = place if axis_of_series(denoising, name) is None else of_mask
        lines.append(f"    {ENGINE_NAMES[name]}[{here}] = found.{ENGINE_NAMES[name]}")
    return lines


class BareName(str):
    """A name that `repr` writes without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def call(array: str, given: dict[str, Any], denoising: Denoising, function: str = "denoise") -> str:
    """The text of a call of a function of `nlmeans`."""
    if denoising.mask is not None:
        given = {"mask": BareName("mask")} | given
    return f"nlmeans.{function}({', '.join([array, *(f'{name}={value!r}' for name, value in given.items())])})"


def of_a_file(denoising: Denoising, volume: VolumeIndex | None, what: str) -> tuple[Path, dict[str, Any]]:
    """The file and the settings, for kinds of text that read a whole file."""
    path, axes, joint = nifti_of(denoising), denoising.source.axes, denoising.joint
    if path is None:
        raise ValueError(f"{what} needs a NIfTI file, but this layer was not opened from one; copy it as Python")
    if (
        (axes.channels is not None and not joint)
        or len(axes.separate) + joint > 1
        or len(axes.spatial) + len(axes.separate) + joint != len(denoising.source.shape)
    ):
        raise ValueError(f"{what} takes only volumes and series of volumes; copy it as Python")
    if volume is not None and denoising.source.volumes != [volume]:
        raise ValueError(f"{what} denoises all volumes of a file; choose all volumes, or copy it as Python")
    given = arguments_of(denoising, volume)
    given.pop("channels", None)
    if denoising.own_h is not None and "h" not in given and not follows_intensity(denoising.parameters):
        raise ValueError(
            f"{what} has one h for all volumes; set sigma to a number, leave h on auto, or copy it as Python"
        )
    return path, given


def monai(denoising: Denoising, volume: VolumeIndex | None, mask_path: Path | None, maps: list[str]) -> str:
    path, given = of_a_file(denoising, volume, "MONAI")
    if "spacing" in given:
        given["spacing"] = "affine"
    if denoising.mask is not None:
        if mask_path is None:
            raise ValueError("MONAI needs the mask as a file; save its layer first, or copy it as Python")
        given["mask_key"] = "mask"
    names = [ENGINE_NAMES[name] for name in maps]
    if names:
        given["maps"] = names
    ends = [("denoised", "image"), *((name, f"image_{name}") for name in names)]
    keys = ["image"] if denoising.mask is None else ["image", "mask"]
    files = {"image": str(path)} | ({} if denoising.mask is None else {"mask": str(mask_path)})
    words = ", ".join(['keys="image"', *(f"{key}={value!r}" for key, value in given.items())])
    return (
        "from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged\n"
        "from monai_transforms import NonLocalMeansd\n\n"
        "pipeline = Compose([\n"
        f"    LoadImaged(keys={keys!r}),\n"
        f"    EnsureChannelFirstd(keys={keys!r}),\n"
        f"    NonLocalMeansd({words}),\n"
        "])\n"
        f"found = pipeline({files!r})\n" + "".join(f'{name} = found["{key}"]\n' for name, key in ends)
    )


def command_line(denoising: Denoising, volume: VolumeIndex | None, mask_path: Path | None, maps: list[str]) -> str:
    path, given = of_a_file(denoising, volume, "The command line")
    if isinstance(given.get("sigma"), tuple):
        del given["sigma"]  # the command line estimates it again, to the same numbers
    given.pop("spacing", None)  # the command line reads it from the file
    known = {option for parameter in command.params for option in parameter.opts}
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    words = ["nlmeans", "denoise", str(path), f"{stem}_denoised.nii.gz"]
    if given.pop("dtype", None) is not None:
        words.append("--float")
    if not denoising.parameters.voxel_size:
        words.append("--voxel-radii")
    for name, value in given.items():
        option = f"--{name.replace('_', '-')}"
        if option not in known:
            raise ValueError(f"The command line has no option for {name}={reprlib.repr(value)}; copy it as Python")
        words += [option] if value is True else [option, curve_as_text(value) if name == "curve" else str(value)]
    if denoising.mask is not None:
        if mask_path is None:
            raise ValueError("The command line needs the mask as a file; save its layer first, or copy it as Python")
        words += ["--mask", str(mask_path)]
    for name in maps:
        words += [f"--{ENGINE_NAMES[name].replace('_', '-')}", f"{stem}_{ENGINE_NAMES[name]}.nii.gz"]
    return shlex.join(words) + "\n"
