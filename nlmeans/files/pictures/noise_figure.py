"""Draw the noise found in a volume: how strong it is at each intensity, how neighbours share it, and where it shows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nlmeans.core import arrays
from nlmeans.noise.kinds import MAGNITUDES
from nlmeans.noise.model import NoiseModel
from nlmeans.noise.rician import rician_deviation
from nlmeans.noise.search.air import Numbers
from nlmeans.noise.search.correlation import LEAST_RESPONSE, response_of_finest
from nlmeans.noise.search.curve import VarianceCurve, flattest_parts, variance_curve
from nlmeans.noise.search.finest import finest_detail_by_slabs
from nlmeans.noise.search.found import usable_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VOXELS_DRAWN, FEWEST_SLICES = 2**22, 16
"""Most voxels that are measured for a figure, and the number of slices from which on whole slices are preferred to
more of them: whole slices show the air around an object."""

WHITE_LAGS = 5
"""Number of lags shown for noise that is not correlated."""

TOO_LITTLE = "too little to see"

CLEARLY_ABOVE = 1.4
"""Measured deviation, relative to that of the model, from which chance does not explain it and a note does."""

FLAT_COLOUR, MODEL_COLOUR, NOTE_COLOUR = "#ee7518", "#1f4e8c", "0.4"
"""Colours of what was measured in flat parts, of the model, and of notes."""

AXIS_STYLES = ("#1f4e8c", "o"), ("#1b9e77", "s"), ("#a6519e", "^")
"""Colour and marker of each axis."""


class FlatParts(NamedTuple):
    """What the flat parts of a volume say about its noise."""

    peak: float
    """Largest absolute value of the volume."""
    curve: VarianceCurve
    """Of the volume divided by its peak."""
    flattest: npt.NDArray[np.bool_]
    """The voxels that the curve was measured in, of the shape of the volume."""


def noise_figure(volume: npt.NDArray[Any], model: NoiseModel, mask: npt.NDArray[np.bool_] | None = None) -> Figure:
    """Draw three panels: deviation against intensity, correlation with neighbours, and where these were read.

    Only the middle of a volume of more than four million voxels is measured and shown.

    Args:
        volume: (H, W) or (D, H, W), any real dtype; NaN is drawn as 0.
        model: the noise of the volume, as `nlmeans.estimate_noise` finds it.
        mask: which voxels to measure, of the shape of the volume; None for all.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    part = middle_part(volume.shape)
    values = arrays.without_nan(arrays.read(volume, part, arrays.precise_dtype(volume), torch.device("cpu")))
    flat = flat_parts(values, None if mask is None else np.asarray(mask)[part] != 0)
    drawing = Figure(figsize=(13.5, 4.8), layout="constrained")
    FigureCanvasAgg(drawing)
    drawing.suptitle(str(model), fontsize="x-large")
    deviation, correlation, places = drawing.subplots(1, 3)
    draw_deviation(deviation, flat, model)
    draw_correlation(correlation, model, volume.ndim)
    draw_places(places, values.double().numpy(), flat)
    return drawing


