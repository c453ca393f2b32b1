"""The keyword arguments of the non-local means transforms, listed once for all four."""

from __future__ import annotations

from collections.abc import Sequence

from nlmeans.engine.arguments import ARGUMENT_DEFAULTS, FilterArguments, spelled_out


class TransformArguments(FilterArguments, total=False):
    """All keyword arguments of `NonLocalMeans` except sigma. `NonLocalMeans` explains each argument."""

    spacing: Sequence[float] | str | None
    channel_wise: bool


spell_out_arguments = spelled_out(TransformArguments, defaults={**ARGUMENT_DEFAULTS, "channel_wise": True})
"""Decorator for ``__init__(self, ..., **arguments: Unpack[TransformArguments])``: its signature shows each keyword."""
