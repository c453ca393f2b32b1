"""OME-Zarr metadata are read, and errors in them are named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from nlmeans.files.zarr import ngff
from nlmeans.files.zarr.denoise import denoise_zarr, zarr_noise
from nlmeans.files.zarr.run import partial_folder
from tests.nlmeans.zarrs import SAME, change, noisy, save


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return save(tmp_path / "in.ome.zarr", noisy(20, 24, 28), "zyx")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out.ome.zarr"


def test_units_that_differ_are_compared(source: Path) -> None:
    change(source, lambda ome: ome["multiscales"][0]["axes"][0].update(unit="nanometer"))
    assert ngff.read_image(source).spacing == pytest.approx((2e-9, 0.5e-6, 0.5e-6))
    change(source, lambda ome: ome["multiscales"][0]["axes"][0].update(unit="cubit"))
    with pytest.raises(ValueError, match="'cubit' is not known"):
        _ = ngff.read_image(source).spacing


def test_which_multiscale(source: Path) -> None:
    zarr.open_group(source, mode="r+").create_array("other", data=np.ones((4, 4, 4), "f4"))

    def second(ome: dict[str, Any]) -> None:
        entry = json.loads(json.dumps(ome["multiscales"][0]))
        entry["name"], entry["datasets"][0]["path"] = "thumbnail", "other"
        ome["multiscales"].append(entry)

    change(source, second)
    assert ngff.read_image(source).array.shape == (20, 24, 28)
    assert ngff.read_image(source, "thumbnail").array.shape == ngff.read_image(source, 1).array.shape == (4, 4, 4)
    with pytest.raises(ValueError, match=r"'no' is not in .*0 'cells', 1 'thumbnail'"):
        ngff.read_image(source, "no")


def multiscale(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda ome: ome["multiscales"][0].update(changes)


def dataset(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda ome: ome["multiscales"][0]["datasets"][0].update(changes)


def scaled(*scale: Any) -> Callable[[dict[str, Any]], None]:
    return dataset(coordinateTransformations=[{"type": "scale", "scale": list(scale)}])


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda ome: ome.pop("multiscales"), "not an OME-Zarr image"),
        (lambda ome: ome.update(multiscales={}), "multiscales is {}, but must be a list"),
        (lambda ome: ome.update(multiscales=[]), "multiscale=0 is not in .*: none"),
        (lambda ome: ome.update(multiscales=[3]), r"multiscales\[0\] is 3, but must be an object"),
        (lambda ome: ome.update(version="0.3"), "version '0.3' on zarr format 3"),
        (multiscale(axes=None), "axes is missing"),
        (multiscale(axes=[{"name": n} for n in "zy"]), "axes has 2 axes, but the array in full has"),
        (multiscale(axes=[{"name": n} for n in "zyy"]), "each needs a different name"),
        (multiscale(axes=[{"name": n} for n in "tcx"]), "1 spatial axes"),
        (multiscale(axes=["z", "y", "x"]), "'z', but must be an object"),
        (multiscale(axes=[{"name": n, "unit": ["mm"]} for n in "zyx"]), r"axes\[0\].unit is \['mm'\], but must be"),
        (multiscale(datasets=[]), "is empty"),
        (multiscale(coordinateTransformations=[{"type": "scale", "path": "x"}]), "the scale None"),
        (dataset(path=None), "path is missing"),
        (dataset(path="elsewhere"), "'elsewhere', but there is no array"),
        (dataset(coordinateTransformations=[]), "has no scale"),
        (scaled(1, 1), "but there are 3 axes"),
        (scaled(1, 1, 0), "no voxel can have the size 0"),
        (scaled(1, 1, "2"), "one number per axis"),
        (dataset(coordinateTransformations=[{"type": "affine"}]), "only scale and translation can be read"),
    ],
)
def test_damaged_metadata_are_named(
    edit: Callable[[dict[str, Any]], object], message: str, source: Path, target: Path, tmp_path: Path
) -> None:
    change(source, edit)
    with pytest.raises((ValueError, TypeError, OSError), match=message):
        denoise_zarr(source, target, **SAME)
    assert [path.name for path in tmp_path.iterdir()] == ["in.ome.zarr"]


@pytest.mark.parametrize(
    "path",
    ["../../secret", "../secret.zarr", "full/../../secret.zarr", "/etc", "a/./b", "", "c:\\x", "a\\..\\b", "x:y"],
)
def test_paths_in_metadata_never_lead_out(path: str, source: Path, target: Path, tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "secret.zarr", data=noisy(20, 24, 28))
    change(source, dataset(path=path))
    with pytest.raises(ValueError, match="not followed"):
        denoise_zarr(source, target, **SAME)


def test_damaged_files_are_named(source: Path, target: Path) -> None:
    chunk = next(file for file in (source / "full" / "c").rglob("*") if file.is_file())
    chunk.write_bytes(b"no chunk at all")
    with pytest.raises(ValueError, match=r"cannot be read at .*may be damaged"):
        denoise_zarr(source, target, **SAME)
    assert not partial_folder(target).exists()
    (source / "full" / "zarr.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read as zarr"):
        denoise_zarr(source, target, **SAME)


def test_chunks_that_are_not_there_count_as_the_fill_value_and_are_told(
    source: Path, target: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chunk = next(file for file in (source / "full" / "c").rglob("*") if file.is_file())
    chunk.unlink()
    with caplog.at_level("INFO", "nlmeans"):
        denoise_zarr(source, target, **SAME)
    assert f"{source}: 35 of 36 chunks are stored" in caplog.messages


def test_an_image_of_which_next_to_nothing_is_stored_is_refused(source: Path, target: Path) -> None:
    document = source / "full" / "zarr.json"
    metadata = json.loads(document.read_text())
    document.write_text(json.dumps({**metadata, "shape": [2**40, 24, 28]}))
    with pytest.raises(ValueError, match=r"has 36 of 1649267441664 chunks, and missing chunks count as 0"):
        denoise_zarr(source, target, **SAME)
    document.write_text(json.dumps(metadata))
    shutil.rmtree(source / "full" / "c")
    with pytest.raises(ValueError, match="has 0 of 36 chunks"):
        zarr_noise(source, "gaussian")
    assert not partial_folder(target).exists()


def test_collections_name_an_image_in_them(source: Path, tmp_path: Path) -> None:
    plate = zarr.open_group(tmp_path / "plate.zarr", mode="w")
    plate.attrs["ome"] = {"version": "0.5", "plate": {}}
    plate.create_group("A").create_group("1")
    source.rename(tmp_path / "plate.zarr" / "A" / "1" / "0")
    with pytest.raises(ValueError, match=r"a collection of images .plate.; name an image in it, such as A/1/0"):
        ngff.read_image(tmp_path / "plate.zarr")


@pytest.mark.parametrize(
    ("shape", "message"),
    [((2, 8, 8, 8), "4 axes have no names"), ((8,), "1 axes have no names"), ((0, 4), "no voxels")],
)
def test_arrays_that_are_no_image(shape: tuple[int, ...], message: str, tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", shape=shape, dtype="f4")
    with pytest.raises(ValueError, match=message):
        ngff.read_image(tmp_path / "a.zarr")


def test_complex_numbers_are_refused(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", shape=(4, 4), dtype="c8")
    with pytest.raises(TypeError, match="complex64"):
        ngff.read_image(tmp_path / "a.zarr")
