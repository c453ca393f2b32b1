"""Parts of a volume that show its noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_nlm.sampling import joined_boxes, sampled_boxes
from napari_nlm.volume_view import VolumeView
from nlmeans.core.layout import Layout


class Chunked:
    """An array that tells its chunks, as zarr does."""

    def __init__(self, data: Any, chunks: tuple[int, ...]) -> None:
        self.data, self.chunks = data, chunks
        self.shape, self.ndim, self.dtype = data.shape, data.ndim, data.dtype

    def __getitem__(self, index: Any) -> Any:
        return self.data[index]


@pytest.mark.parametrize("channels", [None, 0])
def test_boxes_begin_at_chunks_and_are_joined_along_the_first_axis(channels: int | None) -> None:
    shape = (96, 128, 160) if channels is None else (2, 96, 128, 160)
    data = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    view = VolumeView(Chunked(data, (*shape[:-3], 32, 64, 80)), [slice(0, n) for n in shape])
    layout = Layout(shape, channels, None)
    boxes = sampled_boxes(view, layout, 2**16)
    assert len(boxes) >= 4
    for box in boxes:
        assert [side.start % size for side, size in zip(box, (32, 64, 80), strict=True)] == [0, 0, 0]
    joined = joined_boxes(view, layout, boxes)
    assert joined.shape[:-3] == shape[:-3]
    assert joined.size <= 2**17
    first = boxes[0][0]
    lead: tuple[slice, ...] = (slice(None),) * (len(shape) - 3)
    np.testing.assert_array_equal(joined[(*lead, slice(0, first.stop - first.start))], data[(*lead, *boxes[0])])


def test_a_small_volume_is_one_box() -> None:
    data = np.zeros((12, 13, 14), np.float32)
    (box,) = sampled_boxes(data, Layout(data.shape, None, None), 2**20)
    assert joined_boxes(data, Layout(data.shape, None, None), [box]).shape == data.shape
