"""The session: what one part does when the viewer or another part changes."""

from __future__ import annotations

import numpy as np
import pytest

import nlmeans
from napari_nlm.parameters import Parameters
from napari_nlm.session import Session
from tests.napari_nlm.conftest import Bench
from tests.napari_nlm.images import volume


def test_a_preview_that_is_deleted_stays_away(bench: Bench) -> None:
    bench.add(volume())
    bench.viewer.layers.remove(bench.layer("· denoised"))
    bench.session.next_run.set(h=2.0)
    bench.settle()
    assert bench.layer("· denoised") is None
    assert not bench.session.preview.live


def test_a_layer_that_is_deleted_takes_its_run_along(bench: Bench) -> None:
    bench.session.next_run.set(backend="loop", search_radius=12)
    layer = bench.add(volume(30, 30, 30), name="scan")
    bench.session.runs.start()
    bench.viewer.layers.remove(layer)
    bench.settle()
    assert list(bench.viewer.layers) == []
    assert "scan was removed" in bench.notices[0]
    assert bench.session.chosen.source is None
    assert not bench.errors


@pytest.mark.parametrize("mode", ["denoised", "split", "side by side"])
def test_all_layers_can_be_deleted_at_once(bench: Bench, mode: str) -> None:
    bench.add(volume(), name="scan")
    bench.run()
    bench.session.next_run.set(h=2.0)
    bench.session.preview.set_mode(mode)
    bench.settle()
    bench.viewer.layers.select_all()
    bench.viewer.layers.remove_selected()
    bench.settle()
    assert list(bench.viewer.layers) == []
    assert bench.session.chosen.source is None
    assert not bench.errors


def test_an_image_of_true_and_false_is_a_mask_and_nothing_to_denoise(bench: Bench) -> None:
    scan = bench.add(volume(), name="scan")
    mask = bench.add(volume() > 100, name="inside")
    assert bench.session.chosen.is_chosen(scan)
    assert mask not in bench.session.chosen.images
    assert mask in bench.session.chosen.masks
    assert "inside holds True and False alone" in bench.notices[0]


def test_data_that_change_cancel_the_run(bench: Bench) -> None:
    bench.session.next_run.set(backend="loop", search_radius=12)
    layer = bench.add(volume(30, 30, 30), name="scan")
    bench.session.runs.start()
    layer.data = volume(20, 20, 20, seed=3)
    bench.settle()
    assert "start it again" in bench.notices[0]
    assert bench.sigma == pytest.approx(nlmeans.estimate_sigma(layer.data))
    assert bench.layer("scan denoised") is None


def test_another_layer_may_be_chosen_during_a_run(bench: Bench) -> None:
    first = bench.add(volume(), name="first")
    bench.session.runs.start()
    bench.viewer.add_image(volume(12, 12, 12), name="second")
    bench.settle()
    assert bench.session.chosen.source is not None
    assert bench.session.chosen.source.layer.name == "second"
    assert bench.viewer.layers["first denoised"].data.shape == first.data.shape


def test_a_closed_session_does_nothing_more(bench: Bench) -> None:
    bench.add(volume(30, 30, 30), name="scan")
    bench.session.next_run.set(backend="loop", search_radius=12)
    bench.session.runs.start()
    bench.session.close()
    bench.settle()
    assert [layer.name for layer in bench.viewer.layers] == ["scan"]
    bench.viewer.dims.set_current_step(0, 3)
    bench.viewer.add_image(volume(8, 8, 8))
    bench.settle()
    assert len(bench.viewer.layers) == 2


def test_errors_of_the_engine_are_handed_on(bench: Bench) -> None:
    data = volume()
    data[3, 4, 5] = np.inf
    bench.add(data, contrast_limits=(0, 255))
    assert "infinite" in str(bench.errors[-1])
    assert bench.run() is None
    assert "infinite" in str(bench.errors[-1])
    assert bench.layer("scan denoised") is None


def test_choices_and_gathering_are_given_when_it_is_made(bench: Bench) -> None:
    asked: list[None] = []
    session = Session(bench.viewer, bench.mail.put, Parameters(h=1.7), lambda refresh: lambda: asked.append(None))
    try:
        assert session.next_run.parameters == Parameters(h=1.7)
        session.next_run.set(h=1.2)
        session.preview.set_live(False)
        assert len(asked) == 2
    finally:
        session.close()


def test_a_selected_result_is_not_denoised_again(bench: Bench) -> None:
    source = bench.add(volume(), name="scan")
    result = bench.run()
    bench.viewer.layers.selection.active = result
    assert bench.session.chosen.is_chosen(source)


def test_lanes_end_with_the_session(bench: Bench) -> None:
    bench.add(volume())
    bench.session.close()
    bench.session.close()  # a second time does nothing
    assert bench.session.closed
    assert not bench.session.busy
    assert all(lane.closed for lane in bench.session.lanes)
    assert bench.layer("· denoised") is None


def test_the_preview_comes_back_after_all_layers_were_deleted(bench: Bench) -> None:
    bench.add(volume(), name="first")
    bench.viewer.layers.clear()
    bench.settle()
    bench.add(volume(seed=1), name="second")
    assert bench.session.preview.live
    assert bench.layer("second · denoised") is not None


def test_it_is_said_that_the_noise_is_looked_for(bench: Bench) -> None:
    said: list[str] = []
    bench.session.preview.status.connect(said.append)
    bench.add(volume())
    assert "Finding the noise …" in said
