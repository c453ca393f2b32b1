"""Maps: their numbers are those of the engine, and they lie on their source."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.layers import Image

import nlmeans
from napari_nlm.layer_source import AxisRoles
from napari_nlm.maps import COMPONENTS, MAP_NAMES, MAPPED_IMAGE, NOISE_MAP
from napari_nlm.marks import PROVENANCE_KEY
from napari_nlm.pictures import REMOVED
from napari_nlm.results import is_map
from tests.napari_nlm.conftest import Bench
from tests.napari_nlm.images import SIGMA, decay, series, volume

AXES = ("t", "z", "y", "x")


def map_layer(bench: Bench, name: str) -> Any:
    """The layer of a map; None if there is none."""
    return next((layer for layer in bench.viewer.layers if layer.name.split(" [")[0].endswith(name)), None)


def run_series(bench: Bench, **looks: Any) -> Any:
    """A run of a series with all maps."""
    bench.session.next_run.set(method="series")
    bench.add(decay(), name="dwi", **looks)
    bench.session.next_run.set(sigma=SIGMA)
    bench.session.next_run.set_maps(MAP_NAMES)
    return bench.run()


def test_the_maps_of_a_series_are_those_of_the_engine(bench: Bench) -> None:
    result = run_series(bench)
    wanted = nlmeans.denoise_with_maps(decay(), SIGMA, method="series", series=0)
    for name, values in ((NOISE_MAP, wanted.noise_map), (REMOVED, wanted.residual), (COMPONENTS, wanted.rank_map)):
        layer = map_layer(bench, name)
        assert layer.name == f"dwi {name}"
        assert layer.data.dtype == np.float32
        np.testing.assert_allclose(layer.data, values, atol=1e-3)
    np.testing.assert_allclose(result.data, wanted.volume, atol=1e-3)


def test_maps_have_the_place_of_their_source_along_their_own_axes(bench: Bench) -> None:
    affine = np.diag([1.0, 1.0, 2.0, 1.0, 1.0])
    affine[1:4, 4] = 5, 6, 7
    place = {
        "scale": (9, 3, 1, 1.5),
        "translate": (0, 1, 2, 3),
        "shear": (0, 0, 0, 0.1, 0, 0.2),
        "affine": affine,
        "units": ("s", "mm", "mm", "mm"),
        "axis_labels": AXES,
    }
    result = run_series(bench, **place)
    for name in (NOISE_MAP, COMPONENTS):
        layer = map_layer(bench, name)
        assert layer.data.shape == (12, 13, 14)
        assert layer.axis_labels == AXES[1:]
        assert tuple(layer.scale) == (3, 1, 1.5)
        assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
        for voxel in ((0, 0, 0), (3, 5, 7)):
            np.testing.assert_allclose(layer.data_to_world(voxel), result.data_to_world((0, *voxel))[1:])
    removed = map_layer(bench, REMOVED)
    assert removed.data.shape == result.data.shape
    np.testing.assert_array_equal(removed.translate, result.translate)


def test_where_time_is_the_last_axis_a_map_spans_all_of_it(bench: Bench) -> None:
    layer = bench.add(np.moveaxis(decay(), 0, -1), name="dwi", scale=(3, 1, 1.5, 10), translate=(0, 0, 0, 100))
    bench.session.chosen.choose(layer, AxisRoles((0, 1, 2), None, (3,)))
    bench.session.next_run.set(method="series", sigma=SIGMA)
    bench.session.next_run.set_maps([NOISE_MAP])
    bench.run()
    found = map_layer(bench, NOISE_MAP)
    assert found.data.shape == (12, 13, 14, 1)
    for number in range(8):
        voxel = found.world_to_data(layer.data_to_world((2, 3, 4, number)))
        assert tuple(np.round(voxel).astype(int)) == (2, 3, 4, 0)


def test_volumes_one_by_one_have_a_noise_map_each(bench: Bench) -> None:
    bench.add(series(), name="scan")
    bench.session.next_run.set_maps([NOISE_MAP, REMOVED])
    bench.run(all_volumes=True)
    levels = [nlmeans.estimate_sigma(one) for one in series()]
    found = map_layer(bench, NOISE_MAP).data
    assert found.shape == series().shape
    np.testing.assert_allclose(found.mean((1, 2, 3)), levels, rtol=1e-4)


def test_maps_of_the_current_volume_lie_where_it_lies(bench: Bench) -> None:
    bench.add(series(), name="scan", scale=(2, 1, 1, 1))
    bench.viewer.dims.set_current_step(0, 2)
    bench.session.next_run.set_maps([NOISE_MAP, REMOVED])
    result = bench.run(all_volumes=False)
    for name in (NOISE_MAP, REMOVED):
        layer = map_layer(bench, name)
        assert layer.name == f"scan {name} [2]"
        assert layer.data.shape == (1, 10, 16, 18)
        np.testing.assert_array_equal(layer.translate, result.translate)


def test_the_noise_map_of_counts_follows_the_result(bench: Bench) -> None:
    counts = np.random.default_rng(0).poisson(volume(12, 14, 16)).astype(np.float32)
    bench.add(counts)
    bench.session.next_run.set(noise="poisson")
    bench.session.next_run.set_maps([NOISE_MAP])
    result = bench.run()
    np.testing.assert_allclose(map_layer(bench, NOISE_MAP).data, np.sqrt(result.data.clip(0)), rtol=1e-3)


def test_several_series_have_a_map_each(bench: Bench) -> None:
    data = np.stack([decay(), 2 * decay()])
    layer = bench.add(data, name="dwi")
    bench.session.chosen.choose(layer, AxisRoles((2, 3, 4), 1, (0,)))
    bench.session.next_run.set(method="series")
    bench.session.next_run.set_maps([NOISE_MAP])
    bench.run(all_volumes=True)
    found = map_layer(bench, NOISE_MAP).data
    assert found.shape == (2, 1, 12, 13, 14)
    assert found[1].mean() == pytest.approx(2 * found[0].mean(), rel=0.05)


def test_maps_are_hidden_at_first_and_shown_from_zero_in_colours_of_their_own(bench: Bench) -> None:
    result = run_series(bench)
    layers = [map_layer(bench, name) for name in MAP_NAMES]
    assert not any(layer.visible for layer in layers)
    assert len({layer.colormap.name for layer in layers}) == 3
    noise, removed, components = (layer.contrast_limits for layer in layers)
    assert noise == [0, pytest.approx(2 * SIGMA)]
    assert removed[0] == -removed[1]
    assert components == [0, map_layer(bench, COMPONENTS).data.max()]
    assert bench.viewer.layers.selection == {result}


def test_a_second_run_updates_the_maps_and_leaves_them_as_visible_as_they_were(bench: Bench) -> None:
    bench.add(volume(), name="scan")
    bench.session.next_run.set_maps([NOISE_MAP, REMOVED])
    bench.run()
    layers = {name: map_layer(bench, name) for name in (NOISE_MAP, REMOVED)}
    before = layers[REMOVED].data
    layers[NOISE_MAP].visible = True
    bench.session.next_run.set(sigma=3.0)
    bench.run()
    assert all(map_layer(bench, name) is layer for name, layer in layers.items())
    assert not np.array_equal(layers[REMOVED].data, before)
    assert np.all(layers[NOISE_MAP].data == 3)
    assert layers[NOISE_MAP].contrast_limits == [0, 6]
    assert layers[NOISE_MAP].visible
    assert not layers[REMOVED].visible


def test_a_map_with_other_axes_replaces_its_layer(bench: Bench) -> None:
    run_series(bench)
    bench.session.next_run.set(method="classic")
    bench.run(all_volumes=True)
    found = [layer for layer in bench.viewer.layers if layer.name.endswith(NOISE_MAP)]
    assert [layer.data.shape for layer in found] == [(8, 12, 13, 14)]


def test_maps_record_how_they_were_made(bench: Bench) -> None:
    result = run_series(bench, metadata={"patient": "phantom"})
    record = result.metadata[PROVENANCE_KEY]
    assert record["maps"] == list(MAP_NAMES)
    assert not is_map(result)
    for name in MAP_NAMES:
        layer = map_layer(bench, name)
        assert is_map(layer)
        assert layer.metadata["patient"] == "phantom"
        assert layer.metadata[PROVENANCE_KEY] == {**record, "map": name}
        assert layer.metadata[MAPPED_IMAGE].shape == layer.data.shape


@pytest.mark.parametrize(
    ("data", "looks", "missing", "why"),
    [
        (volume(), {}, {COMPONENTS}, "only the method series"),
        (np.zeros((16, 16, 3), np.uint8), {"rgb": True}, set(MAP_NAMES), "colour images"),
    ],
    ids=["volume", "colours"],
)
def test_maps_that_there_are_not_are_left_out_with_the_reason(
    bench: Bench, data: Any, looks: dict[str, Any], missing: set[str], why: str
) -> None:
    bench.add(data, **looks)
    bench.session.next_run.set_maps(MAP_NAMES)
    assert bench.session.next_run.no_maps().keys() == missing
    left_out = bench.run().metadata[PROVENANCE_KEY]["left_out"]
    assert left_out.keys() == missing
    assert all(why in reason for reason in left_out.values())
    assert {name for name in MAP_NAMES if map_layer(bench, name) is None} == missing


def test_layers_without_a_record_are_no_maps() -> None:
    assert not is_map(Image(volume(8, 8)))
    assert not is_map(Image(volume(8, 8), metadata={PROVENANCE_KEY: {"path": "scan.nii"}, "map": "of a town"}))


def test_a_series_of_images_with_a_mask_has_maps_of_the_size_of_an_image(bench: Bench) -> None:
    images = decay()[:, 6]
    inside = np.zeros(images.shape[1:], int)
    inside[3:10] = 1
    bench.viewer.add_labels(inside, name="inside")
    layer = bench.add(images, name="frames", axis_labels=("t", "y", "x"))
    bench.session.chosen.choose(layer, AxisRoles((1, 2), None, (0,)))
    bench.session.chosen.set_mask(bench.viewer.layers["inside"])
    bench.session.next_run.set(method="series", sigma=SIGMA)
    bench.session.next_run.set_maps(MAP_NAMES)
    result = bench.run()
    wanted = nlmeans.denoise_with_maps(images, SIGMA, method="series", series=0, mask=inside)
    np.testing.assert_allclose(result.data, wanted.volume, atol=1e-3)
    np.testing.assert_allclose(map_layer(bench, COMPONENTS).data, wanted.rank_map, atol=1e-3)
    assert not map_layer(bench, REMOVED).data[:, inside == 0].any()
