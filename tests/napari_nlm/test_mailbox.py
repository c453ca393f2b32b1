"""Calls from other threads, and requests that become one call."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from qtpy.QtCore import QObject

from napari_nlm.mailbox import Mailbox, gathered_in, next_turn


def test_calls_from_a_thread_arrive_in_the_main_thread_in_order(qtbot: Any) -> None:
    mailbox, called = Mailbox(), []

    def post() -> None:
        for number in range(20):
            mailbox.deliver(lambda number=number: called.append((number, threading.get_ident())))  # type: ignore[misc]

    thread = threading.Thread(target=post)
    thread.start()
    thread.join()
    assert called == []  # not before the event loop runs
    qtbot.waitUntil(lambda: len(called) == 20)
    assert called == [(number, threading.get_ident()) for number in range(20)]


@pytest.mark.usefixtures("qapp")
def test_a_mailbox_that_is_gone_takes_no_calls() -> None:
    sip = pytest.importorskip("PyQt6.sip")
    mailbox = Mailbox()
    sip.delete(mailbox)
    mailbox.deliver(lambda: pytest.fail("called"))


def test_many_requests_become_one_call(qtbot: Any) -> None:
    owner, calls = QObject(), []
    ask = gathered_in(owner, 20)(lambda: calls.append(1))
    for _ in range(10):
        ask()
    assert calls == []
    qtbot.waitUntil(lambda: bool(calls))
    qtbot.wait(60)
    assert calls == [1]
    ask()
    qtbot.waitUntil(lambda: len(calls) == 2)


@pytest.mark.usefixtures("qapp")
def test_the_next_turn_comes_after_what_is_waiting_now(qtbot: Any) -> None:
    mailbox, calls = Mailbox(), list[str]()
    next_turn(lambda: (calls.append("turn"), next_turn(lambda: calls.append("another turn"))))
    mailbox.deliver(lambda: calls.append("mail"))
    assert calls == []
    qtbot.waitUntil(lambda: len(calls) == 3)
    assert calls == ["mail", "turn", "another turn"]
