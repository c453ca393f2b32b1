"""The layers of the preview: where they lie, and how they compare before and after."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from napari.components import ViewerModel

from napari_nlm.geometry import View, matrix_and_offset
from napari_nlm.pictures import COMPARE_MODES, DENOISED, REMOVED, SIDE_BY_SIDE, SPLIT, Picture
from napari_nlm.preview_layers import PreviewLayers, is_preview
from tests.napari_nlm.conftest import Bench, Dock
from tests.napari_nlm.images import ORIENTATIONS, picture, volume

Pixels = npt.NDArray[Any]


def bright(pixels: Pixels) -> npt.NDArray[np.bool_]:
    """The box of `volume`, whose grey is far from that of its ground."""
    return pixels[..., 0] > 110


def test_a_split_view_covers_the_right_part(bench: Bench) -> None:
    bench.add(volume())
    whole = bench.layer("· denoised").data
    bench.session.preview.set_mode(SPLIT, 0.25)
    part = bench.layer("· denoised")
    assert bench.layer("· original").data.shape == (1, 24, 28)
    assert part.data.shape == (1, 24, 21)
    assert part.translate[2] == 7
    np.testing.assert_array_equal(part.data, whole[..., 7:])


def test_removed_noise_is_image_minus_result_with_zero_in_the_middle(bench: Bench) -> None:
    source = bench.add(volume())
    denoised = bench.layer("· denoised").data
    bench.session.preview.set_mode(REMOVED)
    removed = bench.layer("removed noise")
    slice_of_source = source.data[bench.viewer.dims.current_step[0]]
    np.testing.assert_allclose(removed.data[0], slice_of_source - denoised[0], atol=1e-4)
    low, high = removed.contrast_limits
    assert low == -high
    assert high == pytest.approx(4 * bench.sigma)
    assert bench.layer("· denoised") is None


def test_side_by_side_takes_the_grid_and_gives_it_back(bench: Bench) -> None:
    bench.add(volume())
    bench.session.preview.set_mode(SIDE_BY_SIDE)
    assert bench.viewer.canvas.grid.enabled
    assert [layer.name.split(" · ")[-1] for layer in bench.viewer.layers[1:]] == [
        "original",
        "denoised",
        "removed noise",
    ]
    assert not bench.viewer.layers[0].visible  # the grid has a place for each visible layer
    assert all(layer.name_overlay.visible for layer in bench.viewer.layers[1:])
    bench.session.preview.set_mode("denoised")
    assert not bench.viewer.canvas.grid.enabled
    assert bench.viewer.layers[0].visible
    assert bench.layer("removed noise") is None


@pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("place", ORIENTATIONS)
def test_the_preview_lies_on_the_image(dock: Dock, place: str, order: tuple[int, ...]) -> None:
    dock.viewer.add_image(volume(), contrast_limits=(0, 255), **ORIENTATIONS[place])
    dock.viewer.dims.order = order
    dock.settle()
    hidden = order[0]
    matrix, offset = matrix_and_offset(dock.viewer.layers[0])
    inverse = np.linalg.inv(matrix)
    middle = 3 * dock.viewer.layers[0].data.shape[hidden] // 8  # of the box, along the axis that is not on the canvas
    dock.viewer.dims.set_point(hidden, (middle + (inverse @ offset)[hidden]) / inverse[hidden, hidden])
    after = dock.shot()
    dock.session.preview.hold(True)
    before = dock.shot()
    dock.session.preview.hold(False)
    boxes = bright(before), bright(after)
    assert boxes[0].sum() > 1000
    # noise makes single voxels of the original cross the threshold; a shift by one voxel would cost a whole edge
    assert (boxes[0] & boxes[1]).sum() > 0.97 * (boxes[0] | boxes[1]).sum()
    inside = boxes[0] & boxes[1]
    assert after[inside][:, 0].std() < 0.6 * before[inside][:, 0].std()


def test_the_preview_does_not_move_the_sliders_or_the_camera(dock: Dock) -> None:
    dock.viewer.add_image(volume(), scale=(3, 1, 1.5), contrast_limits=(0, 255))
    dock.viewer.dims.set_current_step(0, 3)
    ranges, zoom = dock.viewer.dims.range, dock.viewer.__wrapped__.scene.camera.zoom
    dock.settle()
    assert len(dock.viewer.layers) == 2
    assert dock.viewer.dims.range == ranges
    assert dock.viewer.dims.current_step[0] == 3
    assert dock.viewer.__wrapped__.scene.camera.zoom == zoom


def test_a_split_view_shows_noise_on_the_left_alone(dock: Dock) -> None:
    data = 100 + 20 * np.random.default_rng(0).standard_normal((8, 64, 64)).astype(np.float32)
    dock.viewer.add_image(data, contrast_limits=(0, 255))
    dock.settle()
    dock.widget.preview.modes.button(COMPARE_MODES.index("split")).click()
    shot = dock.shot()[..., 0].astype(float)
    lit = np.flatnonzero(shot.max(0) > 40)
    left, right = np.array_split(shot[:, lit], 2, axis=1)
    rows = shot[:, lit].mean(1) > 60
    assert right[rows].std() < 0.5 * left[rows].std()


def test_a_layer_is_changed_in_place_where_it_can_be() -> None:
    viewer = ViewerModel()
    source = viewer.add_image(volume(), name="scan")
    layers = PreviewLayers(viewer)
    layers.show(picture(source), DENOISED, 0.5, covered=False)
    first = layers.layers["denoised"]
    assert is_preview(first)
    assert not is_preview(source)
    layers.show(picture(source, 5.0), DENOISED, 0.5, covered=False)
    assert layers.layers["denoised"] is first
    np.testing.assert_allclose(first.data, source.data[3:4] - 5)
    source.scale = (2, 1, 1)
    layers.show(picture(source), DENOISED, 0.5, covered=False)
    assert layers.layers["denoised"] is not first
    assert len(viewer.layers) == 2


def test_a_result_that_covers_the_slice_needs_no_preview() -> None:
    viewer = ViewerModel()
    source = viewer.add_image(volume(), name="scan")
    layers = PreviewLayers(viewer)
    layers.show(picture(source), DENOISED, 0.5, covered=True)
    assert layers.layers == {}
    layers.show(picture(source), SPLIT, 0.5, covered=True)
    assert list(layers.layers) == ["original", "denoised"]
    layers.show(picture(source), DENOISED, 0.5, covered=True)
    assert not any(layer.visible for layer in layers.layers.values())


def test_the_removed_noise_of_colours_is_grey_where_nothing_was_removed() -> None:
    viewer = ViewerModel()
    source = viewer.add_image(np.full((8, 9, 4), 100, np.uint8), rgb=True, name="colours")
    box = (slice(0, 8), slice(0, 9))
    layers = PreviewLayers(viewer)
    layers.show(Picture(source, View((0, 1), box, False), source.data, source.data, 5.0), REMOVED, 0.5, False)
    removed = layers.layers["removed noise"].data
    np.testing.assert_array_equal(removed[..., :3], 0.5)
    np.testing.assert_array_equal(removed[..., 3], 1)


def test_a_removed_layer_is_forgotten_by_its_kind() -> None:
    viewer = ViewerModel()
    source = viewer.add_image(volume(), name="scan")
    layers = PreviewLayers(viewer)
    layers.show(picture(source), DENOISED, 0.5, covered=False)
    assert layers.forget(source) is None
    assert layers.forget(layers.layers["denoised"]) == "denoised"
    assert layers.layers == {}


def shown(layers: PreviewLayers) -> list[str]:
    return [kind for kind, layer in layers.layers.items() if layer.visible]


def test_what_a_mode_does_not_need_is_hidden_and_comes_back_up_to_date() -> None:
    viewer = ViewerModel()
    source = viewer.add_image(volume(), name="scan")
    layers = PreviewLayers(viewer)
    layers.show(picture(source), SIDE_BY_SIDE, 0.5, covered=False)
    own = dict(layers.layers)
    assert shown(layers) == ["original", "denoised", "removed noise"]
    for mode, kinds in ((REMOVED, ["removed noise"]), (DENOISED, ["denoised"]), (SPLIT, ["original", "denoised"])):
        layers.show(picture(source), mode, 0.5, covered=False)
        assert shown(layers) == kinds
        assert source.visible
        assert not viewer.canvas.grid.enabled
    layers.show(picture(source, 3.0), REMOVED, 0.5, covered=False)
    np.testing.assert_allclose(own["removed noise"].data, 3, atol=1e-4)
    assert layers.layers == own
    assert len(viewer.layers) == 4


def test_a_layer_that_the_user_shows_in_another_mode_is_up_to_date() -> None:
    viewer = ViewerModel()
    source = viewer.add_image(volume(), name="scan")
    layers = PreviewLayers(viewer)
    layers.show(picture(source), REMOVED, 0.5, covered=False)
    layers.show(picture(source, 3.0), DENOISED, 0.5, covered=False)
    removed = layers.layers["removed noise"]
    removed.visible = True
    np.testing.assert_allclose(removed.data, 3, atol=1e-4)
    layers.show(picture(source, 4.0), DENOISED, 0.5, covered=False)
    np.testing.assert_allclose(removed.data, 4, atol=1e-4)
    assert removed.visible


def test_a_layer_that_the_user_hides_stays_hidden() -> None:
    viewer = ViewerModel()
    source = viewer.add_image(volume(), name="scan")
    layers = PreviewLayers(viewer)
    layers.show(picture(source), DENOISED, 0.5, covered=False)
    layers.layers["denoised"].visible = False
    layers.show(picture(source, 3.0), DENOISED, 0.5, covered=False)
    assert shown(layers) == []


class Turns:
    """An event loop that turns when it is told to."""

    def __init__(self) -> None:
        self.waiting: list[Any] = []

    def __call__(self, function: Any) -> None:
        self.waiting.append(function)

    def turn(self) -> None:
        (function,) = self.waiting  # never two for one sequence of steps
        self.waiting = []
        function()


def test_one_turn_of_the_event_loop_adds_or_shows_or_removes_one_layer() -> None:
    viewer, turns = ViewerModel(), Turns()
    source = viewer.add_image(volume(), name="scan")
    layers = PreviewLayers(viewer, turns)

    def now() -> tuple[int, int]:
        return len(viewer.layers), len(shown(layers))

    layers.show(picture(source), SPLIT, 0.5, covered=False)
    before = now()
    assert before == (2, 0)
    while layers.busy:
        turns.turn()
        assert sum(abs(a - b) for a, b in zip(before, now(), strict=True)) <= 1
        before = now()
    assert before == (3, 2)
    layers.clear()
    assert not any(layer.visible for layer in viewer.layers[1:])
    while layers.busy:
        turns.turn()
    assert list(viewer.layers) == [source]


def test_a_later_picture_takes_the_place_of_one_that_is_being_shown() -> None:
    viewer, turns = ViewerModel(), Turns()
    source = viewer.add_image(volume(), name="scan")
    layers = PreviewLayers(viewer, turns)
    layers.show(picture(source), SIDE_BY_SIDE, 0.5, covered=False)
    turns.turn()
    layers.show(picture(source, 3.0), DENOISED, 0.5, covered=False)
    while layers.busy:
        turns.turn()
    assert shown(layers) == ["denoised"]
    np.testing.assert_allclose(layers.layers["denoised"].data, source.data[3:4] - 3)
    assert not viewer.canvas.grid.enabled
    assert source.visible


def test_a_preview_that_is_removed_halfway_does_no_harm() -> None:
    viewer, turns = ViewerModel(), Turns()
    source = viewer.add_image(volume(), name="scan")
    layers = PreviewLayers(viewer, turns)
    viewer.layers.events.removed.connect(lambda event: layers.forget(event.value))
    layers.show(picture(source), SPLIT, 0.5, covered=False)
    viewer.layers.remove(layers.layers["original"])
    while layers.busy:
        turns.turn()
    assert shown(layers) == ["denoised"]


def test_an_error_in_a_turn_ends_the_steps() -> None:
    viewer, turns = ViewerModel(), Turns()
    source = viewer.add_image(volume(), name="scan")
    layers = PreviewLayers(viewer, turns)
    layers.show(picture(source), SPLIT, 0.5, covered=False)
    layers.put = None  # type: ignore[assignment, method-assign]
    turns.turn()
    turns.turn()  # adds the second layer
    turns.turn()
    with pytest.raises(TypeError):
        turns.turn()
    assert not layers.busy
