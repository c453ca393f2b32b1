"""Checks of arguments. An error names the argument, its value and the remedy."""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Collection, Sequence
from typing import Any

from nlmeans.core.axes import Axes

Radius = int | Sequence[int]
"""Voxels on either side of the middle voxel: one number for all axes, or one per axis."""


def choice(name: str, value: str, allowed: Collection[str]) -> str:
    """Return `value`; raise ``ValueError`` unless it is one of those allowed."""
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is not known; choose one of {', '.join(map(repr, allowed))}")
    return value


def positive(name: str, value: float) -> float:
    """Return `value` as a float; raise an error unless it is a finite number above 0."""
    number = real(name, value)
    if number <= 0:
        raise ValueError(f"{name}={value!r} must be greater than 0")
    return number


def within(name: str, value: float, low: float, high: float, remedy: str) -> float:
    """Return `value` as a float; raise an error unless it is a number from `low` to `high`."""
    number = real(name, value)
    if not low <= number <= high:
        raise ValueError(f"{name}={value!r} must be from {low:g} to {high:g}; {remedy}")
    return number


def not_negative(name: str, value: float) -> float:
    """Return `value` as a float; raise an error unless it is a finite number of at least 0."""
    number = real(name, value)
    if number < 0:
        raise ValueError(f"{name}={value!r} must not be negative")
    return number


def real(name: str, value: object) -> float:
    """Return `value` as a float; raise an error unless it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}={value!r} must be a number")
    try:
        number = float(value)
    except OverflowError as error:
        raise ValueError(f"{name} is a number of {len(str(value))} digits, which is too large") from error
    if not math.isfinite(number):
        raise ValueError(f"{name}={value!r} must be finite")
    return number


def whole(name: str, value: object, least: int = 0) -> int:
    """Return `value` as an int; raise an error unless it is a whole number of at least `least`."""
    number = real(name, value)
    if not number.is_integer() or number < least:
        raise ValueError(f"{name}={value!r} must be a whole number of at least {least}")
    return int(number)


def radius(name: str, value: Radius) -> int | tuple[int, ...]:
    """Return a radius; raise an error unless it is a whole, non-negative number of voxels, or one per axis."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(whole_radius(name, v) for v in value)
    return whole_radius(name, value)


def whole_radius(name: str, value: object) -> int:
    """Return one radius as an int; raise an error unless it is a whole, non-negative number."""
    if isinstance(value, float) and not value.is_integer():
        raise ValueError(
            f"{name}={value!r} must be whole: a window is 2r + 1 voxels wide, which is odd, never {2 * value + 1:g}"
        )
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}={value!r} must be a whole number of voxels, or one per axis")
    number = int(real(name, value))
    if number < 0:
        raise ValueError(f"{name}={value!r} must not be negative; the window is 2r + 1 voxels wide")
    return number


def radii(name: str, value: Radius, dimensions: int) -> Axes:
    """One radius per axis as (depth, height, width); a 2D image has depth radius 0."""
    checked = radius(name, value)
    per_axis = (checked,) * dimensions if isinstance(checked, int) else checked
    if len(per_axis) != dimensions:
        raise ValueError(f"{name}={value!r} must have one number per spatial axis: {dimensions}")
    z, y, x = (0, *per_axis) if dimensions == 2 else per_axis
    return z, y, x


def index(name: str, value: object) -> int:
    """Return the number of an axis; raise ``TypeError`` unless it is an integer. A negative one counts from the end."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}={value!r} must be the number of an axis, such as 0 or -1")
    return int(value)


def axis(name: str, value: int, dimensions: int) -> int:
    """Return the number of an axis, counted from the first; raise an error unless the array has that axis."""
    number = index(name, value)
    if not -dimensions <= number < dimensions:
        raise ValueError(f"{name}={value} is not an axis of an array with {dimensions} axes")
    return number % dimensions


def spatial_dimensions(name: str, shape: Sequence[int], other_axes: str = "") -> int:
    """Return the number of spatial axes; raise ``ValueError`` unless it is 2 or 3.

    Args:
        name: the argument, for the error.
        shape: spatial axes alone, without channels and series.
        other_axes: text about the other axes, for the error.
    """
    if len(shape) not in (2, 3):
        raise ValueError(
            f"{name} has {len(shape)} spatial axes (shape {tuple(shape)}{other_axes}); give (H, W) or (D, H, W), "
            "and name any other axis with channels= or series="
        )
    return len(shape)


def json_object(name: str, text: str) -> dict[str, Any]:
    """Read a JSON object; raise an error if `text` is anything else, or gives a name twice.

    >>> json_object("settings", '{"sigma": 20}')
    {'sigma': 20}
    """
    try:
        found = json.loads(text, object_pairs_hook=without_repetition)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} cannot be read as JSON: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise TypeError(f"{name} must be a JSON object, not {text[:40]!r}")
    return found


def without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dictionary of the pairs; raise ``ValueError`` if a name is given twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is given twice")
    return found
