"""Denoising of medical volumes by non-local means on PyTorch.

Public names are loaded at first use, so that importing the package itself takes almost no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nlmeans import blur, nn
    from nlmeans.api import denoise, denoise_with_maps, estimate_noise, estimate_sigma, preview, usual_h
    from nlmeans.core import metrics
    from nlmeans.core.progress import Cancelled
    from nlmeans.engine.settings import Settings
    from nlmeans.files import samples
    from nlmeans.files.images import load_image, save_image
    from nlmeans.files.zarr.denoise import denoise_zarr
    from nlmeans.methods.registry import METHODS
    from nlmeans.noise.model import NoiseModel
    from nlmeans.noise.outliers import despeckle
    from nlmeans.noise.search.sigma_map import sigma_of_noise_volumes
    from nlmeans.operator.nonlocal_means import nonlocal_means

    __version__: str

__all__ = [
    "METHODS",
    "Cancelled",
    "NoiseModel",
    "Settings",
    "blur",
    "denoise",
    "denoise_with_maps",
    "denoise_zarr",
    "despeckle",
    "estimate_noise",
    "estimate_sigma",
    "load_image",
    "metrics",
    "nn",
    "nonlocal_means",
    "preview",
    "samples",
    "save_image",
    "sigma_of_noise_volumes",
    "usual_h",
]

HOMES = {
    "METHODS": "nlmeans.methods.registry",
    "Cancelled": "nlmeans.core.progress",
    "NoiseModel": "nlmeans.noise.model",
    "Settings": "nlmeans.engine.settings",
    "denoise": "nlmeans.api",
    "denoise_with_maps": "nlmeans.api",
    "denoise_zarr": "nlmeans.files.zarr.denoise",
    "despeckle": "nlmeans.noise.outliers",
    "estimate_noise": "nlmeans.api",
    "estimate_sigma": "nlmeans.api",
    "load_image": "nlmeans.files.images",
    "nonlocal_means": "nlmeans.operator.nonlocal_means",
    "preview": "nlmeans.api",
    "save_image": "nlmeans.files.images",
    "sigma_of_noise_volumes": "nlmeans.noise.search.sigma_map",
    "usual_h": "nlmeans.api",
}
"""The module that defines each public name."""

MODULES = {
    "blur": "nlmeans.blur",
    "metrics": "nlmeans.core.metrics",
    "nn": "nlmeans.nn",
    "samples": "nlmeans.files.samples",
}
"""Public modules by name."""


def __getattr__(name: str) -> Any:
    """Load a public name and keep it."""
    if name in HOMES:
        value: Any = getattr(importlib.import_module(HOMES[name]), name)
    elif name in MODULES:
        value = importlib.import_module(MODULES[name])
    elif name == "__version__":
        from importlib.metadata import version

        value = version("nlmeans")
    else:
        raise AttributeError(f"module 'nlmeans' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
