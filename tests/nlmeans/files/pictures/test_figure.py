"""The picture shows before and after on one scale, removed noise around zero, and the patient the right way round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread

from nlmeans.files.formats import nifti
from nlmeans.files.pictures import figure
from nlmeans.files.pictures.figure import scan_figure
from tests.nlmeans.scans import LPS, NIFTI, OBLIQUE, RAS, SAGITTAL, save, scan
from tests.nlmeans.volumes import gaussian, piecewise

EVEN = (1.0, 1.0, 1.0)


@pytest.fixture
def before() -> npt.NDArray[np.float32]:
    return gaussian(piecewise(20, 24, 28), 10.0).astype(np.float32)


@pytest.fixture
def after() -> npt.NDArray[np.float32]:
    return piecewise(20, 24, 28).astype(np.float32)


def columns(drawing: Figure) -> list[list[Axes]]:
    """The pictures of the columns before, after and removed, from the first row to the last, without colour bars."""
    pictures = [axis for axis in drawing.axes if axis.images]
    return [pictures[column::3] for column in range(3)]


def planes(drawing: Figure) -> list[str]:
    return [axis.get_ylabel() for axis in columns(drawing)[0]]


def scale(axis: Axes) -> tuple[float, float]:
    low, high = axis.images[0].get_clim()
    assert low is not None
    assert high is not None
    return low, high


# ---------------------------------------------------------------- grey scales


@pytest.mark.parametrize("dimensions", [2, 3])
def test_before_and_after_share_one_scale(dimensions: int, before: Any, after: Any) -> None:
    pictures = [volume if dimensions == 3 else volume[10] for volume in (before, after)]
    first, second, _ = columns(figure.before_and_after(*pictures, EVEN[:dimensions]))
    expected = tuple(np.percentile(pictures[0], (0.5, 99.5)))
    assert {scale(axis) for axis in (*first, *second)} == {expected}


@pytest.mark.parametrize("dimensions", [2, 3])
def test_removed_noise_is_before_less_after_with_zero_in_the_middle(dimensions: int, before: Any, after: Any) -> None:
    pictures = [volume if dimensions == 3 else volume[10] for volume in (before, after)]
    first, second, removed = columns(figure.before_and_after(*pictures, EVEN[:dimensions]))
    low, high = scale(removed[0])
    assert low == -high
    assert high == pytest.approx(4 * (pictures[0] - pictures[1]).std())
    for one, other, difference in zip(first, second, removed, strict=True):
        shown = [np.asarray(axis.images[0].get_array()) for axis in (one, other, difference)]
        np.testing.assert_allclose(shown[0] - shown[1], shown[2], atol=1e-4)


def test_removed_noise_is_drawn_on_the_scale_of_the_noise_so_that_next_to_none_looks_like_none(before: Any) -> None:
    removed = columns(figure.before_and_after(before, before - 0.01, EVEN, sigma=5.0))[2]
    assert scale(removed[0]) == (-20, 20)
    assert removed[0].get_title() == "removed noise, ±4 sigma"


def test_columns_and_planes_are_named(before: Any, after: Any) -> None:
    drawing = figure.before_and_after(before, after, EVEN)
    assert [column[0].get_title() for column in columns(drawing)] == ["before", "after", "removed noise"]
    assert planes(drawing) == ["sagittal", "coronal", "axial"]


def test_each_plane_is_the_middle_slice(before: Any, after: Any) -> None:
    first, _, _ = columns(figure.before_and_after(before, after, EVEN))
    expected = (before[10].T, before[:, 12].T, before[:, :, 14].T)
    for axis, slice_ in zip(first, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(axis.images[0].get_array()), slice_)


def test_an_image_that_did_not_change_can_be_drawn(tmp_path: Path) -> None:
    flat = np.full((8, 9, 10), 7, np.float32)
    drawing = figure.before_and_after(flat, flat, EVEN)
    assert scale(columns(drawing)[2][0]) == (-1, 1)
    figure.save_figure(tmp_path / "flat.png", drawing)
    assert imread(tmp_path / "flat.png").ndim == 3


# ---------------------------------------------------------------- which planes


@pytest.mark.parametrize(
    ("shape", "spacing", "shown"),
    [
        ((20, 24, 28), (1, 1, 3), ["sagittal", "coronal", "axial"]),
        ((20, 24, 8), (1, 1, 5), ["axial"]),
        ((20, 8, 28), (1, 5, 1), ["coronal"]),
        ((8, 24, 28), (5, 1, 1), ["sagittal"]),
        ((20, 24, 1), (1, 1, 1), ["axial"]),
        ((1, 24, 28), (1, 1, 1), ["sagittal"]),
        ((1, 24, 28), (1, 1, 5), ["sagittal"]),
        ((20, 24, 28), (1, 10, 100), ["sagittal"]),
        ((1, 1, 1), (1, 1, 1), ["sagittal"]),
    ],
)
def test_planes_that_show_little_are_left_out(
    shape: tuple[int, ...], spacing: tuple[float, ...], shown: list[str]
) -> None:
    volume = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    assert planes(figure.before_and_after(volume, volume * 0.9, spacing)) == shown


def test_voxels_have_their_shape(before: Any, after: Any) -> None:
    first, _, _ = columns(figure.before_and_after(before, after, (1, 2, 3)))
    assert [axis.get_aspect() for axis in first] == [3 / 2, 3, 2]


@pytest.mark.parametrize("shape", [(2, 3000), (3000, 2), (1, 512, 512), (512, 1, 512), (9, 11)])
def test_long_images_make_pictures_of_a_usual_size(shape: tuple[int, ...], tmp_path: Path) -> None:
    volume = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    figure.save_figure(tmp_path / "long.png", figure.before_and_after(volume, volume * 0.9, EVEN[: len(shape)]))
    height, width, _ = imread(tmp_path / "long.png").shape
    assert 60 < height < 2000
    assert 500 < width < 2000


# ---------------------------------------------------------------- which way round


def marked(affine: npt.NDArray[np.float64], shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """A volume that is bright in its right, anterior, superior part, along the axes that have more than one voxel."""
    middle = (np.array([*shape, 1, 1][:3]) - 1) / 2
    places = np.stack(np.meshgrid(*(np.arange(n) for n in (*shape, 1, 1)[:3]), indexing="ij"), -1) - middle
    world = places @ affine[:3, :3].T
    known = np.ptp(world.reshape(-1, 3), axis=0) > 0
    return 100 * (world[..., known] > 0).all(-1).reshape(shape).astype(np.float32)


def picture(affine: npt.NDArray[np.float64], shape: tuple[int, ...], folder: Path) -> Figure:
    image = NIFTI.Nifti1Image(marked(affine, shape), affine)
    found = nifti.read_nifti(save(image, folder / "scan.nii"))
    return scan_figure(found, found.data)


def bright_corner(axis: Axes) -> tuple[str, str]:
    """The corner of a picture in which its bright part lies."""
    rows, columns = np.nonzero(np.asarray(axis.images[0].get_array()) > 50)
    x, y = axis.transData.transform((columns.mean(), rows.mean())) - axis.transAxes.transform((0.5, 0.5))
    return "top" if y > 0 else "bottom", "right" if x > 0 else "left"


@pytest.mark.parametrize(
    "affine",
    [RAS, LPS, SAGITTAL, SAGITTAL * [[-1], [1], [-1], [1]], RAS[[2, 0, 1, 3]], LPS[[1, 2, 0, 3]]],
    ids=["RAS", "LPS", "sagittal", "sagittal mirrored", "coronal", "turned"],
)
def test_right_anterior_superior_is_top_right(affine: npt.NDArray[np.float64], tmp_path: Path) -> None:
    shape = (12, 14, 16)
    right, anterior, superior = (shape[np.abs(affine[world, :3]).argmax()] for world in range(3))
    for column in columns(picture(affine, shape, tmp_path))[:2]:
        assert [bright_corner(axis) for axis in column] == [("top", "right")] * 3
        voxels = [np.asarray(axis.images[0].get_array()).shape for axis in column]
        assert voxels == [(superior, anterior), (superior, right), (anterior, right)]


def test_an_oblique_image_is_turned_to_the_nearest_axes(tmp_path: Path) -> None:
    turned = OBLIQUE @ np.diag([-1, 1, -1, 1])
    first, _, _ = columns(picture(turned, (12, 14, 16), tmp_path))
    assert [bright_corner(axis) for axis in first] == [("top", "right")] * 3


@pytest.mark.parametrize("affine", [RAS, LPS, SAGITTAL, RAS[[1, 0, 2, 3]]], ids=["RAS", "LPS", "sagittal", "ARS"])
def test_two_dimensional_images_are_turned_too(affine: npt.NDArray[np.float64], tmp_path: Path) -> None:
    ((axis,), _, _) = columns(picture(affine, (12, 14), tmp_path))
    assert bright_corner(axis) == ("top", "right")


def test_voxel_sizes_turn_with_the_image(tmp_path: Path) -> None:
    thick = SAGITTAL @ np.diag([1, 1 / 3, 3, 1])  # 2 × 1 mm in the slices, which are 12 mm apart
    ((axis,), _, _) = columns(picture(thick, (12, 14, 6), tmp_path))
    assert axis.get_ylabel() == "sagittal"
    assert axis.get_aspect() == pytest.approx(1 / 2)


def test_of_a_series_the_first_volume_is_shown(tmp_path: Path) -> None:
    data = np.stack([marked(RAS, (12, 14, 16)), np.zeros((12, 14, 16), np.float32)], axis=-1)
    found = nifti.read_nifti(save(NIFTI.Nifti1Image(data, RAS), tmp_path / "series.nii"))
    first, _, _ = columns(scan_figure(found, found.data))
    np.testing.assert_array_equal(np.asarray(first[0].images[0].get_array()), data[6, :, :, 0].T)


def test_an_image_without_directions_is_shown_as_it_is_stored(tmp_path: Path) -> None:
    image = scan(marked(RAS, (12, 14, 16)), affine=LPS)
    image.header["srow_y"] = 0
    found = nifti.read_nifti(save(image, tmp_path / "scan.nii"))
    first, _, _ = columns(scan_figure(found, found.data))
    np.testing.assert_array_equal(np.asarray(first[2].images[0].get_array()), found.data[:, :, 8].T)
