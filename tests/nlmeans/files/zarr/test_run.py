"""An interrupted run is resumed, does nothing twice, and gives the same result."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from nlmeans import Cancelled
from nlmeans.files import lock
from nlmeans.files.zarr import run
from nlmeans.files.zarr.denoise import denoise_zarr
from nlmeans.files.zarr.journal import JOURNAL as JOURNAL
from nlmeans.files.zarr.run import partial_folder
from tests.nlmeans.forks import Forks
from tests.nlmeans.scans import contents
from tests.nlmeans.zarrs import SAME, SMALLEST, in_memory, level, noisy, save


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return save(tmp_path / "in.ome.zarr", noisy(20, 24, 28), "zyx")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out.ome.zarr"


FEW = 1 / 512
"""Share of the memory for a block that makes many small blocks."""

DEADLY = f"""
import os, signal, sys
from nlmeans import denoise_zarr
from nlmeans.files.zarr import run

finish = run.ZarrRun.finish
finished = 0
def deadly(self, *arguments):
    global finished
    finish(self, *arguments)
    finished += 1
    if finished == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
run.ZarrRun.finish = deadly
run.BLOCK_SHARE = {FEW}
denoise_zarr(sys.argv[1], sys.argv[2], method="classic", search_radius=1, device="cpu", memory=16 * 2**20)
"""


def times(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(file.relative_to(folder)): (file.stat().st_ino, file.stat().st_mtime_ns)
        for file in folder.rglob("*")
        if file.is_file() and file.name != JOURNAL
    }


def test_what_was_killed_goes_on_and_ends_the_same(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch, forks: Forks
) -> None:
    monkeypatch.setattr(run, "BLOCK_SHARE", FEW)
    source = save(tmp_path / "in.zarr", noisy(2, 24, 40, 40), "czyx")
    assert forks.python(DEADLY, source, target, 3).ended()[0] == -signal.SIGKILL
    assert not target.exists()
    written = times(partial_folder(target))
    leaving = partial_folder(target) / "0" / "x.0123.partial"  # zarr leaves such a file if it is killed while writing
    leaving.touch()
    said = denoise_zarr(source, target, memory=SMALLEST, **SAME)
    assert "3 of " in said
    assert "blocks were done already" in said
    finished = {name for name in written if name.startswith("0/")}
    assert len(finished) > 20
    after = times(target)
    assert {name: after[name] for name in finished} == {name: written[name] for name in finished}
    whole = tmp_path / "whole.zarr"
    denoise_zarr(source, whole, memory=SMALLEST, **SAME)
    assert contents(target) == contents(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.zarr", "out.ome.zarr", "whole.zarr"]


LARGE = (20, 40, 40)


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An image that takes several blocks with the least memory."""
    monkeypatch.setattr(run, "BLOCK_SHARE", FEW)
    return save(tmp_path / "in.zarr", noisy(*LARGE), "zyx")


class After:
    """Progress callback that cancels a run at this fraction."""

    def __init__(self, fraction: float) -> None:
        self.fraction = fraction
        self.first: float | None = None

    def __call__(self, done: float) -> bool:
        self.first = done if self.first is None else self.first
        return done < self.fraction


def stopped(source: Path, target: Path, fraction: float = 0.6, **options: Any) -> None:
    with pytest.raises(Cancelled):
        denoise_zarr(source, target, progress=After(fraction), **{"memory": SMALLEST, **SAME, **options})


def test_what_was_cancelled_goes_on(large: Path, target: Path) -> None:
    stopped(large, target, sigma=10)
    assert partial_folder(target).is_dir()
    assert not target.exists()
    seen = After(2)
    assert "done already" in denoise_zarr(large, target, sigma=10, progress=seen, **SAME)
    assert seen.first is not None
    assert seen.first > 0.2  # the bar starts where the first run stopped
    np.testing.assert_allclose(level(target), in_memory(noisy(*LARGE), "zyx", sigma=10), rtol=0, atol=1e-4)


