"""A result is saved in the format of its name, like the file that its image came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from napari.layers import Image
from napari.layers._source import layer_source

from napari_nlm.layer_source import AxisRoles
from napari_nlm.results import proposed_file
from napari_nlm.saving import letters_of, save_layer, source_of
from nlmeans import load_image
from nlmeans.files.zarr.ngff import read_image
from tests.napari_nlm.conftest import Bench
from tests.napari_nlm.images import volume


def opened(bench: Bench, data: Any, path: Path, **looks: Any) -> Image:
    """A layer as napari makes it of a file."""
    with layer_source(path=str(path)):
        layer = Image(data, name=path.name.split(".")[0], **looks)
    bench.viewer.add_layer(layer)
    bench.settle()
    return layer


def saved(layer: Image, path: Path) -> list[str]:
    data, meta, _ = layer.as_layer_data_tuple()
    return save_layer(path, data, meta)


def stack() -> np.ndarray[Any, Any]:
    """Two times of a small volume, as integers."""
    return np.stack([volume(8, 20, 24, seed=seed) for seed in (0, 1)]).astype(np.uint16)


def test_a_stack_of_imagej_comes_back_as_one(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "cells.tif"
    about = {"axes": "TZYX", "spacing": 0.6, "unit": "um", "finterval": 2.5}
    tifffile.imwrite(file, stack(), imagej=True, resolution=(5, 5), metadata=about)
    opened(bench, tifffile.imread(file), file)
    result = bench.run(all_volumes=True)
    assert proposed_file(result) == tmp_path / "cells_denoised.tif"
    made = saved(result, proposed_file(result))
    assert made == [str(tmp_path / "cells_denoised.tif"), str(tmp_path / "cells_denoised.json")]
    with tifffile.TiffFile(made[0]) as ours:
        assert ours.is_imagej
        assert ours.series[0].axes == "TZYX"
        np.testing.assert_array_equal(ours.asarray(), result.data)
        found = ours.imagej_metadata or {}
        assert (found["spacing"], found["unit"], found["finterval"]) == (pytest.approx(0.6), "um", 2.5)
    assert json.loads(Path(made[1]).read_text())["settings"]["method"] == "classic"
    zooms = load_image(made[0]).header.get_zooms()
    assert [float(size) for size in zooms[:3]] == pytest.approx([2e-4, 2e-4, 6e-4])


def test_one_time_of_an_ome_tiff_keeps_its_axes(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "cells.ome.tif"
    tifffile.imwrite(file, stack(), metadata={"axes": "TZYX", "PhysicalSizeX": 0.1, "PhysicalSizeY": 0.1})
    opened(bench, tifffile.imread(file), file)
    result = bench.run()
    assert proposed_file(result).name == "cells_denoised.ome.tif"
    with tifffile.TiffFile(saved(result, proposed_file(result))[0]) as ours:
        assert ours.is_ome
        assert ours.series[0].get_axes(squeeze=False)[-3:] == "ZYX" or ours.series[0].axes == "ZYX"
        np.testing.assert_array_equal(ours.asarray().squeeze(), result.data.squeeze())


def test_a_layer_without_a_file_has_its_own_voxel_size_in_tiff(tmp_path: Path) -> None:
    layer = Image(volume(6, 8, 9).astype("f4"), scale=(3, 1, 2), units=("mm", "mm", "mm"))
    (path,) = saved(layer, tmp_path / "scan.tif")
    assert [float(size) for size in load_image(path).header.get_zooms()] == [2, 1, 3]


def test_colours_are_saved_as_colours(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (12, 14, 3), np.uint8)
    (path,) = saved(Image(colours, rgb=True), tmp_path / "colours.tif")
    np.testing.assert_array_equal(tifffile.imread(path), colours)
    with pytest.raises(ValueError, match="has colours"):
        saved(Image(colours, rgb=True), tmp_path / "colours.zarr")


def test_axes_of_tiff_are_those_of_the_layer() -> None:
    five = Image(np.zeros((2, 3, 4, 5, 6)), axis_labels=("time", "channel", "z", "y", "x"))
    assert letters_of(source_of(five)) == "TCZYX"
    assert letters_of(source_of(Image(np.zeros((3, 5, 6)), axis_labels=("c", "y", "x")))) == "CYX"
    assert letters_of(source_of(Image(np.zeros((2, 4, 5, 6))))) == "TZYX"
    with pytest.raises(ValueError, match="save it as OME-Zarr"):
        letters_of(source_of(Image(np.zeros((2, 2, 2, 2, 4, 5, 6)))))


def of_zarr(path: Path, data: np.ndarray[Any, Any], version: int) -> Path:
    """A small OME-Zarr image, with metadata that only it has."""
    group = zarr.open_group(path, mode="w", zarr_format=version)
    group.create_array("0", shape=data.shape, dtype=data.dtype, chunks=(4, 8, 8))[...] = data
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    scale = [{"type": "scale", "scale": [2.0, 0.5, 0.5]}]
    one = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}], "name": "cells"}
    omero = {"channels": [{"color": "00FF00", "window": {"start": 0, "end": 9, "min": 0, "max": 9}}]}
    if version == 2:
        group.update_attributes({"multiscales": [{**one, "version": "0.4"}], "omero": omero})
    else:
        group.update_attributes({"ome": {"version": "0.5", "multiscales": [one], "omero": omero}})
    return path


@pytest.mark.parametrize("version", [2, 3])
def test_an_image_of_ome_zarr_comes_back_as_one(bench: Bench, tmp_path: Path, version: int) -> None:
    data = volume(8, 20, 24).astype(np.uint16)
    path = of_zarr(tmp_path / "cells.ome.zarr", data, version)
    opened(bench, data, path, scale=(2, 0.5, 0.5), units="um")
    result = bench.run()
    assert proposed_file(result).name == "cells_denoised.zarr"
    target = tmp_path / "cells_denoised.ome.zarr"
    assert saved(result, target) == [str(target)]
    ours, theirs = read_image(target), read_image(path)
    assert (ours.version, ours.axes, ours.scale) == (theirs.version, theirs.axes, theirs.scale)
    assert ours.array.chunks == theirs.array.chunks
    np.testing.assert_array_equal(ours.array[:], result.data)
    attributes: Any = ours.attributes if version == 2 else ours.attributes["ome"]
    assert attributes["omero"]["channels"][0]["color"] == "00FF00"
    record: Any = ours.attributes["nlmeans"]
    assert record["settings"]["method"] == "classic"
    with pytest.raises(FileExistsError, match="choose another name"):
        saved(result, target)


def test_a_layer_of_any_other_source_becomes_ome_zarr_where_it_lies(bench: Bench, tmp_path: Path) -> None:
    layer = bench.add(volume(8, 300, 24), scale=(3, 1, 1), translate=(5, 0, 0), units="mm")
    saved(bench.run(), tmp_path / "scan.zarr")
    image = read_image(tmp_path / "scan.zarr")
    assert (image.spacing, image.translation, image.levels) == ((3, 1, 1), (5, 0, 0), 2)
    assert image.array.dtype == layer.dtype
    np.testing.assert_array_equal(image.array[:], bench.session.runs.result().data)


def test_a_streamed_result_is_stored_like_its_source(bench: Bench, tmp_path: Path) -> None:
    import dask.array as da

    path = of_zarr(tmp_path / "cells.zarr", volume(8, 20, 24).astype(np.uint16), 2)
    opened(bench, da.from_zarr(str(path), component="0"), path, contrast_limits=(0, 255))
    bench.run(store=tmp_path / "out.zarr")
    assert read_image(tmp_path / "out.zarr").version == "0.4"


def test_the_original_is_never_overwritten(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "cells.tif"
    tifffile.imwrite(file, stack()[0], imagej=True)
    opened(bench, tifffile.imread(file), file)
    with pytest.raises(ValueError, match="never overwritten"):
        saved(bench.run(), file)


def test_the_axes_that_were_chosen_for_a_run_are_those_that_are_saved(bench: Bench, tmp_path: Path) -> None:
    layer = bench.add(volume(6, 20, 24), name="images")
    bench.session.chosen.choose(layer, AxisRoles((1, 2), None, (0,)))
    bench.settle()
    (path, _) = saved(bench.run(all_volumes=True), tmp_path / "images.tif")
    with tifffile.TiffFile(path) as ours:
        assert ours.series[0].axes == "TYX"
