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
