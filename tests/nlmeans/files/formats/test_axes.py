"""Named axes become x, y, z and volumes. Files of TIFF and of microscopes have tests of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nlmeans.files.formats.axes import of_named_axes, order_of


def test_the_order_of_axes_puts_space_first() -> None:
    assert order_of("TCYX") == [3, 2, 0, 1]


@pytest.mark.parametrize(
    ("axes", "shape"), [("YX", (4, 3)), ("ZYX", (4, 3, 2)), ("QYX", (4, 3, 2)), ("TYX", (4, 3, 1, 2))]
)
def test_an_axis_of_slices_is_z_whatever_its_name_and_times_are_volumes(axes: str, shape: tuple[int, ...]) -> None:
    values = np.arange(24 if len(axes) > 2 else 12).reshape((2, 3, 4)[-len(axes) :])
    image = of_named_axes(values, axes, {"X": 1.0, "Y": 2.0, "Z": 3.0}, None, Path("a"))
    assert image.shape == shape
    np.testing.assert_array_equal(np.asarray(image.dataobj).squeeze(), values.T)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan")])
def test_a_size_that_is_none_is_assumed_from_the_smallest_known_one(
    bad: float, caplog: pytest.LogCaptureFixture
) -> None:
    image = of_named_axes(np.ones((2, 3, 4)), "ZYX", {"X": 0.5, "Y": 2.0, "Z": bad}, None, Path("a"))
    assert image.header.get_zooms() == (0.5, 2.0, 0.5)
    assert "a has no voxel size along Z: 0.5 mm is assumed" in caplog.text


def test_a_page_is_as_thick_as_wide_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    image = of_named_axes(np.ones((5, 3, 4)), "TYX", {"X": 0.5, "Y": 2.0}, 3.0, Path("a"))
    assert image.header.get_zooms() == (0.5, 2.0, 0.5, 3.0)
    assert not caplog.messages
