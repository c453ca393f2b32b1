"""One volume of an array, read only where it is sliced."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest

from napari_nlm.volume_view import VolumeView, read_all, view_of_volume
from nlmeans.core import arrays
from tests.napari_nlm.images import Watched


def test_a_numpy_array_gives_a_view_that_shares_memory() -> None:
    data = np.arange(24).reshape(2, 3, 4)
    view = view_of_volume(data, [1, slice(0, 3), slice(0, 4)])
    assert isinstance(view, np.ndarray)
    assert np.shares_memory(view, data)
    np.testing.assert_array_equal(view, data[1])


def test_making_a_view_reads_nothing() -> None:
    data = Watched(np.arange(24).reshape(2, 3, 4))
    view = view_of_volume(data, [1, slice(0, 3), slice(0, 4)])
    assert isinstance(view, VolumeView)
    assert (view.shape, view.ndim, view.dtype) == ((3, 4), 2, data.dtype)
    assert data.asked == []


@pytest.mark.parametrize(
    "key",
    [
        (slice(1, 3), slice(0, 2), slice(None)),
        (slice(None), slice(2, 4), slice(1, None)),
        (slice(0, 0), slice(0, 1), slice(0, 1)),
    ],
)
def test_a_slice_reads_that_part_of_the_volume_alone(key: tuple[slice, ...]) -> None:
    whole = np.arange(2 * 3 * 4 * 4).reshape(3, 2, 4, 4)
    data = Watched(whole)
    view = VolumeView(data, [slice(0, 3), 1, slice(0, 4), slice(1, 4)])  # the last axis without its first element
    expected = whole[:, 1, :, 1:4][key]
    np.testing.assert_array_equal(view[key], expected)
    assert data.asked == [expected.size]
    np.testing.assert_array_equal(read_all(view), whole[:, 1, :, 1:4])


def test_the_engine_reads_dask_through_a_view() -> None:
    whole = np.arange(48.0).reshape(2, 4, 6)
    view = view_of_volume(da.from_array(whole, chunks=(1, 2, 3)), [0, slice(0, 4), slice(0, 6)])
    source = arrays.readable(view, "volume")
    assert source is view
    assert not arrays.in_memory(source)
    np.testing.assert_array_equal(arrays.fetch(source, (slice(1, 3), slice(0, 6))), whole[0, 1:3])


def test_the_chunks_are_those_of_the_axes_of_the_volume() -> None:
    zarr = pytest.importorskip("zarr")
    data = zarr.array(np.zeros((2, 8, 6), np.float32), chunks=(1, 4, 3))
    assert arrays.chunks(VolumeView(data, [1, slice(0, 8), slice(0, 6)])) == (4, 3)
    assert arrays.chunks(VolumeView(Watched(np.zeros((2, 8))), [1, slice(0, 8)])) is None
