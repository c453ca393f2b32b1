"""The keyword arguments of the non-local means transforms, listed once for all four."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nlmeans.core import checks
from nlmeans.engine.arguments import ARGUMENT_DEFAULTS, FilterArguments, spelled_out


class TransformArguments(FilterArguments, total=False):
    """All keyword arguments of `NonLocalMeans` except sigma. `NonLocalMeans` explains each argument."""

    spacing: Sequence[float] | str | None
    channel_wise: bool


spell_out_arguments = spelled_out(TransformArguments, defaults={**ARGUMENT_DEFAULTS, "channel_wise": True})
"""Decorator for ``__init__(self, ..., **arguments: Unpack[TransformArguments])``: its signature shows each keyword."""

RANDOM_DEFAULTS: TransformArguments = {"method": "classic"}
"""Defaults of the random transforms, which run in every epoch: a method that an augmentation can afford."""

spell_out_random_arguments = spelled_out(
    TransformArguments, defaults={**ARGUMENT_DEFAULTS, "channel_wise": True, **RANDOM_DEFAULTS}
)
"""The same for the random transforms."""


def checked_pair(name: str, value: Sequence[float]) -> tuple[float, float]:
    """Check the smallest and the largest number, between which one is drawn, and return them.

    >>> checked_pair("strength", [0.5, 2])
    (0.5, 2.0)
    """
    if np.shape(value) != (2,):
        raise ValueError(
            f"{name}={value!r} must be two numbers, the smallest and the largest, such as (0.5, 1.5); give the same "
            "number twice for one that is always the same"
        )
    low, high = (checks.positive(name, v) for v in value)
    if low > high:
        raise ValueError(f"{name}={value} must be the smallest and the largest, in this order")
    return float(low), float(high)
