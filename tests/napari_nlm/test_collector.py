"""Garbage collections that look at new objects alone, for a moment."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator

import pytest

from napari_nlm.collector import OF_PYTHON, new_objects_alone, no_collection


class Knot:
    """Something that only the collector can remove."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def nothing_set_aside() -> Iterator[None]:
    aside = gc.get_freeze_count() >= OF_PYTHON  # pytest sets aside what was imported
    gc.unfreeze()
    yield
    assert gc.get_freeze_count() < OF_PYTHON
    assert gc.isenabled()
    if aside:
        gc.freeze()


def test_what_is_older_is_collected_after_the_block_and_not_in_it() -> None:
    old, gone = Knot(), list[object]()
    weakref.finalize(old, gone.append, "old")
    with new_objects_alone():
        del old
        weakref.finalize(Knot(), gone.append, "new")
        gc.collect()
        assert gone == ["new"]
    gc.collect()
    assert gone == ["new", "old"]


def test_blocks_may_overlap_in_threads() -> None:
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with new_objects_alone():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with new_objects_alone():
        thread.start()
        assert inside.wait(10)
    assert gc.get_freeze_count() > OF_PYTHON  # the other block goes on
    leave.set()
    thread.join(10)


def test_an_error_ends_the_block() -> None:
    with pytest.raises(ZeroDivisionError), new_objects_alone(), no_collection():
        _ = 1 / 0


def test_what_the_program_itself_has_set_aside_stays_so() -> None:
    gc.freeze()
    try:
        count = gc.get_freeze_count()
        assert count > OF_PYTHON
        with new_objects_alone(), no_collection():
            pass
        assert gc.get_freeze_count() >= count
    finally:
        gc.unfreeze()


def test_no_collection_takes_place_by_itself() -> None:
    gone: list[int] = []
    with no_collection():
        weakref.finalize(Knot(), gone.append, 1)
        keep = [[number] for number in range(100_000)]
        assert gone == []
    gc.collect()
    assert gone == [1]
    assert len(keep) == 100_000


def test_a_collector_that_is_switched_off_stays_off() -> None:
    gc.disable()
    try:
        with no_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
