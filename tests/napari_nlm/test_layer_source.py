"""Image layers: the roles of their axes, and one volume at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.layers import Image

from napari_nlm.layer_source import AxisRoles, LayerSource, labels_of, possible_roles, unwrapped
from nlmeans.core.layout import Layout
from tests.napari_nlm.images import Watched


def layer(*shape: int, **looks: Any) -> Image:
    return Image(np.zeros(shape, np.float32), **looks)


@pytest.mark.parametrize(
    ("shape", "looks", "first"),
    [
        ((8, 9), {}, AxisRoles((0, 1))),
        ((7, 8, 9), {}, AxisRoles((0, 1, 2))),
        ((7, 8, 9), {"axis_labels": ("t", "y", "x")}, AxisRoles((1, 2), None, (0,))),
        ((7, 8, 9), {"axis_labels": ("c", "y", "x")}, AxisRoles((1, 2), 0)),
        ((6, 7, 8, 9), {}, AxisRoles((1, 2, 3), None, (0,))),
        ((6, 7, 8, 9), {"axis_labels": ("channel", "z", "y", "x")}, AxisRoles((1, 2, 3), 0)),
        ((6, 7, 8, 9), {"metadata": {"header": 0, "coordinate_system": 0}}, AxisRoles((0, 1, 2), None, (3,))),
        ((8, 9, 3), {"rgb": True}, AxisRoles((0, 1), 2)),
        ((7, 8, 9, 3), {"rgb": True}, AxisRoles((0, 1, 2), 3)),
    ],
)
def test_the_likeliest_roles_come_first(shape: tuple[int, ...], looks: dict[str, Any], first: AxisRoles) -> None:
    ways = possible_roles(layer(*shape, **looks))
    assert ways[0] == first
    assert len(set(ways)) == len(ways)
    for roles in ways:
        axes = [*roles.spatial, *roles.separate, *([] if roles.channels is None else [roles.channels])]
        assert sorted(axes) == list(range(len(shape)))


def test_titles_say_what_each_axis_is() -> None:
    assert AxisRoles((0, 1, 2)).title() == "volume"
    assert AxisRoles((1, 2), None, (0,)).title() == "images along axis 0"
    assert AxisRoles((2, 3), 1, (0,)).title() == "images along axis 0, axis 1 compared together"


def test_volumes_along_one_axis_can_be_one_series() -> None:
    series = LayerSource.of(layer(6, 7, 8, 9)).joined
    assert series is not None
    assert series.axes == AxisRoles((1, 2, 3), 0)
    assert series.layout.channel_count == 6
    for other in (layer(7, 8, 9), layer(5, 6, 7, 8, 9), layer(5, 7, 8, 3, rgb=True)):
        assert LayerSource.of(other).joined is None
    assert series.joined is None


def test_the_layout_is_that_of_one_volume_without_opacity() -> None:
    source = LayerSource.of(layer(5, 8, 9, 4, rgb=True), AxisRoles((1, 2), 3, (0,)))
    assert source.alpha
    assert source.layout == Layout((8, 9, 3), 2, None)
    assert source.spatial_shape == (8, 9)
    assert source.volumes == [(number,) for number in range(5)]
    assert source.view((2,)).shape == (8, 9, 3)


def test_the_voxel_size_is_that_after_all_transforms() -> None:
    affine = np.diag([2.0, 1.0, 1.0, 1.0])
    source = LayerSource.of(layer(4, 5, 6, scale=(3, -1, 0.5), affine=affine))
    assert source.spacing == pytest.approx((6, 1, 0.5))


def test_a_volume_is_read_without_the_others() -> None:
    numbers = np.arange(3 * 4 * 5 * 6, dtype=np.float32).reshape(3, 4, 5, 6)
    data = Watched(numbers)
    source = LayerSource.of(Image(data, contrast_limits=(0, 1)))
    data.asked.clear()
    np.testing.assert_array_equal(source.read((2,)), numbers[2])
    assert data.asked == [4 * 5 * 6]


def test_multiscale_is_read_at_full_resolution() -> None:
    full = np.zeros((16, 16), np.float32)
    source = LayerSource.of(Image([full, full[::2, ::2]], multiscale=True))
    assert source.shape == (16, 16)


def test_the_file_is_known_from_the_layer_or_its_metadata() -> None:
    assert LayerSource.of(layer(4, 4)).path is None
    path = LayerSource.of(layer(4, 4, metadata={"nlmeans": {"path": "/data/scan.nii"}})).path
    assert path is not None
    assert path.name == "scan.nii"


def test_a_proxy_is_the_same_layer(make_napari_viewer_proxy: Any) -> None:
    image = layer(4, 4)
    assert unwrapped(image) is image
    assert unwrapped(None) is None


@pytest.mark.parametrize(
    ("labels", "title"),
    [
        ("zyx", "volume"),
        ("tyx", "images along t"),
        ("cyx", "image, c compared together"),
        ("zcyx", "volume, c compared together"),
        ("tzyx", "volumes along t"),
        ("tcyx", "images along t, c compared together"),
        ("tczyx", "volumes along t, c compared together"),
        ("xyzt", "volumes along t"),
    ],
)
def test_axes_are_what_their_names_say(labels: str, title: str) -> None:
    layer = Image(np.zeros((2,) * len(labels)), axis_labels=tuple(labels))
    assert possible_roles(layer)[0].title(labels_of(layer)) == title
    assert LayerSource.of(layer).axis_names == list(labels)


def test_axes_without_names_have_numbers() -> None:
    layer = Image(np.zeros((2, 3, 4, 5)))
    assert labels_of(layer) is None
    assert possible_roles(layer)[0].title(labels_of(layer)) == "volumes along axis 0"
    assert LayerSource.of(layer).axis_names == ["t", "z", "y", "x"]
