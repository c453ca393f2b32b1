"""The kinds of noise."""

from __future__ import annotations

NOISES = ("gaussian", "rician", "chi", "poisson")
"""Gaussian: equally strong in dark and bright regions. Rician: the magnitude of a complex MR signal with Gaussian noise
in both parts. Chi (non-central): the root of the summed squares of such magnitudes of several coils. Poisson: counts of
photons or decays, with the gain, offset and read noise of the detector."""

KINDS_OF_MODALITY = {"MR": ("rician", "chi"), "CT": (), "PT": ("poisson",), "NM": ("poisson",), "GM": ("poisson",)}
"""Kinds besides Gaussian noise that are looked for, by DICOM's code of what made the image: magnetic resonance,
computed tomography, positron emission tomography, nuclear medicine, and microscopy. For any other code, all kinds."""

LIKELY_KINDS = {"MR": "rician"}
"""The kind of noise where the volume does not speak against it, by the same code."""


def kinds_of(modality: str | None) -> tuple[tuple[str, ...], str | None]:
    """Return the kinds besides Gaussian noise to look for, and the likely kind, if there is one."""
    code = modality or ""
    return KINDS_OF_MODALITY.get(code, NOISES), LIKELY_KINDS.get(code)


MAGNITUDES = ("rician", "chi")
"""The kinds whose mean is larger than the signal."""
