"""Numbers: those of the engine, for every kind of layer."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from napari.layers import Image

import nlmeans
from napari_nlm.denoising import Denoising, parts
from napari_nlm.layer_mask import LayerMask
from napari_nlm.layer_source import AxisRoles, LayerSource
from napari_nlm.parameters import Parameters
from napari_nlm.surveys import Surveys
from nlmeans.core.progress import silent
from tests.napari_nlm.conftest import Bench
from tests.napari_nlm.images import SIGMA, Watched, decay, series, volume
from tests.nlmeans.volumes import unrelated_images


def test_the_result_is_that_of_the_engine(bench: Bench) -> None:
    data = volume(dtype="int16")
    bench.add(data, scale=(3, 1, 1))
    bench.session.next_run.set(noise="rician", h=1.2, search_radius=2)
    result = bench.run()
    sigma = nlmeans.estimate_sigma(data, noise="rician")
    wanted = nlmeans.denoise(
        data, sigma, method="classic", noise="rician", h=1.2 * sigma, search_radius=2, spacing=(3, 1, 1)
    )
    assert result.data.dtype == np.int16
    np.testing.assert_array_equal(result.data, wanted)


def test_the_source_is_never_written_to(bench: Bench) -> None:
    data = volume()
    kept = data.copy()
    bench.add(data)
    bench.run()
    np.testing.assert_array_equal(data, kept)


def test_all_volumes_each_with_its_own_noise(bench: Bench) -> None:
    data = series()
    bench.session.next_run.set(h=1.0)
    bench.add(data)
    result = bench.run(all_volumes=True)
    assert result.data.shape == data.shape
    for before, after in zip(data, result.data, strict=True):
        sigma = nlmeans.estimate_sigma(before)
        np.testing.assert_allclose(after, nlmeans.denoise(before, sigma, method="classic", h=sigma), atol=1e-3)


def test_time_may_be_the_last_axis(bench: Bench) -> None:
    data = np.moveaxis(series(), 0, -1)
    layer = bench.add(data, metadata={"header": None, "coordinate_system": "RAS+"})
    assert bench.session.chosen.source is not None
    assert bench.session.chosen.source.axes == AxisRoles((0, 1, 2), None, (3,))
    bench.session.chosen.choose(layer, AxisRoles((0, 1, 2), None, (3,)))
    result = bench.run(all_volumes=True)
    np.testing.assert_allclose(result.data[..., 2], nlmeans.denoise(series()[2], method="classic"), atol=1e-3)


def test_volumes_can_be_compared_together(bench: Bench) -> None:
    data = series()
    layer = bench.add(data)
    bench.session.chosen.choose(layer, AxisRoles((1, 2, 3), 0))
    bench.settle()
    preview, (_, z, *_) = bench.layer("· denoised").data, bench.viewer.dims.current_step
    result = bench.run()
    np.testing.assert_allclose(result.data, nlmeans.denoise(data, method="classic", channels=0), atol=1e-3)
    np.testing.assert_allclose(preview[0, 0], result.data[bench.viewer.dims.current_step[0], z], atol=1e-3)


@pytest.mark.parametrize("colours", [3, 4])
def test_colours_are_compared_together_and_opacity_stays(bench: Bench, colours: int) -> None:
    data = np.stack([volume(32, 40, seed=seed) for seed in range(colours)], -1).astype(np.uint8)
    bench.add(data, rgb=True)
    preview = bench.layer("· denoised").data
    result = bench.run()
    wanted = nlmeans.denoise(data[..., :3], method="classic", channels=-1)
    assert result.rgb
    np.testing.assert_array_equal(result.data[..., :3], wanted)
    np.testing.assert_array_equal(result.data[..., 3:], data[..., 3:])
    np.testing.assert_array_equal(preview, result.data)


def test_colours_of_a_stack_of_images(bench: Bench) -> None:
    data = np.stack([volume(6, 24, 26, seed=seed) for seed in range(3)], -1).astype(np.uint8)
    layer = bench.add(data, rgb=True)
    bench.session.chosen.choose(layer, AxisRoles((1, 2), 3, (0,)))
    bench.settle()
    result = bench.run(all_volumes=True)
    np.testing.assert_array_equal(result.data[4], nlmeans.denoise(data[4], method="classic", channels=-1))


def test_multiscale_is_denoised_at_full_resolution(bench: Bench) -> None:
    data = volume(64, 80)
    layer = bench.add([data, data[::2, ::2]], multiscale=True)
    assert layer.multiscale
    result = bench.run()
    assert not result.multiscale
    np.testing.assert_allclose(result.data, nlmeans.denoise(data, method="classic"), atol=1e-3)


@pytest.mark.parametrize("kind", ["dask", "zarr"])
def test_lazy_arrays_one_volume_at_a_time(bench: Bench, kind: str) -> None:
    data = series()
    lazy = da.from_array(data, chunks=(1, 10, 16, 18)) if kind == "dask" else zarr.array(data, chunks=(1, 10, 16, 18))
    bench.add(lazy, contrast_limits=(0, 255))
    assert bench.layer("· denoised") is not None
    result = bench.run(all_volumes=True)
    assert isinstance(result.data, np.ndarray)
    np.testing.assert_allclose(result.data[1], nlmeans.denoise(data[1], method="classic"), atol=1e-3)


def test_images_of_one_slice_have_no_third_axis(bench: Bench) -> None:
    data = volume(40, 44)
    bench.add(data)
    preview = bench.layer("· denoised").data
    result = bench.run()
    np.testing.assert_allclose(result.data, nlmeans.denoise(data, method="classic"), atol=1e-3)
    np.testing.assert_allclose(preview, result.data, atol=1e-3)


def test_a_stack_can_be_images_one_by_one(bench: Bench) -> None:
    data = volume(5, 24, 26)
    layer = bench.add(data)
    bench.session.chosen.choose(layer, AxisRoles((1, 2), None, (0,)))
    bench.settle()
    result = bench.run(all_volumes=True)
    np.testing.assert_allclose(result.data[2], nlmeans.denoise(data[2], method="classic"), atol=1e-3)


def denoising_of(data: Any, **chosen: Any) -> Denoising:
    source = LayerSource.of(Image(data, contrast_limits=(0, 255)))
    return Denoising(source, Parameters(**{"method": "classic", **chosen}), None, Surveys(source, None))


def test_a_volume_without_noise_comes_back_and_h_is_that_of_the_engine() -> None:
    constant = np.full((10, 12, 14), 7.0, np.float32)
    denoising = denoising_of(constant, h=1.3)
    survey = denoising.survey(())
    assert survey.facts.unit == 1.0
    assert denoising.plan((), survey).h == pytest.approx(1.3)
    assert denoising.record((), survey).h == pytest.approx(1.3)
    np.testing.assert_array_equal(denoising.denoised((), None, silent), constant)


@pytest.mark.parametrize("method", ["classic", "bayes", "linear"])
@pytest.mark.parametrize("chosen", [{}, {"h": 1.2}, {"h": 1.2, "sigma": 9.0}, {"sigma_varies": True}], ids=str)
def test_any_box_is_that_of_the_whole(method: str, chosen: dict[str, Any]) -> None:
    denoising = denoising_of(volume(18, 20, 22), method=method, **chosen)
    whole = denoising.denoised((), None, silent)
    box = (slice(5, 9), slice(0, 7), slice(13, 22))
    rounding = 1e-2 if method == "linear" else 1e-3
    np.testing.assert_allclose(denoising.denoised((), box, silent), whole[box], atol=rounding)


def test_the_record_repeats_the_run() -> None:
    denoising = denoising_of(volume(), h=1.2, noise="rician")
    record = denoising.record((), denoising.survey(())).to_dict()
    sigma, noise = record.pop("sigma"), record.pop("noise")
    assert record["h"] == pytest.approx(1.2 * sigma)
    wanted = {name: record[name] for name in ("method", "h", "patch_radius", "search_radius")}
    repeated = nlmeans.denoise(volume(), sigma, noise=noise, **wanted)
    np.testing.assert_allclose(denoising.denoised((), None, silent), repeated, atol=1e-4)


def test_the_record_has_the_sigma_of_every_channel() -> None:
    source = LayerSource.of(Image(series()), AxisRoles((1, 2, 3), 0))
    denoising = Denoising(source, Parameters(method="classic"), None, Surveys(source, None))
    survey = denoising.survey(())
    assert denoising.record((), survey).sigma == survey.facts.sigma
    assert len(survey.facts.sigma) == 3


def test_given_sigma_and_h_the_box_is_still_checked() -> None:
    data = volume()
    data[2, 3, 4] = np.inf
    denoising = denoising_of(data, sigma=8.0, h=1.0, search_radius=1)
    with pytest.raises(ValueError, match="infinite"):
        denoising.denoised((), (slice(0, 4), slice(0, 5), slice(0, 5)), silent)
    assert np.isfinite(denoising.denoised((), (slice(10, 14), slice(9, 20), slice(9, 20)), silent)).all()


def test_a_plan_reads_nothing() -> None:
    data = Watched(volume())
    denoising = denoising_of(data)
    survey = denoising.survey(())
    data.asked.clear()
    plan = denoising.plan((), survey)
    assert plan.h > 0
    assert denoising.needed_memory > 0
    assert not denoising.is_slow
    assert data.asked == []


def test_the_same_numbers_whatever_the_device_and_the_memory() -> None:
    source = LayerSource.of(Image(volume()))
    surveys = Surveys(source, None)
    base = Denoising(source, Parameters(), None, surveys)
    assert base.same_as(Denoising(source, Parameters(device="cpu", memory=2.0), None, surveys))
    assert not base.same_as(Denoising(source, Parameters(h=1.0), None, surveys))
    assert not base.same_as(denoising_of(volume(), method="auto"))
    assert not base.same_as(Denoising(source, Parameters(), LayerMask(volume(), "mask", source), surveys))


def test_a_draft_is_fast() -> None:
    slow = denoising_of(volume(40, 40, 40), method="bayes", h=1.1)
    assert slow.is_slow
    assert not slow.draft.is_slow
    assert slow.draft.parameters == Parameters(method="classic", h=1.1)


def test_memory_is_limited_by_what_is_allowed() -> None:
    assert denoising_of(volume(300, 300, 300), memory=0.1).needed_memory == 1e8
    small = denoising_of(volume(10, 10, 10), memory=0.1)
    assert small.needed_memory < 1e8
    assert denoising_of(volume(20, 10, 10), memory=0.1).needed_memory == pytest.approx(2 * small.needed_memory)


def test_auto_takes_a_series_together_as_the_engine_does(bench: Bench) -> None:
    bench.session.next_run.set(method="auto")
    bench.add(decay())
    assert bench.known.choices.name == "series"
    result = bench.run()
    np.testing.assert_allclose(result.data, nlmeans.denoise(decay(), series=0), atol=1e-3)


def test_the_method_series_takes_all_volumes_together(bench: Bench) -> None:
    bench.session.next_run.set(method="series")
    bench.add(decay())
    bench.session.next_run.set(sigma=SIGMA)
    bench.settle()
    preview, (t, z, *_) = bench.layer("· denoised").data, bench.viewer.dims.current_step
    result = bench.run(all_volumes=False)
    np.testing.assert_allclose(result.data, nlmeans.denoise(decay(), SIGMA, method="series", series=0), atol=1e-3)
    np.testing.assert_allclose(preview[0, 0], result.data[t, z], atol=1e-3)
    assert not bench.errors


def test_series_are_taken_together_one_after_the_other(bench: Bench) -> None:
    data = np.stack([decay(), decay()[::-1]])
    layer = bench.add(data)
    bench.session.chosen.choose(layer, AxisRoles((2, 3, 4), 1, (0,)))
    bench.session.next_run.set(method="series", sigma=SIGMA)
    bench.settle()
    result = bench.run(all_volumes=True)
    for before, after in zip(data, result.data, strict=True):
        np.testing.assert_allclose(after, nlmeans.denoise(before, SIGMA, method="series", series=0), atol=1e-3)


def test_unrelated_volumes_stay_one_by_one() -> None:
    images = LayerSource.of(Image(np.moveaxis(unrelated_images(8), -1, 0)))
    denoising = Denoising(images, Parameters(), None, Surveys(images, None))
    assert not denoising.judged
    assert denoising.resolved() is denoising
    assert denoising.judged


def test_the_record_of_a_series_whose_noise_varies_asks_for_a_map() -> None:
    ramp = np.linspace(4, 16, 14, dtype=np.float32)
    noise = np.random.default_rng(0).standard_normal((10, 12, 13, 14)).astype(np.float32)
    denoising = denoising_of(100 + ramp * noise, method="series").resolved()
    survey = denoising.survey(())
    assert survey.sigma_map is not None
    assert denoising.record((), survey).sigma == "map"


def test_parts_share_the_progress() -> None:
    told: list[float] = []
    for report in parts(told.append, 4):
        report(0.5)
    assert told == [0.125, 0.375, 0.625, 0.875]


def test_a_run_to_a_file_works_in_little_memory_by_the_method_that_was_chosen() -> None:
    source = LayerSource.of(Image(volume()))

    def of(**chosen: Any) -> Denoising:
        return Denoising(source, Parameters(device="cpu", **chosen), None, Surveys(source, None))

    few = of(method="wiener").streamed.parameters
    assert (few.method, few.memory) == ("wiener", 1.0)
    assert of(method="wiener", memory=3.0).streamed.parameters.memory == 3
    assert of(method="bayes").streamed.parameters.memory is None  # whose small tiles would overlap much
