"""The live preview: equal to the slice of the result, up to date, and no larger than necessary."""

from __future__ import annotations

import itertools
from typing import Any

import dask.array as da
import numpy as np
import pytest
from napari.layers import Image

import nlmeans
from napari_nlm.maps import MAP_NAMES
from napari_nlm.pictures import COMPARE_MODES, Picture
from napari_nlm.preview import LARGEST_PREVIEW, LARGEST_SLAB, largest_preview
from nlmeans.core.progress import silent
from nlmeans.engine import plan as engine_plan
from tests.napari_nlm.conftest import Bench
from tests.napari_nlm.images import ORIENTATIONS, SIGMA, CountedChunks, Watched, decay, series, volume


def shown_part(preview: Any, result: Any) -> Any:
    """Where a preview layer lies in a result layer, by their places in the world."""
    start = result.world_to_data(preview.data_to_world((0,) * preview.ndim))
    return tuple(slice(round(at), round(at) + n) for at, n in zip(start, preview.data.shape, strict=False))


@pytest.mark.parametrize(
    ("place", "order"),
    [
        *(("LPS", order) for order in itertools.permutations(range(3))),
        ("RAS", (0, 1, 2)),
        ("sagittal", (1, 2, 0)),
    ],
)
def test_the_preview_is_the_slice_of_the_result(bench: Bench, place: str, order: tuple[int, ...]) -> None:
    bench.add(volume(), name="scan", **ORIENTATIONS[place])
    bench.viewer.dims.order = order
    bench.settle()
    preview = bench.layer("· denoised")
    data, part = preview.data, None
    result = bench.run()
    part = shown_part(preview, result)
    assert data.size == np.prod([result.data.shape[axis] for axis in order[1:]])
    np.testing.assert_allclose(data, result.data[part], atol=1e-3)


@pytest.mark.parametrize(
    "choices",
    [
        {"method": "wiener"},
        {"method": "bayes"},
        {"method": "stochastic", "seed": 3, "search_radius": 4},
        {"despeckle": True},
        {"sigma_varies": True},
        {"sigma_varies": True, "h": 1.1, "noise": "rician"},
    ],
    ids=str,
)
def test_the_preview_is_the_slice_of_the_result_whatever_is_chosen(bench: Bench, choices: dict[str, Any]) -> None:
    data = volume(20, 20, 20)
    data[13, 4, 5] = 4000
    data *= np.linspace(0.8, 1.2, 20, dtype=np.float32)
    layer = bench.add(data)
    bench.session.next_run.set(**choices)
    bench.viewer.dims.set_current_step(0, 13)
    bench.settle()
    preview = bench.layer("· denoised").data
    result = bench.run()
    rounding = 1e-6 * data.max()
    np.testing.assert_allclose(preview[0], result.data[13], atol=rounding)
    given = {name: value for name, value in choices.items() if name not in ("h", "sigma_varies")}
    if "sigma_varies" in choices:
        given["sigma"] = "map"
    if "h" in choices:
        given["h"] = choices["h"] * bench.session.next_run.survey.facts.unit  # type: ignore[union-attr]
    np.testing.assert_allclose(
        result.data, nlmeans.denoise(layer.data, **{"method": "classic", **given}), atol=rounding
    )


def test_the_preview_gives_way_to_a_result_that_shows_the_same(bench: Bench) -> None:
    bench.add(volume())
    assert bench.layer("· denoised") is not None
    bench.run()
    assert bench.layer("· denoised") is None
    bench.session.next_run.set(h=2.0)
    bench.settle()
    assert bench.viewer.layers[-1] is bench.layer("· denoised")


def test_another_slice_moves_the_preview(bench: Bench) -> None:
    bench.add(volume(), scale=(3, 1, 1))
    bench.viewer.dims.set_current_step(0, 2)
    bench.settle()
    layer = bench.layer("· denoised")
    bench.viewer.dims.set_current_step(0, 9)
    bench.settle()
    assert bench.layer("· denoised") is layer
    assert layer.translate[0] == 27
    assert bench.viewer.dims.current_step[0] == 9


