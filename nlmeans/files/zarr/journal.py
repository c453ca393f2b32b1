"""A journal of the finished steps of a long run, on disk, from which another run can resume."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nlmeans.files.atomic import sync

JOURNAL = "journal.jsonl"


class Journal:
    """A file of JSON lines in the folder that is being written.

    The first line describes the run; each later line records a finished step. Lines are only ever added, and a line is
    on the disk before the next step begins. An incomplete last line is ignored.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL
        self.entries: list[dict[str, Any]] = []
        """All entries; the first one describes the run."""

    @classmethod
    def begin(cls, folder: Path, about: Mapping[str, Any]) -> Journal:
        """Make the folder, and begin its journal with an entry that describes the run."""
        folder.mkdir()
        journal = cls(folder)
        journal.path.touch()
        journal.add(about)
        sync(journal.path, folder.parent)
        return journal

    @classmethod
    def found(cls, folder: Path) -> Journal:
        """Read the journal that an interrupted run left in the folder, and cut off an incomplete last line."""
        journal = cls(folder)
        content = journal.path.read_bytes()
        whole = 0
        for line in content.splitlines(keepends=True):
            entry = parsed(line)
            if entry is None:
                break
            journal.entries.append(entry)
            whole += len(line)
        if whole < len(content):
            os.truncate(journal.path, whole)
        return journal

    def add(self, entry: Mapping[str, Any]) -> None:
        """Add an entry, and return once it is on the disk."""
        self.entries.append(dict(entry))
        with self.path.open("ab") as file:
            file.write(json.dumps(entry).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def all(self, name: str) -> list[Any]:
        """List the values that later entries have under this name."""
        return [entry[name] for entry in self.entries[1:] if name in entry]


def parsed(line: bytes) -> dict[str, Any] | None:
    """Parse a line of a journal; None if it is incomplete or damaged."""
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
