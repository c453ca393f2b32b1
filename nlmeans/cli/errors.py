"""Errors and interruptions in one line, and the lines that commands print."""

from __future__ import annotations

import _thread
import atexit
import contextlib
import functools
import logging
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from nlmeans.core.memory import shortage
from nlmeans.core.progress import Cancelled
from nlmeans.files.paths import one_line

EXPECTED_ERRORS = (ValueError, TypeError, OSError, MemoryError, Cancelled)


@contextlib.contextmanager
def one_line_errors(interrupted: str = "Interrupted: nothing was left half-written.") -> Iterator[None]:
    """Print an error that the user can correct, or `interrupted`, as one line on standard error.

    After an error nothing was written. An interruption may come so late that the complete result is still written.
    """
    try:
        with shortage():
            yield
    except EXPECTED_ERRORS as error:
        raise click.ClickException(one_line(error)) from error
    except KeyboardInterrupt as error:
        atexit.register(hush)
        click.echo(interrupted, err=True)
        raise SystemExit(130) from error


def interruption(target: Path) -> str:
    """Say what a run that was interrupted leaves."""
    if target.name.endswith(".zarr"):
        return f"Interrupted: give the same command again to resume. {target} does not exist until it is complete."
    return "Interrupted: nothing was left half-written."


def hush() -> None:
    """Silence errors from zarr reads that were still running when the user interrupted."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    sys.unraisablehook = lambda _: None
    warnings.simplefilter("ignore")


@functools.cache
def ignore_late_interrupts() -> None:
    """Ignore Ctrl-C once Python ends: nothing is left to stop, and libraries would print a traceback of their cleanup.

    Python calls exit functions in reverse order. This one is registered when a command ends, after the libraries' own.
    """
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)


def keep_interrupts() -> Callable[[], None]:
    """Make Ctrl-C stop a command even where Python only prints what is raised: in a finaliser or a callback.

    There it would say so with a traceback and go on. Returns what takes this back.
    """
    usual = sys.unraisablehook

    def again(raised: sys.UnraisableHookArgs) -> None:
        if raised.exc_type is KeyboardInterrupt:
            later = threading.Timer(MOMENT, _thread.interrupt_main)  # here it would be lost again
            later.daemon = True
            later.start()
        else:
            usual(raised)

    sys.unraisablehook = again
    return lambda: setattr(sys, "unraisablehook", usual)


MOMENT = 0.05
"""Seconds after which a finaliser has ended."""


def say(text: str) -> None:
    """Print to standard output. File names that are not valid text are printed with replacement characters."""
    click.echo(click.format_filename(text))
