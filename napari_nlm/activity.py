"""The bar in napari's activity dock, with its own cancel button."""

from __future__ import annotations

from napari.utils import cancelable_progress

STEPS = 1000


class Activity:
    def __init__(self) -> None:
        self.bar: cancelable_progress | None = None
        self.closed = False

    def open(self, title: str) -> None:
        """Napari handles events meanwhile, so that the run may be over, and this closed, before the bar is there."""
        self.bar = cancelable_progress(total=STEPS, desc=title)
        if self.closed:
            self.bar.close()

    def show(self, fraction: float) -> bool:
        """Move the bar; says whether its cancel button was pressed."""
        if self.bar is None:
            return False
        step = round(STEPS * fraction) - self.bar.n
        if step > 0:
            self.bar.update(step)
        return bool(self.bar.is_canceled)

    def close(self) -> None:
        self.closed = True
        if self.bar is not None:
            self.bar.close()
