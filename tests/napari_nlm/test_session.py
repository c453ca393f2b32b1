"""The session: previews that are the result, runs that can be stopped, layers that come and go."""

from __future__ import annotations

import itertools
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from napari.layers import Image

import nlmeans
from napari_nlm.preview import REMOVED, SIDE_BY_SIDE, SPLIT
from napari_nlm.results import KEY
from napari_nlm.source import Axes
from tests.napari_nlm.conftest import Bench
from tests.napari_nlm.images import ORIENTATIONS, SIGMA, volume


def shown_part(preview: Any, result: Any) -> Any:
    """Where a preview layer lies in a result layer, by their places in the world."""
    start = result.world_to_data(preview.data_to_world((0,) * preview.ndim))
    return tuple(slice(round(at), round(at) + n) for at, n in zip(start, preview.data.shape, strict=False))


def test_the_noise_is_estimated_when_an_image_is_chosen(bench: Bench) -> None:
    bench.add(volume())
    assert bench.session.sigma == pytest.approx(nlmeans.estimate_sigma(volume()))


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
    preview = bench.layer("preview")
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
    bench.session.set(**choices)
    bench.viewer.dims.set_current_step(0, 13)
    bench.settle()
    preview = bench.layer("preview").data
    result = bench.run()
    rounding = 1e-6 * data.max()
    np.testing.assert_allclose(preview[0], result.data[13], atol=rounding)
    given = {name: value for name, value in choices.items() if name not in ("h", "sigma_varies")}
    if "sigma_varies" in choices:
        given["sigma"] = "map"
    if "h" in choices:
        given["h"] = choices["h"] * bench.session.level.unit  # type: ignore[union-attr]
    np.testing.assert_allclose(
        result.data, nlmeans.denoise(layer.data, **{"method": "classic", **given}), atol=rounding
    )


def test_the_result_is_that_of_the_engine(bench: Bench) -> None:
    data = volume(dtype="int16")
    bench.session.set(noise="rician", h=1.2, search_radius=2)
    bench.add(data, scale=(3, 1, 1))
    result = bench.run()
    sigma = nlmeans.estimate_sigma(data, noise="rician")
    wanted = nlmeans.denoise(
        data, sigma, method="classic", noise="rician", h=1.2 * sigma, search_radius=2, spacing=(3, 1, 1)
    )
    assert result.data.dtype == np.int16
    np.testing.assert_array_equal(result.data, wanted)


def test_the_result_lies_and_looks_as_its_source(bench: Bench) -> None:
    place = {
        "scale": (3.0, 1.0, 1.5),
        "translate": (1.0, 2.0, 3.0),
        "rotate": 20,
        "affine": np.diag([1, 2, 1, 1.0]),
        "units": ("mm", "mm", "mm"),
        "axis_labels": ("slice", "row", "column"),
        "contrast_limits": (20, 180),
        "colormap": "magma",
        "metadata": {"patient": "phantom"},
    }
    source = bench.add(volume(), **place)
    result = bench.run()
    ours, theirs = (layer.as_layer_data_tuple()[1] for layer in (result, source))
    for name in ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels", "contrast_limits"):
        np.testing.assert_array_equal(ours[name], theirs[name])
    assert result.colormap.name == "magma"
    assert result.metadata["patient"] == "phantom"
    assert result.metadata[KEY]["settings"]["method"] == "classic"
    assert result.metadata[KEY]["sigma"] == [pytest.approx(SIGMA, rel=0.3)]
    assert KEY not in source.metadata


def test_the_source_is_never_written_to(bench: Bench) -> None:
    data = volume()
    kept = data.copy()
    bench.add(data)
    bench.run()
    np.testing.assert_array_equal(data, kept)


def test_a_second_run_updates_its_own_layer(bench: Bench) -> None:
    bench.add(volume())
    first = bench.run()
    before = first.data
    bench.session.set(h=2.0)
    second = bench.run()
    assert second is first
    assert not np.array_equal(first.data, before)
    assert len([layer for layer in bench.viewer.layers if "denoised" in layer.name]) == 1


def test_a_result_that_was_deleted_is_made_anew(bench: Bench) -> None:
    bench.add(volume())
    bench.viewer.layers.remove(bench.run())
    assert bench.run() in bench.viewer.layers


