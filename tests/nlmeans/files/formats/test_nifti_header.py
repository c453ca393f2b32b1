"""Checks of a NIfTI header against its file, byte by byte."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from nlmeans.core import memory
from nlmeans.files.formats import nifti_header
from tests.nlmeans.scans import NIFTI, RAS, noisy, save, scan

SHAPE = (6, 7, 8)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("dtype", ["u1", ">i2", "f8"])
def test_a_sound_file_passes(ending: str, version: int, dtype: str, tmp_path: Path) -> None:
    nifti_header.check_header(save(scan(noisy(*SHAPE), dtype, version=version), tmp_path / f"scan{ending}"))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize(("change", "message"), [(1, "longer than"), (-3, "3 bytes shorter than")])
def test_a_byte_too_many_or_too_few_is_noticed(change: int, message: str, ending: str, tmp_path: Path) -> None:
    raw = save(NIFTI.Nifti1Image(noisy(*SHAPE).astype("f4"), RAS), tmp_path / "scan.nii").read_bytes()
    raw = raw + bytes(change) if change > 0 else raw[:change]
    (tmp_path / f"bad{ending}").write_bytes(gzip.compress(raw) if ending == ".nii.gz" else raw)
    length = 352 + 4 * int(np.prod(SHAPE))
    with pytest.raises(ValueError, match=rf"it is {message} the {length} bytes that its header describes"):
        nifti_header.check_header(tmp_path / f"bad{ending}")


def test_files_of_other_formats_pass(tmp_path: Path) -> None:
    for name in ("scan.mgz", "notes.txt"):
        (tmp_path / name).write_bytes(gzip.compress(b"no header") if name.endswith("gz") else b"no header")
        nifti_header.check_header(tmp_path / name)


def test_packed_voxels_must_fit_into_memory_with_their_scaling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scaled values are float64, and take memory in addition to the stored ones."""
    path = save(scan(noisy(*SHAPE), "i2", scaling=(0.5, 0)), tmp_path / "scan.nii.gz")
    needed = int(np.prod(SHAPE)) * (2 + 8)
    monkeypatch.setattr(memory, "free", lambda: needed)
    nifti_header.check_header(path)
    monkeypatch.setattr(memory, "free", lambda: needed - 1)
    with pytest.raises(ValueError, match=r"takes 3\.28 KiB of memory, but only 3\.28 KiB is free"):
        nifti_header.check_header(path)


def test_counting_stops_soon_after_the_limit(tmp_path: Path) -> None:
    (tmp_path / "zeros.gz").write_bytes(gzip.compress(bytes(5 * 2**20)))
    assert nifti_header.length_unpacked(tmp_path / "zeros.gz", 10**9) == 5 * 2**20
    assert nifti_header.length_unpacked(tmp_path / "zeros.gz", 2**20) == 2 * 2**20
