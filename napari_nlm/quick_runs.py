"""Commands that denoise the selected layers. They work at once, also before torch is imported, which takes seconds."""

from __future__ import annotations

import sys
import threading
from typing import Any

from napari.components import ViewerModel
from napari.utils.notifications import notification_manager, show_info

from napari_nlm.importing import import_apart
from napari_nlm.mailbox import Mailbox

WORK, LAST = "napari_nlm.context_menu", "MenuRun"
"""The module that does the work, and what it defines last."""

LOADING: list[Mailbox] = []
"""Mailboxes of runs that wait for the import."""


def denoise_fast(viewer: ViewerModel) -> None:
    """Denoise the selected image layers with everything found and chosen by the engine."""
    denoise_soon(viewer, "auto")


def denoise_best(viewer: ViewerModel) -> None:
    """Denoise the selected image layers by the method ``best``, which takes several times as long as ``auto``."""
    denoise_soon(viewer, "best")


def denoise_soon(viewer: ViewerModel, method: str) -> None:
    """Denoise what is selected now, as soon as the engine is imported; until then, a line says what is going on."""
    layers = list(viewer.layers.selection)

    def begin() -> None:
        from napari_nlm.context_menu import denoise_layers

        denoise_layers(viewer, layers, method)

    if hasattr(sys.modules.get(WORK), LAST):
        begin()
    else:
        show_info("Loading torch, which takes seconds; denoising starts by itself then")
        mailbox = Mailbox()
        LOADING.append(mailbox)
        threading.Thread(target=import_first, args=[mailbox, begin], name="nlmeans loading", daemon=True).start()


def import_first(mailbox: Mailbox, begin: Any) -> None:
    """Import the module that does the work, in a background thread, and then call a function in the main thread."""
    failure: Exception | None = None
    try:
        import_apart(WORK)
    except Exception as error:  # the window shows every error
        failure = error

    def end() -> None:
        LOADING.remove(mailbox)
        if failure is None:
            begin()
        else:
            notification_manager.receive_error(type(failure), failure, failure.__traceback__)

    mailbox.deliver(end)
