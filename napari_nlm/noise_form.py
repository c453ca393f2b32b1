"""A form that estimates the noise of a layer, as a number or as a map."""

from typing import Any

import numpy as np
from magicgui import magic_factory
from napari import types
from napari.layers import Image
from napari.utils.notifications import show_info, show_warning

from napari_nlm.layer_source import LayerSource, unwrapped
from napari_nlm.volume_view import LayerArray
from nlmeans import estimate_noise, estimate_sigma

PLACED = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")


NOISE_TIP = "auto: found in the image\nrician: MR magnitude images, where noise makes the background brighter"


@magic_factory(
    call_button="Estimate",
    noise={
        "choices": ["auto", "gaussian", "rician"],
        "tooltip": NOISE_TIP,
    },
    varies={"label": "as a map", "tooltip": "Add a layer with sigma at every voxel, for noise that varies in space"},
)
def estimate_layer_noise(image: Image, noise: str = "auto", varies: bool = False) -> list[types.LayerDataTuple]:
    """Estimate the standard deviation of the noise of an image layer, in image units. A map becomes a new layer."""
    if image is None:
        show_warning("There is no image layer: open an image, or a sample with File > Open Sample > Non-local means")
        return []
    source = LayerSource.of(unwrapped(image))
    layout = source.layout
    found = [estimate_volume(source.read(volume), noise, varies, layout.channels) for volume in source.volumes]
    if not varies:
        levels = np.stack(found)
        several = "" if levels.size == 1 else f" to {levels.max():.4g} over {levels.size} volumes and channels"
        if noise == "auto" and levels.size == 1 and layout.channels is None:
            show_info(f"{image.name}: {estimate_noise(source.read(source.volumes[0]))}")
        else:
            kind = "" if noise == "auto" else f", assuming {noise} noise"
            show_info(f"{image.name}: sigma {levels.min():.4g}{several}{kind}")
        return []
    if layout.channels is not None:
        show_warning(f"{image.name} has channels, and each channel has its own map; split it into layers first")
        return []
    maps = np.empty(source.shape, np.float32)
    for volume, values in zip(source.volumes, found, strict=True):
        place: list[Any] = [slice(None)] * maps.ndim
        for axis, number in zip(source.axes.separate, volume, strict=True):
            place[axis] = number
        maps[tuple(place)] = values
    looks: dict[str, Any] = unwrapped(image).as_layer_data_tuple()[1]
    placed = {key: looks[key] for key in PLACED}
    return [types.LayerDataTuple((maps, {"name": f"{image.name} sigma", **placed}, "image"))]


def estimate_volume(volume: LayerArray, noise: str, varies: bool, channels: int | None) -> LayerArray:
    if varies:
        return estimate_sigma(volume, noise=noise, map=True, channels=channels)
    return np.asarray(estimate_sigma(volume, noise=noise, channels=channels))
