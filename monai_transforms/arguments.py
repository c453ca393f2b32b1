"""The keyword arguments of the non-local means transforms, listed once for all four."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from nlmeans.core import checks
from nlmeans.engine.arguments import ARGUMENT_DEFAULTS, CommonArguments, FilterArguments, spelled_out


class AxesArguments(TypedDict, total=False):
    """Arguments that describe the axes of an image."""

    spacing: Sequence[float] | str | None
    channel_wise: bool


class TransformArguments(FilterArguments, AxesArguments, total=False):
    """All keyword arguments of `NonLocalMeans` except sigma. `NonLocalMeans` explains each argument."""


class RandomArguments(CommonArguments, AxesArguments, total=False):
    """Those of `RandNonLocalMeans`, which draws the strength."""


DEFAULTS = {**ARGUMENT_DEFAULTS, "channel_wise": True}

spell_out_arguments = spelled_out(TransformArguments, defaults=DEFAULTS)
"""Decorator for ``__init__(self, ..., **arguments: Unpack[TransformArguments])``: its signature shows each keyword."""

RANDOM_DEFAULTS: RandomArguments = {"method": "classic"}
"""Defaults of the random transforms, which run in every epoch: a method that an augmentation can afford."""

spell_out_random = spelled_out(RandomArguments, defaults={**DEFAULTS, **RANDOM_DEFAULTS})
"""The same for ``Unpack[RandomArguments]``."""


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
