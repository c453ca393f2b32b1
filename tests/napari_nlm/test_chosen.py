"""The chosen image and its mask."""

from __future__ import annotations

import numpy as np

from napari_nlm.layer_source import AxisRoles
from napari_nlm.maps import MAP_NAMES
from tests.napari_nlm.conftest import Bench
from tests.napari_nlm.images import series, volume


def test_only_layers_that_fit_are_offered_as_masks(bench: Bench) -> None:
    bench.add(volume(), name="scan")
    bench.viewer.add_labels(np.zeros((16, 24, 28), int), name="fits")
    bench.viewer.add_labels(np.zeros((4, 4, 4), int), name="does not")
    bench.session.chosen.choose(bench.viewer.layers["scan"])
    assert [layer.name for layer in bench.session.chosen.masks] == ["fits"]


def test_images_are_what_can_be_denoised(bench: Bench) -> None:
    scan = bench.add(volume(), name="scan")
    bench.viewer.add_labels(np.zeros((16, 24, 28), int))
    bench.viewer.add_points(np.zeros((2, 3)))
    assert bench.layer("· denoised") is not None
    assert bench.session.chosen.images == [scan]


def test_maps_are_not_offered_as_images(bench: Bench) -> None:
    scan = bench.add(volume(), name="scan")
    bench.session.next_run.set_maps(MAP_NAMES)
    result = bench.run()
    assert bench.session.chosen.images == [scan, result]
    assert len(bench.viewer.layers) > 3


def test_the_selected_image_is_chosen_first_else_the_topmost(bench: Bench) -> None:
    chosen = bench.session.chosen
    first, second = bench.add(volume(), name="first"), bench.add(volume(), name="second")
    bench.viewer.layers.selection.active = first
    chosen.choose_first()
    assert chosen.is_chosen(first)
    bench.viewer.layers.selection.clear()
    chosen.choose_first()
    assert chosen.is_chosen(second)


def test_other_roles_of_the_axes_keep_the_mask_and_drop_the_surveys(bench: Bench) -> None:
    bench.viewer.add_labels(np.ones((10, 16, 18), int), name="inside")
    bench.add(series())
    chosen = bench.session.chosen
    chosen.set_mask(bench.viewer.layers["inside"])
    before = chosen.surveys
    told: list[bool] = []
    chosen.replaced.connect(told.append)
    chosen.set_axes(AxisRoles((1, 2, 3), 0))
    assert told == [False]
    assert chosen.mask_layer is bench.viewer.layers["inside"]
    assert chosen.surveys is not before


def test_another_image_drops_the_mask(bench: Bench) -> None:
    bench.viewer.add_labels(np.ones((16, 24, 28), int), name="inside")
    bench.add(volume(), name="first")
    bench.session.chosen.set_mask(bench.viewer.layers["inside"])
    bench.add(volume(), name="second")
    assert bench.session.chosen.mask_layer is None
    assert bench.session.chosen.mask is None


def test_a_mask_that_is_removed_from_the_viewer_is_dropped(bench: Bench) -> None:
    bench.viewer.add_labels(np.ones((16, 24, 28), int), name="inside")
    bench.add(volume())
    bench.session.chosen.set_mask(bench.viewer.layers["inside"])
    bench.viewer.layers.remove("inside")
    bench.settle()
    assert bench.session.chosen.mask_layer is None
    assert not bench.errors


def test_a_mask_that_fits_no_more_is_an_error(bench: Bench) -> None:
    inside = bench.viewer.add_labels(np.ones((16, 24, 28), int), name="inside")
    bench.add(volume())
    bench.session.chosen.set_mask(inside)
    inside.data = np.ones((4, 4, 4), int)
    bench.session.chosen.renew()
    assert "choose a layer of the same shape" in str(bench.errors[-1])
    assert bench.session.chosen.surveys is None


def test_the_place_of_the_layer_is_followed_until_another_is_chosen(bench: Bench) -> None:
    first = bench.add(volume(), name="first")
    moved: list[None] = []
    bench.session.chosen.moved.connect(lambda: moved.append(None))
    first.scale = (2, 1, 1)
    assert len(moved) >= 1
    bench.add(volume(), name="second")
    count = len(moved)
    first.scale = (3, 1, 1)
    assert len(moved) == count
