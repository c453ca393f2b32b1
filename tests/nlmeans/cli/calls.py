"""Call the command line in this process."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from nlmeans import cli

SHAPE = (10, 11, 12)
QUICK = ("--method", "classic", "--search-radius", "1", "--device", "cpu")
SAME: dict[str, Any] = {"method": "classic", "search_radius": 1}
"""The arguments of `QUICK` for Python."""
SEEDED: dict[str, Any] = {"method": "stochastic", "search_radius": 2, "seed": 3}


def call(*words: object) -> Result:
    return CliRunner().invoke(cli.main, [str(word) for word in words])


def denoised(source: Path, target: Path, *options: object) -> str:
    """Run `nlmeans denoise`, which must succeed without a word on standard error; returns what it printed."""
    result = call("denoise", source, target, *QUICK, *options)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def assert_one_line(result: Result, message: str) -> None:
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert re.search(message, line)
