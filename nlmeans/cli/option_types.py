"""Types of options: a number or a word, radii, and choices that other packages add to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)


class OutputPath(click.Path):
    """A file that the command writes. Descriptors of the command tell it from files that the command reads."""


OUTPUT = OutputPath(path_type=Path)


class NumberOr(click.ParamType):  # type: ignore[type-arg]  # generic only in newer versions of click
    """A number, or one word."""

    def __init__(self, word: str) -> None:
        self.word, self.name = word, f"number|{word}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == self.word:
            return value
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor the word {self.word}", param, ctx)


class RadiusType(click.ParamType):  # type: ignore[type-arg]
    """``3`` for all axes, or ``3,3,1`` for each."""

    name = "voxels"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            numbers = [float(part) for part in str(value).split(",")]
        except ValueError:
            self.fail(f"{value!r} is neither a number nor one number per axis such as 3,3,1", param, ctx)
        return numbers[0] if len(numbers) == 1 else tuple(numbers)


class CurrentChoice(click.Choice[str]):
    """A choice among names that are looked up when the command runs, because other packages can add some."""

    def __init__(self, names: Callable[[], Iterable[str]]) -> None:
        self.names = names
        self.case_sensitive = True

    @property
    def choices(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(self.names())

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        return "NAME"


class NameOption(click.Option):
    """An option with many choices. Its help text lists them, because they would not fit into a line as metavar."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(ctx)
        if record is None or self.help is None or not isinstance(self.type, click.Choice):
            return record
        listed = f"{self.help} One of {', '.join(self.type.choices)}."
        return record[0], record[1].replace(self.help, listed, 1)