def test_no_preview_in_3d_or_when_it_is_off(bench: Bench) -> None:
    said: list[str] = []
    bench.session.preview.status.connect(said.append)
    bench.add(volume())
    bench.viewer.dims.ndisplay = 3
    bench.settle()
    assert bench.layer("· denoised") is None
    assert "2D" in said[-1]
    bench.viewer.dims.ndisplay = 2
    bench.settle()
    assert bench.layer("· denoised") is not None
    bench.session.set_live(False)
    bench.settle()
    assert bench.layer("· denoised") is None


@pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")
def test_a_layer_that_is_seen_edge_on_has_no_preview(bench: Bench) -> None:
    bench.add(volume(), affine=np.array([[0, 0, -2.0, 10], [1.5, 0, 0, 0], [0, -1.0, 0, 5], [0, 0, 0, 1]]))
    assert bench.layer("· denoised") is None
    assert not bench.errors


def test_only_the_last_of_many_changes_is_shown(bench: Bench) -> None:
    bench.add(volume())
    shown: list[Any] = []
    bench.session.preview.shown.connect(shown.append)
    for h in (0.5, 0.8, 1.1, 1.4):
        bench.session.next_run.set(h=h)
    bench.settle()
    assert len(shown) == 1
    assert bench.known.h_in_image_units == pytest.approx(1.4 * bench.sigma)


def test_holding_shows_the_original_and_then_what_was_there(bench: Bench) -> None:
    bench.add(volume())
    result = bench.run()
    bench.session.next_run.set(h=2.0)
    bench.settle()
    bench.session.preview.hold(True)
    assert not result.visible
    assert bench.layer("· denoised") is None
    bench.session.preview.hold(False)
    assert result.visible
    assert bench.layer("· denoised") is not None


def test_the_preview_of_a_series_is_that_of_its_volume(bench: Bench) -> None:
    bench.add(series())
    bench.viewer.dims.set_current_step(0, 1)
    bench.viewer.dims.set_current_step(1, 4)
    bench.settle()
    data = bench.layer("· denoised").data
    result = bench.run(all_volumes=True)
    np.testing.assert_allclose(data[0, 0], result.data[1, 4], atol=1e-3)


def test_a_preview_along_the_series_shows_several_volumes(bench: Bench) -> None:
    bench.add(series())
    bench.viewer.dims.order = (1, 2, 3, 0)
    bench.settle()
    data = bench.layer("· denoised").data
    _, z, y, _ = bench.viewer.dims.current_step
    result = bench.run(all_volumes=True)
    np.testing.assert_allclose(data[:, 0, 0], result.data[:, z, y], atol=1e-3)


def test_a_preview_loads_no_more_than_it_depends_on(bench: Bench) -> None:
    data = Watched(volume(40, 24, 28))
    layer = Image(data, contrast_limits=(0, 255), name="lazy")
    bench.viewer.add_layer(layer)
    bench.settle()
    data.asked.clear()
    bench.viewer.dims.set_current_step(0, 30)
    bench.settle()
    assert bench.layer("· denoised") is not None
    assert max(data.asked) <= 9 * 24 * 28  # patch and search radius on either side


def test_of_a_lazy_layer_only_parts_are_read_for_sigma_and_the_slab_for_the_preview(bench: Bench) -> None:
    lazy = CountedChunks((640, 256, 256), (16, 64, 64))
    shown: list[float | None] = []
    bench.session.preview.surveyed.connect(lambda: shown.append(bench.sigma))
    bench.viewer.add_image(lazy.array, contrast_limits=(0, 255))
    bench.settle()
    assert len(shown) > 1  # first a provisional value, then a better one
    assert shown[0] == pytest.approx(SIGMA, rel=0.1)
    assert bench.sigma == pytest.approx(SIGMA, rel=0.02)
    assert len(set(lazy.read)) < 0.25 * lazy.count
    lazy.read.clear()
    bench.viewer.dims.set_current_step(0, 8)
    bench.settle()
    assert bench.layer("· denoised") is not None
    assert {place[0] for place in lazy.read} == {0}  # the slab of a slice reaches 4 voxels to both sides


def test_what_was_said_of_another_layer_is_said_no_more(bench: Bench) -> None:
    said: list[str] = []
    bench.session.preview.status.connect(said.append)
    bench.add(volume(), name="one")
    bench.session.next_run.set(backend="loop")
    bench.session.chosen.choose(None)
    assert said[-1] == ""


