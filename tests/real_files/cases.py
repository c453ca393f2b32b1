"""What a case of the wall is: a file, and what must come of it at each door."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[Any]


@dataclass(frozen=True)
class Built:
    """A file, and what is in it according to whoever made it."""

    path: Path
    values: Values
    """After scaling, (X, Y), (X, Y, Z) or (X, Y, Z, T)."""
    affine: npt.NDArray[np.float64] | None = None
    """To right, front and up in mm; None if the file does not say where it lies."""
    spacing: tuple[float, ...] | None = None
    """Voxel size, where it is not that of `affine`."""

    @property
    def voxel_size(self) -> tuple[float, ...] | None:
        """Voxel size along the spatial axes, as the engine takes it."""
        if self.affine is None or self.spacing is not None:
            return self.spacing
        return tuple(np.linalg.norm(self.affine[:3, :3], axis=0)[: min(self.values.ndim, 3)].tolist())


Build = Callable[[Path], Built]
"""Makes a file in an empty folder."""


@dataclass(frozen=True)
class Denoised:
    """The result has the shape, type and place of the file, its header where it has the same format, and the voxels
    that the engine makes of the values alone."""

    stored: str
    """Type of the values of the result in its file."""
    says: str = ""
    """What is warned of, as a pattern; nothing else is. Empty for no word at all."""
    tolerance: float = 1e-3
    """Largest difference from what the engine gives: more than rounding where a file stores steps of a slope."""
    keeps_header: bool = True
    """False where nibabel repairs a header that it reads."""
    in_python: str | None = None
    """Type of the values in Python where it is another one: those of a scaled file are float64."""


@dataclass(frozen=True)
class Refused:
    """An error in one line with these words, and nothing is written."""

    words: str


@dataclass(frozen=True)
class Foreign:
    """The reader of MONAI or napari makes something else of the file, or nothing: for the reason that is given."""

    why: str


Outcome = Denoised | Refused | Foreign


@dataclass(frozen=True)
class Case:
    """A file, and what must come of it. MONAI and napari have readers of their own, which read fewer formats."""

    name: str
    build: Build
    outcome: Denoised | Refused
    """At the command line, and in Python."""
    monai: Outcome | None = None
    """None for the same result as at the other doors, or for any error where they refuse the file."""
    napari: Outcome | None = None
    """None for the same result as at the other doors, or for any error where they refuse the file."""
    python: Outcome | None = None
    """None for the same as at the command line."""

    def of_reader(self, own: Outcome | None) -> Outcome:
        """What must come of the file at a door with a reader of its own."""
        if own is None and isinstance(self.outcome, Refused):
            return Foreign("its reader refuses the file in its own words")
        return own or self.outcome


def unread(*cases: Case, monai: Outcome | None = None, napari: Outcome | None = None) -> list[Case]:
    """Cases of a format that MONAI, or napari, has no reader for: what comes of those that are sound otherwise."""
    return [
        replace(one, monai=one.monai or monai, napari=one.napari or napari)
        if isinstance(one.outcome, Denoised)
        else one
        for one in cases
    ]
