"""Runs of whole volumes: started, cancelled, several in a row."""

from __future__ import annotations

from typing import Any

import numpy as np

import nlmeans
from napari_nlm.maps import COMPONENTS
from napari_nlm.marks import PROVENANCE_KEY
from napari_nlm.runs import Running
from tests.napari_nlm.conftest import Bench
from tests.napari_nlm.images import decay, series, volume


def test_a_cancelled_run_leaves_no_layer(bench: Bench) -> None:
    bench.session.next_run.set(backend="loop", search_radius=12)
    bench.session.set_live(False)
    bench.add(volume(40, 40, 40), name="scan")
    states: list[Any] = []
    bench.session.runs.progressed.connect(states.append)
    bench.session.runs.start()
    bench.wait(lambda: any(state is not None and state.fraction > 0 for state in states))
    bench.session.runs.cancel()
    assert states[-1] is None
    bench.session.runs.lane.pool.submit(lambda: None).result(60)
    bench.settle()
    assert [layer.name for layer in bench.viewer.layers] == ["scan"]
    assert not bench.errors


def test_several_layers_one_after_the_other_each_with_its_own_noise(bench: Bench) -> None:
    layers = [bench.add(volume(12, 16, 18, seed=seed) * (1 + seed), name=f"scan {seed}") for seed in range(3)]
    bench.session.next_run.set(sigma=1.0)
    bench.run(layers=layers)
    for layer in layers:
        result = bench.viewer.layers[f"{layer.name} denoised"]
        np.testing.assert_allclose(result.data, nlmeans.denoise(layer.data, method="classic"), atol=1e-3)


def test_a_layer_that_fails_is_named_and_the_others_are_denoised(bench: Bench) -> None:
    good, bad = volume(12, 16, 18), volume(12, 16, 18)
    bad[3] = np.inf
    layers = [bench.add(bad, name="holes", contrast_limits=(0, 255)), bench.add(good, name="scan")]
    bench.errors.clear()
    bench.run(layers=layers)
    assert "scan denoised" in bench.viewer.layers
    texts = [str(error) for error in bench.errors]
    assert any(text.startswith("holes: ") and "infinite" in text for text in texts)


def test_the_progress_and_the_time_left_are_told(bench: Bench) -> None:
    bench.session.set_live(False)
    bench.add(volume(48, 48, 48), name="scan")
    told: list[Any] = []
    bench.session.runs.progressed.connect(told.append)
    bench.session.next_run.set(backend="loop", search_radius=4)
    bench.run()
    assert told[0] == Running(0.0, None)
    assert told[-1] is None
    fractions = [running.fraction for running in told[:-1]]
    assert fractions == sorted(fractions)
    assert all(running.seconds_left is None or running.seconds_left >= 0 for running in told[:-1])


def test_without_an_image_nothing_is_run(bench: Bench) -> None:
    assert bench.run() is None
    assert not bench.errors


def test_what_is_run_is_the_volume_that_is_shown_or_all(bench: Bench) -> None:
    bench.add(series())
    bench.viewer.dims.set_current_step(0, 2)
    runs = bench.session.runs
    ((denoising, volume_shown),) = runs.orders(False, None)
    assert volume_shown == (2,)
    assert denoising.source.layer is bench.viewer.layers[0]
    ((_, every),) = runs.orders(True, None)
    assert every is None


def test_the_selected_result_is_the_one_to_save(bench: Bench) -> None:
    first = bench.add(volume(12, 14, 16), name="first")
    one = bench.run()
    bench.add(volume(12, 14, 16, seed=2), name="second")
    two = bench.run()
    bench.viewer.layers.selection.active = one
    assert bench.session.runs.result() is one
    bench.viewer.layers.selection.active = bench.viewer.layers["second"]
    assert bench.session.runs.result() is two
    bench.viewer.layers.selection.active = first
    assert bench.session.runs.result() is one


def test_a_layer_is_of_concern_while_it_is_denoised(bench: Bench) -> None:
    layer = bench.add(volume(), name="scan")
    runs = bench.session.runs
    assert not runs.concern(layer)
    runs.start()
    assert runs.concern(layer)
    bench.settle()
    assert not runs.concern(layer)


def test_each_of_several_layers_is_a_series_or_not_and_has_its_maps(bench: Bench) -> None:
    bench.session.next_run.set(method="auto")
    bench.session.set_live(False)
    dwi, scan = bench.add(decay(), name="dwi"), bench.add(volume(12, 16, 18), name="scan")
    bench.session.next_run.set_maps([COMPONENTS])
    bench.run(layers=[dwi, scan])
    assert bench.viewer.layers["dwi components kept"].data.shape == (12, 13, 14)
    assert "scan components kept" not in bench.viewer.layers
    methods = {name: bench.viewer.layers[f"{name} denoised"].metadata[PROVENANCE_KEY] for name in ("dwi", "scan")}
    assert [record["settings"]["method"] for record in methods.values()] == ["series", "best"]
    assert methods["scan"]["left_out"].keys() == {COMPONENTS}


def test_a_run_that_starts_before_it_is_known_finds_out_by_itself(bench: Bench) -> None:
    bench.session.next_run.set(method="auto")
    bench.session.set_live(False)
    bench.viewer.add_image(decay(), name="dwi")
    result = bench.run(all_volumes=False)
    assert result.data.shape == decay().shape
    assert not bench.session.runs.running
