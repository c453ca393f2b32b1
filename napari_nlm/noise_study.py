"""The noise of a layer, found and drawn, without Qt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from napari.layers import Image, Labels, Shapes

from napari_nlm.layer_mask import LayerMask
from napari_nlm.layer_source import LayerSource, VolumeIndex
from napari_nlm.parameters import Parameters
from napari_nlm.pictures import Picture
from napari_nlm.surveys import Surveys
from nlmeans import NoiseModel
from nlmeans.noise.kinds import MAGNITUDES
from nlmeans.noise.level_curve import curve_as_text
from nlmeans.noise.variation import Levels, variation_at

Pixels = npt.NDArray[np.uint8]
"""A picture, (H, W, 4)."""

COLUMN = 4.4
"""Width of the pictures, in inches of 100 pixels."""

HISTOGRAM_BARS = 80
"""Bars of a histogram."""


@dataclass(frozen=True)
class NoiseStudy:
    """What was found in one volume of a layer."""

    model: NoiseModel
    pictures: list[Pixels]

    @property
    def text(self) -> str:
        """The model, and why."""
        return "\n".join([str(self.model), *(f"– {reason}" for reason in (*self.model.evidence, *self.model.doubts))])

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters that state this noise: its kind and level, what neighbours share, and where it is stronger."""
        model = self.model
        stated: dict[str, Any] = {"noise": model.kind, "sigma": model.sigma}
        for name in ("correlation", "variation"):
            if getattr(model, name) is not None:
                stated[name] = getattr(model, name)
        if model.kind == "poisson":
            stated |= {"gain": model.gain, "offset": model.offset}
        if model.curve is not None:
            stated |= {"curve": curve_as_text(model.told_curve)}
        return stated | ({"coils": model.coils} if model.kind == "chi" else {})


def study_noise(
    source: LayerSource, volume: VolumeIndex, region: Any, parameters: Parameters, picture: Picture | None
) -> NoiseStudy:
    """Find the noise of one volume of a layer, and draw it.

    Args:
        source: the layer.
        volume: which of its volumes.
        region: a layer that says where to look: `Labels` (the selected label, or all), `Shapes`, or an image of zeros
            and ones; None for everywhere.
        parameters: the kind of noise, and what made the image.
        picture: what is previewed of the layer, whose removed noise is drawn too; None if there is none.

    Raises:
        ValueError, TypeError: the region has another shape, or the volume is not finite.
    """
    mask = None if region is None else LayerMask(inside(region, source), region.name, source)
    kind = Parameters(method="classic", noise=parameters.noise, modality=parameters.modality)
    model = Surveys(source, mask).of(volume, kind).facts.noise
    return NoiseStudy(model, drawn_noise(source, volume, mask, model, picture))


def inside(region: Any, source: LayerSource) -> Any:
    """An array that is not zero where a layer says to look.

    Raises:
        ValueError: it has another shape than the image, or nothing is in there.
    """
    if isinstance(region, Shapes):
        to_data, to_world = source.layer.world_to_data, region.data_to_world
        corners = [np.array([to_data(to_world(point)) for point in shape]) for shape in region.data]
        drawn = Shapes(corners, shape_type=region.shape_type, ndim=source.layer.ndim)
        found = np.asarray(drawn.to_labels(source.shape[: source.layer.ndim]))
    else:
        LayerMask.of(region, source)  # raises an error about the shape
        found = region.data[0] if region.multiscale else region.data
        if isinstance(region, Labels) and bool((np.asarray(found) == region.selected_label).any()):
            return np.asarray(found) == region.selected_label
    if isinstance(found, np.ndarray) and not found.any():
        raise ValueError(f"there is nothing in {region.name}; draw a region of flat tissue, or choose another layer")
    return found


def drawn_noise(
    source: LayerSource, volume: VolumeIndex, mask: LayerMask | None, model: NoiseModel, picture: Picture | None
) -> list[Pixels]:
    """The pictures of the noise: as it is in the volume, unless it has channels, and what was removed of it."""
    from nlmeans.files.pictures.noise_figure import noise_figure

    pictures = []
    if source.axes.channels is None:
        where = None if mask is None else np.asarray(mask.view(volume)[(slice(None),) * len(source.axes.spatial)]) != 0
        view: Any = source.view(volume)
        pictures.append(pixels_of(in_a_column(noise_figure(view, model, where))))
        if model.variation is not None:
            pictures.append(pixels_of(level_figure(source, model)))
    if picture is not None and picture.source is source.layer and picture.sigma:
        pictures.append(pixels_of(removed_figure(picture, model, relative_levels(source, picture, model))))
    return pictures


