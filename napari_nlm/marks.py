"""Keys in the metadata of layers, for modules that must not import the engine."""

from __future__ import annotations

PROVENANCE_KEY = "nlmeans"
"""How the layer was made."""
