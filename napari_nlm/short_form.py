"""Plain non-local means in a form of three controls, which magicgui makes from the arguments of one function."""

import numpy as np
from magicgui import magic_factory
from napari.layers import Image
from napari.qt.threading import FunctionWorker, thread_worker
from napari.types import LayerDataTuple
from qtpy.QtCore import QTimer

import nlmeans

LARGEST_RADIUS = 10
"""Of the search window, in voxels."""

KEPT = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels", "colormap", "contrast_limits")
"""What the result has in common with the layer."""


@magic_factory(
    call_button="Denoise",
    image={"label": "Image"},
    window_radius={
        "widget_type": "Slider",
        "min": 1,
        "max": LARGEST_RADIUS,
        "label": "Window radius",
        "tooltip": "how far from a voxel similar ones are looked for, in voxels; the time grows with its cube",
    },
    h={
        "widget_type": "FloatSlider",
        "min": 0.1,
        "max": 2.0,
        "step": 0.05,
        "label": "h (in sigma)",
        "tooltip": "how unlike voxels may be, in units of the noise that is found; more smooths more",
    },
)
def short_form(image: Image, window_radius: int = 3, h: float = 0.7) -> FunctionWorker[LayerDataTuple]:
    """Denoise an image layer by the method ``classic`` in a thread, and add the result as a layer.

    The noise is found. For everything else, such as previews, other methods, masks and series, there is the dock
    `DenoiseDock`.

    Args:
        image: (H, W) or (D, H, W).
        window_radius: radius of the search window in voxels, along every axis.
        h: filter strength in units of sigma.

    Returns:
        The thread that works. Its errors appear as notifications of napari.

    Raises:
        ValueError: the layer has colours, several resolutions, more than three axes, or is not in memory.

    Example::

        from napari_nlm.short_form import short_form

        viewer.window.add_dock_widget(short_form())
    """
    if image.rgb or image.multiscale or image.ndim not in (2, 3) or not isinstance(image.data, np.ndarray):
        raise ValueError(
            f"layer {image.name!r} is no plain image or volume: choose a layer of 2 or 3 axes in memory, or use the "
            "widget 'Denoise by non-local means', which takes colours, series, several resolutions and lazy layers"
        )
    volume, looks = image.data, image.as_layer_data_tuple()[1]
    settings = {name: looks[name] for name in KEPT} | {"name": f"{image.name} · denoised"}

    @thread_worker(start_thread=False)  # type: ignore[untyped-decorator,unused-ignore]
    def denoised() -> LayerDataTuple:
        result = nlmeans.denoise(volume, method="classic", search_radius=window_radius, h=h)
        return LayerDataTuple((result, settings, "image"))

    worker: FunctionWorker[LayerDataTuple] = denoised()
    QTimer.singleShot(0, worker.start)  # once napari waits for the result
    return worker
