"""What a long run has finished, on disk, so that another can go on from there after any interruption."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nlmeans.files.atomic import sync

NAME = "journal.jsonl"


class Journal:
    """A file of JSON lines in the folder that is being written: what the run is, and what it has finished.

    Lines are only ever added, and each is on the disk before the next step. One that was cut off counts as not there.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.entries: list[dict[str, Any]] = []
        """The first is as it was given to `begin`."""

    @classmethod
    def begin(cls, folder: Path, about: Mapping[str, Any]) -> Journal:
        """Make the folder, with a journal whose first entry says what the run is."""
        folder.mkdir()
        journal = cls(folder)
        journal.path.touch()
        journal.add(about)
        sync(journal.path, folder.parent)
        return journal

    @classmethod
    def found(cls, folder: Path) -> Journal:
        """What an interrupted run left in the folder; without entries if it did not get that far."""
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
        """Returns once it is on the disk."""
        self.entries.append(dict(entry))
        with self.path.open("ab") as file:
            file.write(json.dumps(entry).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def all(self, name: str) -> list[Any]:
        """The values of all later entries that have this name."""
        return [entry[name] for entry in self.entries[1:] if name in entry]


def parsed(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
