"""One volume through every format: the same voxels where they were, and what is lost is said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from nlmeans.files.formats import nifti, registry
from nlmeans.files.formats.nifti import Scan
from tests.nlmeans.forks import Forks
from tests.nlmeans.scans import LPS, NIFTI, RAS, noisy

pytest.importorskip("SimpleITK")
pytest.importorskip("tifffile")

SHAPE = (6, 7, 8)

PIR = np.array([[0.0, 0, 4, -9], [-2, 0, 0, 11], [0, -3, 0, 13], [0, 0, 0, 1]])
TURN = np.array([[0.9, -0.3, 0.31622776602], [0.42426407, 0.7, -0.57431], [-0.1, 0.65, 0.75]])
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3], OBLIQUE[:3, 3] = np.linalg.qr(TURN)[0] * [0.9, 1.1, 2.5], [-91.3, 12.7, 44.1]

AFFINES = {"RAS": RAS, "LPS": LPS, "PIR": PIR, "oblique": OBLIQUE}

WITH_GEOMETRY = ["a.nii", "a.nii.gz", "a.hdr", "a.nrrd", "a.nhdr", "a.mha", "a.mhd", "a.mgz", "a.mgh"]


LOSSY = ["a.tif", "a.tiff", "a.ome.tif", "a.ome.tiff", "a.npy"]
"""Files that do not say where the image lies."""


def test_every_ending_that_is_written_has_its_round_trip_here() -> None:
    """Of the formats that are folders, DICOM is written from DICOM alone, and zarr from zarr; see their own tests."""
    covered = {registry.ending_of(name, registry.WRITTEN) for name in (*WITH_GEOMETRY, *LOSSY)}
    assert covered == set(registry.WRITTEN) - {".img"}  # a pair is named by its header
    folders = {one.name for one in registry.FORMATS if one.writes and not set(one.endings) & set(registry.WRITTEN)}
    assert folders == {"DICOM", "OME-Zarr"}


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
@pytest.mark.parametrize("name", LOSSY)
def test_voxels_come_back_from_a_format_without_a_place_and_what_is_lost_is_said(
    name: str, affine: np.ndarray[Any, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = noisy(*SHAPE).astype("i2")
    found = written(data, affine, tmp_path / name)
    assert found.data.dtype == data.dtype
    np.testing.assert_array_equal(found.data, data)
    known = registry.format_of(name)
    assert known is not None
    assert known.limits
    said = " ".join(caplog.messages)
    assert str(tmp_path / name) in said
    assert "position" in said
    assert "orientation" in said
    if name != "a.npy":
        np.testing.assert_allclose(found.spacing, np.linalg.norm(affine[:3, :3], axis=0), rtol=1e-5)
        assert found.image.header.get_xyzt_units()[0] == "mm"


def written(data: np.ndarray[Any, Any], affine: np.ndarray[Any, Any], path: Path, step: float | None = None) -> Scan:
    """Write values and read them back."""
    image = nifti.in_nifti(data, affine, step)
    registry.write_format(image, path, registry.files_of(path))
    return registry.load_scan(path, complex_too=True)


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
@pytest.mark.parametrize("name", WITH_GEOMETRY)
def test_voxels_and_geometry_come_back(name: str, affine: np.ndarray[Any, Any], tmp_path: Path) -> None:
    data = noisy(*SHAPE).astype("i2")
    found = written(data, affine, tmp_path / name)
    assert found.data.dtype == data.dtype
    np.testing.assert_array_equal(found.data, data)
    np.testing.assert_allclose(found.image.affine, affine, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.spacing, np.linalg.norm(affine[:3, :3], axis=0), rtol=1e-6)
    assert found.image.header.get_xyzt_units()[0] == "mm"


@pytest.mark.parametrize("name", WITH_GEOMETRY)
def test_a_series_comes_back_with_the_time_between_its_volumes(name: str, tmp_path: Path) -> None:
    data = noisy(*SHAPE, 3).astype("f4")
    found = written(data, OBLIQUE, tmp_path / name, step=2.5)
    np.testing.assert_array_equal(found.data, data)
    assert nifti.seconds_between(found.image) == pytest.approx(2.5)


@pytest.mark.parametrize("source", ["a.nrrd", "a.mha", "a.mgz", "a.nii.gz"])
@pytest.mark.parametrize("target", ["b.nrrd", "b.mhd", "b.mgz", "b.nii"])
def test_geometry_goes_from_one_format_to_another(source: str, target: str, tmp_path: Path) -> None:
    data = noisy(*SHAPE).astype("u2")
    before = written(data, OBLIQUE, tmp_path / source)
    path = tmp_path / target
    registry.save_scan(before, before.data, path, registry.files_of(path))
    after = registry.load_scan(path)
    np.testing.assert_array_equal(after.data, data)
    np.testing.assert_allclose(after.image.affine, OBLIQUE, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["b.nrrd", "b.mgz", "b.tif", "b.npy", "b.img"])
def test_scaled_values_are_written_as_they_are_meant(name: str, tmp_path: Path) -> None:
    image = NIFTI.Nifti1Image(np.arange(60, dtype="i2").reshape(3, 4, 5), RAS)
    image.header.set_slope_inter(0.5, -3)
    image.to_filename(tmp_path / "a.nii")
    before, path = registry.load_scan(tmp_path / "a.nii"), tmp_path / name
    registry.save_scan(before, before.data, path, registry.files_of(path))
    np.testing.assert_allclose(registry.load_scan(path).data, np.arange(60).reshape(3, 4, 5) * 0.5 - 3)


def test_lengths_in_other_units_become_millimetres(tmp_path: Path) -> None:
    image = NIFTI.Nifti1Image(np.ones(SHAPE, "f4"), np.diag([200.0, 300, 400, 1]))
    image.header.set_xyzt_units("micron")
    path = tmp_path / "a.nrrd"
    registry.write_format(image, path, [path])
    np.testing.assert_allclose(registry.load_scan(path).spacing, (0.2, 0.3, 0.4))


def test_a_file_of_no_known_format_is_not_called_damaged(tmp_path: Path) -> None:
    (tmp_path / "a.vtk").write_text("# vtk DataFile Version 3.0\n")
    with pytest.raises(ValueError, match=r"a\.vtk is in no format that nlmeans knows .*\.nrrd"):
        registry.load_scan(tmp_path / "a.vtk")


@pytest.mark.parametrize("name", [f"a{ending}" for ending in registry.LISTED if ending not in (".hdr", ".head")])
def test_a_damaged_file_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    known = registry.format_of(path)
    if known is not None and not known.available:
        pytest.skip(f"{known.library} is not installed")
    path.write_bytes(b"no image at all")
    with pytest.raises(ValueError, match="cannot be read; it may be damaged or not an image") as error:
        registry.load_scan(path)
    assert str(error.value).startswith(str(path))


def test_what_is_only_read_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"MINC can be read but not written; choose another ending"):
        registry.check_written(tmp_path / "a.mnc")


@pytest.mark.parametrize(("name", "library"), [("a.nrrd", "SimpleITK"), ("a.tif", "tifffile")])
def test_a_missing_library_is_named_with_its_remedy(name: str, library: str, tmp_path: Path, forks: Forks) -> None:
    written(noisy(*SHAPE).astype("u2"), RAS, tmp_path / name)
    code = (
        f"import sys; sys.modules[{library!r}] = None\nfrom pathlib import Path\n"
        f"from nlmeans.files.formats import registry\nregistry.load_scan(Path({str(tmp_path / name)!r}))"
    )
    _, _, error = forks.python(code).ended()
    assert f"{name} is" in error
    assert 'install: pip install "nlmeans[formats]"' in error
    assert "damaged" not in error


def test_formats_are_listed_without_their_libraries() -> None:
    code = (
        "import sys; import nlmeans.files.formats.registry as r; [f.available for f in r.FORMATS]; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"SimpleITK", "tifffile", "nibabel", "numpy", "h5py"} & set(done.stdout.split())


def test_no_two_formats_share_an_ending() -> None:
    endings = [ending for one in registry.FORMATS for ending in one.endings]
    assert len(set(endings)) == len(endings)


def test_nibabel_reads_what_was_written_for_its_formats(tmp_path: Path) -> None:
    written(noisy(*SHAPE).astype("i2"), PIR, tmp_path / "a.mgz")
    assert NIFTI.aff2axcodes(nib.load(tmp_path / "a.mgz").affine) == NIFTI.aff2axcodes(PIR)  # type: ignore[attr-defined]
