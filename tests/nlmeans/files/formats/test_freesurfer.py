"""Files of FreeSurfer are read and written in mm and seconds, though they count milliseconds."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.testing import data_path

from nlmeans.files.formats import freesurfer, nifti


def test_milliseconds_become_seconds_and_come_back(tmp_path: Path) -> None:
    path = Path(data_path) / "test.mgz"
    found, original = freesurfer.read_file(path), nibabel.load(path)
    assert nifti.seconds_between(found) == pytest.approx(0.002)
    assert found.header.get_xyzt_units() == ("mm", "sec")
    np.testing.assert_allclose(found.affine, original.affine)  # type: ignore[attr-defined]
    freesurfer.write_file(found, tmp_path / "a.mgz", tmp_path / "a.mgz")
    again = nibabel.load(tmp_path / "a.mgz")
    assert float(again.header.get_zooms()[3]) == pytest.approx(2)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(np.asarray(again.dataobj), np.asarray(original.dataobj))  # type: ignore[attr-defined]


def test_float64_is_stored_as_float32_which_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    freesurfer.write_file(nifti.in_nifti(np.full((3, 4, 5), 0.1), np.eye(4)), tmp_path / "a.mgz", Path("b.mgz"))
    assert "b.mgz cannot hold float64: its values are stored as float32" in caplog.text
    assert freesurfer.read_file(tmp_path / "a.mgz").get_data_dtype() == np.float32
