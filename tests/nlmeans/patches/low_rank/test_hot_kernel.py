"""The compiled search for hot voxels: it marks some rows, to their ends, and leaves the others."""

from __future__ import annotations

import numpy as np

from nlmeans.patches.low_rank.hot_kernel import mark_hot_voxels


def test_rows_are_marked_to_their_ends_and_others_stay() -> None:
    values = np.zeros((2, 3, 4, 50), np.float32)
    values[:, 1, 2, [0, 7, 30, 49]] = 90
    hot = np.zeros(values.size, np.bool_)
    mark_hot_voxels(values.ravel(), (3, 4, 50), 1, np.full(1, 10, np.float32), 2.0, 0, 12, hot)
    np.testing.assert_array_equal(hot.reshape(values.shape)[0], values[0] == 90)
    assert not hot.reshape(values.shape)[1].any()


def test_what_stands_out_by_less_than_twice_the_range_of_its_neighbours_is_none() -> None:
    for beside, expected in ((-40, True), (-50, False)):
        values = np.array([0, beside, 90, 0, 0], np.float32)
        hot = np.zeros(values.size, np.bool_)
        mark_hot_voxels(values, (1, 1, 5), 1, np.full(1, 10, np.float32), 2.0, 0, 1, hot)
        assert hot[2] == expected
