"""Describe ``nlmeans denoise`` for Boutiques (Glatard et al. 2018, doi:10.1093/gigascience/giy016).

python -m nlmeans.cli.boutiques > containers/boutiques.json
"""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any

import click

from nlmeans.cli.denoise import denoise_command
from nlmeans.cli.inputs import Input, Kind, inputs_of

TYPES: dict[Kind, str] = {
    "file": "File",
    "output": "String",
    "flag": "Flag",
    "integer": "Number",
    "number": "Number",
    "text": "String",
}
"""Types of Boutiques. An output does not exist before, so that it is no File."""

ERROR_CODES = {
    1: "An input is wrong, or the run failed; the last line on standard error says what to do.",
    2: "An option is wrong.",
    130: "The run was interrupted.",
}


def value_key(one: Input) -> str:
    return f"[{one.name.upper()}]"


def described(one: Input) -> dict[str, Any]:
    """Describe an argument or option."""
    facts: dict[str, Any] = {
        "id": one.name,
        "name": one.name.replace("_", " ").capitalize(),
        "description": one.help,
        "type": TYPES[one.kind],
        "value-key": value_key(one),
        "optional": not one.required,
    }
    if one.flag:
        facts["command-line-flag"] = one.flag
    if one.choices:
        facts["value-choices"] = list(one.choices)
    if one.kind == "integer":
        facts["integer"] = True
    if one.minimum is not None:
        facts["minimum"] = one.minimum
    return facts


def descriptor(command: click.Command = denoise_command) -> dict[str, Any]:
    """Describe a command in version 0.5 of the schema of Boutiques.

    >>> descriptor()["command-line"].split()[:4]
    ['nlmeans', 'denoise', '[IN_FILE]', '[OUT_FILE]']
    """
    inputs = inputs_of(command)
    return {
        "name": f"nlmeans {command.name}",
        "description": (command.help or "").split("\n")[0],
        "author": "The nlmeans authors",
        "tool-version": version("nlmeans"),
        "schema-version": "0.5",
        "command-line": f"nlmeans {command.name} {' '.join(value_key(one) for one in inputs)}",
        "inputs": [described(one) for one in inputs],
        "output-files": [
            {
                "id": f"{one.name}_written",
                "name": f"{one.name.replace('_', ' ').capitalize()} written",
                "description": one.help,
                "path-template": value_key(one),
                "optional": not one.required,
            }
            for one in inputs
            if one.kind == "output"
        ],
        "error-codes": [{"code": code, "description": text} for code, text in ERROR_CODES.items()],
        "tags": {"domain": ["neuroinformatics", "mri"], "field": ["denoising"]},
    }


def text_of_descriptor() -> str:
    """The descriptor as JSON, as it is stored in ``containers/boutiques.json``."""
    return json.dumps(descriptor(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    click.echo(text_of_descriptor(), nl=False)
