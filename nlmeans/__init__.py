"""Denoising of medical volumes by non-local means on PyTorch."""

from importlib.metadata import version

from nlmeans.denoise import denoise, preview
from nlmeans.estimate import estimate_sigma
from nlmeans.methods import METHODS
from nlmeans.nonlocal_means import nonlocal_means
from nlmeans.outliers import despeckle
from nlmeans.progress import Cancelled
from nlmeans.settings import Settings

__version__ = version("nlmeans")

__all__ = [
    "METHODS",
    "Cancelled",
    "Settings",
    "denoise",
    "despeckle",
    "estimate_sigma",
    "nonlocal_means",
    "preview",
]
