"""Complex scans as files: complex numbers, or a magnitude with its phase."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nlmeans.core import arrays
from nlmeans.files.formats import registry
from nlmeans.files.formats.grid import on_grid_of
from nlmeans.files.formats.nifti import Scan

CIRCLES = (360.0, 4096.0, 2000 * math.pi, 8192.0, 65536.0)
"""What scanners count as a full circle, besides 2π: degrees, 12 bits, thousandths of a radian, 13 bits, 16 bits."""

NEARLY = 0.9
"""Share of a circle that the values of a phase image span at least: noise has every phase."""


class ComplexScan(NamedTuple):
    """A scan whose voxels are complex."""

    values: npt.NDArray[Any]
    """complex64 or complex128, of the scan's shape."""
    magnitude: Scan
    """The scan with magnitudes in place of its voxels."""


def complex_scan(scan: Scan, phase_file: Path | None, resample: bool = False) -> ComplexScan | None:
    """Return the complex voxels of a scan: its own, or its magnitudes with the phase of another file.

    With `resample`, the phase may have another grid, and each voxel takes the nearest of its values.

    Raises:
        ValueError: the phase does not fit the scan.
        OSError, TypeError: the phase cannot be read.
    """
    if arrays.is_complex(scan.data):
        if phase_file is not None:
            raise ValueError(f"{scan.path} is complex and has its own phase; leave out --phase {phase_file}")
        return ComplexScan(scan.data, dataclasses.replace(scan, data=np.abs(scan.data)))
    if phase_file is None:
        return None
    phase = on_grid_of(scan, registry.load_scan(phase_file), resample)
    if phase.shape != scan.data.shape:
        raise ValueError(f"{phase_file} has shape {phase.shape}, but {scan.path} has {scan.data.shape}")
    if scan.data.min() < 0:
        raise ValueError(f"{scan.path} has negative values, which no magnitude has; leave out --phase {phase_file}")
    kind = np.complex128 if scan.data.dtype.itemsize > 4 else np.complex64
    turned = scan.data * np.exp(1j * radians(phase, str(phase_file)))
    return ComplexScan(turned.astype(kind), scan)


def radians(phase: npt.NDArray[Any], name: str) -> npt.NDArray[np.float64]:
    """Convert a phase image to radians, by what a full circle is in it.

    Raises:
        ValueError: its values span neither a circle in radians nor one of `CIRCLES`.

    >>> radians(np.array([-4096, 0, 4094]), "phase.nii")[[0, 1]] / math.pi
    array([-1.,  0.])
    """
    span = float(phase.max()) - float(phase.min())
    if span <= 1.001 * 2 * math.pi:
        return phase.astype(np.float64)
    for circle in CIRCLES:
        if NEARLY * circle <= span <= 1.001 * circle:
            return phase.astype(np.float64) * (2 * math.pi / circle)
    raise ValueError(
        f"{name} goes from {phase.min():g} to {phase.max():g}, which is no full circle in any unit of phase that "
        "scanners use; convert it to radians"
    )


def phase_beside(source: Path, noise: str = "auto") -> Path | None:
    """Return the phase image that BIDS names beside a magnitude.

    None if there is none, or if the noise is stated to be that of magnitudes.

    >>> phase_beside(Path("sub-01_part-mag_dwi.nii.gz")) is None  # there is no such file
    True
    """
    beside = source.with_name(source.name.replace("_part-mag_", "_part-phase_"))
    return beside if beside != source and beside.is_file() and noise in ("auto", "gaussian") else None
