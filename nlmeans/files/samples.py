"""The sample volumes that come with the package: a head phantom made from formulas, with its truth alongside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

INSTALLED = Path(__file__).parents[1] / "sample_data"
IN_REPOSITORY = Path(__file__).parents[2] / "sample_data"


def folder() -> Path:
    """Where the samples lie: inside the installed package, or beside it in a checkout."""
    for place in (INSTALLED, IN_REPOSITORY):
        if (place / "truth.json").is_file():
            return place
    raise FileNotFoundError(f"the sample data are neither in {INSTALLED} nor in {IN_REPOSITORY}; install nlmeans again")


def truth() -> dict[str, dict[str, Any]]:
    """Of each noisy sample: the name of its noise-free twin, the kind of noise, its sigma and the voxel size.

    Example:
        >>> truth()["head.nii.gz"]["sigma"]
        60
    """
    facts: dict[str, dict[str, Any]] = json.loads((folder() / "truth.json").read_text(encoding="utf-8"))
    return facts


def path(name: str) -> Path:
    """The file of a sample, by its name with or without the ending: ``head``, ``head_clean``, ``thick``, ``slice``…

    Example:
        >>> path("head").name
        'head.nii.gz'
    """
    file = folder() / f"{name.removesuffix('.nii.gz')}.nii.gz"
    if not file.is_file():
        known = ", ".join(sorted(p.name.removesuffix(".nii.gz") for p in folder().glob("*.nii.gz")))
        raise ValueError(f"name={name!r} is no sample; choose one of {known}")
    return file
