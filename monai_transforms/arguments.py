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

RANDOM_DEFAULTS: TransformArguments = {"method": "classic"}
"""Defaults of the random transforms, which run in every epoch: a method that an augmentation can afford."""

spell_out_random_arguments = spelled_out(
    TransformArguments, defaults={**ARGUMENT_DEFAULTS, "channel_wise": True, **RANDOM_DEFAULTS}
)
"""The same for the random transforms."""
