"""The table of a command says what each argument and option is."""

from __future__ import annotations

import click

from nlmeans.cli.denoise import denoise_command
from nlmeans.cli.inputs import inputs_of

TABLE = {one.name: one for one in inputs_of(denoise_command)}


def test_every_argument_and_option_has_a_row_with_help() -> None:
    assert len(TABLE) == len(denoise_command.params)
    options = {param.opts[0] for param in denoise_command.params if isinstance(param, click.Option)}
    assert {one.flag for one in TABLE.values() if one.flag} == options
    assert all(one.help for one in TABLE.values())


def test_files_that_are_written_are_outputs() -> None:
    outputs = {name for name, one in TABLE.items() if one.kind == "output"}
    assert outputs == {"out_file", "report", "noise_map", "residual", "rank_map", "phase_out"}
    assert {name for name, one in TABLE.items() if one.kind == "file"} == {"in_file", "sigma_map", "mask", "phase"}


def test_kinds_choices_and_bounds_are_those_of_click() -> None:
    assert {TABLE[name].kind for name in ("sigma", "gain", "search_radius", "memory", "noise")} == {"text"}
    assert {TABLE[name].kind for name in ("h", "strength", "offset", "coils")} == {"number"}
    assert {TABLE[name].kind for name in ("seed", "noise_volumes")} == {"integer"}
    assert {TABLE[name].kind for name in ("white", "float", "quiet", "verbose")} == {"flag"}
    assert "rician" in TABLE["noise"].choices
    assert TABLE["noise_volumes"].minimum == 0
    assert {name for name, one in TABLE.items() if one.required} == {"in_file", "out_file"}
