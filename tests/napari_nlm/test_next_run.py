"""The run as it would be now: what is known before it starts."""

from __future__ import annotations

import numpy as np
import pytest

import nlmeans
from napari_nlm.maps import COMPONENTS, NOISE_MAP
from napari_nlm.pictures import REMOVED
from tests.napari_nlm.conftest import Bench
from tests.napari_nlm.images import SIGMA, decay, series, volume


def test_the_noise_is_estimated_when_an_image_is_chosen(bench: Bench) -> None:
    bench.add(volume())
    assert bench.sigma == pytest.approx(nlmeans.estimate_sigma(volume()))


def test_poisson_noise_needs_no_sigma(bench: Bench) -> None:
    data = np.random.default_rng(0).poisson(20, (12, 20, 20)).astype(np.float32)
    bench.add(data)
    bench.session.next_run.set(noise="poisson")
    assert bench.sigma is None
    assert bench.layer("· denoised") is not None
    np.testing.assert_allclose(bench.run().data, nlmeans.denoise(data, method="classic", noise="poisson"), atol=1e-3)


def test_whoever_chooses_poisson_gets_the_detector_that_was_found(bench: Bench) -> None:
    stairs = 10.0 + 20 * np.repeat(np.arange(8), 6) * np.ones((24, 24, 1))
    data = (4.0 * np.random.default_rng(0).poisson(stairs) + 100).astype("u2")
    bench.add(data)
    found = bench.known.facts
    assert found is not None
    assert found.noise.kind == "poisson"
    bench.session.next_run.set(noise="poisson")
    chosen = bench.session.next_run.parameters
    assert (chosen.gain, chosen.offset, chosen.sigma) == (found.noise.gain, found.noise.offset, found.noise.sigma)
    assert chosen.gain == pytest.approx(4, rel=0.1)
    bench.session.next_run.set(noise="gaussian")
    assert bench.session.next_run.parameters.sigma is None


def test_without_an_image_nothing_is_known(bench: Bench) -> None:
    next_run = bench.session.next_run
    assert next_run.denoising() is None
    assert next_run.known() is None
    assert next_run.memory(all_volumes=True) is None
    assert next_run.volume == ()
    assert next_run.survey is None


def test_the_strength_is_known_once_the_noise_is(bench: Bench) -> None:
    bench.session.set_live(False)
    bench.viewer.add_image(volume())
    before = bench.known
    assert (before.sigma, before.h) == (None, None)
    bench.settle()
    after = bench.known
    assert after.facts is not None
    assert after.h == pytest.approx(after.choices.usual_h(after.facts.contrast))
    assert after.unit == "pixel"


def test_sigma_and_detector_are_those_of_one_image(bench: Bench) -> None:
    bench.add(volume(), name="first")
    bench.session.next_run.set(sigma=5.0, h=1.5)
    bench.add(volume(), name="second")
    assert bench.session.next_run.parameters.sigma is None
    assert bench.session.next_run.parameters.h == 1.5
    bench.session.next_run.set(noise="poisson", gain=3.0, offset=7.0)
    bench.add(volume(), name="third")
    parameters = bench.session.next_run.parameters
    assert (parameters.noise, parameters.gain, parameters.offset) == ("auto", 1, 0)


def test_a_curve_is_found_or_told_and_forgotten_with_the_kind(bench: Bench) -> None:
    steps = np.repeat(100.0 * np.arange(1, 9), 4)[:, None, None] * np.ones((1, 24, 24))
    data = (steps * (1 + 0.05 * np.random.default_rng(0).standard_normal(steps.shape))).astype(np.float32)
    bench.add(data)
    bench.session.next_run.set(sigma=5.0)
    bench.session.next_run.set(noise="curve")
    assert bench.session.next_run.parameters.sigma is None
    np.testing.assert_allclose(bench.run().data, nlmeans.denoise(data, method="classic", noise="curve"), atol=1e-3)
    assert bench.known.curve is not None
    bench.session.next_run.set(curve="100:5,800:40")
    told = nlmeans.denoise(data, method="classic", noise="curve", curve=[(100, 5), (800, 40)])
    np.testing.assert_allclose(bench.run().data, told, atol=1e-3)
    assert bench.known.curve == ((100.0, 5.0), (800.0, 40.0))
    assert not bench.errors
    bench.session.next_run.set(noise="gaussian")
    assert bench.session.next_run.parameters.curve is None


def test_sigma_is_forgotten_where_it_means_something_else(bench: Bench) -> None:
    bench.session.next_run.set(sigma=5.0)
    bench.session.next_run.set(noise="rician")
    assert bench.session.next_run.parameters.sigma == 5
    bench.session.next_run.set(noise="poisson")
    assert bench.session.next_run.parameters.sigma is None


def test_only_a_change_is_told(bench: Bench) -> None:
    heard: list[None] = []
    bench.session.next_run.changed.connect(lambda: heard.append(None))
    bench.session.next_run.set(h=1.0)
    bench.session.next_run.set(h=1.0)
    assert len(heard) == 1


def test_the_memory_counts_the_layers_that_a_run_makes(bench: Bench) -> None:
    bench.add(series())
    next_run, voxels = bench.session.next_run, 10 * 16 * 18
    one, every = next_run.memory(all_volumes=False), next_run.memory(all_volumes=True)
    assert one is not None
    assert every is not None
    assert (one.result, every.result) == (4 * voxels, 12 * voxels)
    assert one.working == every.working > 0
    next_run.set_maps([REMOVED, NOISE_MAP, COMPONENTS])
    with_maps = next_run.memory(all_volumes=False)
    assert with_maps is not None
    assert with_maps.result == (4 + 2 * 4) * voxels


def test_another_layer_is_denoised_with_the_same_choices_but_its_own_noise(bench: Bench) -> None:
    first = bench.add(volume(), name="first")
    bench.add(volume(12, 14, 16), name="second")
    bench.session.next_run.set(sigma=5.0, search_radius=2)
    denoising = bench.session.next_run.denoising_of(first)
    assert denoising.source.layer is first
    assert denoising.parameters.sigma is None
    assert denoising.parameters.search_radius == 2
    assert denoising.mask is None


def test_a_series_has_one_volume_to_run_once_it_is_known_to_be_one(bench: Bench) -> None:
    next_run = bench.session.next_run
    next_run.set(method="auto")
    bench.viewer.add_image(decay())
    bench.viewer.dims.set_current_step(0, 3)
    assert next_run.volume == (3,)
    assert not bench.known.judged
    bench.settle()
    assert bench.known.judged
    assert next_run.volume == ()
    denoising = next_run.denoising()
    assert denoising is not None
    assert denoising.source.volumes == [()]
    assert next_run.no_maps() == {}
    assert next_run.parameters.method == "auto"
    next_run.set(method="bayes")
    assert next_run.volume == (3,)
    assert next_run.no_maps().keys() == {COMPONENTS}


def test_the_memory_of_a_series_counts_one_volume_for_maps_that_all_share(bench: Bench) -> None:
    bench.add(decay())
    next_run, voxels = bench.session.next_run, 12 * 13 * 14
    next_run.set(method="series", sigma=SIGMA)
    next_run.set_maps([REMOVED, NOISE_MAP, COMPONENTS])
    need = next_run.memory(all_volumes=False)
    assert need is not None
    assert need.result == (8 * 4 + 8 * 4 + 4 + 4) * voxels