def test_nothing_is_looked_at_again(large: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped(large, target)
    monkeypatch.setattr("nlmeans.engine.plan.survey_volume", None)
    monkeypatch.setattr("nlmeans.engine.plan.noise_of", None)
    denoise_zarr(large, target, memory=SMALLEST, **SAME)


def test_a_journal_that_was_cut_off_counts_as_far_as_it_is_whole(large: Path, target: Path, tmp_path: Path) -> None:
    stopped(large, target)
    journal = partial_folder(target) / JOURNAL
    os.truncate(journal, journal.stat().st_size - 3)
    denoise_zarr(large, target, memory=SMALLEST, **SAME)
    denoise_zarr(large, tmp_path / "whole.zarr", memory=SMALLEST, **SAME)
    assert contents(target) == contents(tmp_path / "whole.zarr")


def test_a_journal_without_a_first_line_is_begun_anew(large: Path, target: Path) -> None:
    stopped(large, target)
    (partial_folder(target) / JOURNAL).write_text('{"requ')
    assert "done already" not in denoise_zarr(large, target, **SAME)


def test_other_settings_are_refused_unless_all_is_to_begin_anew(large: Path, target: Path) -> None:
    stopped(large, target)
    with pytest.raises(FileExistsError, match=r"differs in search_radius \(1, now 2\).*--overwrite"):
        denoise_zarr(large, target, **{**SAME, "search_radius": 2})
    assert partial_folder(target).is_dir()
    assert "done already" not in denoise_zarr(large, target, overwrite=True, **{**SAME, "search_radius": 2})


def test_another_input_is_refused(large: Path, target: Path) -> None:
    stopped(large, target)
    values = zarr.open_array(large / "full", mode="r+")
    values[:8, :8, :8] = 0
    with pytest.raises(FileExistsError, match="differs in input"):
        denoise_zarr(large, target, **SAME)


def test_an_input_that_was_moved_is_known_again(large: Path, target: Path) -> None:
    stopped(large, target)
    moved = large.rename(large.with_name("moved.zarr"))
    assert "done already" in denoise_zarr(moved, target, **SAME)


def test_too_little_memory_to_go_on_with(tmp_path: Path, target: Path) -> None:
    source = save(tmp_path / "in.zarr", noisy(2, 24, 304, 304), "czyx", chunk=152)
    stopped(source, target, sigma=10, memory=4 * SMALLEST)
    with pytest.raises(ValueError, match=r"interrupted run, whose blocks have .*; allow .*--overwrite"):
        denoise_zarr(source, target, sigma=10, memory=SMALLEST, **SAME)


def test_two_runs_do_not_write_the_same(source: Path, target: Path) -> None:
    file = target.with_name(f".{target.name}.lock")
    with lock.held(file, target), pytest.raises(BlockingIOError, match=r"is being written by another run; wait"):
        denoise_zarr(source, target, **SAME)
    denoise_zarr(source, target, **SAME)
    assert not file.exists()


def test_the_lock_of_a_dead_process_does_not_count(source: Path, target: Path) -> None:
    file = target.with_name(f".{target.name}.lock")
    imports = "import os, pathlib, sys; from nlmeans.files import lock; file = pathlib.Path(sys.argv[1])"
    die = "held = lock.held(file, file); held.__enter__(); os._exit(9)"
    subprocess.run([sys.executable, "-c", f"{imports}; {die}", file], check=False)
    assert file.exists()
    denoise_zarr(source, target, **SAME)
    assert not file.exists()


@pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")
def test_ctrl_c_says_how_to_go_on(tmp_path: Path, target: Path, forks: Forks) -> None:
    source = save(tmp_path / "in.zarr", noisy(32, 200, 200), "zyx", chunk=32)
    options = ("--memory", "16MiB", "--method", "classic", "--search-radius", "8", "--sigma", "10", "--device", "cpu")
    child = forks.start("denoise", source, target, *options)
    journal, until = partial_folder(target) / JOURNAL, time.monotonic() + 300
    while not (journal.is_file() and '"facts"' in journal.read_text()):
        assert time.monotonic() < until
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGINT)
    code, _, said = child.ended()
    assert code == 130, said
    assert "give the same command again to resume" in said
    assert len(said.splitlines()) == 1, said
    assert partial_folder(target).is_dir()
    assert not target.exists()
