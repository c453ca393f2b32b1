"""A small form beside the denoising: how strong the noise of a layer is, as a number or as a map."""

from typing import Any

import numpy as np
import numpy.typing as npt
from magicgui import magic_factory
from napari import types
from napari.layers import Image
from napari.utils.notifications import show_info, show_warning

from napari_nlm.source import Source, plain
from nlmeans import estimate_sigma

PLACED = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")


@magic_factory(
    call_button="Estimate",
    noise={"choices": ["gaussian", "rician"], "tooltip": "rician: MR magnitude images, whose background is lifted"},
    varies={"label": "as a map", "tooltip": "of noise that differs in space, as after parallel imaging: a new layer"},
)
def estimate_noise(image: Image, noise: str = "gaussian", varies: bool = False) -> list[types.LayerDataTuple]:
    """Estimate the standard deviation of the noise of an image layer, in image units; as a map it is a new layer."""
    if image is None:
        show_warning("There is no image layer to look at: open one, or a sample by File > Open Sample > nlmeans")
        return []
    source = Source.of(plain(image))
    layout = source.layout
    found = [estimated(source.read(volume), noise, varies, layout.channels) for volume in source.volumes]
    if not varies:
        levels = np.stack(found)
        several = "" if levels.size == 1 else f" to {levels.max():.4g} over {levels.size} volumes and channels"
        show_info(f"{image.name}: sigma {levels.min():.4g}{several}, taken as {noise} noise")
        return []
    if layout.channels is not None:
        show_warning(f"{image.name} has channels, each with a map of its own; split it into layers first")
        return []
    maps = np.empty(source.shape, np.float32)
    for volume, values in zip(source.volumes, found, strict=True):
        place: list[Any] = [slice(None)] * maps.ndim
        for axis, number in zip(source.axes.separate, volume, strict=True):
            place[axis] = number
        maps[tuple(place)] = values
    looks: dict[str, Any] = plain(image).as_layer_data_tuple()[1]
    placed = {key: looks[key] for key in PLACED}
    return [types.LayerDataTuple((maps, {"name": f"{image.name} sigma", **placed}, "image"))]


def estimated(volume: npt.NDArray[Any], noise: str, varies: bool, channels: int | None) -> npt.NDArray[Any]:
    if varies:
        return estimate_sigma(volume, noise=noise, map=True, channels=channels)
    return np.asarray(estimate_sigma(volume, noise=noise, channels=channels))
