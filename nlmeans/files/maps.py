"""Maps as files, beside a denoised image: sigma, what was removed, and the components that were kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy.typing as npt

from nlmeans.files.formats import nifti
from nlmeans.files.formats.nifti import Scan


class Maps(NamedTuple):
    """The maps of a result; those that take memory are made when they are written."""

    noise: Callable[[], npt.NDArray[Any]]
    residual: Callable[[], npt.NDArray[Any]]
    rank: npt.NDArray[Any] | None
    phase: npt.NDArray[Any] | None


@dataclass(frozen=True)
class MapFiles:
    """Where to write which maps."""

    noise_map: Path | None = None
    """Sigma at every voxel."""
    residual: Path | None = None
    """What was removed."""
    rank_map: Path | None = None
    """Components kept around every voxel."""
    phase: Path | None = None
    """Phase of the result, in radians."""

    @property
    def paths(self) -> list[Path]:
        """Those that are wanted, in the order of `images`."""
        return [path for path in (self.noise_map, self.residual, self.rank_map, self.phase) if path is not None]

    def check(self, joint: bool, has_phase: bool) -> None:
        """Raise ``ValueError`` if a map is wanted that there is not."""
        if self.phase is not None and not has_phase:
            raise ValueError(
                f"--phase-out {self.phase} needs a complex image or a phase beside it; leave it out, or give --phase"
            )
        if self.rank_map is not None and not joint:
            raise ValueError(
                f"--rank-map {self.rank_map} is for volumes that are denoised together; leave it out, or give a series "
                "and --method series"
            )

    def images(self, scan: Scan, maps: Maps) -> list[Any]:
        """Make the images of the maps that are wanted."""
        made = []
        if self.noise_map is not None:
            made.append(map_image(scan, maps.noise()))
        if self.residual is not None:
            made.append(map_image(scan, maps.residual()))
        if self.rank_map is not None and maps.rank is not None:
            made.append(map_image(scan, maps.rank))
        if self.phase is not None and maps.phase is not None:
            made.append(map_image(scan, maps.phase))
        return made


def map_image(scan: Scan, values: npt.NDArray[Any]) -> Any:
    """Make an image in float32 or complex64 where a scan lies, to be shown from its smallest to its largest value."""
    image = nifti.image_like(scan, values, keep_type=False)
    image.header["cal_min"] = image.header["cal_max"] = 0
    return image
