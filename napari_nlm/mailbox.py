"""Call functions in the main thread from any thread, through Qt's event loop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from qtpy.QtCore import QObject, Qt, QTimer, Signal  # type: ignore[attr-defined]


class Mailbox(QObject):
    """Calls functions in the main thread, in the order in which they were delivered."""

    posted = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.posted.connect(lambda function: function(), Qt.ConnectionType.QueuedConnection)

    def deliver(self, function: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the window is gone, so nobody needs the call any more
            self.posted.emit(function)


def gathered_in(owner: QObject, milliseconds: int) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Turn many requests into few calls: a function is called once the requests have paused for some milliseconds.

    Args:
        owner: the timers live as long as this object.
        milliseconds: length of the pause.
    """

    def gather(function: Callable[[], None]) -> Callable[[], None]:
        timer = QTimer(owner)
        timer.setSingleShot(True)
        timer.setInterval(milliseconds)
        timer.timeout.connect(function)
        return lambda: timer.start()

    return gather


def next_turn(function: Callable[[], None]) -> None:
    """Call a function in the main thread's next turn of the event loop, after what it has to paint now.

    Called from the main thread. A timer of 0 ms would be no turn of its own.
    """
    QTimer.singleShot(1, function)