def test_the_preview_gives_way_to_a_result_that_shows_the_same(bench: Bench) -> None:
    bench.add(volume())
    assert bench.layer("preview") is not None
    bench.run()
    assert bench.layer("preview") is None
    bench.session.set(h=2.0)
    bench.settle()
    assert bench.viewer.layers[-1] is bench.layer("preview")


def test_another_slice_moves_the_preview(bench: Bench) -> None:
    bench.add(volume(), scale=(3, 1, 1))
    bench.viewer.dims.set_current_step(0, 2)
    bench.settle()
    layer = bench.layer("preview")
    bench.viewer.dims.set_current_step(0, 9)
    bench.settle()
    assert bench.layer("preview") is layer
    assert layer.translate[0] == 27
    assert bench.viewer.dims.current_step[0] == 9


def test_no_preview_in_3d_or_when_it_is_off(bench: Bench) -> None:
    said: list[str] = []
    bench.session.status.connect(said.append)
    bench.add(volume())
    bench.viewer.dims.ndisplay = 3
    bench.settle()
    assert bench.layer("preview") is None
    assert "2D" in said[-1]
    bench.viewer.dims.ndisplay = 2
    bench.settle()
    assert bench.layer("preview") is not None
    bench.session.set_live(False)
    bench.settle()
    assert bench.layer("preview") is None


def test_a_preview_that_is_deleted_stays_away(bench: Bench) -> None:
    bench.add(volume())
    bench.viewer.layers.remove(bench.layer("preview"))
    bench.session.set(h=2.0)
    bench.settle()
    assert bench.layer("preview") is None
    assert not bench.session.live


@pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")
def test_a_layer_that_is_seen_edge_on_has_no_preview(bench: Bench) -> None:
    bench.add(volume(), affine=np.array([[0, 0, -2.0, 10], [1.5, 0, 0, 0], [0, -1.0, 0, 5], [0, 0, 0, 1]]))
    assert bench.layer("preview") is None
    assert not bench.errors


def test_only_the_last_of_many_changes_is_shown(bench: Bench) -> None:
    bench.add(volume())
    shown: list[Any] = []
    bench.session.previewed.connect(shown.append)
    for h in (0.5, 0.8, 1.1, 1.4):
        bench.session.set(h=h)
    bench.settle()
    assert len(shown) == 1
    settings = bench.session.settings()
    assert settings is not None
    assert settings.h == pytest.approx(1.4 * bench.session.sigma)


def test_a_split_view_covers_the_right_part(bench: Bench) -> None:
    bench.add(volume())
    whole = bench.layer("preview").data
    bench.session.set_mode(SPLIT, 0.25)
    part = bench.layer("preview")
    assert part.data.shape == (1, 24, 21)
    assert part.translate[2] == 7
    np.testing.assert_array_equal(part.data, whole[..., 7:])


def test_removed_noise_is_image_minus_result_with_zero_in_the_middle(bench: Bench) -> None:
    source = bench.add(volume())
    denoised = bench.layer("preview").data
    bench.session.set_mode(REMOVED)
    removed = bench.layer("removed noise")
    slice_of_source = source.data[bench.viewer.dims.current_step[0]]
    np.testing.assert_allclose(removed.data[0], slice_of_source - denoised[0], atol=1e-4)
    low, high = removed.contrast_limits
    assert low == -high
    assert high == pytest.approx(4 * bench.session.sigma)
    assert bench.layer("preview") is None


def test_side_by_side_takes_the_grid_and_gives_it_back(bench: Bench) -> None:
    bench.add(volume())
    bench.session.set_mode(SIDE_BY_SIDE)
    assert bench.viewer.canvas.grid.enabled
    assert [layer.name.split(" · ")[-1] for layer in bench.viewer.layers[1:]] == ["preview", "removed noise"]
    bench.session.set_mode("denoised")
    assert not bench.viewer.canvas.grid.enabled
    assert bench.layer("removed noise") is None


def test_holding_shows_the_original_and_then_what_was_there(bench: Bench) -> None:
    bench.add(volume())
    result = bench.run()
    bench.session.set(h=2.0)
    bench.settle()
    bench.session.hold(True)
    assert not result.visible
    assert bench.layer("preview") is None
    bench.session.hold(False)
    assert result.visible
    assert bench.layer("preview") is not None


