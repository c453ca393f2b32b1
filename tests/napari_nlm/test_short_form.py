"""The form that magicgui makes, in a real window."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
from magicgui.widgets import FloatSlider, Slider
from napari.layers import Image

import nlmeans
from napari_nlm.short_form import short_form
from tests.napari_nlm.images import ORIENTATIONS, volume


def wait_for(viewer: Any, name: str, qtbot: Any) -> Any:
    qtbot.waitUntil(lambda: name in viewer.layers, timeout=60_000)
    return viewer.layers[name]


@pytest.mark.parametrize("shape", [(16, 24, 28), (24, 28)])
def test_window_and_h_have_sliders_and_decide_the_result(viewer: Any, qtbot: Any, shape: tuple[int, ...]) -> None:
    layer = viewer.add_image(volume(*shape), name="head")
    form = short_form()
    viewer.window.add_dock_widget(form)
    assert isinstance(form.window_radius, Slider)
    assert isinstance(form.h, FloatSlider)
    assert form.image.value.name == "head"
    results = []
    for radius, h in ((3, 0.7), (2, 0.7), (3, 1.4)):
        form.window_radius.value, form.h.value = radius, h
        form.call_button.native.click()
        result = wait_for(viewer, "head · denoised", qtbot)
        np.testing.assert_array_equal(
            result.data, nlmeans.denoise(layer.data, method="classic", search_radius=radius, h=h)
        )
        results.append(result.data)
        viewer.layers.remove(result)
    assert not np.array_equal(results[0], results[1])
    assert np.std(results[2] - layer.data) > np.std(results[0] - layer.data)


@pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")
@pytest.mark.parametrize("orientation", ["LPS", "oblique"])
def test_the_result_lies_where_the_layer_lies(viewer: Any, qtbot: Any, orientation: str) -> None:
    layer = viewer.add_image(volume(), name="head", colormap="magma", **ORIENTATIONS[orientation])
    form = short_form()
    viewer.window.add_dock_widget(form)
    form.call_button.native.click()
    result = wait_for(viewer, "head · denoised", qtbot)
    for corner in ((0, 0, 0), (15, 23, 27)):
        np.testing.assert_allclose(result.data_to_world(corner), layer.data_to_world(corner))
    assert result.colormap.name == "magma"


@pytest.mark.usefixtures("qapp")
@pytest.mark.parametrize(
    "looks",
    [
        {"data": volume(4, 10, 12, 14)},
        {"data": np.zeros((8, 8, 3), "uint8"), "rgb": True},
        {"data": da.zeros((64, 64, 64), chunks=32)},
    ],
)
def test_other_layers_are_refused_with_the_name_of_the_widget_that_takes_them(looks: dict[str, Any]) -> None:
    form = short_form()
    with pytest.raises(ValueError, match=r"layer 'odd'.*'Denoise by non-local means'"):
        form(image=Image(**looks, name="odd"))
