"""What the README shows works: its Python runs, its commands exist, and what it says of files is true."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from nlmeans import samples
from nlmeans.backends import BACKENDS
from nlmeans.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[list[str]]:
    lines = [shlex.split(line) for block in blocks("bash") for line in block.splitlines()]
    return [line[1:] for line in lines if line[0].endswith("/nlmeans")]


def test_python_blocks_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = blocks("python")
    assert len(found) >= 2
    names: dict[str, object] = {}
    for block in found:
        exec(compile(block, "README.md", "exec"), names)


def test_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(samples.path("slice"), "your_scan.nii.gz")
    found = commands()
    Path("scans/one").mkdir(parents=True)
    shutil.copy(samples.path("slice"), "scans/one/scan.nii.gz")
    assert [words[0] for words in found] == ["demo", "denoise", "batch"]
    for words in found:
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0, result.output
    assert Path("denoised.nii.gz").is_file()
    assert Path("denoised.json").is_file()
    assert Path("denoised.png").is_file()
    assert Path("denoised/scan_denoised.nii.gz").is_file()
    assert Path("denoised/report.html").is_file()


def test_every_backend_is_in_the_table() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", README, flags=re.MULTILINE)) >= set(BACKENDS)


def test_pictures_and_pages_that_are_linked_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
