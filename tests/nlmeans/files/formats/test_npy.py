"""Arrays of numpy are read and written without geometry, which is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nlmeans.files.formats import npy, registry


@pytest.mark.parametrize("dtype", ["u1", ">i2", "f4", "f8", "c8"])
def test_values_come_back(dtype: str, tmp_path: Path) -> None:
    values = np.arange(24).reshape(2, 3, 4).astype(dtype)
    np.save(tmp_path / "a.npy", values)
    scan = registry.load_scan(tmp_path / "a.npy", complex_too=True)
    npy.write_file(scan.image, tmp_path / "b.npy", tmp_path / "b.npy")
    found = np.load(tmp_path / "b.npy")
    np.testing.assert_array_equal(found, values)
    assert found.dtype == np.dtype(dtype).newbyteorder("=")


def test_it_is_said_that_there_is_no_geometry(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    np.save(tmp_path / "a.npy", np.ones((2, 3, 4)))
    assert registry.load_scan(tmp_path / "a.npy").spacing == (1, 1, 1)
    assert "a.npy has no geometry: voxels of 1 mm are assumed" in caplog.text


def test_only_numbers_are_read_and_no_code_is_run(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([["a", "b"]]))
    with pytest.raises(ValueError, match="not numbers"):
        registry.load_scan(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.array([[{}]]), allow_pickle=True)
    with pytest.raises(ValueError, match="cannot be read"):
        registry.load_scan(tmp_path / "b.npy")
