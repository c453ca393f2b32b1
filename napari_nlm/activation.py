"""What happens when napari first uses the plugin in a session."""

from __future__ import annotations

import threading

from app_model import Application
from app_model.expressions import parse_expression
from app_model.types import CommandRule, MenuItem
from npe2 import PluginContext

from napari_nlm.importing import import_apart

HEAVY = "napari_nlm.widget"
"""What takes seconds to import, as torch does."""

CONTEXT_MENU = "napari/layers/context"
"""The context menu of the layer list. napari 0.9 ignores it in manifests, so its items are added here."""

ITEMS = {"nlmeans.denoise_fast": "Denoise (fast)", "nlmeans.denoise_best": "Denoise (best)"}
"""Titles by the commands of the manifest."""


def activate(context: PluginContext) -> None:
    """Import the engine in the background, and add our items to the context menu of image layers.

    The items stay until the plugin is switched off.

    Args:
        context: of the plugin, from npe2.
    """
    threading.Thread(target=import_apart, args=[HEAVY], name="nlmeans import", daemon=True).start()
    application = Application.get_app("napari")
    if application is None:  # the plugin is used without napari's window
        return
    items = [
        MenuItem(
            command=CommandRule(id=command, title=title),
            when=parse_expression("num_selected_image_layers > 0"),
            group="7_denoise",
            order=order,
        )
        for order, (command, title) in enumerate(ITEMS.items())
    ]
    context.register_disposable(application.menus.append_menu_items([(CONTEXT_MENU, item) for item in items]))
