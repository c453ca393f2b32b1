"""DICOM series keep geometry and values in any order of files, and a derived series names its source."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from click.testing import CliRunner, Result
from pydicom.data import get_testdata_file
from pydicom.uid import JPEGLosslessSV1

import nlmeans
from nlmeans import cli
from nlmeans.files.formats import grid
from nlmeans.files.formats.dicom import derived as dicom_derived
from nlmeans.files.formats.dicom import series as dicom
from tests.nlmeans.forks import Forks
from tests.nlmeans.scans import NIFTI, contents, noisy, values
from tests.nlmeans.series import AXIAL, OBLIQUE, SAGITTAL, write_series

SHAPE = (12, 11, 10)
QUICK = ("--method", "classic", "--search-radius", "1", "--device", "cpu")


def call(*words: object) -> Result:
    return CliRunner().invoke(cli.main, [str(word) for word in words])


def stored(dtype: str = "i2") -> npt.NDArray[Any]:
    return noisy(*SHAPE).clip(0).astype(dtype)


def slices(folder: Path) -> list[pydicom.FileDataset]:
    return [pydicom.dcmread(file) for file in sorted(folder.glob("*.dcm"))]


# ---------------------------------------------------------------- geometry and values


@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL, OBLIQUE], ids=["axial", "sagittal", "oblique"])
@pytest.mark.parametrize("backwards", [False, True], ids=["in order", "numbered backwards"])
def test_geometry_and_values_are_those_of_the_slices(orientation: Any, backwards: bool, tmp_path: Path) -> None:
    affine = write_series(tmp_path / "in", stored(), orientation=orientation, backwards=backwards)
    scan = dicom.read_series(tmp_path / "in")
    np.testing.assert_array_equal(scan.data, stored())
    np.testing.assert_allclose(scan.image.affine, affine, atol=1e-5)
    assert scan.data.dtype == np.int16
    assert scan.spacing == pytest.approx((0.7, 0.9, 2.5), abs=1e-5)


def test_names_of_files_and_folders_below_do_not_matter(tmp_path: Path) -> None:
    write_series(tmp_path / "in", stored())
    for index, file in enumerate(sorted((tmp_path / "in").iterdir())):
        below = tmp_path / "in" / f"part{index % 3}"
        below.mkdir(exist_ok=True)
        file.rename(below / f"IM{(7 * index) % 10}")
    (tmp_path / "in" / "notes.txt").write_text("no image")
    np.testing.assert_array_equal(dicom.read_series(tmp_path / "in").data, stored())


@pytest.mark.parametrize(
    ("dtype", "slopes", "intercept", "expected"),
    [
        ("i2", None, 0, np.int16),
        ("u2", 1, -1024, np.int32),
        ("i2", 0.5, 3, np.float32),
        ("u1", None, 0, np.uint8),
        ("u2", [0.5 + 0.1 * n for n in range(SHAPE[2])], 0, np.float32),
    ],
    ids=["plain", "Hounsfield", "scaled", "bytes", "as in PET"],
)
def test_values_are_rescaled_slice_by_slice(
    dtype: str, slopes: Any, intercept: float, expected: type, tmp_path: Path
) -> None:
    write_series(tmp_path / "in", stored(dtype), slopes=slopes, intercept=intercept)
    scan = dicom.read_series(tmp_path / "in")
    assert scan.data.dtype == expected
    wanted = stored(dtype) * np.array(1 if slopes is None else slopes, np.float64) + intercept
    np.testing.assert_allclose(scan.data, wanted, rtol=1e-6)


def without(folder: Path, *names: str) -> Path:
    """Remove tags from all files in a folder."""
    for file in folder.iterdir():
        one = pydicom.dcmread(file)
        for name in names:
            delattr(one, name)
        one.save_as(file)
    return folder


def test_an_anonymous_series_without_uids_is_read(tmp_path: Path) -> None:
    write_series(tmp_path / "in", stored())
    without(tmp_path / "in", "FrameOfReferenceUID", "SeriesInstanceUID", "SOPClassUID")
    np.testing.assert_array_equal(dicom.read_series(tmp_path / "in").data, stored())


@pytest.mark.parametrize(
    ("tags", "size"),
    [
        ({}, (0.7, 0.9)),
        ({"PixelSpacing": None, "ImagerPixelSpacing": [0.2, 0.1]}, (0.1, 0.2)),
        ({"PixelSpacing": None}, (1, 1)),
    ],
)
def test_a_single_image_need_not_say_where_it_lies(
    tags: dict[str, Any], size: tuple[float, float], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_series(tmp_path / "in", stored()[..., :1], **tags)
    (file,) = without(tmp_path / "in", "ImagePositionPatient", "ImageOrientationPatient").iterdir()
    for source in (tmp_path / "in", file):
        scan = dicom.read_series(source)
        np.testing.assert_array_equal(scan.data, stored()[..., :1])
        assert scan.spacing == pytest.approx((*size, 2.5))
        assert not grid.is_placed(scan.image)
        assert f"{source} does not say where it lies in the patient" in caplog.text
    result = call("denoise", file, tmp_path / "out", *QUICK)
    assert result.exit_code == 0, result.stderr
    (derived,) = slices(tmp_path / "out")
    assert "ImagePositionPatient" not in derived


def test_several_images_must_say_where_they_lie(tmp_path: Path) -> None:
    write_series(tmp_path / "in", stored())
    without(tmp_path / "in", "ImagePositionPatient")
    with pytest.raises(ValueError, match="has no ImagePositionPatient, so its position in the volume is unknown"):
        dicom.read_series(tmp_path / "in")


def test_one_slice_is_as_thick_as_it_says(tmp_path: Path) -> None:
    affine = write_series(tmp_path / "in", stored()[..., :1], orientation=OBLIQUE)
    scan = dicom.read_series(tmp_path / "in")
    assert scan.data.shape == (*SHAPE[:2], 1)
    np.testing.assert_allclose(scan.image.affine, affine, atol=1e-5)


# ---------------------------------------------------------------- out as NIfTI


def test_the_nifti_of_a_series_has_its_geometry_and_the_voxels_of_python(tmp_path: Path) -> None:
    affine = write_series(tmp_path / "in", stored(), orientation=OBLIQUE)
    result = call("denoise", tmp_path / "in", tmp_path / "out.nii.gz", *QUICK, "--sigma", 10)
    assert (result.exit_code, result.stderr) == (0, "")
    image = NIFTI.load(tmp_path / "out.nii.gz")
    np.testing.assert_allclose(image.affine, affine, atol=1e-4)
    assert (image.get_data_dtype(), image.header.get_xyzt_units()[0]) == (np.int16, "mm")
    spacing = dicom.read_series(tmp_path / "in").spacing
    expected = nlmeans.denoise(stored(), 10, method="classic", search_radius=1, spacing=spacing)
    np.testing.assert_array_equal(values(tmp_path / "out.nii.gz"), expected)
    assert json.loads((tmp_path / "out.json").read_text())["input"] == "in"


def test_noise_reads_a_folder_too(tmp_path: Path) -> None:
    write_series(tmp_path / "in", stored())
    result = call("noise", tmp_path / "in")
    assert result.exit_code == 0, result.stderr
    assert " noise, sigma " in result.stdout.splitlines()[0]


# ---------------------------------------------------------------- out as DICOM


@pytest.fixture
def derived(tmp_path: Path) -> Path:
    slopes = [0.5 + 0.1 * n for n in range(SHAPE[2])]
    write_series(
        tmp_path / "in", stored("u2"), orientation=OBLIQUE, slopes=slopes, intercept=-20, SmallestImagePixelValue=3
    )
    before = contents(tmp_path / "in")
    result = call("denoise", tmp_path / "in", tmp_path / "out", *QUICK)
    assert (result.exit_code, result.stderr) == (0, "")
    assert contents(tmp_path / "in") == before
    return tmp_path


def test_a_derived_series_has_the_geometry_and_the_denoised_values(derived: Path) -> None:
    call("denoise", derived / "in", derived / "out.nii", *QUICK, "--float", "--overwrite")
    source, scan = dicom.read_series(derived / "in"), dicom.read_series(derived / "out")
    np.testing.assert_allclose(scan.image.affine, source.image.affine, atol=1e-6)
    assert np.abs(scan.data - source.data).mean() > 1
    half_a_step = 0.5 * (0.5 + 0.1 * np.arange(SHAPE[2])) + 1e-3
    assert (np.abs(scan.data - values(derived / "out.nii")) <= half_a_step).all()


def test_a_derived_series_has_new_uids_and_names_its_sources(derived: Path) -> None:
    sources, results = slices(derived / "in"), slices(derived / "out")
    assert len({one.SOPInstanceUID for one in [*sources, *results]}) == 2 * SHAPE[2]
    assert len({one.SeriesInstanceUID for one in results}) == 1
    assert results[0].SeriesInstanceUID != sources[0].SeriesInstanceUID
    for source, one in zip(sources, results, strict=True):
        (reference,) = one.SourceImageSequence
        assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert reference.ReferencedSOPClassUID == source.SOPClassUID
        assert one.file_meta.MediaStorageSOPInstanceUID == one.SOPInstanceUID
        assert list(one.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
        assert "nlmeans" in one.DerivationDescription
        assert "classic, gaussian noise, sigma" in one.DerivationDescription
        assert one.ContributingEquipmentSequence[0].SoftwareVersions == nlmeans.__version__
        assert (one.SeriesNumber, one.SeriesDescription) == (1003, "scan 3 denoised")
        assert "SmallestImagePixelValue" not in one


def test_patient_study_place_and_scaling_are_kept(derived: Path) -> None:
    kept = ("PatientName", "PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "ImagePositionPatient")
    kept += ("ImageOrientationPatient", "PixelSpacing", "SliceThickness", "InstanceNumber", "SOPClassUID", "Rows")
    kept += ("RescaleSlope", "RescaleIntercept", "BitsStored", "PixelRepresentation")
    for source, one in zip(slices(derived / "in"), slices(derived / "out"), strict=True):
        assert [one[name].value for name in kept] == [source[name].value for name in kept]


def test_only_the_series_and_its_record_are_written(derived: Path) -> None:
    names = {f"out/{index + 1:04}.dcm" for index in range(SHAPE[2])}
    assert {name for name in contents(derived) if not name.startswith("in/")} == {"out.json", *names}


def test_values_beyond_what_can_be_stored_are_clipped(tmp_path: Path) -> None:
    write_series(tmp_path / "in", stored("u2"), BitsStored=12, HighBit=11)
    scan = dicom.read_series(tmp_path / "in")
    (tmp_path / "out").mkdir()
    dicom_derived.write_derived(scan, np.where(scan.data > 100, 1e6, -1e6), tmp_path / "out", "clipped")
    assert set(np.unique(dicom.read_series(tmp_path / "out").data)) == {0, 4095}


def test_odd_slices_of_bytes_are_padded_to_even_length(tmp_path: Path) -> None:
    write_series(tmp_path / "in", stored("u1")[:11], PixelData=bytes(122))
    scan = dicom.read_series(tmp_path / "in")
    (tmp_path / "out").mkdir()
    dicom_derived.write_derived(scan, scan.data + 1, tmp_path / "out", "plus one")
    assert (dicom.read_series(tmp_path / "out").data == 1).all()


def test_padding_around_a_round_field_stays_and_does_not_count_as_noise(tmp_path: Path) -> None:
    data = noisy(32, 32, 10).astype("i2")
    corners = np.hypot(*(np.indices((32, 32)) - 15.5))[..., None] > 15
    levels = []
    for name, pixels in (("whole", data), ("round", np.where(corners, -2000, data).astype("i2"))):
        write_series(tmp_path / name, pixels, PixelPaddingValue=-2000)
        result = call("denoise", tmp_path / name, tmp_path / f"{name}.nii", *QUICK)
        assert result.exit_code == 0, result.stderr
        levels.append(json.loads((tmp_path / f"{name}.json").read_text())["settings"]["sigma"])
    after = values(tmp_path / "round.nii")
    padding = np.broadcast_to(corners, after.shape)
    assert (after[padding] == -2000).all()
    assert (after[~padding] > -100).all()
    assert levels[1] == pytest.approx(levels[0], rel=0.25)


# ---------------------------------------------------------------- what is refused


def assert_refused(folder: Path, message: str, *options: object) -> None:
    before = contents(folder.parent)
    result = call("denoise", folder, folder.parent / "refused", *QUICK, *options)
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.splitlines()
    assert message in line
    assert contents(folder.parent) == before
    assert not list(folder.parent.glob(".refused*"))


def test_a_missing_slice_is_named(tmp_path: Path) -> None:
    write_series(tmp_path / "in", stored(), without=[4])
    assert_refused(tmp_path / "in", "lacks 1 of 10 slices (at a distance of 2.5 mm): number 5")


def test_slices_at_uneven_distances_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "in", stored())
    last = tmp_path / "in" / "010.dcm"
    one = pydicom.dcmread(last)
    one.ImagePositionPatient = [-30, 20, 10 + 9 * 2.5 + 1.1]
    one.save_as(last)
    assert_refused(tmp_path / "in", "do not form a volume of parallel slices at even distances")


def test_several_images_at_one_place_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "in", stored())
    for file in sorted((tmp_path / "in").iterdir()):
        shutil.copy(file, file.with_name(f"again{file.name}"))
    assert_refused(tmp_path / "in", "20 images at 10 positions, but neither time nor echo nor b-value")


def test_several_series_are_listed_and_one_can_be_chosen(tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "a", stored(), number=3)
    write_series(tmp_path / "in" / "b", stored() + np.int16(7), number=5)
    assert_refused(tmp_path / "in", "2 series; choose one with --dicom-series, by number or UID: 3 'scan 3', 10 images")
    assert_refused(tmp_path / "in", "no series 4", "--dicom-series", 4)
    uid = slices(tmp_path / "in" / "a")[0].SeriesInstanceUID
    np.testing.assert_array_equal(dicom.read_series(tmp_path / "in", "5").data, stored() + 7)
    np.testing.assert_array_equal(dicom.read_series(tmp_path / "in", uid).data, stored())


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"NumberOfFrames": 3}, "holds 3 frames"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "holds colours (RGB)"),
        ({"ImagePositionPatient": None}, "has no ImagePositionPatient"),
        ({"PixelData": b"12"}, "cannot be read; it may be damaged"),
    ],
    ids=["multi-frame", "colours", "no place", "short"],
)
def test_what_is_no_slice_of_intensities_is_refused(tags: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_series(tmp_path / "in", stored(), **tags)
    assert_refused(tmp_path / "in", message)


def test_a_damaged_dcm_file_is_named(tmp_path: Path) -> None:
    write_series(tmp_path / "in", stored())
    (tmp_path / "in" / "010.dcm").write_bytes(b"damaged")
    assert_refused(tmp_path / "in", "010.dcm lacks the mark DICM, which a DICOM file has at byte 128")


def test_a_compression_that_cannot_be_read_is_named_with_the_remedy(tmp_path: Path) -> None:
    write_series(tmp_path / "in", stored())
    for file in (tmp_path / "in").iterdir():
        one = pydicom.dcmread(file)
        one.file_meta.TransferSyntaxUID = JPEGLosslessSV1
        one.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8"])
        one["PixelData"].is_undefined_length = True
        one.save_as(file)
    assert_refused(tmp_path / "in", "compressed as JPEG Lossless")
    assert_refused(tmp_path / "in", "pip install python-gdcm")


def test_a_compression_that_can_be_read_is(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(str(get_testdata_file("MR_small_RLE.dcm")), tmp_path / "in")
    scan = dicom.read_series(tmp_path / "in")
    plain = pydicom.dcmread(str(get_testdata_file("MR_small.dcm")))
    np.testing.assert_array_equal(scan.data[..., 0].T, plain.pixel_array)
    (tmp_path / "out").mkdir()
    dicom_derived.write_derived(scan, scan.data, tmp_path / "out", "as it was")
    np.testing.assert_array_equal(dicom.read_series(tmp_path / "out").data, scan.data)


def test_float_does_not_go_into_dicom(tmp_path: Path) -> None:
    write_series(tmp_path / "in", stored())
    assert_refused(tmp_path / "in", "is a DICOM series, which stores integers; leave out --float", "--float")


def test_a_lookup_table_does_not_go_into_dicom(tmp_path: Path) -> None:
    write_series(tmp_path / "in", stored())
    scan = dicom.read_series(tmp_path / "in")
    table = pydicom.Dataset()
    table.LUTDescriptor, table.ModalityLUTType, table.LUTData = [2, 0, 16], "US", bytes([0, 0, 5, 0])
    for file in (tmp_path / "in").iterdir():
        one = pydicom.dcmread(file)
        one.ModalityLUTSequence = [table]
        one.save_as(file)
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match=r"001\.dcm has a modality lookup table, which cannot be inverted; write a"):
        dicom_derived.write_derived(scan, scan.data, tmp_path / "out", "nothing")
    assert not list((tmp_path / "out").iterdir())


def test_a_folder_that_is_in_use_is_not_replaced(tmp_path: Path) -> None:
    write_series(tmp_path / "in", stored())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "0001.dcm").write_text("old")
    assert "is not empty" in call("denoise", tmp_path / "in", tmp_path / "out", *QUICK).stderr
    (tmp_path / "out" / "thesis.tex").write_text("dear")
    command = ("denoise", tmp_path / "in", tmp_path / "out", *QUICK, "--overwrite")
    assert "holds more than a DICOM series, such as thesis.tex" in call(*command).stderr
    (tmp_path / "out" / "thesis.tex").unlink()
    assert call(*command).exit_code == 0
    assert dicom.read_series(tmp_path / "out").data.shape == SHAPE


@pytest.mark.parametrize("name", ["in", "in/below", "."])
def test_a_series_is_never_written_into_its_source(name: str, tmp_path: Path) -> None:
    write_series(tmp_path / "in", stored())
    before = contents(tmp_path)
    assert "must lie outside IN" in call("denoise", tmp_path / "in", tmp_path / name, *QUICK, "--overwrite").stderr
    assert contents(tmp_path) == before


def test_a_series_is_chosen_in_folders_alone(tmp_path: Path) -> None:
    (tmp_path / "in.nii").touch()
    result = call("denoise", tmp_path / "in.nii", tmp_path / "out.nii", "--dicom-series", 3)
    assert "--dicom-series 3 is for a folder of DICOM files" in result.stderr


MISSING = """
import sys
sys.modules["pydicom"] = sys.modules["highdicom"] = None
from nlmeans.cli import main
main(["denoise", sys.argv[1], "out.nii"])
"""


def test_without_pydicom_a_folder_is_refused_with_what_to_install(tmp_path: Path, forks: Forks) -> None:
    code, _, error = forks.python(MISSING, tmp_path).ended()
    assert code == 1
    assert error.endswith('install: pip install "nlmeans[dicom]"\n')


def test_the_package_is_imported_without_highdicom(forks: Forks) -> None:
    code = "import sys, nlmeans.files.denoise; assert 'highdicom' not in sys.modules"  # nibabel imports pydicom itself
    assert forks.python(code).ended() == (0, "", "")
