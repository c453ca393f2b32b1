"""The pyramid: its levels are means of two voxels, are stored like the image, and cover the same place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("zarr")

import zarr

from nlmeans.files.zarr import ngff
from nlmeans.files.zarr.denoise import denoise_zarr
from nlmeans.files.zarr.pyramid import (
    PyramidLevel,
    create_arrays,
    halved,
    pyramid_levels,
    transformations,
    write_metadata,
)
from tests.nlmeans.zarrs import SAME, about, array, level, noisy, save


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out.ome.zarr"


# ---------------------------------------------------------------- which levels


def test_each_level_is_the_mean_of_the_one_before_and_lies_where_it_should(tmp_path: Path, target: Path) -> None:
    data = noisy(6, 700, 290, dtype="u2")
    source = save(tmp_path / "in.zarr", data, "zyx", chunk=128)  # 2 µm in z, 0.5 µm in y and x
    denoise_zarr(source, target, memory=64 * 2**20, **SAME)
    datasets = about(target)["multiscales"][0]["datasets"]
    assert [entry["path"] for entry in datasets] == ["0", "1", "2"]
    assert [array(target, number).shape for number in range(3)] == [(6, 700, 290), (6, 350, 145), (6, 175, 73)]
    expected = level(target).reshape(6, 350, 2, 145, 2).mean((2, 4))
    np.testing.assert_array_equal(level(target, 1), np.rint(expected))
    scale, translation = datasets[1]["coordinateTransformations"]
    assert scale["scale"] == [2.0, 1.0, 1.0]
    assert translation["translation"] == [10.0, 10.25, 10.25]  # the centre of the first voxel


def test_pyramid_halves_depth_once_voxels_are_about_cubes(tmp_path: Path, target: Path) -> None:
    source = save(tmp_path / "in.zarr", noisy(5, 1100, 40, dtype="u1"), "zyx", chunk=256)
    levels = ngff.read_image(source)
    assert levels.spacing == (2.0, 0.5, 0.5)
    assert [found.shape for found in pyramid_levels(levels)] == [
        (5, 1100, 40),
        (5, 550, 20),
        (5, 275, 10),
        (3, 138, 5),
    ]


def test_odd_lengths_keep_their_last_voxel() -> None:
    np.testing.assert_array_equal(halved(np.arange(5, dtype="u1"), (0,)), [0.5, 2.5, 4])
    np.testing.assert_array_equal(halved(np.full((3, 2), 2**53, "i8"), (0, 1)), np.full((2, 1), 2.0**53))


def test_there_are_as_many_levels_as_before_while_there_are_voxels(tmp_path: Path) -> None:
    source = save(tmp_path / "in.zarr", noisy(2, 12, 10), "zyx")
    image = ngff.read_image(source)
    assert [found.shape for found in pyramid_levels(image)] == [(2, 12, 10)]
    several = ngff.ZarrImage(**{**vars(image), "levels": 3})
    assert [found.shape for found in pyramid_levels(several)] == [(2, 12, 10), (2, 6, 5), (2, 3, 3)]
    endless = ngff.ZarrImage(**{**vars(image), "levels": 100})
    assert pyramid_levels(endless)[-1].shape == (1, 1, 1)


def test_times_and_channels_are_never_halved(tmp_path: Path) -> None:
    source = save(tmp_path / "in.zarr", noisy(3, 2, 600, 20, dtype="u1"), "tcyx", chunk=300)
    assert [found.shape for found in pyramid_levels(ngff.read_image(source))] == [
        (3, 2, 600, 20),
        (3, 2, 300, 10),
        (3, 2, 150, 5),
    ]


# ---------------------------------------------------------------- the means


@pytest.mark.parametrize("dtype", ["u1", "f4", "f8", "i8"])
def test_means_are_those_of_a_loop(dtype: str) -> None:
    values = np.random.default_rng(0).integers(0, 200, (5, 4, 7)).astype(dtype)
    expected = np.empty((3, 4, 4))
    for z, y, x in np.ndindex(3, 4, 4):
        expected[z, y, x] = values[2 * z : 2 * z + 2, y, 2 * x : 2 * x + 2].astype(float).mean()
    np.testing.assert_allclose(halved(values, (0, 2)), expected, rtol=1e-6)


def test_a_level_lies_over_the_image(tmp_path: Path) -> None:
    """The centre of its first voxel is the mean of the centres of the voxels that it covers."""
    image = ngff.read_image(save(tmp_path / "in.zarr", noisy(8, 16, 16), "zyx"))
    scale, translation = transformations(image, PyramidLevel((4, 4, 4), (1, 2), (2, 4, 4)))
    assert scale["scale"] == [2.0 * 2, 0.5 * 4, 0.5 * 4]
    centres = [10 + size * np.arange(factor) for size, factor in zip(image.scale, (2, 4, 4), strict=True)]
    np.testing.assert_allclose(translation["translation"], [positions.mean() for positions in centres])


# ---------------------------------------------------------------- arrays and metadata


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_arrays_are_stored_like_the_image_and_metadata_name_them(version: str, tmp_path: Path, target: Path) -> None:
    image = ngff.read_image(save(tmp_path / "in.zarr", noisy(6, 20, 20, dtype="u2"), "zyx", version))
    levels = [PyramidLevel((6, 20, 20), (), (1, 1, 1)), PyramidLevel((6, 10, 10), (1, 2), (1, 2, 2))]
    create_arrays(target, image, levels, np.float32)
    for number, found in enumerate(levels):
        made = array(target, number)
        assert (made.shape, made.dtype, made.chunks) == (found.shape, np.float32, image.array.chunks)
    write_metadata(target, image, levels, {"by": "a test"})
    assert [entry["path"] for entry in about(target)["multiscales"][0]["datasets"]] == ["0", "1"]
    record: Any = zarr.open_group(target, mode="r").attrs["nlmeans"]
    assert (record["by"], record["before"]) == ("a test", None)
    assert ngff.read_image(target).levels == 2
