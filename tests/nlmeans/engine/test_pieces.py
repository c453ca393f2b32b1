"""Pieces in which a volume is read."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nlmeans import Settings
from nlmeans.core import arrays
from nlmeans.core.layout import Layout
from nlmeans.engine import pieces
from nlmeans.engine.pieces import pieces_to_read

IMAGE = np.zeros((12, 14, 16))


def test_arrays_that_are_sliced_are_read_in_pieces_that_cover_the_region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "LARGEST_PIECE", 500)
    source, layout = arrays.Sliced(IMAGE), Layout.of(IMAGE, None, None)
    read = np.zeros(IMAGE.shape, int)
    for box in pieces_to_read(source, layout, Settings(), layout.everywhere):
        assert math.prod(side.stop - side.start for side in box) <= 500
        read[box] += 1
    assert (read == 1).all()
    assert list(pieces_to_read(IMAGE, layout, Settings(), layout.everywhere)) == [layout.everywhere]