def level_figure(source: LayerSource, model: NoiseModel) -> Any:
    """How strong the noise is in the middle plane of a volume whose noise varies in space."""
    from matplotlib.figure import Figure

    assert model.sigma is not None
    depth, height, width = source.layout.shape
    middle = slice(depth // 2, depth // 2 + 1), slice(0, height), slice(0, width)
    level = model.sigma * variation_at(cast(Levels, model.variation), source.layout.shape, middle)[0].numpy()
    figure = Figure(figsize=(COLUMN, 3.2), layout="constrained")
    axis = figure.subplots()
    shown = axis.imshow(level, cmap="inferno", vmin=0)
    axis.set_title("standard deviation of the noise, in the middle plane", fontsize=TITLE_SIZE)
    axis.set_axis_off()
    figure.colorbar(shown, label="image units")
    return figure


BRIGHT = 3.0
"""Sigmas of signal from which the noise of magnitudes is nearly Gaussian, and a slice is drawn alone there."""


def relative_levels(source: LayerSource, picture: Picture, model: NoiseModel) -> npt.NDArray[np.float64]:
    """How strong the noise is in a slice, relative to sigma, of a shape that broadcasts against it."""
    if model.variation is None or source.axes.channels is not None:
        return np.ones(())
    piece = source.layout.piece(tuple(picture.view.box[axis] for axis in source.axes.spatial))
    levels = variation_at(cast(Levels, model.variation), source.layout.shape, piece, torch.device("cpu")).numpy()
    sizes = iter(levels.shape[-len(source.axes.spatial) :])
    return levels.reshape([next(sizes) if axis in source.axes.spatial else 1 for axis in range(len(source.shape))])


def removed_values(
    picture: Picture, model: NoiseModel, levels: npt.NDArray[np.float64] | None = None
) -> npt.NDArray[np.float64]:
    """What was removed from a slice, in image units; of magnitudes only where the noise is no bias.

    Args:
        picture: the slice.
        model: its noise.
        levels: the level of the noise in it, relative to sigma, which what was removed is divided by.
    """
    before, after = (values.astype(np.float64) for values in (picture.before, picture.after))
    removed = (before - after) / (1.0 if levels is None else levels)
    bright = after > BRIGHT * picture.sigma
    if model.kind in MAGNITUDES and bright.any():
        removed = removed[bright]
    return removed[np.isfinite(removed)]


def removed_figure(picture: Picture, model: NoiseModel, levels: npt.NDArray[np.float64]) -> Any:
    """A histogram of what was removed from a slice, and the curve of Gaussian noise of its sigma."""
    from matplotlib.figure import Figure

    removed = removed_values(picture, model, levels)
    figure = Figure(figsize=(COLUMN, 2.8), layout="constrained")
    axis = figure.subplots()
    reach = 4 * picture.sigma
    axis.hist(
        removed.clip(-reach, reach),
        bins=HISTOGRAM_BARS,
        range=(-reach, reach),
        density=True,
        color="#ee7518",
        label="removed",
    )
    along = np.linspace(-reach, reach, 400)
    axis.plot(
        along,
        np.exp(-((along / picture.sigma) ** 2) / 2) / (picture.sigma * np.sqrt(2 * np.pi)),
        color="#1f4e8c",
        linewidth=2,
        label=f"noise of sigma {picture.sigma:.4g}",
    )
    axis.set_title(f"what was removed: {picture.judgement.in_words if picture.judgement else 'nothing'}")
    axis.set_xlabel("image units" if not levels.ndim else "image units, where the noise has the level of sigma")
    axis.set_yticks([])
    axis.margins(y=ROOM_FOR_LEGEND)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.legend(frameon=False)
    return figure


ROOM_FOR_LEGEND = 0.3
"""Room above a histogram, relative to its height."""

TITLE_SIZE, LABEL_SIZE = 9, 8
"""Points, so that titles and labels are not cut in a narrow column."""


def in_a_column(figure: Any) -> Any:
    """Put the panels of a figure one below the other, for a narrow dock."""
    figure.suptitle("")
    for axis, place in zip(figure.axes, figure.add_gridspec(len(figure.axes), 1), strict=True):
        axis.set_subplotspec(place)
        for text, size in ((axis.title, TITLE_SIZE), (axis.xaxis.label, LABEL_SIZE), (axis.yaxis.label, LABEL_SIZE)):
            text.set_size(size)
    figure.set_size_inches(COLUMN, 3.2 * len(figure.axes))
    return figure


def pixels_of(figure: Any) -> Pixels:
    """Draw a figure of matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())


def regions_for(layers: list[Any], image: Image) -> list[Any]:
    """Layers that can say where to look in an image."""
    source = LayerSource.of(image)
    found = []
    for layer in layers:
        if isinstance(layer, Shapes) and layer.ndim == image.ndim:
            found.append(layer)
        elif isinstance(layer, Labels):
            try:
                LayerMask.of(layer, source)
            except ValueError:
                continue
            found.append(layer)
    return found
