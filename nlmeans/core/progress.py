"""Progress and cancellation of long work.

The engine reports the fraction done to one function, from the thread that called the engine. The function
cancels the run by returning ``False``. An exception that it raises ends the run as well.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

Report = Callable[[float], object]
"""Function that is called with the fraction done, 0 to 1. If it returns ``False``, the run is cancelled."""


class Cancelled(Exception):
    """Raised when the progress callback returns ``False``. Nothing was written."""


def silent(fraction: float) -> None:
    """Ignore the fraction done."""


def cancellable(report: Report | None) -> Report:
    """Return a reporter that raises `Cancelled` once `report` returns ``False``."""
    if report is None:
        return silent
    if not callable(report):
        raise TypeError(f"progress={report!r} must be None or a function of the fraction done")

    def tell(fraction: float) -> None:
        if report(min(fraction, 1.0)) is False:
            raise Cancelled(f"cancelled by the progress callback at {fraction:.0%}")

    return tell


def part(report: Report, start: float, stop: float) -> Report:
    """Return a reporter for a part of the work, which spans `start` to `stop` of the whole."""
    return lambda fraction: report(start + (stop - start) * fraction)


@contextlib.contextmanager
def reporting(progress: bool | Report | None, title: str) -> Iterator[Report]:
    """Turn the public argument `progress` into a reporter: a bar for ``True``, a cancellable function, or silence."""
    if progress is True:
        from tqdm import tqdm

        with tqdm(
            total=100, desc=title, unit="%", bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
        ) as bar:
            yield lambda fraction: bar.update(max(0.0, 100 * min(fraction, 1.0) - bar.n))
    elif callable(progress):
        yield cancellable(progress)
    elif progress in (None, False):
        yield silent
    else:
        raise TypeError(f"progress={progress!r} must be None, True for a bar, or a function of the fraction done")
