"""Results that are written to OME-Zarr, block by block."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from napari.layers import Image

from napari_nlm.layer_source import LayerSource
from napari_nlm.streaming import VolumeTarget, streams
from nlmeans.files.zarr import ngff
from tests.napari_nlm.conftest import Bench
from tests.napari_nlm.images import series, volume


def test_a_large_result_of_a_lazy_layer_goes_to_a_file() -> None:
    lazy = LayerSource.of(Image(da.zeros((64, 64, 64), chunks=32), contrast_limits=(0, 1)))
    assert streams(lazy, 2**28, "uint16")
    assert not streams(lazy, 2**20, "uint16")
    assert not streams(LayerSource.of(Image(volume())), 2**30, "uint16")


def test_a_target_writes_one_volume_of_an_array(tmp_path: Path) -> None:
    array: Any = zarr.create_array(tmp_path / "a.zarr", shape=(3, 8, 9), chunks=(1, 4, 4), dtype="f4")
    target = VolumeTarget(array, [2, slice(0, 8), slice(0, 9)])
    assert (target.shape, target.chunks) == ((8, 9), (4, 4))
    target[slice(2, 4), slice(0, 3)] = np.ones((2, 3))
    assert array[2].sum() == array[:].sum() == 6


@pytest.mark.parametrize("all_volumes", [False, True])
def test_a_streamed_run_has_the_numbers_of_a_run_in_memory(bench: Bench, tmp_path: Path, all_volumes: bool) -> None:
    bench.session.next_run.set(method="wiener")
    lazy = da.from_array(series(), chunks=(1, 5, 16, 18))
    bench.add(lazy, name="scan", scale=(1, 3, 1, 1), contrast_limits=(0, 255), axis_labels=("t", "z", "y", "x"))
    wanted = bench.run(all_volumes=all_volumes).data
    layer = bench.run(all_volumes=all_volumes, store=tmp_path / "out.zarr")
    assert isinstance(layer.data, da.Array)
    np.testing.assert_allclose(layer.data, wanted, atol=1e-4)
    ome: Any = zarr.open_group(tmp_path / "out.zarr").attrs["ome"]
    (image,) = ome["multiscales"]
    assert [axis["name"] for axis in image["axes"]] == ["t", "z", "y", "x"]
    assert image["datasets"][0]["coordinateTransformations"][0]["scale"] == [1, 3, 1, 1]
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["out.zarr"]
    assert layer.metadata["nlmeans"]["doubts"] == [[]] * (3 if all_volumes else 1)
    bench.run(all_volumes=all_volumes, store=tmp_path / "out.zarr")
    assert "exists" in str(bench.errors[-1])


def test_a_cancelled_run_leaves_no_file(bench: Bench, tmp_path: Path) -> None:
    bench.session.set_live(False)
    bench.session.next_run.set(backend="loop", search_radius=12)
    bench.add(da.from_array(volume(40, 40, 40), chunks=20), contrast_limits=(0, 255))
    states: list[Any] = []
    bench.session.runs.progressed.connect(states.append)
    bench.session.runs.start(store=tmp_path / "out.zarr")
    bench.wait(lambda: any(state is not None and state.fraction > 0 for state in states))
    bench.session.runs.cancel()
    bench.session.runs.lane.pool.submit(lambda: None).result(60)
    assert [path for path in tmp_path.iterdir() if not path.name.startswith(".")] == []


def test_a_large_plane_gets_a_pyramid_that_the_layer_shows(bench: Bench, tmp_path: Path) -> None:
    bench.session.set_live(False)
    lazy = da.from_array(volume(3, 600, 300, dtype="uint16"), chunks=(3, 256, 256))
    looks = {"contrast_limits": (0, 255), "scale": (4, 1, 1), "translate": (8, 2, 2), "axis_labels": ("z", "y", "x")}
    bench.add(lazy, name="scan", **looks)
    layer = bench.run(store=tmp_path / "out.zarr")
    assert layer.multiscale
    assert [level.shape for level in layer.data] == [(3, 600, 300), (3, 300, 150), (3, 150, 75)]
    finest = np.asarray(layer.data[0]).astype(float)
    np.testing.assert_allclose(layer.data[1], finest.reshape(3, 300, 2, 150, 2).mean((2, 4)), atol=0.51)
    image = ngff.read_image(tmp_path / "out.zarr")
    assert (image.levels, image.spacing, image.translation) == (3, (4.0, 1.0, 1.0), (8.0, 2.0, 2.0))
    assert image.attributes["nlmeans"]["settings"]["method"] == "classic"
    again = bench.run(store=tmp_path / "again.zarr")
    assert again in bench.viewer.layers
    assert layer not in bench.viewer.layers


def test_axes_that_are_no_place_are_not_written_as_space(bench: Bench, tmp_path: Path) -> None:
    bench.session.set_live(False)
    lazy = da.from_array(np.stack([volume(8, 9, 10)] * 2), chunks=8)
    bench.add(lazy, name="scan", contrast_limits=(0, 255), axis_labels=("angle", "z", "y", "x"))
    bench.run(store=tmp_path / "out.zarr")
    assert ngff.read_image(tmp_path / "out.zarr").spatial_shape == (8, 9, 10)


@pytest.mark.parametrize("units", [("pixel", "mm", "mm"), ("mm", "mm", "mm"), ("mm", "um", "um")])
def test_units_that_cannot_be_compared_are_left_out(bench: Bench, tmp_path: Path, units: tuple[str, ...]) -> None:
    bench.session.set_live(False)
    lazy = da.from_array(volume(8, 9, 10), chunks=8)
    bench.add(lazy, name="scan", contrast_limits=(0, 255), units=units, scale=(2, 1, 1))
    bench.run(store=tmp_path / "out.zarr")
    assert not bench.errors
    image = ngff.read_image(tmp_path / "out.zarr")
    assert ("unit" in image.axes[0]) == ("pixel" not in units)
    assert image.spacing[1] > 0
