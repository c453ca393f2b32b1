"""Complex scans: complex files, and magnitudes with a phase beside them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nlmeans.files.formats.nifti import read_nifti
from nlmeans.files.phase import complex_scan, phase_beside, radians
from tests.nlmeans.scans import save, scan

SHAPE = (5, 6, 7)
PHASE = np.random.default_rng(0).uniform(-math.pi, math.pi, SHAPE)
PHASE.flat[:2] = -math.pi, math.pi * 0.999
MAGNITUDE = np.random.default_rng(1).integers(0, 900, SHAPE)


@pytest.fixture
def magnitude(tmp_path: Path) -> Any:
    return read_nifti(save(scan(MAGNITUDE, "i2"), tmp_path / "mag.nii"))


@pytest.mark.parametrize(
    "units",
    [1.0, 180 / math.pi, 1000.0, 2048 / math.pi, 4096 / math.pi, 32768 / math.pi],
    ids=lambda unit: f"{unit:.0f}",
)
def test_the_units_of_scanners_are_known(units: float) -> None:
    np.testing.assert_allclose(radians(PHASE * units, "phase"), PHASE, atol=1e-9)
    turned = np.exp(1j * radians((PHASE + math.pi) * units, "phase"))
    np.testing.assert_allclose(turned, -np.exp(1j * PHASE), atol=1e-9)


@pytest.mark.parametrize("units", [3.0, 120.0, 50000.0])
def test_a_phase_in_unknown_units_is_refused(units: float) -> None:
    with pytest.raises(ValueError, match=r"phase.nii goes from .* which is no full circle .* convert it to radians"):
        radians(PHASE * units, "phase.nii")


def test_a_magnitude_and_a_phase_make_a_complex_scan(magnitude: Any, tmp_path: Path) -> None:
    assert complex_scan(magnitude, None) is None
    turned = complex_scan(magnitude, save(scan(PHASE, "f4"), tmp_path / "phase.nii"))
    assert turned is not None
    np.testing.assert_allclose(turned.values, MAGNITUDE * np.exp(1j * PHASE), rtol=1e-5)
    assert turned.values.dtype == np.complex64
    assert turned.magnitude is magnitude


def test_a_complex_file_is_a_complex_scan_and_needs_no_phase(tmp_path: Path) -> None:
    values = (MAGNITUDE * np.exp(1j * PHASE)).astype(np.complex64)
    path = save(scan(values), tmp_path / "complex.nii")
    with pytest.raises(TypeError, match="complex64; give real numbers"):
        read_nifti(path)
    read = read_nifti(path, complex_too=True)
    turned = complex_scan(read, None)
    assert turned is not None
    np.testing.assert_array_equal(turned.values, values)
    np.testing.assert_array_equal(turned.magnitude.data, np.abs(values))
    with pytest.raises(ValueError, match="is complex and has its own phase; leave out --phase"):
        complex_scan(read, path)


def test_a_phase_that_does_not_fit_is_refused(magnitude: Any, tmp_path: Path) -> None:
    other = save(scan(PHASE[:3], "f4"), tmp_path / "phase.nii")
    with pytest.raises(ValueError, match=r"phase.nii has another grid .*: shape \(3, 6, 7\) instead of \(5, 6, 7\)"):
        complex_scan(magnitude, other)
    phase = save(scan(PHASE, "f4"), tmp_path / "same.nii")
    negative = read_nifti(save(scan(-MAGNITUDE, "i2"), tmp_path / "negative.nii"))
    with pytest.raises(ValueError, match="has negative values, which no magnitude has"):
        complex_scan(negative, phase)


def test_bids_names_the_phase_beside_a_magnitude(tmp_path: Path) -> None:
    source, phase = (tmp_path / f"sub-01_part-{part}_dwi.nii.gz" for part in ("mag", "phase"))
    assert phase_beside(source) is None
    phase.touch()
    assert phase_beside(source) == phase
    assert phase_beside(source, "rician") is None  # who states this wants the magnitude alone
    assert phase_beside(tmp_path / "sub-01_dwi.nii.gz") is None
    assert phase_beside(phase) is None
