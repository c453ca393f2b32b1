"""The mask layer."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image, Labels

from napari_nlm.layer_mask import LayerMask
from napari_nlm.layer_source import AxisRoles, LayerSource
from tests.napari_nlm.conftest import Bench
from tests.napari_nlm.images import Watched, series, volume


def test_a_mask_leaves_the_rest_as_it_was(bench: Bench) -> None:
    source = bench.add(volume())
    inside = np.zeros(source.data.shape, int)
    inside[:, :12] = 1
    labels = bench.viewer.add_labels(inside)
    bench.session.chosen.set_mask(labels)
    result = bench.run()
    np.testing.assert_array_equal(result.data[:, 12:], source.data[:, 12:])
    assert not np.array_equal(result.data[:, :12], source.data[:, :12])


def test_a_mask_has_the_spatial_shape_or_one_for_every_volume() -> None:
    source = LayerSource.of(Image(series()))
    spatial, every = np.zeros((10, 16, 18), int), np.zeros((3, 10, 16, 18), int)
    spatial[2], every[1, 3] = 1, 1
    for number in range(3):
        view = LayerMask.of(Labels(spatial), source).view((number,))
        np.testing.assert_array_equal(view, spatial)
        view = LayerMask.of(Labels(every), source).view((number,))
        np.testing.assert_array_equal(view, every[number])


def test_a_mask_for_every_volume_may_have_time_last() -> None:
    source = LayerSource.of(Image(np.moveaxis(series(), 0, -1)), AxisRoles((0, 1, 2), None, (3,)))
    every = np.random.default_rng(0).integers(0, 2, source.shape)
    np.testing.assert_array_equal(LayerMask.of(Labels(every), source).view((2,)), every[..., 2])


def test_a_mask_of_another_shape_is_refused() -> None:
    source = LayerSource.of(Image(volume()))
    with pytest.raises(ValueError, match=r"mask 'small' has shape \(4, 4, 4\).*choose a layer of the same shape"):
        LayerMask.of(Labels(np.zeros((4, 4, 4), int), name="small"), source)


def test_a_lazy_mask_is_read_where_it_is_needed() -> None:
    inside = Watched(np.ones((16, 24, 28), np.uint8))
    source = LayerSource.of(Image(volume()))
    view = LayerMask(inside, "inside", source).view(())
    assert inside.asked == []
    assert view[(slice(0, 2), slice(0, 3), slice(0, 4))].shape == (2, 3, 4)
    assert inside.asked == [24]


PLACE = {"scale": (4.0, 2, 2), "translate": (5.0, 6, 7)}


@pytest.mark.parametrize(
    ("place", "fits"),
    [
        (PLACE, True),
        ({}, True),  # drawn by a program that knows of no scale
        ({"scale": (4.0, 2, 2), "translate": (5.1, 6, 7)}, True),
        ({"scale": (4.0, 2, 2)}, False),
        ({"scale": (9.0, 9, 9), "translate": (5.0, 6, 7)}, False),
        ({"scale": (4.0, 2, -2), "translate": (5.0, 6, 7 + 2 * 27)}, False),  # reversed
    ],
)
def test_a_mask_that_lies_elsewhere_is_refused(place: dict[str, tuple[float, ...]], fits: bool) -> None:
    source = LayerSource.of(Image(volume(), **PLACE))
    mask = Labels(np.ones(volume().shape, int), name="mask", **place)
    if fits:
        assert LayerMask.of(mask, source).name == "mask"
    else:
        with pytest.raises(ValueError, match="mask 'mask' lies elsewhere than the image"):
            LayerMask.of(mask, source)
    nowhere = LayerSource.of(Image(volume()))
    assert LayerMask.of(mask, nowhere).name == "mask"


def test_a_mask_of_one_volume_or_of_all_lies_where_the_series_does() -> None:
    source = LayerSource.of(Image(series(), scale=(1.5, 4, 2, 2), translate=(0, 5, 6, 7)))
    spatial, every = np.zeros((10, 16, 18), int), np.zeros((3, 10, 16, 18), int)
    assert LayerMask.of(Labels(spatial, **PLACE), source).data.shape == (10, 16, 18)
    assert LayerMask.of(Labels(every, scale=(1, 4, 2, 2), translate=(0, 5, 6, 7)), source)
    for elsewhere in (Labels(spatial, scale=(2, 4, 4)), Labels(every, scale=(1, 4, 2, 2))):
        with pytest.raises(ValueError, match="lies elsewhere"):
            LayerMask.of(elsewhere, source)