def test_a_mask_leaves_the_rest_as_it_was(bench: Bench) -> None:
    source = bench.add(volume())
    inside = np.zeros(source.data.shape, int)
    inside[:, :12] = 1
    labels = bench.viewer.add_labels(inside)
    bench.session.set_mask(labels)
    result = bench.run()
    np.testing.assert_array_equal(result.data[:, 12:], source.data[:, 12:])
    assert not np.array_equal(result.data[:, :12], source.data[:, :12])


def test_only_layers_that_fit_are_offered_as_masks(bench: Bench) -> None:
    bench.add(volume(), name="scan")
    bench.viewer.add_labels(np.zeros((16, 24, 28), int), name="fits")
    bench.viewer.add_labels(np.zeros((4, 4, 4), int), name="does not")
    bench.session.choose(bench.viewer.layers["scan"])
    assert [layer.name for layer in bench.session.masks] == ["fits"]


def series() -> Any:
    return np.stack([volume(10, 16, 18, seed=seed) * (1 + seed) for seed in range(3)])


def test_all_volumes_each_with_its_own_noise(bench: Bench) -> None:
    data = series()
    bench.session.set(h=1.0)
    bench.add(data)
    result = bench.run(all_volumes=True)
    assert result.data.shape == data.shape
    for before, after in zip(data, result.data, strict=True):
        sigma = nlmeans.estimate_sigma(before)
        np.testing.assert_allclose(after, nlmeans.denoise(before, sigma, method="classic", h=sigma), atol=1e-3)


def test_the_current_volume_alone_lies_where_it_belongs(bench: Bench) -> None:
    bench.add(series(), scale=(2, 3, 1, 1))
    bench.viewer.dims.set_current_step(0, 2)
    result = bench.run(all_volumes=False)
    assert result.data.shape == (1, 10, 16, 18)
    assert result.translate[0] == 4
    np.testing.assert_allclose(result.data[0], nlmeans.denoise(series()[2], method="classic", spacing=(3, 1, 1)))


def test_the_preview_of_a_series_is_that_of_its_volume(bench: Bench) -> None:
    bench.add(series())
    bench.viewer.dims.set_current_step(0, 1)
    bench.viewer.dims.set_current_step(1, 4)
    bench.settle()
    data = bench.layer("preview").data
    result = bench.run(all_volumes=True)
    np.testing.assert_allclose(data[0, 0], result.data[1, 4], atol=1e-3)


def test_a_preview_along_the_series_shows_several_volumes(bench: Bench) -> None:
    bench.add(series())
    bench.viewer.dims.order = (1, 2, 3, 0)
    bench.settle()
    data = bench.layer("preview").data
    _, z, y, _ = bench.viewer.dims.current_step
    result = bench.run(all_volumes=True)
    np.testing.assert_allclose(data[:, 0, 0], result.data[:, z, y], atol=1e-3)


def test_time_may_be_the_last_axis(bench: Bench) -> None:
    data = np.moveaxis(series(), 0, -1)
    layer = bench.add(data, metadata={"header": None, "coordinate_system": "RAS+"})
    assert bench.session.source is not None
    assert bench.session.source.axes == Axes((0, 1, 2), None, (3,))
    bench.session.choose(layer, Axes((0, 1, 2), None, (3,)))
    result = bench.run(all_volumes=True)
    np.testing.assert_allclose(result.data[..., 2], nlmeans.denoise(series()[2], method="classic"), atol=1e-3)


def test_volumes_can_be_compared_together(bench: Bench) -> None:
    data = series()
    layer = bench.add(data)
    bench.session.choose(layer, Axes((1, 2, 3), 0))
    bench.settle()
    preview, (_, z, *_) = bench.layer("preview").data, bench.viewer.dims.current_step
    result = bench.run()
    np.testing.assert_allclose(result.data, nlmeans.denoise(data, method="classic", channels=0), atol=1e-3)
    np.testing.assert_allclose(preview[0, 0], result.data[bench.viewer.dims.current_step[0], z], atol=1e-3)


@pytest.mark.parametrize("colours", [3, 4])
def test_colours_are_compared_together_and_opacity_stays(bench: Bench, colours: int) -> None:
    data = np.stack([volume(32, 40, seed=seed) for seed in range(colours)], -1).astype(np.uint8)
    bench.add(data, rgb=True)
    preview = bench.layer("preview").data
    result = bench.run()
    wanted = nlmeans.denoise(data[..., :3], method="classic", channels=-1)
    assert result.rgb
    np.testing.assert_array_equal(result.data[..., :3], wanted)
    np.testing.assert_array_equal(result.data[..., 3:], data[..., 3:])
    np.testing.assert_array_equal(preview, result.data)


