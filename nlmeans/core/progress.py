"""Progress and cancellation of long work.

The engine reports the fraction done to one callable, from the thread that called the engine. The
callable cancels the run by returning ``False``; whatever it raises ends the run too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from tqdm import tqdm

Report = Callable[[float], object]
"""Called with the fraction done, 0 to 1. Returning ``False`` cancels; other results are ignored."""


class Cancelled(Exception):
    """The progress callback asked to stop. Nothing was written."""


def silent(fraction: float) -> None:
    """Report nothing."""


def cancellable(report: Report | None) -> Report:
    """A reporter that raises `Cancelled` once `report` returns ``False``."""
    if report is None:
        return silent
    if not callable(report):
        raise TypeError(f"progress={report!r} must be None or a function of the fraction done")

    def tell(fraction: float) -> None:
        if report(min(fraction, 1.0)) is False:
            raise Cancelled(f"cancelled by the progress callback at {fraction:.0%}")

    return tell


def part(report: Report, start: float, stop: float) -> Report:
    """A reporter for a piece of work that spans `start` to `stop` of the whole."""
    return lambda fraction: report(start + (stop - start) * fraction)


@contextlib.contextmanager
def reporting(progress: bool | Report | None, title: str) -> Iterator[Report]:
    """Turn the public `progress` argument into a reporter: a bar for ``True``, the callable itself, or silence."""
    if progress is True:
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
