"""Maps as files, beside a denoised image: sigma, what was removed, and the components that were kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nlmeans.engine.maps import noise_map, residual_of
from nlmeans.engine.plan import Plan
from nlmeans.files.formats import nifti
from nlmeans.files.formats.nifti import Scan


@dataclass(frozen=True)
class MapFiles:
    """Where to write which maps."""

    noise_map: Path | None = None
    """Sigma at every voxel."""
    residual: Path | None = None
    """What was removed."""
    rank_map: Path | None = None
    """Components kept around every voxel."""

    @property
    def paths(self) -> list[Path]:
        """Those that are wanted, in the order of `images`."""
        return [path for path in (self.noise_map, self.residual, self.rank_map) if path is not None]

    def check(self, joint: bool) -> None:
        """Raise ``ValueError`` if a rank is wanted from a method that has none."""
        if self.rank_map is not None and not joint:
            raise ValueError(
                f"--rank-map {self.rank_map} is for volumes that are denoised together; leave it out, or give a series "
                "and --method series"
            )

    def images(self, scan: Scan, plans: Sequence[Plan], result: npt.NDArray[Any], rank: torch.Tensor) -> list[Any]:
        """Make the images of the maps that are wanted."""
        made = []
        if self.noise_map is not None:
            made.append(map_image(scan, np.asarray(noise_map(plans, result))))
        if self.residual is not None:
            made.append(map_image(scan, np.asarray(residual_of(scan.data, result))))
        if self.rank_map is not None:
            made.append(map_image(scan, rank.numpy()))
        return made


def map_image(scan: Scan, values: npt.NDArray[Any]) -> Any:
    """Make a float32 image with the geometry of a scan, to be shown from its smallest to its largest value."""
    image = nifti.image_like(scan, values, keep_type=False)
    image.header["cal_min"] = image.header["cal_max"] = 0
    return image
