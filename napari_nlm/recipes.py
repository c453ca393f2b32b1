"""What the widget would do, as text for Python, MONAI and the command line."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

from nlmeans import Settings, io
from nlmeans.cli import denoise as command

from napari_nlm.compute import Plan, Volume, device_of
from napari_nlm.parameters import is_poisson

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
    several = volume is None and len(plan.source.volumes) > 1
    sigma = plan.parameters.sigma
    if sigma is None and not is_poisson(plan.parameters):
        known = [plan.levels.known.get(number) for number in plan.source.volumes]
        if several and all(isinstance(level, float) for level in known) and plan.parameters.h is None:
            sigma = tuple(level for level in known)  # type: ignore[assignment]
        elif not several:
            sigma = plan.sigma(volume or plan.source.volumes[0])  # type: ignore[assignment]
    settings = plan.parameters.settings(sigma, plan.source.spacing, plan.source.axes.channels)
    every = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    if several and sigma is None:
        every["h"] = None
    if every["spacing"] is not None and len(set(every["spacing"])) == 1:
        every["spacing"] = None  # the same along all axes changes nothing
    return {name: value for name, value in every.items() if value != getattr(PLAIN, name)}


def nifti_of(plan: Plan) -> Path | None:
    path = plan.source.path
    return path if path is not None and path.name.endswith(io.ENDINGS) else None


def python(plan: Plan, volume: Volume | None, mask_path: Path | None = None) -> str:
    """For the console of napari: it takes the data from the layer."""
    source, axes = plan.source, plan.source.axes
    given = arguments(plan, volume)
    if given.get("device") is None and device_of(plan.parameters.settings(1.0, None, None)) != "cpu":
        given["device"] = "cuda"
    name = f"viewer.layers[{source.layer.name!r}].data{'[0]' if source.layer.multiscale else ''}"
    lines = ["import numpy as np", "import nlmeans", "", f"volume = np.asarray({name})"]
    if source.alpha:
        lines.append("volume = volume[..., :3]  # without opacity")
    if plan.mask is not None:
        lines.append("mask = np.asarray(viewer.layers[MASK].data)  # the name of the mask's layer")
    beside = ["mask=mask"] if plan.mask is not None else []

    def call(array: str, extra: list[str]) -> str:
        words = [array, *(f"{key}={value!r}" for key, value in given.items()), *extra, *beside]
        return f"nlmeans.denoise({', '.join(words)})"

    if volume is not None:
        index = [":"] * len(source.shape)
        for axis, number in zip(axes.separate, volume, strict=True):
            index[axis] = str(number)
        lines.append(f"volume = volume[{', '.join(index)}]")
        if axes.channels is not None:
            given["channels"] = source.layout.channels
    elif len(axes.separate) == 1 and (plan.parameters.h is None or plan.parameters.sigma is not None):
        given["series"] = axes.separate[0]
    elif axes.separate:
        given["channels"] = source.layout.channels
        given = {key: value for key, value in given.items() if value is not None}
        noise = {key: given[key] for key in ("noise", "channels") if key in given}
        estimate = ", ".join(["volume[index]", *(f"{key}={value!r}" for key, value in noise.items())])
        index = ", ".join(
            ("i", "j", "k", "l")[axes.separate.index(axis)] if axis in axes.separate else "slice(None)"
            for axis in range(len(source.shape))
        )
        letters = "ijkl"[: len(axes.separate)]
        lengths = [source.shape[axis] for axis in axes.separate]
        extra = []
        lines += ["denoised = np.empty_like(volume)", f"for {', '.join(letters)}{',' if len(letters) == 1 else ''} in np.ndindex{tuple(lengths)}:"]
        lines.append(f"    index = ({index})")
        if plan.parameters.sigma is None and not is_poisson(plan.parameters):
            lines.append(f"    sigma = nlmeans.estimate_sigma({estimate})")
            given.pop("sigma", None)
            extra = ["sigma=sigma"]
            if plan.parameters.h is not None:
                extra.append(f"h={plan.parameters.h!r} * float(np.mean(sigma))")
        lines.append(f"    denoised[index] = {call('volume[index]', extra)}")
        return "\n".join(lines) + "\n"
    lines.append(f"denoised = {call('volume', [])}")
    return "\n".join(lines) + "\n"


def of_a_file(plan: Plan, volume: Volume | None, what: str) -> tuple[Path, dict[str, Any]]:
    """The file and the settings, for ways that begin with a file and take all of it."""
    path, axes = nifti_of(plan), plan.source.axes
    if path is None:
        raise ValueError(f"{what} begins with a NIfTI file, but this layer comes from none; copy it as Python")
    if axes.channels is not None or len(axes.separate) > 1 or len(axes.spatial) + len(axes.separate) != len(plan.source.shape):
        raise ValueError(f"{what} takes volumes and series of volumes only; copy it as Python")
    if volume is not None and plan.source.volumes != [volume]:
        raise ValueError(f"{what} denoises all volumes of a file; choose all volumes, or copy it as Python")
    given = arguments(plan, volume)
    if plan.parameters.h is not None and "h" not in given and not is_poisson(plan.parameters):
        raise ValueError(f"{what} has one h for all volumes; give sigma a value, leave h to the method, or copy it as Python")
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
