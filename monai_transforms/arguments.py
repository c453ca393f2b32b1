"""The keyword arguments of the non-local means transforms, listed once for all four."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

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

spell_out_random = spelled_out(RandomArguments, defaults=DEFAULTS)
"""The same for ``Unpack[RandomArguments]``."""
