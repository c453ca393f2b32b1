"""Arguments that pass come back converted; others raise an error with their name, their value and a remedy."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from nlmeans.core import checks


@pytest.mark.parametrize("number", [2, 2.0, np.float32(2), np.int16(2), Fraction(2)])
def test_real_numbers_of_any_type_become_floats(number: Any) -> None:
    for check in (checks.real, checks.positive, checks.not_negative):
        found = check("h", number)
        assert type(found) is float
        assert found == 2


@pytest.mark.parametrize("value", [True, "2", None, 2j, [2]])
def test_values_that_are_no_real_numbers_are_refused(value: Any) -> None:
    for check in (checks.real, checks.positive, checks.not_negative, checks.whole):
        with pytest.raises(TypeError, match=r"^h=.* must be a number$"):
            check("h", value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"^h=-?(nan|inf) must be finite$"):
        checks.real("h", value)


def test_a_number_beyond_floats_is_refused_without_its_digits() -> None:
    with pytest.raises(ValueError, match=r"^h is a number of 401 digits, which is too large$"):
        checks.real("h", 10**400)


def test_limits_are_kept() -> None:
    assert checks.not_negative("sigma", 0) == 0
    with pytest.raises(ValueError, match=r"^sigma=-0.5 must not be negative$"):
        checks.not_negative("sigma", -0.5)
    for value in (0, -1):
        with pytest.raises(ValueError, match=f"^h={value} must be greater than 0$"):
            checks.positive("h", value)


def test_a_number_beyond_two_limits_is_refused_with_the_remedy() -> None:
    assert checks.within("strength", 2, 1, 2, "give 1") == 2
    for value in (0.5, 2.5):
        with pytest.raises(ValueError, match=f"^strength={value} must be from 1 to 2; give 1$"):
            checks.within("strength", value, 1, 2, "give 1")


def test_a_choice_is_one_of_those_allowed() -> None:
    assert checks.choice("blend", "plain", ("smooth", "plain")) == "plain"
    with pytest.raises(ValueError, match=r"^blend='soft' is not known; choose one of 'smooth', 'plain'$"):
        checks.choice("blend", "soft", ("smooth", "plain"))


@pytest.mark.parametrize("value", [3, 3.0, np.uint8(3)])
def test_whole_numbers_become_ints(value: Any) -> None:
    assert type(checks.whole("seed", value)) is int
    assert checks.whole("seed", value, least=3) == 3


@pytest.mark.parametrize("value", [2.5, 1, -3])
def test_other_numbers_are_not_whole_or_too_small(value: float) -> None:
    with pytest.raises(ValueError, match=f"^samples={value} must be a whole number of at least 2$"):
        checks.whole("samples", value, least=2)


@pytest.mark.parametrize(
    ("value", "dimensions", "expected"),
    [(2, 3, (2, 2, 2)), (2, 2, (0, 2, 2)), ((1, 2, 3), 3, (1, 2, 3)), ([1, 2], 2, (0, 1, 2)), (2.0, 3, (2, 2, 2))],
)
def test_a_radius_is_completed_to_one_per_axis(value: Any, dimensions: int, expected: tuple[int, int, int]) -> None:
    assert checks.radii("search_radius", value, dimensions) == expected


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (1.5, ValueError, "search_radius=1.5 must be whole: a window is .* odd, never 4$"),
        (-1, ValueError, "search_radius=-1 must not be negative; the window is"),
        ((1, -1, 1), ValueError, "search_radius=-1 must not be negative; the window is"),
        ((1, 1), ValueError, r"search_radius=\(1, 1\) must have one number per spatial axis: 3$"),
        ("11", TypeError, "search_radius='11' must be a whole number of voxels, or one per axis$"),
        (True, TypeError, "search_radius=True must be a whole number of voxels, or one per axis$"),
    ],
)
def test_other_radii_are_refused(value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        checks.radii("search_radius", value, 3)


def test_axes_are_counted_from_either_end() -> None:
    assert [checks.axis("channels", axis, 3) for axis in (-3, -2, -1, 0, 1, 2)] == [0, 1, 2, 0, 1, 2]
    for axis in (-4, 3):
        with pytest.raises(ValueError, match=f"^channels={axis} is not an axis of an array with 3 axes$"):
            checks.axis("channels", axis, 3)
    for value in (1.0, True, "1"):
        with pytest.raises(TypeError, match=r"^channels=.* must be the number of an axis, such as 0 or -1$"):
            checks.index("channels", value)


def test_images_have_two_or_three_spatial_axes() -> None:
    assert [checks.spatial_dimensions("image", shape) for shape in ((4, 5), (3, 4, 5))] == [2, 3]
    for shape in ((4,), (2, 3, 4, 5)):
        with pytest.raises(
            ValueError, match=rf"^image has {len(shape)} spatial axes \(shape .*, at 0\); give \(H, W\)"
        ):
            checks.spatial_dimensions("image", shape, ", at 0")


def test_a_json_object_is_read_and_anything_else_refused() -> None:
    assert checks.json_object("settings", '{"h": 1, "in": {"h": 2}}') == {"h": 1, "in": {"h": 2}}
    with pytest.raises(ValueError, match=r"^settings cannot be read as JSON: Expecting"):
        checks.json_object("settings", "{")
    with pytest.raises(ValueError, match=r"^settings cannot be read as JSON: 'h' is given twice$"):
        checks.json_object("settings", '{"in": {"h": 1, "h": 2}}')
    with pytest.raises(TypeError, match=r"^settings must be a JSON object, not '\[1\]'$"):
        checks.json_object("settings", "[1]")
