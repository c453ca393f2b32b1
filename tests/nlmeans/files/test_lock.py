"""Locks: one holder at a time among threads and processes, and free when the holder ends, however it ends."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nlmeans.files import lock

pytestmark = pytest.mark.skipif(os.name != "posix", reason="locks are those of POSIX")

DIE = """
import os, pathlib, sys
from nlmeans.files import lock
held = lock.held(pathlib.Path(sys.argv[1]), pathlib.Path("out.nii"))
held.__enter__()
os._exit(9)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def test_the_file_exists_only_while_the_lock_is_held(file: Path) -> None:
    with lock.held(file, Path("out.nii")) as locked:
        assert locked
        assert file.exists()
    assert not file.exists()


def test_without_waiting_a_held_lock_is_an_error_that_names_the_output(file: Path) -> None:
    with (
        lock.held(file, Path("out.nii")),
        pytest.raises(BlockingIOError, match=r"out\.nii is being written by another run; wait for it, or choose"),
        lock.held(file, Path("out.nii"), wait=False),
    ):
        pass
    assert not file.exists()


def test_threads_hold_it_one_after_another(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    inside, most = 0, 0
    count = threading.Lock()
    second_waits = threading.Event()

    def work() -> None:
        nonlocal inside, most
        with lock.held(file, Path("out.nii")):
            with count:
                inside += 1
                most = max(most, inside)
            second_waits.wait(0.2)
            with count:
                inside -= 1

    with caplog.at_level(logging.WARNING, "nlmeans"):
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert most == 1
    assert "waiting for another run that is writing out.nii" in caplog.messages
    assert not file.exists()


def test_a_process_that_dies_leaves_the_file_but_not_the_lock(file: Path) -> None:
    assert subprocess.run([sys.executable, "-c", DIE, file], check=False).returncode == 9
    assert file.exists()
    with lock.held(file, Path("out.nii"), wait=False) as locked:
        assert locked
    assert not file.exists()


def test_an_error_inside_frees_the_lock(file: Path) -> None:
    with pytest.raises(ZeroDivisionError), lock.held(file, Path("out.nii")):
        raise ZeroDivisionError
    with lock.held(file, Path("out.nii"), wait=False) as locked:
        assert locked


def test_a_file_system_without_locks_is_written_to_all_the_same(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(handle: int, operation: int) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr("nlmeans.files.lock.fcntl.flock", unsupported)
    with lock.held(file, Path("out.nii")) as locked:
        assert not locked
        assert not file.exists()
