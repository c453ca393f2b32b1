"""The arguments and options of a command as a table, from which descriptions for other programs are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import click

from nlmeans.cli.option_types import OutputPath

Kind = Literal["file", "output", "flag", "integer", "number", "text"]

ARGUMENTS = {
    "source": ("in_file", "Image to denoise: a file, a folder with a DICOM series, or a zarr image."),
    "target": ("out_file", "Denoised image: a file, a folder for a derived DICOM series, or a zarr image."),
}
"""Name and help of arguments, for which click has no help."""


@dataclass(frozen=True)
class Input:
    """An argument or option of a command."""

    name: str
    """A name without hyphens."""
    flag: str
    """The option, such as ``--sigma-map``; empty for an argument."""
    kind: Kind
    """``output`` is a file that the command writes; ``text`` may also be a number, or numbers with commas."""
    help: str
    required: bool
    choices: tuple[str, ...] = ()
    minimum: int | None = None


def inputs_of(command: click.Command) -> list[Input]:
    """List the arguments and options of a command, in the order of its help.

    >>> from nlmeans.cli.denoise import denoise_command
    >>> [(one.name, one.flag, one.kind) for one in inputs_of(denoise_command)][1:4]
    [('out_file', '', 'output'), ('sigma', '--sigma', 'text'), ('sigma_map', '--sigma-map', 'file')]
    """
    found = []
    for param in command.params:
        choices = tuple(param.type.choices) if isinstance(param.type, click.Choice) else ()
        minimum = param.type.min if isinstance(param.type, click.IntRange) else None
        if isinstance(param, click.Option):
            flag, about = param.opts[0], param.help or ""
            name = flag.removeprefix("--").replace("-", "_")
        else:
            flag, (name, about) = "", ARGUMENTS[str(param.name)]
        found.append(
            Input(name, flag, kind_of(param), about, param.required, choices, None if minimum is None else int(minimum))
        )
    return found


def kind_of(param: click.Parameter) -> Kind:
    if isinstance(param.type, OutputPath):
        return "output"
    if isinstance(param.type, click.Path):
        return "file"
    if isinstance(param, click.Option) and param.is_flag:
        return "flag"
    if isinstance(param.type, type(click.INT)):
        return "integer"
    if isinstance(param.type, type(click.FLOAT)):
        return "number"
    return "text"
