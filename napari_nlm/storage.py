"""The choices of the last session, kept by napari in the folder of its own settings."""

from __future__ import annotations

from typing import Any

from napari.settings import get_plugin_settings

from napari_nlm.parameters import Parameters

PLUGIN = "nlmeans"


def kept() -> Any:
    """The plugin's settings; None where napari does not know the plugin, as in a checkout without installation."""
    try:
        return get_plugin_settings(PLUGIN).denoising
    except (KeyError, AttributeError):
        return None


def load() -> Parameters:
    settings = kept()
    return Parameters() if settings is None else Parameters.from_json(settings.choices)


def save(parameters: Parameters) -> None:
    settings, text = kept(), parameters.to_json()
    if settings is not None and settings.choices != text:
        settings.choices = text
