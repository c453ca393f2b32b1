"""What all widgets of the plugin do in a dock of napari: they share its place as tabs, and end with it."""

from __future__ import annotations

from typing import ClassVar

from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QDockWidget, QMainWindow, QWidget

from napari_nlm.mailbox import gathered_in


class DockedWidget(QWidget):
    """A widget that napari puts into a dock.

    If another one has a dock on the same side of the window, both become tabs of one place: stacked, each would have
    half the height. It ends its work and deletes itself when it is taken out of its dock: napari does that to close the
    dock. The garbage collector might delete it much later and from any thread.
    """

    tab: ClassVar[str] = ""
    """A title short enough for a tab."""

    def __init__(self) -> None:
        super().__init__()
        self.docked = False
        self.join_soon = gathered_in(self, 0)(self.join_tabs)

    def end_work(self) -> None:
        """Stop everything that runs in the background."""
        raise NotImplementedError

    def event(self, event: QEvent | None) -> bool:
        if event is not None and event.type() == QEvent.Type.ParentChange:
            if self.docked and self.parent() is None:
                self.end_work()
                self.deleteLater()
            self.docked = self.parent() is not None
            if self.docked:
                self.join_soon()  # napari adds the dock to its window after this
        return bool(super().event(event))

    def show_status(self, text: str) -> None:
        """Say something that the user waits for."""

    def join_tabs(self) -> None:
        """Become a tab next to another widget of the plugin, in front."""
        dock, window = dock_of(self), self.window()
        if dock is None or not isinstance(window, QMainWindow):
            return
        for other in window.findChildren(DockedWidget):
            place = dock_of(other)
            if place is None or place is dock or place.isFloating() or not place.isVisible():
                continue
            if window.dockWidgetArea(place) == window.dockWidgetArea(dock):
                window.tabifyDockWidget(place, dock)
                for one, holder in ((other, place), (self, dock)):
                    holder.setWindowTitle(one.tab)
                dock.raise_()
                return


def dock_of(widget: QWidget) -> QDockWidget | None:
    """The dock that a widget is in."""
    parent = widget.parent()
    while parent is not None and not isinstance(parent, QDockWidget):
        parent = parent.parent()
    return parent