def test_given_sigma_and_h_nothing_else_is_ever_loaded(bench: Bench) -> None:
    data = Watched(volume(40, 24, 28))
    bench.session.set_live(False)
    bench.session.chosen.choose(Image(data, contrast_limits=(0, 255)))
    bench.session.next_run.set(sigma=SIGMA, h=1.0)
    bench.session.set_live(True)
    bench.viewer.add_layer(bench.session.chosen.source.layer)  # type: ignore[union-attr]
    bench.settle()
    data.asked.clear()
    bench.viewer.dims.set_current_step(0, 30)
    bench.settle()
    assert bench.layer("· denoised") is not None
    assert max(data.asked) <= 9 * 24 * 28


def test_large_slices_are_previewed_in_the_middle(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_nlm.preview.LARGEST_FLAT_PREVIEW", 16 * 16)
    data = volume(64, 80)
    bench.add(data)
    preview = bench.layer("· denoised")
    assert preview.data.shape == (16, 16)
    result = bench.run()
    np.testing.assert_allclose(preview.data, result.data[24:40, 32:48], atol=1e-3)
    np.testing.assert_array_equal(preview.translate, (24, 32))


def test_a_draft_comes_first_where_the_exact_preview_takes_long(bench: Bench) -> None:
    bench.add(volume(20, 24, 24))
    shown: list[Any] = []
    bench.session.preview.shown.connect(shown.append)
    bench.session.next_run.set(method="bayes")
    bench.settle()
    assert [picture.draft for picture in shown] == [True, False]


def test_outside_of_the_exact_region_the_draft_stays_and_the_region_has_an_outline(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_nlm.preview.LARGEST_SLOW_PREVIEW", 8 * 8)
    data = volume(20, 24, 26)
    bench.session.next_run.set(method="bayes")
    bench.add(data)
    z = bench.viewer.dims.current_step[0]
    draft, exact = nlmeans.denoise(data, method="classic")[z], nlmeans.denoise(data, method="bayes")[z]
    shown = bench.layer("· denoised").data[0]
    outline = bench.layer("· exact region").data[:, 0]  # where its lines begin
    inside = np.zeros(shown.shape, bool)
    inside[8:16, 9:17] = True
    np.testing.assert_allclose(shown[inside], exact[inside], atol=1e-3)
    np.testing.assert_allclose(shown[~inside], draft[~inside], atol=1e-3)
    np.testing.assert_array_equal(outline.min(0), (z, 7.5, 8.5))
    np.testing.assert_array_equal(outline.max(0), (z, 15.5, 16.5))
    bench.session.next_run.set(method="classic")
    bench.settle()
    assert bench.layer("· exact region") is None


def test_an_image_is_previewed_whole_by_a_slow_method_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_nlm.preview.LARGEST_SLOW_PREVIEW", 8 * 8)
    bench.session.next_run.set(method="bayes")
    bench.add(volume(40, 44))
    assert bench.layer("· exact region") is None
    np.testing.assert_allclose(
        bench.layer("· denoised").data, nlmeans.denoise(volume(40, 44), method="bayes"), atol=1e-3
    )


@pytest.mark.parametrize("mode", ["split", "side by side"])
def test_what_is_compared_is_the_original_and_never_an_old_result(bench: Bench, mode: str) -> None:
    source = bench.add(volume())
    bench.run()
    for changed in (False, True):
        if changed:
            bench.session.next_run.set(h=2.0)
        bench.session.preview.set_mode(mode)
        bench.settle()
        z = bench.viewer.dims.current_step[0]
        own = [layer.name.split(" · ")[-1] for layer in bench.viewer.layers if " · " in layer.name]
        assert own[:2] == ["original", "denoised"]  # above all other layers, in this order
        assert [layer.name for layer in bench.viewer.layers[-len(own) :] if " · " not in layer.name] == []
        np.testing.assert_array_equal(bench.layer("· original").data[0], source.data[z])
    bench.session.preview.set_mode("denoised")
    assert source.visible


def test_the_progress_never_runs_backwards(bench: Bench) -> None:
    said: list[str] = []
    bench.session.next_run.set(method="best", backend="loop")
    bench.add(volume(30, 40, 40))
    bench.session.preview.status.connect(said.append)
    bench.session.preview.refresh()
    bench.settle()
    numbers = [float(text.split("… ")[1].rstrip("%")) for text in said if "… " in text and "%" in text]
    assert numbers == sorted(numbers)
    assert len(numbers) > 2


def test_what_fails_takes_the_preview_away_and_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.add(volume())
    assert bench.layer("· denoised") is not None

    def broken(*arguments: Any, **named: Any) -> None:
        raise ValueError("broken")

    monkeypatch.setattr("napari_nlm.denoising.Plan.run", broken)
    bench.session.next_run.set(h=2.0)
    bench.settle()
    assert bench.layer("· denoised") is None
    assert str(bench.errors[-1]) == "broken"


def test_sigma_is_estimated_even_while_the_preview_is_off(bench: Bench) -> None:
    bench.session.set_live(False)
    told: list[None] = []
    bench.session.preview.surveyed.connect(lambda: told.append(None))
    bench.add(volume())
    assert len(told) == 1
    assert bench.sigma == pytest.approx(nlmeans.estimate_sigma(volume()))


def test_a_picture_of_an_image_without_noise_has_no_sigma(bench: Bench) -> None:
    shown: list[Any] = []
    bench.session.preview.shown.connect(shown.append)
    bench.add(np.full((10, 12, 14), 7.0, np.float32), contrast_limits=(0, 10))
    assert shown[-1].sigma == 0
    assert shown[-1].judgement is None
    assert bench.known.facts is not None
    assert bench.known.facts.unit == 1


def test_the_preview_says_when_the_strength_is_too_low_or_too_high(bench: Bench) -> None:
    shown: list[Picture] = []
    bench.session.preview.shown.connect(shown.append)
    bench.add(volume(20, 48, 50))

    def words(strength: float) -> str:
        bench.session.next_run.set(strength=strength)
        bench.settle()
        assert shown[-1].judgement is not None
        return shown[-1].judgement.in_words

    assert words(1.0) == "looks like noise alone"
    assert words(0.25).startswith("noise left")
    bench.session.next_run.set(h=8.0)
    assert words(1.0).startswith("structure removed")


def test_a_slice_of_a_result_has_the_judgement_of_its_volume(bench: Bench) -> None:
    shown: list[Picture] = []
    bench.session.preview.shown.connect(shown.append)
    bench.add(volume(20, 48, 50))
    bench.run()
    plans: list[engine_plan.Plan] = []
    denoising = bench.session.next_run.denoising()
    assert denoising is not None
    denoising.denoised((), None, silent, plans)
    assert shown[-1].judgement == plans[0].judgement() is not None


def test_photon_counts_are_judged_in_units_of_their_noise(bench: Bench) -> None:
    shown: list[Picture] = []
    bench.session.preview.shown.connect(shown.append)
    counts = np.random.default_rng(0).poisson(np.where(volume(16, 50, 50) > 110, 60, 12)).astype("u2")
    bench.add(counts, contrast_limits=(0, 100))
    bench.session.next_run.set(noise="poisson")
    bench.settle()
    assert shown[-1].sigma == 0
    assert shown[-1].judgement is not None
    assert shown[-1].judgement.in_words == "looks like noise alone"


def test_a_series_is_looked_at_once_for_all_its_slices(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    for name in ("shared_basis", "noise_of"):
        own = getattr(engine_plan, name)

        def counted(*arguments: Any, name: str = name, own: Any = own) -> Any:
            looks.append(name)
            return own(*arguments)

        monkeypatch.setattr(engine_plan, name, counted)
    bench.session.next_run.set(method="auto")
    bench.add(decay())
    assert sorted(looks) == ["noise_of", "shared_basis"]
    for step in ((1, 3), (0, 5), (2, 4)):
        bench.viewer.dims.set_current_step(*step)
        bench.settle()
    bench.session.next_run.set(h=0.9)
    bench.settle()
    assert len(looks) == 2
    preview, (t, z, *_) = bench.layer("· denoised").data, bench.viewer.dims.current_step
    result = bench.run()
    assert len(looks) == 2
    np.testing.assert_allclose(preview[0, 0], result.data[t, z], atol=1e-3)


def test_whether_volumes_are_a_series_is_found_out_without_a_preview_too(bench: Bench) -> None:
    bench.session.set_live(False)
    bench.session.next_run.set(method="auto")
    bench.add(decay())
    assert bench.known.judged
    assert bench.known.choices.name == "series"
    assert bench.sigma == pytest.approx(SIGMA, rel=0.2)


def test_errors_in_volumes_that_may_be_a_series_are_told(bench: Bench) -> None:
    data = decay()
    data[:, 5:9] = np.inf
    bench.session.next_run.set(method="auto")
    bench.add(data, contrast_limits=(0, 300))
    assert "infinite" in str(bench.errors[-1])


def test_another_volume_of_the_same_slice_of_a_series_needs_no_work(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.session.next_run.set(method="series")
    bench.add(decay())
    wanted = nlmeans.denoise(decay(), method="series", series=0)
    runs: list[None] = []
    own = engine_plan.Plan.run

    def counted(*arguments: Any, **named: Any) -> Any:
        runs.append(None)
        return own(*arguments, **named)

    monkeypatch.setattr(engine_plan.Plan, "run", counted)
    for number in (0, 6, 2):
        bench.viewer.dims.set_current_step(0, number)
        bench.settle()
        z = bench.viewer.dims.current_step[1]
        np.testing.assert_allclose(bench.layer("· denoised").data[0, 0], wanted[number, z], atol=1e-3)
    assert not runs
    bench.session.next_run.set(despeckle=True)
    bench.settle()
    assert runs


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("mode", COMPARE_MODES)
def test_a_hole_of_nan_stays_and_is_no_error(bench: Bench, lazy: bool, mode: str) -> None:
    data = volume(16, 24, 28)
    data[7:9, 5:9, 3:8] = np.nan
    shown: list[Picture] = []
    bench.session.preview.shown.connect(shown.append)
    bench.add(da.from_array(data, chunks=8) if lazy else data, name="scan", contrast_limits=(0, 255))
    bench.viewer.dims.set_current_step(0, 8)
    bench.session.preview.set_mode(mode)
    bench.settle()
    np.testing.assert_array_equal(np.isnan(shown[-1].after), np.isnan(data[8:9]))
    assert shown[-1].judgement is not None
    assert 0.7 < shown[-1].judgement.share < 1.1
    bench.session.next_run.set_maps(MAP_NAMES)
    result = bench.run()
    np.testing.assert_array_equal(np.isnan(np.asarray(result.data)), np.isnan(data))
    assert not bench.errors


def test_a_slice_of_nan_alone_is_shown_as_it_is(bench: Bench) -> None:
    data = abs(volume(16, 24, 28))
    data[:4] = np.nan
    shown: list[Picture] = []
    bench.session.preview.shown.connect(shown.append)
    bench.add(data, name="scan", contrast_limits=(0, 255))
    bench.session.next_run.set(noise="rician")
    bench.viewer.dims.set_current_step(0, 1)
    bench.settle()
    assert np.isnan(shown[-1].after).all()
    assert shown[-1].judgement is None
    assert not bench.errors


def test_the_preview_says_how_long_the_whole_volume_takes(bench: Bench) -> None:
    shown: list[Picture] = []
    bench.session.preview.shown.connect(shown.append)
    bench.session.next_run.set(backend="loop")
    bench.add(volume(40, 32, 34))
    near = shown[-1].run_seconds
    bench.session.next_run.set(search_radius=8)
    bench.settle()
    assert 0 < 3 * near < shown[-1].run_seconds  # 17³ voxels are searched instead of 7³
    bench.session.next_run.set(search_radius=None)
    bench.run()
    assert shown[-1].run_seconds == 0


def test_the_slab_around_a_large_slice_is_limited(bench: Bench) -> None:
    """A preview of 1024 × 1024 pixels by wiener took 3 GB."""
    bench.session.set_live(False)
    bench.add(volume(24, 28, 30))
    pixels = {}
    for method in ("classic", "wiener", "bayes"):
        bench.session.next_run.set(method=method)
        denoising = bench.session.next_run.denoising()
        assert denoising is not None
        pixels[method] = largest_preview(denoising)
    assert pixels["classic"] == pixels["bayes"] == LARGEST_PREVIEW  # the latter shows a draft by the former
    assert pixels["wiener"] * 21 <= LARGEST_SLAB
    assert pixels["wiener"] > 600**2