def middle_part(shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Choose the middle of a volume: fewer slices first, then less of each slice, evenly.

    >>> middle_part((90, 100, 100))
    (slice(0, 90, None), slice(0, 100, None), slice(0, 100, None))
    >>> middle_part((300, 512, 512))
    (slice(142, 158, None), slice(0, 512, None), slice(0, 512, None))
    >>> middle_part((4096, 4096))
    (slice(1024, 3072, None), slice(1024, 3072, None))
    """
    in_slice = math.prod(shape[-2:])
    slices = [min(n, max(VOXELS_DRAWN // in_slice, FEWEST_SLICES)) for n in shape[:-2]]
    share = min(1.0, math.sqrt(VOXELS_DRAWN / (math.prod(slices) * in_slice)))
    kept = (*slices, *(max(int(share * n), min(n, FEWEST_SLICES)) for n in shape[-2:]))
    starts = [n // 2 - count // 2 for n, count in zip(shape, kept, strict=True)]
    return tuple(slice(start, start + count) for start, count in zip(starts, kept, strict=True))


def flat_parts(volume: Tensor, mask: npt.NDArray[np.bool_] | None) -> FlatParts | None:
    """Measure the noise in flat parts of a volume, (H, W) or (D, H, W); None where it shows none."""
    peak = float(volume.abs().max())
    if peak == 0 or max(volume.shape) < 3:
        return None
    solid = volume if volume.ndim == 3 else volume[None]
    inside = None if mask is None else torch.from_numpy(mask).view(solid.shape)
    around = finest_detail_by_slabs(solid, peak, inside)
    usable = usable_of(around)
    curve = variance_curve(around, usable)
    if not len(curve.variance):
        return None
    flattest = np.zeros(solid.shape, bool)
    middle = tuple(slice(1, -1) if n >= 3 else slice(None) for n in solid.shape)  # which `around` is about
    chosen = torch.zeros_like(usable)
    inner = usable.nonzero()
    brightness, _, detail = around.at(usable)
    for flat in flattest_parts(brightness, detail):
        chosen[tuple(inner[flat].T)] = True
    flattest[middle] = chosen.numpy()
    return FlatParts(peak, curve, flattest.reshape(volume.shape))


# ---------------------------------------------------------------- deviation against intensity


def draw_deviation(axis: Axes, flat: FlatParts | None, model: NoiseModel) -> None:
    """Draw the standard deviation measured at each intensity, and that of the model as a line."""
    axis.set_title("deviation against intensity")
    lags = model.autocovariance
    response = 1.0 if lags is None else response_of_finest(torch.from_numpy(lags))
    if flat is None or response < LEAST_RESPONSE:
        say_too_little(axis)
        return
    intensity = flat.curve.intensity * flat.peak
    deviation = np.sqrt(flat.curve.variance) * (flat.peak / response)
    axis.plot(intensity, deviation, "o", color=FLAT_COLOUR, label="measured in flat parts", zorder=3)
    margin = 0.1 * abs(float(intensity[0])) if len(intensity) == 1 else 0.0
    along = np.linspace(intensity[0] - margin, intensity[-1] + margin, 500)
    line, expected = (modelled_deviation(places, model) for places in (along, intensity))
    highest = float(deviation.max())
    if line is not None and expected is not None:
        axis.plot(along, line, color=MODEL_COLOUR, linewidth=2, label="model")
        highest = max(highest, float(line.max()))
        if (deviation > CLEARLY_ABOVE * expected).any():
            note = "structure lifts points above the line"
            axis.text(0.98, 0.03, note, transform=axis.transAxes, ha="right", color=NOTE_COLOUR, fontsize="small")
    axis.set_ylim(0, 1.25 * highest)  # from 0, so that chance does not look like a trend
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_xlabel("intensity (image units)")
    axis.set_ylabel("standard deviation of the noise (image units)")
    axis.legend(frameon=False)


def modelled_deviation(intensity: Numbers, model: NoiseModel) -> Numbers | None:
    """Return the standard deviation of the noise at each intensity, (N,); None if the model leaves it open."""
    if not model.has_level:
        return None
    if model.kind not in MAGNITUDES or not model.sigma:
        expected: Numbers = model.sigma_at(torch.from_numpy(intensity)).numpy()
        return expected
    relative: Numbers = rician_deviation(torch.from_numpy(intensity) / model.sigma, model.coils).numpy()
    return model.sigma * relative


# ---------------------------------------------------------------- correlation with neighbours


def draw_correlation(axis: Axes, model: NoiseModel, dimensions: int) -> None:
    """Draw the correlation of the noise with that of the voxels 0, 1, 2, … further along each axis."""
    from matplotlib.ticker import MaxNLocator

    lines = correlation_along_axes(model, dimensions)
    axis.set_title(f"correlation with neighbours{'' if lines or noiseless(model) else ': none (white noise)'}")
    if not lines and noiseless(model):
        say_too_little(axis)
        return
    axis.axhline(0, color="0.7", linewidth=1, zorder=0)
    for (name, values), (colour, marker) in zip(lines.items(), AXIS_STYLES, strict=False):
        axis.plot(np.arange(len(values)), values, color=colour, marker=marker, label=name, clip_on=False)
    if not lines:
        white = np.arange(WHITE_LAGS) == 0
        axis.plot(np.arange(WHITE_LAGS), white.astype(float), color=MODEL_COLOUR, marker="o", label="every axis")
    axis.set_ylim(min(-0.25, *(1.1 * values.min() for values in (*lines.values(), np.zeros(1)))), 1.05)
    axis.spines[["top", "right"]].set_visible(False)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("distance in voxels")
    axis.set_ylabel("correlation of the noise")
    axis.legend(frameon=False)


def noiseless(model: NoiseModel) -> bool:
    """Tell whether the model says that there is no noise. What follows the intensity always has some."""
    return model.sigma == 0 and not model.follows_intensity


def correlation_along_axes(model: NoiseModel, dimensions: int) -> dict[str, Numbers]:
    """Return the correlation at the lags 0 … l along each axis that has lags; nothing for white noise.

    >>> lines = correlation_along_axes(NoiseModel(correlation=[[[0.2, 0.5, 1.0, 0.5, 0.2]]]), 3)
    >>> {name: values.tolist() for name, values in lines.items()}
    {'axis 2': [1.0, 0.5, 0.2]}
    """
    lags, lines = model.autocovariance, {}
    for axis in range(3 - dimensions, 0 if lags is None else 3):
        along = np.moveaxis(np.asarray(lags), axis, 0)
        reach, *others = (n // 2 for n in along.shape)
        if reach:
            lines[f"axis {axis - (3 - dimensions)}"] = along[(slice(reach, None), *others)]
    return lines


# ---------------------------------------------------------------- where it was read


def draw_places(axis: Axes, volume: Numbers, flat: FlatParts | None) -> None:
    """Draw the middle slice across the first axis, or the image itself, with the flattest voxels in colour."""
    from matplotlib.colors import ListedColormap

    axis.set_title("where it was read")
    if flat is None:
        say_too_little(axis)
        return
    middle = volume.shape[0] // 2 if volume.ndim == 3 else ...
    picture, flattest = volume[middle] / flat.peak, flat.flattest[middle]
    low, high = np.percentile(picture, (0.5, 99.5))
    axis.imshow(picture, cmap="gray", vmin=low, vmax=high)
    colour = np.ma.masked_array(np.ones(flattest.shape), ~flattest)
    axis.imshow(colour, cmap=ListedColormap([FLAT_COLOUR]), alpha=0.7, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_xlabel(f"axis {volume.ndim - 1}")
    axis.set_ylabel(f"axis {volume.ndim - 2}")


def say_too_little(axis: Axes) -> None:
    """Leave a panel empty, and say that there is nothing to draw."""
    axis.set_xticks([])
    axis.set_yticks([])
    axis.text(0.5, 0.5, TOO_LITTLE, transform=axis.transAxes, ha="center", va="center", color=NOTE_COLOUR)
