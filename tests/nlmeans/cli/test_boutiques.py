"""The Boutiques descriptor in the repository is that of the command, and what it describes runs."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from nlmeans.cli.boutiques import descriptor, text_of_descriptor
from nlmeans.cli.denoise import denoise_command
from tests.nlmeans.cli.calls import call

FILE = Path(__file__).parents[3] / "containers" / "boutiques.json"
COMMITTED = json.loads(FILE.read_text(encoding="utf-8"))
INPUTS = {one["id"]: one for one in COMMITTED["inputs"]}


def test_the_committed_descriptor_is_current() -> None:
    current = "run: python -m nlmeans.cli.boutiques > containers/boutiques.json"
    assert FILE.read_text(encoding="utf-8") == text_of_descriptor(), current


def test_the_module_prints_it() -> None:
    words = [sys.executable, "-m", "nlmeans.cli.boutiques"]
    done = subprocess.run(words, capture_output=True, text=True, encoding="utf-8", check=True)
    assert json.loads(done.stdout) == COMMITTED


@pytest.mark.parametrize("one", COMMITTED["inputs"], ids=lambda one: one["id"])
def test_every_input_is_a_real_option_or_argument(one: dict[str, Any]) -> None:
    if "command-line-flag" in one:
        (option,) = (param for param in denoise_command.params if one["command-line-flag"] in param.opts)
        assert isinstance(option, click.Option)
        assert (one["type"] == "Flag") == option.is_flag
    else:
        assert one["id"] in ("in_file", "out_file")


def test_what_the_schema_demands_holds() -> None:
    assert COMMITTED["schema-version"] == "0.5"
    assert {"name", "description", "command-line", "inputs", "tool-version"} <= set(COMMITTED)
    identifiers = [one["id"] for one in [*COMMITTED["inputs"], *COMMITTED["output-files"]]]
    assert len(identifiers) == len(set(identifiers))
    assert all(re.fullmatch(r"\w+", name) for name in identifiers)
    keys = re.findall(r"\[\w+\]", COMMITTED["command-line"])
    assert keys == [one["value-key"] for one in COMMITTED["inputs"]]
    assert {one["path-template"] for one in COMMITTED["output-files"]} <= set(keys)
    for one in COMMITTED["inputs"]:
        assert "value-choices" not in one or one["type"] == "String"
        assert ("integer" not in one and "minimum" not in one) or one["type"] == "Number"


def filled(values: dict[str, Any]) -> list[str]:
    """The words that Boutiques makes of an invocation."""
    line = descriptor()["command-line"]
    for name, one in INPUTS.items():
        words = [one["command-line-flag"]] if "command-line-flag" in one and name in values else []
        words += [shlex.quote(str(values[name]))] if name in values and one["type"] != "Flag" else []
        line = line.replace(one["value-key"], " ".join(words))
    return shlex.split(line)


def test_an_invocation_denoises(source: Path, target: Path) -> None:
    residual = target.with_name("residual.nii.gz")
    values = {"in_file": source, "out_file": target, "method": "classic", "sigma": 8, "search_radius": "1,1,1"}
    program, *words = filled({**values, "residual": residual, "float": True, "quiet": True})
    assert program == "nlmeans"
    result = call(*words)
    assert (result.exit_code, result.output) == (0, "")
    assert target.is_file()
    assert residual.is_file()
