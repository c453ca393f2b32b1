"""Enhanced images and dose grids are taken apart, and series are sorted into volumes."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")

from pydicom.data import get_testdata_file  # noqa: E402
from pydicom.dataset import Dataset  # noqa: E402
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless, generate_uid  # noqa: E402

from nlmeans.files.denoise import denoise_file  # noqa: E402
from nlmeans.files.formats.dicom import derived as dicom_derived  # noqa: E402
from nlmeans.files.formats.dicom import frames as dicom_frames  # noqa: E402
from nlmeans.files.formats.dicom import series as dicom  # noqa: E402
from tests.nlmeans.scans import NIFTI, noisy  # noqa: E402
from tests.nlmeans.series import AXIAL, OBLIQUE, SAGITTAL, write_enhanced, write_series  # noqa: E402

SHAPE = (9, 8, 7)


def stored(volumes: int = 2) -> npt.NDArray[np.uint16]:
    return (noisy(*SHAPE, volumes).clip(0) * np.linspace(1, 0.5, volumes)).astype("u2")


@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL, OBLIQUE], ids=["axial", "sagittal", "oblique"])
@pytest.mark.parametrize("echoes", [1, 3])
def test_an_enhanced_image_has_its_slices_and_echoes_in_place(echoes: int, orientation: Any, tmp_path: Path) -> None:
    values = stored(echoes)
    affine = write_enhanced(tmp_path / "in.dcm", values, orientation=orientation)
    scan = dicom.read_series(tmp_path / "in.dcm")
    np.testing.assert_array_equal(scan.data, values if echoes > 1 else values[..., 0])
    np.testing.assert_allclose(scan.image.affine, affine, atol=1e-5)
    assert scan.modality == "MR"


def test_each_frame_has_its_own_scaling(tmp_path: Path) -> None:
    write_enhanced(tmp_path / "in" / "a.dcm", stored(), slopes=(0.5, 2.0))
    scan = dicom.read_series(tmp_path / "in")
    np.testing.assert_allclose(scan.data, stored() * [0.5, 2.0])


def test_a_derived_enhanced_image_keeps_geometry_and_frames_and_is_marked(tmp_path: Path) -> None:
    write_enhanced(tmp_path / "in.dcm", stored(), slopes=(0.5, 2.0))
    scan = dicom.read_series(tmp_path / "in.dcm")
    (tmp_path / "out").mkdir()
    dicom_derived.write_derived(scan, scan.data + 4, tmp_path / "out", "plus four")
    again = dicom.read_series(tmp_path / "out")
    np.testing.assert_allclose(again.data, scan.data + 4)
    np.testing.assert_allclose(again.image.affine, scan.image.affine)
    image, source = pydicom.dcmread(tmp_path / "out" / "0001.dcm"), pydicom.dcmread(tmp_path / "in.dcm")
    assert image.NumberOfFrames == 14
    assert image.ImageType[0] == "DERIVED"
    assert image.SharedFunctionalGroupsSequence[0].MRImageFrameTypeSequence[0].FrameType[0] == "DERIVED"
    assert image.SOPInstanceUID != source.SOPInstanceUID
    assert image.PatientID == source.PatientID


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=lambda uid: uid.name)
def test_compressed_frames_are_read_where_a_plugin_is_there(syntax: Any, tmp_path: Path) -> None:
    write_enhanced(tmp_path / "in.dcm", stored())
    image = pydicom.dcmread(tmp_path / "in.dcm")
    try:
        image.compress(syntax, generate_instance_uid=False)
    except (RuntimeError, NotImplementedError):
        pytest.skip("nothing compresses this here")
    image.save_as(tmp_path / "packed.dcm")
    np.testing.assert_array_equal(dicom.read_series(tmp_path / "packed.dcm").data, stored())


@pytest.mark.parametrize("target", ["out.nii", "derived"])
def test_a_file_of_frames_is_denoised(target: str, tmp_path: Path) -> None:
    write_enhanced(tmp_path / "in.dcm", stored())
    denoise_file(tmp_path / "in.dcm", tmp_path / target, method="classic", sigma=10.0, search_radius=1, device="cpu")
    if target == "derived":
        found = dicom.read_series(tmp_path / target).data
    else:
        found = np.asarray(NIFTI.load(tmp_path / target).dataobj)
    assert found.shape == stored().shape
    assert 0 < np.abs(found.astype(float) - stored()).mean() < 20


@pytest.fixture
def derived(tmp_path: Path) -> Callable[..., tuple[dicom.DicomScan, Path]]:
    """Denoise an enhanced image with its noise known. Returns the scan, and the folder of the derived image."""

    def denoise(values: npt.NDArray[np.uint16], modality: str) -> tuple[dicom.DicomScan, Path]:
        write_enhanced(tmp_path / "in" / "in.dcm", values, orientation=OBLIQUE, modality=modality)
        settings: dict[str, Any] = {"method": "classic", "sigma": 10.0, "search_radius": 1, "device": "cpu"}
        denoise_file(tmp_path / "in" / "in.dcm", tmp_path / "derived", **settings)
        return dicom.read_series(tmp_path / "in"), tmp_path / "derived"

    return denoise


TWO_ECHOES = (noisy(12, 11, 20, 2).clip(0) * [1, 0.5]).astype("u2")
CT = (noisy(12, 11, 20, 1).clip(0) + 1000).astype("u2")
ENHANCED = [pytest.param(TWO_ECHOES, "MR", id="MR of 2 echoes and 20 slices"), pytest.param(CT, "CT", id="CT")]


@pytest.mark.parametrize(("values", "modality"), ENHANCED)
def test_other_programs_read_a_derived_enhanced_image_where_it_was(
    values: npt.NDArray[np.uint16], modality: str, derived: Any
) -> None:
    sitk = pytest.importorskip("SimpleITK")
    scan, folder = derived(values, modality)
    result = dicom.read_series(folder)
    np.testing.assert_allclose(result.image.affine, scan.image.affine, atol=1e-5)
    np.testing.assert_allclose(result.data, scan.data, atol=40)
    assert 0 < np.abs(result.data - scan.data.astype(float)).mean() < 20

    image = pydicom.dcmread(folder / "0001.dcm")
    pixels = image.pixel_array.reshape(20, -1, *image.pixel_array.shape[1:])
    assert (image.NumberOfFrames, image.Modality) == (values.shape[2] * values.shape[3], modality)
    kept = result.data.reshape(*values.shape).transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(pixels.astype(int) - (0 if modality == "MR" else 1024), kept)

    read = sitk.ReadImage(str(folder / "0001.dcm"))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(read.GetDirection(), (3, 3)) * read.GetSpacing()
    affine[:3, 3] = read.GetOrigin()
    np.testing.assert_allclose(np.diag([-1, -1, 1, 1]) @ affine, scan.image.affine, atol=1e-5)
    frames = sitk.GetArrayFromImage(read)
    np.testing.assert_array_equal(frames.reshape(kept.shape), kept)


@pytest.mark.skipif(shutil.which("dcm2niix") is None, reason="dcm2niix is not installed")
@pytest.mark.parametrize(("values", "modality"), ENHANCED)
def test_dcm2niix_reads_a_derived_enhanced_image_where_it_was(
    values: npt.NDArray[np.uint16], modality: str, derived: Any, tmp_path: Path
) -> None:
    scan, folder = derived(values, modality)
    (tmp_path / "converted").mkdir()
    subprocess.run(["dcm2niix", "-z", "n", "-o", tmp_path / "converted", folder], check=True, capture_output=True)
    files = sorted((tmp_path / "converted").glob("*.nii"))  # one per echo
    volumes = np.moveaxis(dicom.read_series(folder).data.reshape(values.shape), 3, 0)
    for file, volume in zip(files, volumes, strict=True):
        converted = NIFTI.load(file)
        to_scan = NIFTI.io_orientation(np.linalg.inv(scan.image.affine) @ converted.affine)  # it stores rows bottom up
        turned = converted.as_reoriented(to_scan)
        np.testing.assert_allclose(turned.affine, scan.image.affine, atol=1e-3)
        np.testing.assert_allclose(turned.get_fdata(), volume, atol=1e-3)


TELLING: list[tuple[str, list[Any]]] = [
    ("TemporalPositionIdentifier", [1, 2, 3]),
    ("EchoTime", [4.5, 9.0, 13.5]),
    ("DiffusionBValue", [0.0, 500.0, 1000.0]),
    ("AcquisitionNumber", [1, 2, 3]),
    ("AcquisitionTime", ["100000", "100010", "100020"]),
]


@pytest.mark.parametrize(("name", "values"), TELLING, ids=[name for name, _ in TELLING])
def test_a_series_is_split_by_what_tells_its_volumes_apart(name: str, values: list[Any], tmp_path: Path) -> None:
    data, uid = stored(3), generate_uid()
    for index in (2, 0, 1):
        tags = {name: values[index], "SeriesInstanceUID": uid, "InstanceNumber": 1 + index}
        affine = write_series(tmp_path / "in" / str(index), data[..., index], **tags)
    scan = dicom.read_series(tmp_path / "in")
    np.testing.assert_array_equal(scan.data, data)
    np.testing.assert_allclose(scan.image.affine, affine, atol=1e-5)
    (tmp_path / "out").mkdir()
    dicom_derived.write_derived(scan, scan.data + 1, tmp_path / "out", "plus one")
    np.testing.assert_array_equal(dicom.read_series(tmp_path / "out").data, data + 1)


def test_directions_of_one_b_value_are_volumes(tmp_path: Path) -> None:
    data, uid = stored(3), generate_uid()
    for index, direction in enumerate(([0.0, 0, 0], [1.0, 0, 0], [0.0, 1, 0])):
        tags = {"DiffusionBValue": 1000.0 * (index > 0), "DiffusionGradientOrientation": direction}
        write_series(
            tmp_path / "in" / str(index), data[..., index], SeriesInstanceUID=uid, InstanceNumber=index + 1, **tags
        )
    np.testing.assert_array_equal(dicom.read_series(tmp_path / "in").data, data)


def test_magnitudes_and_phases_are_no_series(tmp_path: Path) -> None:
    data, uid = stored(2), generate_uid()
    for index, kind in enumerate("MP"):
        tags = {"SeriesInstanceUID": uid, "ImageType": ["ORIGINAL", "PRIMARY", kind]}
        write_series(tmp_path / "in" / kind, data[..., index], **tags)
    with pytest.raises(ValueError, match=r"14 images at 7 positions, of several kinds \(.*'M'.*'P'.*\); put each kind"):
        dicom.read_series(tmp_path / "in")


def test_a_volume_that_lacks_a_slice_is_refused(tmp_path: Path) -> None:
    data, uid = stored(2), generate_uid()
    for index in range(2):
        tags = {"SeriesInstanceUID": uid, "EchoTime": 5.0 + index}
        write_series(tmp_path / "in" / str(index), data[..., index], without=[3] * index, **tags)
    with pytest.raises(ValueError, match=r"13 images at 7 positions, from 1 to 2 at each, so some are missing"):
        dicom.read_series(tmp_path / "in")


def test_slices_are_one_volume_if_nothing_repeats() -> None:
    slices = []
    for index in range(4):
        one = Dataset()
        one.ImagePositionPatient, one.EchoTime = [0, 0, index], float(index % 2)
        slices.append(one)
    assert dicom_frames.volumes_of(slices) == [[0, 1, 2, 3]]


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")  # in pydicom's own sample
@pytest.mark.parametrize("name", ["rtdose.dcm", "rtdose_rle.dcm", "rtdose_1frame.dcm"])
def test_a_dose_grid_is_read_in_gray(name: str, tmp_path: Path) -> None:
    path = Path(str(get_testdata_file(name)))
    image, scan = pydicom.dcmread(path), dicom.read_series(path)
    pixels = image.pixel_array.reshape(-1, image.Rows, image.Columns)
    np.testing.assert_allclose(scan.data, pixels.transpose(2, 1, 0) * float(image.DoseGridScaling), rtol=1e-6)
    left, back, up = (float(x) for x in image.ImagePositionPatient)
    np.testing.assert_allclose(scan.image.affine @ [0, 0, 0, 1], [-left, -back, up, 1], atol=1e-4)
    if len(pixels) > 1:
        assert scan.spacing == pytest.approx((*reversed(image.PixelSpacing), image.GridFrameOffsetVector[1]))
    (tmp_path / "out").mkdir()
    dicom_derived.write_derived(scan, scan.data, tmp_path / "out", "as it was")
    np.testing.assert_array_equal(pydicom.dcmread(tmp_path / "out" / "0001.dcm").pixel_array, image.pixel_array)


def test_a_mosaic_is_refused_by_name(tmp_path: Path) -> None:
    write_series(tmp_path / "in", stored()[..., :1, 0], ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"])
    with pytest.raises(ValueError, match=r"is a mosaic of Siemens.* dcm2niix"):
        dicom.read_series(tmp_path / "in")
