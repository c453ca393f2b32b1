"""The installed command and the module, each in a process of its own."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

from tests.nlmeans.cli.calls import QUICK
from tests.nlmeans.forks import Forks
from tests.nlmeans.scans import (
    contents,
    header_on_disk,
)

SCRIPT = Path(sysconfig.get_path("scripts")) / "nlmeans"
MODULE = "import runpy; runpy.run_module('nlmeans.cli', run_name='__main__', alter_sys=True)"  # as python -m does


def test_the_installed_command_denoises(source: Path, target: Path, tmp_path: Path) -> None:
    words = ["denoise", source, target, *QUICK, "--report", tmp_path / "out.png"]
    done = subprocess.run([SCRIPT, *map(str, words)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{target}: ")
    assert header_on_disk(target) == header_on_disk(source)
    assert set(contents(tmp_path)) == {"in.nii.gz", "out.nii.gz", "out.json", "out.png"}


def test_the_module_says_in_one_line_what_is_wrong(wrong: Path, forks: Forks) -> None:
    before = contents(wrong)
    code, said, error = forks.python(MODULE, "denoise", wrong / "short.nii.gz", wrong / "out.nii").ended()
    assert (code, said) == (1, "")
    (line,) = error.splitlines()
    assert line.startswith("Error: ")
    assert contents(wrong) == before
