"""Every command and option says what it does."""

from __future__ import annotations

import re

import click
import pytest
from click.testing import CliRunner

import nlmeans
from nlmeans import cli
from tests.nlmeans.cli.calls import call


@pytest.mark.parametrize("command", [None, *cli.main.commands])
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_says_what_a_command_does(command: str | None, option: str) -> None:
    result = call(*([command] if command else []), option)
    assert result.exit_code == 0
    about = (cli.main.commands[command] if command else cli.main).help
    assert about
    assert about.split(".")[0].split("\n")[0][:50] in result.stdout


@pytest.mark.parametrize("command", ["denoise", "batch", "demo"])
def test_help_lists_a_method_registered_later(command: str, twice: str) -> None:
    assert f"series, {twice}." in " ".join(call(command, "--help").stdout.split())


@pytest.mark.parametrize("command", [None, *cli.main.commands])
def test_help_fits_into_80_columns(command: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = CliRunner().invoke(cli.main, [*([command] if command else []), "--help"], terminal_width=80).stdout
    assert max(map(len, text.splitlines())) <= 80
    assert "..." not in re.sub(r"(IN|LABEL|\[ARGS\])\.\.\.", "", text)  # no sentence is cut off


def test_every_option_says_what_it_does() -> None:
    for command in cli.main.commands.values():
        for option in command.params:
            assert not isinstance(option, click.Option) or option.help, f"{command.name} {option.name}"


def test_version() -> None:
    assert call("--version").stdout.strip().endswith(nlmeans.__version__)