def test_colours_of_a_stack_of_images(bench: Bench) -> None:
    data = np.stack([volume(6, 24, 26, seed=seed) for seed in range(3)], -1).astype(np.uint8)
    layer = bench.add(data, rgb=True)
    bench.session.choose(layer, Axes((1, 2), 3, (0,)))
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


class Watched:
    """An array that remembers what was asked of it."""

    def __init__(self, data: Any) -> None:
        self.data, self.asked = data, []
        self.shape, self.ndim, self.dtype, self.size = data.shape, data.ndim, data.dtype, data.size

    def __getitem__(self, index: Any) -> Any:
        part = self.data[index]
        self.asked.append(np.asarray(part).size)
        return part


def test_a_preview_loads_no_more_than_it_depends_on(bench: Bench) -> None:
    data = Watched(volume(40, 24, 28))
    layer = Image(data, contrast_limits=(0, 255), name="lazy")
    bench.viewer.add_layer(layer)
    bench.settle()
    data.asked.clear()
    bench.viewer.dims.set_current_step(0, 30)
    bench.settle()
    assert bench.layer("preview") is not None
    assert max(data.asked) <= 9 * 24 * 28  # patch and search radius on either side


def test_given_sigma_and_h_nothing_else_is_ever_loaded(bench: Bench) -> None:
    data = Watched(volume(40, 24, 28))
    bench.session.set_live(False)
    bench.session.choose(Image(data, contrast_limits=(0, 255)))
    bench.session.set(sigma=SIGMA, h=1.0)
    bench.session.set_live(True)
    bench.viewer.add_layer(bench.session.source.layer)  # type: ignore[union-attr]
    bench.settle()
    data.asked.clear()
    bench.viewer.dims.set_current_step(0, 30)
    bench.settle()
    assert bench.layer("preview") is not None
    assert max(data.asked) <= 9 * 24 * 28


@pytest.mark.parametrize("kind", ["dask", "zarr"])
def test_lazy_arrays_one_volume_at_a_time(bench: Bench, kind: str) -> None:
    data = series()
    lazy = da.from_array(data, chunks=(1, 10, 16, 18)) if kind == "dask" else zarr.array(data, chunks=(1, 10, 16, 18))
    bench.add(lazy, contrast_limits=(0, 255))
    assert bench.layer("preview") is not None
    result = bench.run(all_volumes=True)
    assert isinstance(result.data, np.ndarray)
    np.testing.assert_allclose(result.data[1], nlmeans.denoise(data[1], method="classic"), atol=1e-3)


