"""What the widget says: text from values. Nothing is decided here."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from napari_nlm.known import Known, MemoryNeed
from napari_nlm.parameters import is_poisson
from napari_nlm.pictures import Picture
from napari_nlm.runs import Running
from nlmeans.core.axes import Axes
from nlmeans.core.memory import size_text
from nlmeans.noise.kinds import kind_in_words
from nlmeans.noise.level_curve import curve_in_words

UNIT_SYMBOLS = {"millimeter": "mm", "micrometer": "µm", "nanometer": "nm"}


JUDGING = "looking whether the volumes belong together …"
"""What is said until it is known whether the volumes are denoised together."""


def notes(known: Known) -> dict[str, str]:
    """Lines below the parameters, by the name of the parameter."""
    said = {
        "sigma": sigma_note(known),
        "search_radius": window_note(known, known.choices.search_radius),
        "patch_radius": window_note(known, known.choices.patch_radius),
    }
    h, in_image_units, strength = known.h, known.h_in_image_units, known.parameters.strength
    if h is not None and in_image_units is not None:
        times = "" if strength == 1 else f", times {strength:g}"
        said["h"] = f"{h:.2f} σ = {in_image_units:.4g} image units{times}"
    if known.parameters.noise == "curve":
        said |= {"sigma": "", "curve": curve_note(known)}
    for name in known.choices.method.without:
        said.pop(name, None)
    if not known.judged:
        said["method"] = JUDGING
    elif known.parameters.method == "auto":
        said["method"] = f"here: {known.choices.name}, {known.choices.method.summary}"
    return said


def sigma_note(known: Known) -> str:
    sigma = known.sigma
    found = found_noise_in_words(known)
    if is_poisson(known.parameters) or (known.facts is not None and known.facts.noise.kind == "poisson"):
        return f"read noise of the detector, in image units{found}"
    if known.curve is not None:
        return f"follows the intensity{found}: {curve_in_words(known.curve)}"
    if sigma is None:
        return "estimating …"
    if isinstance(sigma, tuple):
        return "estimated per channel: " + ", ".join(f"{number:.4g}" for number in sigma)
    if known.parameters.maps_sigma or known.varies:
        return f"image units, estimated at every voxel; this is the largest value{found}"
    if known.provisional:
        return f"image units, provisional: more of the image is being looked at{found}"
    return "image units, " + ("estimated" if known.parameters.sigma is None else "as given") + found


def curve_note(known: Known) -> str:
    if known.facts is None:
        return "looking for the curve …"
    if known.curve is None:
        return "no noise was found"
    origin = "found in the image" if known.parameters.curve is None else "as given"
    return f"{curve_in_words(known.curve)}, {origin}"


def found_noise_in_words(known: Known) -> str:
    """What was found beside sigma, or applied from the noise panel, for the end of a note."""
    if known.facts is None:
        return ""
    noise = known.facts.noise
    found = (
        [f"{kind_in_words(noise.kind)} noise"]
        if known.parameters.noise == "auto" and known.parameters.sigma is None
        else []
    )
    if noise.kind == "poisson" and known.parameters.noise == "auto":
        found.append(f"gain {noise.gain:.3g}, offset {noise.offset:.3g}")
    if noise.correlation is not None:
        found.append("correlated between neighbours")
    if noise.variation is not None:
        found.append("uneven in space")
    return f"; {'found: ' if known.parameters.sigma is None else ''}{', '.join(found)}" if found else ""


def window_note(known: Known, radius: Axes) -> str:
    """Widths in voxels and in the units of the layer."""
    text = f"{product(known.window(radius))} voxels"
    widths = known.window_in_world(radius)
    return text if widths is None else f"{text}, {product(widths)} {UNIT_SYMBOLS.get(known.unit, known.unit)}"


def product(numbers: Sequence[float]) -> str:
    """
    >>> product([7, 7, 7]), product([3, 7, 7])
    ('7 × 7 × 7', '3 × 7 × 7')
    """
    return " × ".join(f"{number:.3g}" for number in numbers)


def memory_text(need: MemoryNeed) -> str:
    """
    >>> memory_text(MemoryNeed("cpu", working=2**30, result=2**20, free=2**32, free_here=2**32))
    'cpu: needs 1.00 GiB, free 4.00 GiB'
    """
    on_device = need.working + (need.result if need.on_cpu else 0)
    text = f"{need.device}: needs {size_text(on_device)}, free {size_text(need.free)}"
    if not need.on_cpu:
        text += f"; result {size_text(need.result)}, free {size_text(need.free_here)}"
    return text if need.enough else f"{text} – too little: choose the current volume or a lower memory limit"


def picture_text(shown: Picture) -> str:
    """One line below the preview."""
    text = removed_text(shown)
    if shown.draft:
        return f"Draft by the method classic until the exact preview is ready. {text}"
    if shown.run_seconds:
        text += f". The whole volume takes about {duration(shown.run_seconds)}"
    if shown.exact is not None:
        return f"{text}. Exact inside the outline, outside a draft by the method classic"
    if shown.view.cropped:
        rows, columns = (shown.view.box[axis] for axis in shown.view.displayed)
        text += f". Only the middle {rows.stop - rows.start} × {columns.stop - columns.start} pixels of the view"
    return text


def removed_text(shown: Picture) -> str:
    """How much was removed, and what that says."""
    found = shown.judgement
    if found is None:
        return "Removed: nothing, as there is no noise here"
    units = f" = {found.share * shown.sigma:.4g} image units" if shown.sigma else ""
    return f"Removed: {found.share:.2f} σ{units}{found.in_words and '; '}{found.in_words}"


def progress_text(running: Running) -> str:
    """
    >>> progress_text(Running(0.25, seconds_left=90.0))
    '25%, 1 min 30 s left'
    """
    text = f"{running.fraction:.0%}"
    return text if running.seconds_left is None else f"{text}, {duration(running.seconds_left)} left"


def duration(seconds: float) -> str:
    """
    >>> duration(4.2), duration(130), duration(7300)
    ('5 s', '2 min 10 s', '2 h 01 min')
    """
    whole = math.ceil(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def result_text(provenance: dict[str, Any]) -> str:
    """One line about a finished run, from the metadata of its layer."""
    settings = provenance["settings"]
    text = f"{settings['method']}, {settings['noise']} noise, {provenance['seconds']:.1f} s"
    doubts = sorted(set(itertools.chain.from_iterable(provenance["doubts"])))
    return "; ".join([text, *doubts, *(f"no layer “{name}”: {why}" for name, why in provenance["left_out"].items())])
