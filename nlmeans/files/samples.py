"""Sample volumes that come with the package, made from formulas, noisy and noise-free: MR, confocal, CT and PET."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

INSTALLED = Path(__file__).parents[1] / "sample_data"
IN_REPOSITORY = Path(__file__).parents[2] / "sample_data"


def folder() -> Path:
    """Find the folder of the samples: inside the installed package, or next to it in a clone of the repository."""
    for place in (INSTALLED, IN_REPOSITORY):
        if (place / "truth.json").is_file():
            return place
    raise FileNotFoundError(f"the sample data are neither in {INSTALLED} nor in {IN_REPOSITORY}; install nlmeans again")


def truth() -> dict[str, dict[str, Any]]:
    """Describe each noisy sample: name of the noise-free twin, kind of noise, sigma in image units, voxel size in mm.

    For counts, sigma is the read noise, and there are a gain and an offset.

    Example:
        >>> truth()["head.nii.gz"]["sigma"]
        60
    """
    facts: dict[str, dict[str, Any]] = json.loads((folder() / "truth.json").read_text(encoding="utf-8"))
    return facts


def path(name: str) -> Path:
    """Find the NIfTI file of a sample.

    Args:
        name: ``head``, ``thick`` or ``slice`` (MR), ``confocal``, ``ct``, ``pet``, or a noise-free twin such as
            ``head_clean``; with or without ``.nii.gz``.

    Raises:
        ValueError: there is no sample with this name.

    Example:
        >>> path("head").name
        'head.nii.gz'
    """
    file = folder() / f"{name.removesuffix('.nii.gz')}.nii.gz"
    if not file.is_file():
        known = ", ".join(sorted(p.name.removesuffix(".nii.gz") for p in folder().glob("*.nii.gz")))
        raise ValueError(f"name={name!r} is not a sample; choose one of {known}")
    return file