def test_large_slices_are_previewed_in_the_middle(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_nlm.session.LARGEST_PREVIEW", 16 * 16)
    data = volume(64, 80)
    bench.add(data)
    preview = bench.layer("preview")
    assert preview.data.shape == (16, 16)
    result = bench.run()
    np.testing.assert_allclose(preview.data, result.data[24:40, 32:48], atol=1e-3)
    np.testing.assert_array_equal(preview.translate, (24, 32))


def test_a_cancelled_run_leaves_no_layer(bench: Bench) -> None:
    bench.session.set(backend="loop", search_radius=12)
    bench.session.set_live(False)
    bench.add(volume(40, 40, 40), name="scan")
    states: list[Any] = []
    bench.session.run_changed.connect(states.append)
    bench.session.start()
    bench.wait(lambda: any(state is not None and state.fraction > 0 for state in states))
    bench.session.cancel()
    assert states[-1] is None
    bench.session.working.pool.submit(lambda: None).result(60)
    bench.settle()
    assert [layer.name for layer in bench.viewer.layers] == ["scan"]
    assert not bench.errors


def test_a_layer_that_is_deleted_takes_its_run_along(bench: Bench) -> None:
    bench.session.set(backend="loop", search_radius=12)
    layer = bench.add(volume(30, 30, 30), name="scan")
    bench.session.start()
    bench.viewer.layers.remove(layer)
    bench.settle()
    assert list(bench.viewer.layers) == []
    assert "scan was removed" in bench.notices[0]
    assert bench.session.source is None
    assert not bench.errors


def test_data_that_change_cancel_the_run(bench: Bench) -> None:
    bench.session.set(backend="loop", search_radius=12)
    layer = bench.add(volume(30, 30, 30), name="scan")
    bench.session.start()
    layer.data = volume(20, 20, 20, seed=3)
    bench.settle()
    assert "start it again" in bench.notices[0]
    assert bench.session.sigma == pytest.approx(nlmeans.estimate_sigma(layer.data))
    assert bench.layer("denoised") is None


def test_another_layer_may_be_chosen_during_a_run(bench: Bench) -> None:
    first = bench.add(volume(), name="first")
    bench.session.start()
    bench.viewer.add_image(volume(12, 12, 12), name="second")
    bench.settle()
    assert bench.session.source is not None
    assert bench.session.source.layer.name == "second"
    assert bench.viewer.layers["first denoised"].data.shape == first.data.shape


def test_a_closed_session_does_nothing_more(bench: Bench) -> None:
    bench.add(volume(30, 30, 30), name="scan")
    bench.session.set(backend="loop", search_radius=12)
    bench.session.start()
    bench.session.close()
    bench.settle()
    assert [layer.name for layer in bench.viewer.layers] == ["scan"]
    bench.viewer.dims.set_current_step(0, 3)
    bench.viewer.add_image(volume(8, 8, 8))
    bench.settle()
    assert len(bench.viewer.layers) == 2


def test_errors_of_the_engine_are_handed_on(bench: Bench) -> None:
    data = volume()
    data[3, 4, 5] = np.nan
    bench.add(data, contrast_limits=(0, 255))
    assert "nan_to_num" in str(bench.errors[-1])
    assert bench.run() is None
    assert "nan_to_num" in str(bench.errors[-1])
    assert bench.layer("denoised") is None


def test_several_layers_one_after_the_other_each_with_its_own_noise(bench: Bench) -> None:
    layers = [bench.add(volume(12, 16, 18, seed=seed) * (1 + seed), name=f"scan {seed}") for seed in range(3)]
    bench.session.set(sigma=1.0)
    bench.run(layers=layers)
    for layer in layers:
        result = bench.viewer.layers[f"{layer.name} denoised"]
        np.testing.assert_allclose(result.data, nlmeans.denoise(layer.data, method="classic"), atol=1e-3)


def test_the_removed_noise_as_a_layer(bench: Bench) -> None:
    source = bench.add(volume())
    bench.session.with_removed = True
    result = bench.run()
    removed = next(layer for layer in bench.viewer.layers if layer.name.endswith("removed"))
    np.testing.assert_allclose(removed.data, source.data - result.data, atol=1e-4)
    assert removed.contrast_limits[0] == -removed.contrast_limits[1]
    assert not removed.visible


def test_images_of_one_slice_have_no_third_axis(bench: Bench) -> None:
    data = volume(40, 44)
    bench.add(data)
    preview = bench.layer("preview").data
    result = bench.run()
    np.testing.assert_allclose(result.data, nlmeans.denoise(data, method="classic"), atol=1e-3)
    np.testing.assert_allclose(preview, result.data, atol=1e-3)


def test_a_stack_can_be_images_one_by_one(bench: Bench) -> None:
    data = volume(5, 24, 26)
    layer = bench.add(data)
    bench.session.choose(layer, Axes((1, 2), None, (0,)))
    bench.settle()
    result = bench.run(all_volumes=True)
    np.testing.assert_allclose(result.data[2], nlmeans.denoise(data[2], method="classic"), atol=1e-3)


def test_poisson_noise_needs_no_sigma(bench: Bench) -> None:
    data = np.random.default_rng(0).poisson(20, (12, 20, 20)).astype(np.float32)
    bench.session.set(noise="poisson")
    bench.add(data)
    assert bench.session.sigma is None
    assert bench.layer("preview") is not None
    np.testing.assert_allclose(bench.run().data, nlmeans.denoise(data, method="classic", noise="poisson"), atol=1e-3)


def test_a_draft_comes_first_where_the_exact_preview_takes_long(bench: Bench) -> None:
    bench.add(volume(20, 24, 24))
    shown: list[Any] = []
    bench.session.previewed.connect(shown.append)
    bench.session.set(method="bayes")
    bench.settle()
    assert [picture.draft for picture in shown] == [True, False]
