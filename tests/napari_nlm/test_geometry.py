"""Which voxels the viewer shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image

from napari_nlm.geometry import appearance, matrix_and_offset, translate_of, visible_part
from tests.napari_nlm.conftest import Dock
from tests.napari_nlm.images import ORIENTATIONS, volume


def test_large_slices_are_cropped_to_the_view(dock: Dock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_nlm.preview.LARGEST_PREVIEW", 128 * 128)
    dock.viewer.add_image(volume(4, 400, 400), contrast_limits=(0, 255))
    dock.settle()
    camera = dock.viewer.__wrapped__.scene.camera
    camera.center, camera.zoom = (0, 100, 300), 20
    dock.settle()
    dock.session.preview.refresh()
    dock.settle()
    preview = dock.viewer.layers[-1]
    start, size = np.array(preview.translate[1:]), np.array(preview.data.shape[1:])
    np.testing.assert_allclose(start + size / 2, (100, 300), atol=6)


def viewer_with(data: Any, **looks: Any) -> tuple[ViewerModel, Any]:
    viewer = ViewerModel()
    return viewer, viewer.add_image(data, **looks)


@pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")
@pytest.mark.parametrize("place", ORIENTATIONS)
def test_the_matrix_is_that_of_napari(place: str) -> None:
    layer = Image(volume(), **ORIENTATIONS[place])
    matrix, offset = matrix_and_offset(layer)
    point = np.array([3.0, 1.0, 5.0])
    np.testing.assert_allclose(matrix @ point + offset, layer.data_to_world(tuple(point)))


def test_the_visible_part_is_the_slice_at_the_sliders() -> None:
    viewer, layer = viewer_with(volume(), scale=(-3, 1, 1))
    viewer.dims.set_point(0, -3 * 5)
    view = visible_part(viewer, layer, 10**6)
    assert view is not None
    assert view.displayed == (1, 2)
    assert view.box == (slice(5, 6), slice(0, 24), slice(0, 28))
    assert not view.cropped


def test_a_large_slice_is_cropped_in_the_middle() -> None:
    viewer, layer = viewer_with(volume(4, 64, 80))
    view = visible_part(viewer, layer, 16 * 16)
    assert view is not None
    assert view.cropped
    assert view.box[1:] == (slice(24, 40), slice(32, 48))


def test_nothing_is_visible_in_3d_or_outside() -> None:
    viewer, layer = viewer_with(volume())
    viewer.add_image(volume(), translate=(100, 0, 0))
    viewer.dims.set_point(0, 110)
    assert visible_part(viewer, layer, 10**6) is None
    viewer.dims.set_point(0, 3)
    assert visible_part(viewer, layer, 10**6) is not None
    viewer.dims.ndisplay = 3
    assert visible_part(viewer, layer, 10**6) is None


@pytest.mark.parametrize("place", ["RAS", "LPS", "sagittal"])
def test_a_part_with_its_translate_lies_where_it_was(place: str) -> None:
    viewer, layer = viewer_with(volume(), **ORIENTATIONS[place])
    view = visible_part(viewer, layer, 10**6)
    assert view is not None
    box = (slice(4, 5), slice(6, 10), slice(7, 20))
    part = Image(layer.data[box], **(appearance(layer) | {"translate": translate_of(layer, view, box)}))
    np.testing.assert_allclose(part.data_to_world((0, 0, 0)), layer.data_to_world((4, 6, 7)), atol=1e-9)
