"""Help, completion and mistakes are answered without torch."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import nlmeans
from nlmeans import cli

HEAVY = {"torch", "numba", "numpy", "nibabel", "matplotlib", "dask", "zarr", "pydicom", "monai", "tqdm", "psutil"}

NAME_HEAVY = f"""
import sys
from nlmeans import cli
sys.argv[0] = "nlmeans"
try:
    cli.main()
finally:
    print("imported:", *sorted({HEAVY!r} & set(sys.modules)))
"""


def answer(*words: object, **environment: str) -> tuple[int, str, set[str]]:
    """Run the command line in a process of its own; return exit code, output, and the heavy packages it imported."""
    done = subprocess.run(
        [sys.executable, "-c", NAME_HEAVY, *map(str, words)],
        env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    text, _, imported = done.stdout.rpartition("imported:")
    return done.returncode, text + done.stderr, set(imported.split())


@pytest.mark.parametrize("words", ["--help", "--version", *(f"{command} --help" for command in cli.main.commands)])
def test_help_and_version_answer_without_torch(words: str) -> None:
    code, text, imported = answer(*words.split())
    assert (code, imported) == (0, set())
    assert text.startswith(("Usage: nlmeans ", f"nlmeans, version {nlmeans.__version__}"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("denoise good.nii.gz out.nii --sigmoid 3", "No such option"),
        ("denoise good.nii.gz out.nii --method magic", "'magic' is not one of"),
        ("denoise good.nii.gz out.nii --noise brown", "'brown' is not one of"),
        ("denoise good.nii.gz out.nii --backend abacus", "'abacus' is not one of"),
        ("denoise good.nii.gz out.nii --sigma much", "'much' is neither a number nor"),
        ("denoise good.nii.gz out.nii --search-radius 3;3", "'3;3' is neither a number nor"),
        ("denoise good.nii.gz out.nii --coils two", "'two' is not a valid float"),
        ("denoise good.nii.gz", "Missing argument 'OUT'"),
        ("denoise none.nii out.nii", "none.nii: no such file"),
        ("denoise good.nii.gz out.nii --mask none.nii", "none.nii: no such file"),
        ("denoise good.nii.gz out.nii --sigma-map none.nii", "none.nii: no such file"),
        ("denoise good.nii.gz out.nii --phase none.nii", "none.nii: no such file"),
        ("batch good.nii.gz none*.nii --out out", "none*.nii: no such file, folder or match"),
        ("batch good.nii.gz --out out --workers 0", "0 is not in the range"),
        ("noise none.nii", "none.nii: no such file"),
        ("demo --sample foot", "'foot' is not one of"),
        ("denois good.nii.gz out.nii", "No such command"),
    ],
)
def test_wrong_arguments_and_missing_files_are_refused_without_torch(
    words: str, message: str, wrong: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(nlmeans.__file__).parents[1]))
    monkeypatch.chdir(wrong)
    code, text, imported = answer(*words.split())
    assert (code, imported) == (1 if "no such file" in message else 2, set())
    assert message in text


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("den", {"denoise"}), ("denoise --method b", {"bayes", "best"}), ("denoise --meth", {"--method"})],
)
def test_a_shell_is_told_completions_without_torch(typed: str, offered: set[str]) -> None:
    words = ["nlmeans", *typed.split()]
    completion = {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    code, text, imported = answer(_NLMEANS_COMPLETE="bash_complete", **completion)
    assert (code, imported) == (0, set())
    assert {line.removeprefix("plain,") for line in text.splitlines()} == offered


def test_info_imports_torch_and_nothing_else_that_takes_long() -> None:
    code, _, imported = answer("info")
    assert code == 0
    assert imported <= {"torch", "numpy", "psutil", "tqdm"}  # torch imports tqdm


def test_the_garbage_collector_looks_seldom_while_a_command_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    usual, during = gc.get_threshold(), []
    monkeypatch.setattr(
        cli.main, "commands", {"look": click.Command("look", callback=lambda: during.append(gc.get_threshold()))}
    )
    assert CliRunner().invoke(cli.main, ["look"]).exit_code == 0
    assert during == [cli.SELDOM]
    assert gc.get_threshold() == usual


def test_the_garbage_collector_looks_at_nothing_when_python_ends_unless_triton_would_complain() -> None:
    program = "import atexit, gc, sys, types\n{}\natexit.register(lambda: print(gc.get_freeze_count() > 0))\n" + (
        "from nlmeans import cli\ncli.main(['info', '--help'])"
    )
    for line, frozen in (("", "True"), ("sys.modules['triton'] = types.ModuleType('triton')", "False")):
        done = subprocess.run([sys.executable, "-c", program.format(line)], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == frozen
