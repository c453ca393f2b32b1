"""The progress bar in napari's activity dock, with its own cancel button."""

from __future__ import annotations

from napari.utils import cancelable_progress

BAR_STEPS = 1000


class Activity:
    """The progress bar of one run."""

    def __init__(self) -> None:
        self.bar: cancelable_progress | None = None
        self.closed = False

    def open(self, title: str) -> None:
        """Show the bar. napari handles events meanwhile, so `close` may be called before the bar exists."""
        self.bar = cancelable_progress(total=BAR_STEPS, desc=title)
        if self.closed:
            self.bar.close()

    def show(self, fraction: float) -> bool:
        """Move the bar. Returns whether its cancel button was pressed."""
        if self.bar is None:
            return False
        step = round(BAR_STEPS * fraction) - self.bar.n
        if step > 0:
            self.bar.update(step)
        return bool(self.bar.is_canceled)

    def close(self) -> None:
        self.closed = True
        if self.bar is not None:
            self.bar.close()
