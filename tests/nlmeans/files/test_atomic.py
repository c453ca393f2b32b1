"""Files are renamed together, complete or not at all, whatever happens before."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from nlmeans.files import atomic
from tests.nlmeans.scans import contents, names

posix = pytest.mark.skipif(os.name != "posix", reason="signals, forks and locks are those of POSIX")


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, ...]:
    return tmp_path / "scan.nii.gz", tmp_path / "scan.json", tmp_path / "scan.png"


def test_nothing_has_its_name_before_all_is_written(pair: tuple[Path, ...]) -> None:
    with atomic.written_together(*pair) as temporary:
        for path in temporary:
            path.write_text(f"for {path.suffix}")
            assert not any(target.exists() for target in pair)
            assert path.parent == pair[0].parent  # renaming never crosses file systems
    assert [path.read_text() for path in pair] == ["for .gz", "for .json", "for .png"]
    assert len(names(pair[0].parent)) == 3


def test_temporary_names_keep_the_endings_that_choose_the_format(pair: tuple[Path, ...]) -> None:
    with atomic.written_together(*pair) as (image, *others):
        assert image.name.endswith(".nii.gz")
        assert [path.suffix for path in others] == [".json", ".png"]


@pytest.mark.parametrize("there_before", [False, True], ids=["new", "replacing"])
@pytest.mark.parametrize(
    ("failure", "raised"),
    [
        (ValueError("bad"), ValueError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError(errno.ENOSPC, "No space left on device"), OSError),
    ],
    ids=["error", "interrupt", "disk full"],
)
def test_a_failure_between_leaves_all_as_it_was(
    failure: BaseException, raised: type[BaseException], there_before: bool, pair: tuple[Path, ...]
) -> None:
    if there_before:
        for path in pair:
            path.write_text("old")
    before = contents(pair[0].parent)

    def write_one_and_fail() -> None:
        with atomic.written_together(*pair) as (image, *_):
            image.write_text("new")
            raise failure

    with pytest.raises(raised):
        write_one_and_fail()
    assert contents(pair[0].parent) == before


def test_a_disk_error_names_the_file(pair: tuple[Path, ...]) -> None:
    with (
        pytest.raises(OSError, match=r"scan\.nii\.gz cannot be written: No space left on device"),
        atomic.written_together(*pair),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_get_the_mode_that_umask_allows(mask: int, umask: Callable[[int], int], pair: tuple[Path, ...]) -> None:
    umask(mask)
    with atomic.written_together(*pair):
        pass
    for path in pair:
        assert path.stat().st_mode & 0o777 == 0o666 & ~mask
    assert atomic.current_umask() == mask


# ---------------------------------------------------------------- killed or interrupted while files take their places


STEPS = ("link", "rename", "replace", "unlink")


def write_and_fail(pair: Sequence[Path], step: int, failure: Any) -> bool:
    """Write "new" into all files, and fail at the given change of a name. Returns whether there was such a change."""
    count = 0

    def failing(change: Any) -> Any:
        def changed(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == step:
                failure()
            return change(*arguments, **options)

        return changed

    with pytest.MonkeyPatch.context() as patch, atomic.written_together(*pair) as temporary:
        for path in temporary:
            path.write_text("new")
        for name in STEPS:
            patch.setattr(os, name, failing(getattr(os, name)))
        patch.setattr(os, "fsync", lambda handle: None)  # it takes long, and this test is about names
    return count >= step


def killed(pair: Sequence[Path], step: int) -> bool:
    """Do the same in a process that is killed at this step. Returns whether it was killed."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            write_and_fail(pair, step, lambda: os.kill(os.getpid(), signal.SIGKILL))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def texts(pair: Sequence[Path]) -> list[str | None]:
    return [path.read_text() if path.exists() else None for path in pair]


@posix
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
@pytest.mark.parametrize("before", [None, "old"])
def test_killed_at_any_step_nothing_is_mixed_and_the_next_run_clears_up(
    before: str | None, pair: tuple[Path, ...], tmp_path: Path
) -> None:
    seen = set()
    for step in range(1, 40):
        for path in pair:
            path.unlink(missing_ok=True)
            if before:
                path.write_text(before)
        if not killed(pair, step):
            break
        main, *others = texts(pair)
        assert main in (before, "new")  # complete, and never missing if it existed before
        assert set(others) <= {main, None}  # from the same run, or missing
        seen.add(main)
        write_and_fail(pair, 0, None)
        assert sorted(names(tmp_path)) == sorted(path.name for path in pair)
    assert step > 4
    assert seen == {before, "new"}


@pytest.mark.parametrize("before", [None, "old"])
@pytest.mark.parametrize("failure", [OSError(5, "Input/output error"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_a_failure_at_any_step_leaves_all_as_it_was_or_all_new(
    failure: BaseException, before: str | None, pair: tuple[Path, ...], tmp_path: Path
) -> None:
    def fail() -> None:
        raise failure

    for step in range(1, 40):
        for path in pair:
            path.unlink(missing_ok=True)
            if before:
                path.write_text(before)
        with contextlib.suppress(OSError, KeyboardInterrupt):
            if not write_and_fail(pair, step, fail):
                break
        found = texts(pair)
        assert found in ([before] * 3, ["new"] * 3)
        left = {name for name in names(tmp_path) if name.startswith(".nlmeans-")}
        assert not left or found == ["new"] * 3  # the clearing up was interrupted; the next run does it
    assert step > 4
    write_and_fail(pair, 0, None)
    assert sorted(names(tmp_path)) == sorted(path.name for path in pair)


def test_a_folder_takes_the_place_of_another_whole(tmp_path: Path) -> None:
    target, record = tmp_path / "series", tmp_path / "series.json"
    for text in ("old", "new"):
        with atomic.written_together(target, record, folders=[target]) as (folder, facts):
            (folder / f"{text}.dcm").write_text(text)
            facts.write_text(text)
    assert [path.name for path in target.iterdir()] == ["new.dcm"]
    assert sorted(names(tmp_path)) == ["series", "series.json"]


@posix
def test_a_file_system_that_does_not_sync_folders_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def files_alone(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", files_alone)
    with atomic.written_together(tmp_path / "series", folders=[tmp_path / "series"]) as [folder]:
        (folder / "new").write_text("whole")
    assert (tmp_path / "series" / "new").read_text() == "whole"


@posix
def test_two_runs_take_turns(pair: tuple[Path, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    inside, go = threading.Event(), threading.Event()

    def first() -> None:
        with atomic.written_together(*pair) as temporary:
            for path in temporary:
                path.write_text("first")
            inside.set()
            go.wait(60)

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(60)
    threading.Timer(0.3, go.set).start()
    with atomic.written_together(*pair) as temporary:
        assert texts(pair) == ["first"] * 3
        for path in temporary:
            path.write_text("second")
    thread.join()
    assert texts(pair) == ["second"] * 3
    assert "waiting for another run that is writing" in caplog.text
    assert len(names(tmp_path)) == 3


def test_what_another_run_made_meanwhile_is_not_overwritten(pair: tuple[Path, ...]) -> None:
    with (
        pytest.raises(FileExistsError, match=r"scan\.nii\.gz was made by another run meanwhile; it stays as it is"),
        atomic.written_together(*pair, overwrite=False),
    ):
        pair[0].write_text("theirs")
    assert texts(pair) == ["theirs", None, None]


def test_names_as_long_as_can_be_are_written(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 248 + ".nii.gz")
    with atomic.written_together(path) as (temporary,):
        temporary.write_text("whole")
    assert path.read_text() == "whole"
