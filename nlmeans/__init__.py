"""Denoising of medical volumes by non-local means on PyTorch."""

from importlib.metadata import version

from nlmeans import blur, nn
from nlmeans.denoise import denoise, preview, usual_h
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
    "blur",
    "denoise",
    "despeckle",
    "estimate_sigma",
    "nn",
    "nonlocal_means",
    "preview",
    "usual_h",
]
