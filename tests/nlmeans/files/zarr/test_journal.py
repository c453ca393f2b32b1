"""The journal: what was added is read back, in order, however the file was cut off."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("zarr")

from nlmeans.files.zarr.journal import JOURNAL, Journal, parsed

ABOUT = {"request": {"sigma": 3}, "plan": {"memory": 10}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    journal = Journal.begin(tmp_path / "out", ABOUT)
    for number in range(3):
        journal.add({"block": [0, number]})
    journal.add({"facts": {"sigma": [3.0]}})
    return tmp_path / "out"


def test_what_was_added_is_found_again_by_its_name(folder: Path) -> None:
    journal = Journal.found(folder)
    assert journal.entries[0] == ABOUT
    assert journal.all("block") == [[0, 0], [0, 1], [0, 2]]
    assert journal.all("facts") == [{"sigma": [3.0]}]
    assert journal.all("request") == []  # the first entry is not a step


def test_a_journal_cut_off_anywhere_holds_its_whole_lines_and_can_be_added_to(folder: Path) -> None:
    content = (folder / JOURNAL).read_bytes()
    ends = [index + 1 for index, byte in enumerate(content) if byte == ord("\n")]
    for length in range(len(content) + 1):
        (folder / JOURNAL).write_bytes(content[:length])
        journal = Journal.found(folder)
        whole = sum(end <= length for end in ends)
        assert len(journal.entries) == whole
        assert (folder / JOURNAL).read_bytes() == content[: ([0, *ends])[whole]]
        journal.add({"block": [9, 9]})
        assert len(Journal.found(folder).entries) == whole + 1


def test_nothing_after_a_damaged_line_is_trusted(folder: Path) -> None:
    lines = (folder / JOURNAL).read_bytes().splitlines(keepends=True)
    lines[2] = b'{"block": [0, 1\n'
    (folder / JOURNAL).write_bytes(b"".join(lines))
    assert Journal.found(folder).all("block") == [[0, 0]]


@pytest.mark.parametrize("line", [b"", b'{"block": 1}', b"[1]\n", b"3\n", b"\xff\xfe\n", b'{"block"\n'])
def test_a_line_that_is_no_whole_object_is_not_parsed(line: bytes) -> None:
    assert parsed(line) is None


def test_a_folder_that_exists_is_not_begun_anew(folder: Path) -> None:
    with pytest.raises(FileExistsError):
        Journal.begin(folder, ABOUT)
