"""The kinds of noise."""

from __future__ import annotations

NOISES = ("gaussian", "rician", "chi", "poisson", "curve")
"""Gaussian: equally strong in dark and bright regions. Rician: the magnitude of a complex MR signal with Gaussian noise
in both parts. Chi (non-central): the root of the summed squares of such magnitudes of several coils. Poisson: counts of
photons or decays, with the gain, offset and read noise of the detector. Curve: Gaussian, with a standard deviation that
is told for several intensities."""


def kind_in_words(kind: str) -> str:
    """Return what people call a kind of noise.

    >>> kind_in_words("rician"), kind_in_words("curve")
    ('rician', 'signal-dependent')
    """
    return "signal-dependent" if kind == "curve" else kind


MICROSCOPY = "GM"
"""DICOM's code for it."""

KINDS_OF_MODALITY = {
    "MR": ("rician", "chi"),
    "CT": (),
    "PT": ("poisson", "curve"),
    "NM": ("poisson", "curve"),
    MICROSCOPY: ("poisson", "curve"),
}
"""Kinds besides Gaussian noise that are looked for, by DICOM's code of what made the image: magnetic resonance,
computed tomography, positron emission tomography, nuclear medicine, and microscopy. For any other code, all kinds.
Scanners write MR and CT images in proportion to what they measured. Pictures of them, which may be gamma-corrected, say
no modality."""

LIKELY_KINDS = {"MR": "rician"}
"""The kind of noise where the volume does not speak against it, by the same code."""


def kinds_of(modality: str | None) -> tuple[tuple[str, ...], str | None]:
    """Return the kinds besides Gaussian noise to look for, and the likely kind, if there is one."""
    code = modality or ""
    return KINDS_OF_MODALITY.get(code, NOISES), LIKELY_KINDS.get(code)


MAGNITUDES = ("rician", "chi")
"""The kinds whose mean is larger than the signal."""

FOLLOWING = ("poisson", "curve")
"""The kinds whose level follows from the intensity. They are stabilised, denoised with a sigma of 1, and restored."""


def possible_kind(kind: str, lowest: float) -> str:
    """Return the kind of noise, or ``"gaussian"`` if an image with this lowest value cannot have it.

    Magnitudes are never negative. Removing their bias would make all negative values zero.

    >>> possible_kind("rician", 0.0), possible_kind("rician", -0.5)
    ('rician', 'gaussian')
    """
    return "gaussian" if kind in MAGNITUDES and lowest < 0 else kind


def not_magnitudes(lowest: float) -> str:
    """Say why noise that was thought to be that of magnitudes counts as Gaussian."""
    return f"there are values down to {lowest:.4g}, which magnitudes do not have, so the noise counts as Gaussian"


def check_counts(lowest: float, offset: float, read_noise: float) -> None:
    """Raise ``ValueError`` if an image with this lowest value cannot have Poisson noise."""
    least = min(offset, 0.0) - READ_NOISES_BELOW * read_noise
    if lowest < least:
        raise ValueError(
            f"noise='poisson' is for counts, but there are values down to {lowest:.4g}, and offset={offset:g}, where "
            f"no photon arrives, with a read noise of {read_noise:g} explains none below {least:.4g}; denoise before "
            "intensities are shifted or scaled, give the offset and the read noise, or use noise='gaussian'"
        )


READ_NOISES_BELOW = 10.0
"""Read noises below the offset down to which counts may lie. Among a billion voxels, chance leads 6 below it."""
