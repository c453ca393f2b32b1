"""Checks of arguments. A message names the argument, its value and the remedy."""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Collection, Sequence
from typing import Any

from nlmeans.core.axes import Axes

Radius = int | Sequence[int]
"""Voxels on either side of the middle one: for all axes alike, or one number per axis."""


def choice(name: str, value: str, allowed: Collection[str]) -> str:
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is not known; choose one of {', '.join(map(repr, allowed))}")
    return value


def positive(name: str, value: float) -> float:
    number = real(name, value)
    if number <= 0:
        raise ValueError(f"{name}={value!r} must be greater than 0")
    return number


def not_negative(name: str, value: float) -> float:
    number = real(name, value)
    if number < 0:
        raise ValueError(f"{name}={value!r} must not be negative")
    return number


def real(name: str, value: object) -> float:
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
    number = real(name, value)
    if not number.is_integer() or number < least:
        raise ValueError(f"{name}={value!r} must be a whole number of at least {least}")
    return int(number)


def radius(name: str, value: Radius) -> int | tuple[int, ...]:
    """A whole, non-negative number of voxels, or one per axis."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(whole_radius(name, v) for v in value)
    return whole_radius(name, value)


def whole_radius(name: str, value: object) -> int:
    if isinstance(value, float) and not value.is_integer():
        raise ValueError(
            f"{name}={value!r} must be whole: it makes a window of 2r + 1 voxels, which is odd, never {2 * value + 1:g}"
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
    """The number of an axis, which counts from the end if negative."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}={value!r} must be the number of an axis")
    return int(value)


def axis(name: str, value: int, dimensions: int) -> int:
    """The axis as a non-negative number."""
    number = index(name, value)
    if not -dimensions <= number < dimensions:
        raise ValueError(f"{name}={value} is not an axis of an array with {dimensions} axes")
    return number % dimensions


def spatial_dimensions(name: str, shape: Sequence[int], other_axes: str = "") -> int:
    """2 or 3. `shape` is without channel and series axes; `other_axes` names those for the message."""
    if len(shape) not in (2, 3):
        raise ValueError(
            f"{name} has {len(shape)} spatial axes (shape {tuple(shape)}{other_axes}); give (H, W) or (D, H, W), "
            "and say with channels= or series= which axis is something else"
        )
    return len(shape)


def json_object(name: str, text: str) -> dict[str, Any]:
    """What `text` says, which must be one JSON object in which no name stands twice.

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
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands there twice")
    return found
