"""The choices of the last session. napari keeps them in the folder of its own settings."""

from __future__ import annotations

from typing import Any

from napari.settings import get_plugin_settings

from napari_nlm.parameters import Parameters

PLUGIN = "nlmeans"


def plugin_settings() -> Any:
    """The plugin's settings; None if napari does not know the plugin because it is not installed."""
    try:
        return get_plugin_settings(PLUGIN).denoising
    except (KeyError, AttributeError):
        return None


def load_choices() -> Parameters:
    settings = plugin_settings()
    return Parameters() if settings is None else Parameters.from_json(settings.choices)


def save_choices(parameters: Parameters) -> None:
    settings, text = plugin_settings(), parameters.to_json()
    if settings is not None and settings.choices != text:
        settings.choices = text
