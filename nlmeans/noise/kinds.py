"""The kinds of noise."""

from __future__ import annotations

NOISES = ("gaussian", "rician", "poisson")
"""Gaussian: equally strong in dark and bright regions. Rician: the magnitude of a complex MR signal with Gaussian noise
in both parts. Poisson: counts of photons or decays, with the gain, offset and read noise of the detector."""
