"""MINC files are read with time as the last axis, and in mm and seconds."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.testing import data_path

from nlmeans.files.formats import minc, nifti, registry


def needs_h5py(name: str) -> None:
    if name.startswith("minc2") or name == "small.mnc":
        pytest.importorskip("h5py")


@pytest.mark.parametrize("name", ["minc1_4d.mnc", "minc2_4d.mnc"])
def test_time_is_the_last_axis(name: str) -> None:
    needs_h5py(name)
    path = Path(data_path) / name
    original = nibabel.load(path)
    scan = registry.load_scan(path)
    assert (scan.data.shape, scan.series) == ((10, 20, 20, 2), 3)
    np.testing.assert_array_equal(scan.data[..., 1], np.asarray(original.dataobj)[1])  # type: ignore[attr-defined]
    np.testing.assert_allclose(scan.image.affine, original.affine)  # type: ignore[attr-defined]
    assert scan.spacing == (2, 2, 2)
    assert nifti.seconds_between(scan.image) == 1


@pytest.mark.parametrize("name", ["tiny.mnc", "small.mnc"])
def test_a_volume_keeps_its_place(name: str) -> None:
    needs_h5py(name)
    path = Path(data_path) / name
    original = nibabel.load(path)
    found = minc.read_file(path)
    np.testing.assert_allclose(found.affine, original.affine)  # type: ignore[attr-defined]
    assert found.shape == original.shape  # type: ignore[attr-defined]
    assert found.header.get_xyzt_units()[0] == "mm"


def test_minc2_without_h5py_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(ValueError, match=r'is MINC2; to read it, install: pip install "nlmeans\[formats\]"'):
        registry.load_scan(Path(data_path) / "minc2_4d.mnc")
