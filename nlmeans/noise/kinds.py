"""The kinds of noise."""

from __future__ import annotations

NOISES = ("gaussian", "rician", "poisson")
"""Gaussian: the same in dark and bright. Rician: magnitude of a complex MR signal with Gaussian noise in both parts.
Poisson: counts of photons or decays, with gain, offset and read noise of the detector."""
