"""Docks that are there at once. What they hold needs torch, which is imported in the background meanwhile."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from typing import ClassVar

from napari.components import ViewerModel
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QVBoxLayout

from napari_nlm.collector import no_collection
from napari_nlm.docked import DockedWidget
from napari_nlm.importing import import_apart
from napari_nlm.mailbox import Mailbox, next_turn

KERNEL_LOG = "nlmeans.kernels"
"""The logger that says that kernels are being compiled."""

LONGEST_FILL = 5.0
"""Seconds after which the kernels are warmed up in any case: the window may be gone."""

EMPTY_WIDTH = 370
"""Pixels of a dock that has nothing in it yet."""


class LoadingDock(DockedWidget):
    """Holds another widget as soon as its module is imported, and says so until then."""

    module: ClassVar[str]
    """Where the widget is."""
    name: ClassVar[str]

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__()
        self.viewer, self.mailbox = napari_viewer, Mailbox()
        self.inner: DockedWidget | None = None
        self.ended = False
        self.said = QLabel("Loading …")
        self.said.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.said.setWordWrap(True)
        self.said.setMinimumWidth(EMPTY_WIDTH)
        self.column = QVBoxLayout(self)
        self.column.setContentsMargins(0, 0, 0, 0)
        self.column.addWidget(self.said)
        if hasattr(sys.modules.get(self.module), self.name):
            self.fill()
        else:
            threading.Thread(target=self.load, name="nlmeans loading", daemon=True).start()

    def load(self) -> None:
        """Import the module in the background. Warm up the kernels once the window has the widget and rests."""
        filled = threading.Event()

        def fill() -> None:
            self.fill()
            next_turn(filled.set)

        try:
            import_apart(self.module)
        except Exception as error:  # the window shows every error
            failure = error
            self.mailbox.deliver(lambda: self.show_failure(failure))
            return
        self.mailbox.deliver(fill)
        filled.wait(LONGEST_FILL)
        with KernelNotices(lambda text: self.mailbox.deliver(lambda: self.show_compiling(text))), no_collection():
            warm_up()

    def fill(self) -> None:
        """Replace the text by the widget."""
        if self.ended:
            return
        make = getattr(sys.modules[self.module], self.name)
        with no_collection():
            self.inner = make(self.viewer)
        self.said.hide()
        while self.column.count():  # also the stretch that napari adds to a dock with little in it
            self.column.takeAt(0)
        self.column.addWidget(self.inner, 1)

    def show_failure(self, error: Exception) -> None:
        self.said.setText(f"{type(error).__name__}: {error}")
        notification_manager.receive_error(type(error), error, error.__traceback__)

    def show_compiling(self, text: str) -> None:
        """Say that the kernels are compiled, below the preview if there is one."""
        if self.inner is not None and not self.ended:
            self.inner.show_status(text[:1].upper() + text[1:])

    def end_work(self) -> None:
        self.ended = True
        if self.inner is not None:
            self.inner.end_work()


class DenoiseDock(LoadingDock):
    """The dock of the denoising widget."""

    module, name, tab = "napari_nlm.widget", "DenoiseWidget", "Denoise"


class NoiseDock(LoadingDock):
    """The dock of the panel that finds the noise."""

    module, name, tab = "napari_nlm.noise_panel", "NoisePanel", "Noise"


def warm_up() -> None:
    """Denoise a little noise, which loads the kernels, or compiles them once on a machine."""
    import numpy as np

    import nlmeans

    noise = np.random.default_rng(0).standard_normal((6, 24, 24)).astype(np.float32)
    for method in ("classic", "bayes"):
        nlmeans.denoise(noise, 1.0, method=method, device="cpu")


class KernelNotices(logging.Handler):
    """Pass on what the kernels log, inside a with block.

    Args:
        show: called with each message, from any thread.
    """

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self.show, self.logger = show, logging.getLogger(KERNEL_LOG)
        self.level_before = self.logger.level

    def emit(self, record: logging.LogRecord) -> None:
        self.show(record.getMessage())

    def __enter__(self) -> None:
        self.logger.addHandler(self)
        if not self.logger.isEnabledFor(logging.INFO):
            self.logger.setLevel(logging.INFO)

    def __exit__(self, *error: object) -> None:
        self.logger.removeHandler(self)
        self.logger.setLevel(self.level_before)
