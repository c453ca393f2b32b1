"""The installed command and the module, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.nlmeans.cli.calls import QUICK
from tests.nlmeans.scans import (
    contents,
    header_on_disk,
)

SCRIPT = [str(Path(sysconfig.get_path("scripts")) / "nlmeans")]
MODULE = [sys.executable, "-m", "nlmeans.cli"]


def really(program: list[str], *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*program, *map(str, words)], capture_output=True, text=True, check=False)


def test_the_installed_command_denoises(source: Path, target: Path, tmp_path: Path) -> None:
    done = really(SCRIPT, "denoise", source, target, *QUICK, "--report", tmp_path / "out.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{target}: ")
    assert header_on_disk(target) == header_on_disk(source)
    assert set(contents(tmp_path)) == {"in.nii.gz", "out.nii.gz", "out.json", "out.png"}


def test_the_module_says_in_one_line_what_is_wrong(wrong: Path) -> None:
    before = contents(wrong)
    done = really(MODULE, "denoise", wrong / "short.nii.gz", wrong / "out.nii")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    assert contents(wrong) == before
