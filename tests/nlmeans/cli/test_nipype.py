"""The interface for nipype has the inputs of the command, and runs it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from nlmeans.cli.denoise import denoise_command
from nlmeans.cli.inputs import inputs_of
from tests.nlmeans.cli.calls import call

pytest.importorskip("nipype", reason="nipype is not installed: nlmeans.cli.nipype is for those who have it")

from nipype.interfaces.base import TraitError

from nlmeans.cli.nipype import Denoise

pytestmark = pytest.mark.filterwarnings("ignore")  # nipype's own


def test_every_argument_and_option_is_an_input() -> None:
    assert {one.name for one in inputs_of(denoise_command)} <= set(Denoise.input_spec().copyable_trait_names())


def test_the_command_line_is_that_of_the_inputs(source: Path) -> None:
    spaced = source.rename(source.with_name("one scan.nii.gz"))
    values = {"sigma": 8.0, "search_radius": "1,1,1", "method": "classic", "float": True, "seed": 3}
    words = shlex.split(Denoise(in_file=spaced, **values).cmdline)
    assert words[:4] == ["nlmeans", "denoise", str(spaced), "one scan_denoised.nii.gz"]
    assert sorted(words[4:]) == sorted(
        ["--sigma", "8.0", "--search-radius", "1,1,1", "--method", "classic", "--float", "--seed", "3"]
    )


def test_outputs_are_the_files_that_the_command_writes(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.chdir(folder)
    task = Denoise(in_file=source, method="classic", search_radius=1, device="cpu", residual="removed.nii.gz")
    program, *words = shlex.split(task.cmdline)
    assert program == "nlmeans"
    assert call(*words).exit_code == 0
    outputs = task.aggregate_outputs()
    assert outputs.out_file == str(folder / "in_denoised.nii.gz")
    assert outputs.residual == str(folder / "removed.nii.gz")
    assert all(Path(path).is_file() for path in (outputs.out_file, outputs.residual))


def test_wrong_values_are_refused_before_the_command_runs(source: Path, tmp_path: Path) -> None:
    for name, value in (("method", "magic"), ("mask", tmp_path / "none.nii"), ("seed", "much")):
        with pytest.raises(TraitError):
            Denoise(in_file=source, **{name: value})
