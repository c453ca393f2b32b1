"""What the widget says: numbers with their units, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from napari_nlm.parameters import Sigma, is_poisson
from napari_nlm.preview import Picture
from napari_nlm.results import KEY
from napari_nlm.session import Running, Session
from nlmeans import METHODS, Settings
from nlmeans.core.memory import readable
from nlmeans.engine.settings import device_or_gpu
from nlmeans.engine.plan import radii


def mean(sigma: Sigma | None) -> float | None:
    return None if sigma is None else float(np.mean(sigma))


def automatic(session: Session, settings: Settings | None) -> dict[str, Any]:
    """What the engine takes where a person gave nothing; radii in voxels of the smallest size."""
    known: dict[str, Any] = {"sigma": mean(session.sigma)}
    if settings is not None:
        patch, search = radii(settings)
        known |= {"patch_radius": max(patch), "search_radius": max(search)}
        plan, level = session.plan(), session.level
        if plan is not None and level is not None:
            known["h"] = plan.strength(settings, level)
    return known


def devices() -> list[tuple[str, str]]:
    """The CPU and every GPU, by name."""
    gpus = [(f"cuda:{i} ({torch.cuda.get_device_name(i)})", f"cuda:{i}") for i in range(torch.cuda.device_count())]
    return [("cpu", "cpu"), *gpus]


def notes(session: Session, settings: Settings | None) -> dict[str, str]:
    """Beside the sliders: what their numbers come to."""
    if settings is None or session.source is None:
        return {}
    parameters = session.parameters
    said: dict[str, str] = {}
    sigma = session.sigma
    if is_poisson(parameters):
        said["sigma"] = "read noise of the detector, in image units"
    elif sigma is None:
        said["sigma"] = "estimating …"
    elif isinstance(sigma, tuple):
        said["sigma"] = "estimated per channel: " + ", ".join(f"{s:.4g}" for s in sigma)
    elif parameters.maps_sigma:
        said["sigma"] = "image units, where it is largest; estimated in every place"
    else:
        said["sigma"] = "image units" + (", estimated" if parameters.sigma is None else ", as given")
    level = session.level
    if not is_poisson(parameters) and level is not None and settings.h:
        said["h"] = f"{settings.h / level.unit:.2f} σ = {settings.h:.4g} image units"
    if parameters.method == "auto":
        said["method"] = f"here: {settings.method}, {METHODS[settings.method].summary}"
    patch, search = radii(settings)
    said["search_radius"] = f"{window(search, settings, session)}"
    said["patch_radius"] = f"{window(patch, settings, session)}"
    return said


def window(radius: tuple[int, ...], settings: Settings, session: Session) -> str:
    """Widths in voxels and in the units of the layer."""
    assert session.source is not None
    axes = session.source.axes.spatial
    widths = [2 * r + 1 for r in radius[-len(axes) :]]
    text = f"{product(widths)} voxels"
    sizes = session.source.spacing
    if sizes is None or set(sizes) == {1.0}:
        return text
    name = str(session.source.layer.units[axes[0]])
    unit = {"millimeter": "mm", "micrometer": "µm", "nanometer": "nm", "pixel": "world units"}.get(name, name)
    return f"{text}, {product([w * s for w, s in zip(widths, sizes, strict=True)])} {unit}"


def product(numbers: Sequence[float]) -> str:
    """
    >>> product([7, 7, 7]), product([3, 7, 7])
    ('7 × 7 × 7', '3 × 7 × 7')
    """
    return " × ".join(f"{number:.3g}" for number in numbers)


def memory(session: Session, all_volumes: bool) -> tuple[str, bool]:
    """What a run needs and what is free, and whether it fits."""
    try:
        settings = session.settings()
    except (ValueError, TypeError):
        return "", True
    if settings is None:
        return "", True
    working, result = session.memory(all_volumes)
    device = torch.device(device_or_gpu(settings.device))
    here = psutil.virtual_memory().available
    free = here if device.type == "cpu" else torch.cuda.mem_get_info(device)[0]
    on_cpu = device.type == "cpu"
    enough = (working + result < here) if on_cpu else (working < free and result < here)
    text = f"{device}: needs {readable(working + (result if on_cpu else 0))}, free {readable(free)}"
    if not on_cpu:
        text += f"; result {readable(result)}, free {readable(here)}"
    return text + ("" if enough else " – too little: choose the current volume or a lower memory limit"), enough


def picture(shown: Picture) -> str:
    rows, columns = (shown.view.box[axis] for axis in shown.view.displayed)
    text = f"Removed: SD {shown.deviation:.4g}"
    if shown.sigma:
        text += f" = {shown.deviation / shown.sigma:.2f} σ"
    if shown.draft:
        return f"Draft by the method classic while the exact preview is computed. {text}"
    if shown.view.cropped:
        text += f". The middle {rows.stop - rows.start} × {columns.stop - columns.start} pixels of the view"
    return text


def progress(running: Running) -> str:
    text = f"{running.fraction:.0%}"
    return text if running.seconds_left is None else f"{text}, {duration(running.seconds_left)} left"


def duration(seconds: float) -> str:
    """
    >>> duration(4.2), duration(130), duration(7300)
    ('5 s', '2 min 10 s', '2 h 01 min')
    """
    whole = int(np.ceil(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def outcome(facts: dict[str, Any]) -> str:
    """One line about a run."""
    settings = facts["settings"]
    return f"{settings['method']}, {settings['noise']} noise, {facts['seconds']:.1f} s"


def file_name(layer: Any) -> tuple[Path, str]:
    """Where to propose to save a result: beside its source."""
    facts = layer.metadata.get(KEY, {})
    source = Path(facts["path"]) if facts.get("path") else None
    stem = layer.name.replace(" ", "_") if source is None else f"{source.name.split('.')[0]}_denoised"
    return (Path.home() if source is None else source.parent), f"{stem}.nii.gz"
