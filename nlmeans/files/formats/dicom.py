"""Read DICOM series, and write a result as a derived series. Needs ``pip install "nlmeans[dicom]"``.

pydicom reads and writes the files; highdicom computes the geometry.
"""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom
import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
from highdicom.spatial import get_series_volume_positions
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.pixels.utils import get_expected_length
from pydicom.sr.codedict import codes
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, generate_uid

from nlmeans.core import memory
from nlmeans.files.formats.nifti import Scan, check_values
from nlmeans.files.paths import apart, check_folder, errors_naming

ORIENTATION_TOLERANCE = 1e-4
"""Largest difference between direction cosines that count as equal. Scanners write about six digits."""

SPACING_TOLERANCE = 0.02
"""Largest relative difference between distances of slices that count as equal."""


@dataclass(frozen=True)
class DicomScan(Scan):
    """A series of slices in spatial order, as one volume of rescaled values: (columns, rows, slices)."""

    files: tuple[Path, ...]
    """One file per slice."""


def read_series(folder: Path, series: str | None = None) -> DicomScan:
    """Read a series of single-frame images from a folder and its subfolders.

    Args:
        folder: folder with the files, whose names do not matter.
        series: SeriesNumber or SeriesInstanceUID; None if there is only one series.

    Returns:
        Values after rescaling, as integers if slope and intercept are integers; the affine maps to RAS, in mm.

    Raises:
        IsADirectoryError: the folder holds no DICOM images.
        ValueError: there are several series and `series` is None, there is no such series, a file cannot be read, or
            the slices do not form a volume of parallel slices at even distances.
    """
    files = series_files(folder, series)
    with errors_naming(folder):  # pydicom decodes an element only when it is used
        return volume_of_series(folder, files)


def volume_of_series(folder: Path, files: Sequence[Path]) -> DicomScan:
    """Read the files of a series and stack them to a volume."""
    slices: list[Dataset] = []
    needed, free = 0, memory.free()
    for file in files:
        with errors_naming(file):
            slices.append(pydicom.dcmread(file))
            needed += get_expected_length(slices[-1])
        if needed > free:
            raise ValueError(
                f"{file} brings the series to {memory.size_text(needed)}, but only {memory.size_text(free)} of memory "
                "is free"
            )
        with errors_naming(file):
            check_image(file, slices[-1])
    order = stacking_order(folder, slices)
    files, slices = [files[index] for index in order], [slices[index] for index in order]
    volume = highdicom.get_volume_from_series(
        slices,
        apply_real_world_transform=False,
        apply_presentation_lut=False,
        orientation_tol=ORIENTATION_TOLERANCE,
        rtol=SPACING_TOLERANCE,
    )
    volume = volume.flip_spatial(0)  # highdicom stacks against the direction of the slice normal
    affine = volume.get_affine("RAS")[:, [2, 1, 0, 3]]
    if len(slices) == 1:  # highdicom ignores the thickness of a single slice
        affine[:3, 2] *= float(slices[0].get("SliceThickness") or 1) / np.linalg.norm(affine[:3, 2])
    kind, values = np.dtype(type_of_values(slices)), volume.array.transpose(2, 1, 0)
    if kind.kind in "ui" and not np.iinfo(kind).min <= values.min() <= values.max() <= np.iinfo(kind).max:
        raise ValueError(
            f"{folder} holds values from {values.min():g} to {values.max():g}, which do not fit into the "
            f"{slices[0].BitsStored} bits of BitsStored; it may be damaged"
        )
    data = np.ascontiguousarray(values.astype(kind))
    check_values(data, folder)
    image: Any = nib.Nifti1Image(data, affine)
    image.set_qform(affine, code="scanner")
    image.set_sform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    modality = str(slices[0].get("Modality") or "") or None
    return DicomScan(folder, data, image, inside=measured(data, slices), modality=modality, files=tuple(files))


# ---------------------------------------------------------------- which files


def series_files(folder: Path, series: str | None) -> list[Path]:
    """Find the files of the only series in a folder, or of the one with this number or UID."""
    found: dict[str, list[Path]] = defaultdict(list)
    names: dict[str, tuple[str, str]] = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        with errors_naming(file):
            header = header_of(file)
            if header is not None and "Rows" in header:
                uid = str(header.get("SeriesInstanceUID", ""))
                number, name = header.get("SeriesNumber", ""), header.get("SeriesDescription", "without a name")
                found[uid].append(file)
                names[uid] = (str(number), str(name))
    if not found:
        raise IsADirectoryError(
            f"{folder} is a folder without DICOM images; name a file, or a folder that holds a DICOM series"
        )
    listed = "; ".join(
        f"{number or '–'} {name!r}, {len(found[uid])} images, {uid}" for uid, (number, name) in names.items()
    )
    if series is None and len(found) > 1:
        raise ValueError(
            f"{folder} holds {len(found)} series; choose one with --dicom-series, by number or UID: {listed}"
        )
    matching = [uid for uid in found if series in (None, uid, names[uid][0])]
    if len(matching) != 1:
        how_many = "no" if not matching else f"{len(matching)}"
        raise ValueError(f"{folder} holds {how_many} series {series}; give the number or UID of one of: {listed}")
    return found[matching[0]]


def header_of(file: Path) -> Dataset | None:
    """Read the tags that say which series a file belongs to; None if it neither is nor claims to be a DICOM file."""
    try:
        if read_file_meta_info(file).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            raise ValueError(
                "the whole file is compressed (deflated), so its size is not known in advance; decompress it, for "
                "instance with gdcmconv --raw"
            )
        return pydicom.dcmread(
            file,
            stop_before_pixels=True,
            specific_tags=["Rows", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription"],
        )
    except InvalidDicomError:
        if file.suffix.lower() not in (".dcm", ".ima"):
            return None
        raise


def check_image(file: Path, image: Dataset) -> None:
    """Check that an image is one slice of grey values, is not damaged, and can be decompressed here."""
    if int(image.get("NumberOfFrames") or 1) > 1:
        raise ValueError(
            f"{file} holds {image.NumberOfFrames} frames (an enhanced or multi-frame image); convert it to single "
            "frames, or to NIfTI, for instance with dcm2niix"
        )
    if image.get("SamplesPerPixel", 1) != 1:
        raise ValueError(
            f"{file} holds colours ({image.get('PhotometricInterpretation')}), not intensities; convert it to grey "
            "first"
        )
    slope, intercept = scaling(image)
    if slope == 0 or not np.isfinite([slope, intercept]).all():
        raise ValueError(
            f"{file} has RescaleSlope {slope} and RescaleIntercept {intercept}; both must be finite, and the slope "
            "must not be 0"
        )
    if image.get("HighBit", image.BitsStored - 1) != image.BitsStored - 1:
        raise ValueError(
            f"{file} has BitsStored {image.BitsStored} but HighBit {image.HighBit}, which should be "
            f"{image.BitsStored - 1}; it may be damaged"
        )
    expected, length = get_expected_length(image), len(image.get("PixelData") or b"")
    if not image.file_meta.TransferSyntaxUID.is_compressed and length not in (expected, expected + expected % 2):
        raise ValueError(
            f"{file} cannot be read; it may be damaged: it has {length} bytes of pixels, but {image.Rows} rows and "
            f"{image.Columns} columns of {image.BitsAllocated} bits take {expected}"
        )
    try:
        values = image.pixel_array
    except (RuntimeError, NotImplementedError) as error:
        syntax = image.file_meta.TransferSyntaxUID.name
        raise ValueError(
            f"{file} is compressed as {syntax}, and no installed plugin of pydicom can decompress that; install one: "
            "pip install python-gdcm, or pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg"
        ) from error
    if values.ndim != 2:
        raise ValueError(f"{file} has pixels of shape {values.shape}; convert it to single slices")


# ---------------------------------------------------------------- which order, which values


def stacking_order(folder: Path, slices: Sequence[Dataset]) -> list[int]:
    """Order the slices along their normal, and check that they are parallel, evenly spaced and complete."""
    for one in slices:
        missing = [
            name for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing") if not one.get(name)
        ]
        if missing:
            raise ValueError(
                f"{folder}: {Path(str(one.filename)).name} has no {missing[0]}, so its position in the volume is "
                "unknown"
            )
        if "FrameOfReferenceUID" not in one:  # anonymising may remove it; all slices of a series share one
            one.FrameOfReferenceUID = "2.25.0"
    tolerances: dict[str, Any] = {"rtol": SPACING_TOLERANCE, "orientation_tol": ORIENTATION_TOLERANCE}
    spacing, places = get_series_volume_positions(slices, **tolerances)
    if places is not None:
        return [places.index(index) for index in reversed(range(len(slices)))]
    positions = {tuple(float(x) for x in one.ImagePositionPatient) for one in slices}
    if len(positions) < len(slices):
        raise ValueError(
            f"{folder} holds {len(slices)} images at {len(positions)} positions: several echoes, times or directions. "
            "Only one volume can be read; put each into a separate folder, or convert to NIfTI with dcm2niix"
        )
    spacing, places = get_series_volume_positions(slices, allow_missing_positions=True, **tolerances)
    if spacing is not None and places is not None:
        gaps = sorted(max(places) - place for place in set(range(max(places) + 1)) - set(places))
        raise ValueError(
            f"{folder} lacks {len(gaps)} of {max(places) + 1} slices (at a distance of {spacing:g} mm): number "
            f"{', '.join(str(gap + 1) for gap in gaps[:8])} along their normal; complete the series"
        )
    raise ValueError(
        f"{folder}: the {len(slices)} images do not form a volume of parallel slices at even distances; they may come "
        "from a scout or a tilted gantry. Choose another series, or resample this one first"
    )


def scaling(image: Dataset) -> tuple[float, float]:
    """Slope and intercept of the rescaling; 1 and 0 if the image has none."""
    slope, intercept = image.get("RescaleSlope"), image.get("RescaleIntercept")
    return float(1 if slope is None else slope), float(intercept or 0)


def stored_range(image: Dataset) -> tuple[int, int]:
    """The least and the greatest integer that the image can store."""
    bits, signed = int(image.BitsStored), bool(image.PixelRepresentation)
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def type_of_values(slices: Sequence[Dataset]) -> npt.DTypeLike:
    """The smallest integer type that holds every rescaled value, or float32 if rescaling makes fractions."""
    low, high = 0.0, 0.0
    for image in slices:
        slope, intercept = scaling(image)
        if slope != 1 or not intercept.is_integer() or "ModalityLUTSequence" in image:
            return np.float32
        least, most = stored_range(image)
        low, high = min(low, least + intercept), max(high, most + intercept)
    kinds = (np.uint8, np.int16, np.uint16, np.int32)
    fitting = (kind for kind in kinds if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max)
    return next(fitting, np.float32)


def measured(data: npt.NDArray[Any], slices: Sequence[Dataset]) -> npt.NDArray[np.bool_] | None:
    """Find the voxels that are not padding around a round field of view; None if there is no padding."""
    inside = np.ones(data.shape, np.bool_)
    for index, image in enumerate(slices):
        if "PixelPaddingValue" in image:
            slope, intercept = scaling(image)
            value = image.PixelPaddingValue
            ends = sorted(slope * end + intercept for end in (value, image.get("PixelPaddingRangeLimit", value)))
            inside[..., index] = (data[..., index] < ends[0]) | (data[..., index] > ends[1])
    return None if inside.all() or not inside.any() else inside


# ---------------------------------------------------------------- derived series


STALE = (
    "SmallestImagePixelValue",
    "LargestImagePixelValue",
    "SmallestPixelValueInSeries",
    "LargestPixelValueInSeries",
    "IconImageSequence",
    "DigitalSignaturesSequence",
    "MACParametersSequence",
    "PixelDataProviderURL",
)
"""Tags that describe the pixels of the source and do not hold for the derived image."""


def check_series_folder(folder: Path, source: Path, overwrite: bool) -> None:
    """Raise an error, before any work, if a derived series cannot be written to the folder.

    Raises:
        ValueError: the folder is the source, lies in it, or contains it.
        OSError: the path is a file, the folder is in use, or it cannot be created.
    """
    check_folder(folder)
    if not apart(folder, source):
        raise ValueError(f"OUT={folder} must lie outside IN, which is never written to; choose another folder")
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; name a folder for DICOM files, or a .nii.gz file")
    if folder.is_dir() and any(folder.iterdir()):
        if not overwrite:
            raise FileExistsError(f"{folder} is not empty; choose another name or add --overwrite")
        others = [file.name for file in folder.iterdir() if file.suffix != ".dcm"]
        if others:
            raise FileExistsError(
                f"{folder} holds more than a DICOM series, such as {others[0]}; choose another folder"
            )


def write_derived(scan: DicomScan, data: npt.NDArray[Any], folder: Path, how: str) -> None:
    """Write `data` as a series derived from `scan`. It keeps geometry, patient, study and scaling, and gets new UIDs.

    Args:
        scan: the scan that `data` was made from.
        data: rescaled values, (columns, rows, slices); they are rounded and clipped to what the files can store.
        folder: an empty folder.
        how: what was done, for DerivationDescription.

    Raises:
        ValueError: the series has a lookup table instead of slope and intercept, or a header cannot be read.
    """
    uid, now = generate_uid(), datetime.datetime.now(datetime.UTC).astimezone()
    for index, file in enumerate(scan.files):
        with errors_naming(file):
            image = pydicom.dcmread(file, stop_before_pixels=True)
            if "ModalityLUTSequence" in image:
                raise ValueError(
                    f"{file} has a modality lookup table, which cannot be inverted; write a .nii.gz instead"
                )
            slope, intercept = scaling(image)
            stored = np.rint((data[..., index].T.astype(np.float64) - intercept) / slope).clip(*stored_range(image))
            derive(image, uid, now, how)
            kind = f"{'i' if image.PixelRepresentation else 'u'}{image.BitsAllocated // 8}"
            image.add_new("PixelData", "OB" if image.BitsAllocated == 8 else "OW", padded(stored.astype(f"<{kind}")))
            written = BytesIO()
            image.save_as(written, enforce_file_format=True)
        (folder / f"{index + 1:04}.dcm").write_bytes(written.getvalue())


def padded(values: npt.NDArray[Any]) -> bytes:
    """Values as bytes; DICOM requires an even number of them."""
    raw = values.tobytes()
    return raw + b"\0" * (len(raw) % 2)


def derive(image: Dataset, series: str, now: datetime.datetime, how: str) -> None:
    """Turn the header of a source image into the header of the derived image.

    Args:
        image: the source image; changed in place.
        series: SeriesInstanceUID of the derived series.
        now: when it was derived.
        how: what was done.
    """
    source = Dataset()
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    source.PurposeOfReferenceCodeSequence = [coded(codes.DCM.SourceImageForImageProcessingOperation)]
    image.SourceImageSequence = [source]
    image.SOPInstanceUID, image.SeriesInstanceUID = generate_uid(), series
    kind = list(image.get("ImageType") or [])
    image.ImageType = ["DERIVED", "SECONDARY", *(kind[2:] or ["OTHER"])]
    before = f"{image.DerivationDescription}; " if image.get("DerivationDescription") else ""
    image.DerivationDescription = (before + how)[-1024:]
    image.DerivationCodeSequence = [*(image.get("DerivationCodeSequence") or []), coded(codes.DCM.Smoothing)]
    name = str(image.get("SeriesDescription") or "")
    image.SeriesDescription = f"{name[:55]} denoised".strip()
    if image.get("SeriesNumber") is not None:
        image.SeriesNumber = int(image.SeriesNumber) + 1000
    for what in ("Series", "Content", "InstanceCreation"):
        setattr(image, f"{what}Date", now.strftime("%Y%m%d"))
        setattr(image, f"{what}Time", now.strftime("%H%M%S.%f"))
    equipment = Dataset()
    equipment.Manufacturer, equipment.ManufacturerModelName = "nlmeans", "nlmeans"
    equipment.SoftwareVersions = version("nlmeans")
    equipment.ContributionDateTime = now.strftime("%Y%m%d%H%M%S.%f%z")
    equipment.ContributionDescription = how[:1024]
    equipment.PurposeOfReferenceCodeSequence = [coded(codes.DCM.ModifyingEquipment)]
    image.ContributingEquipmentSequence = [*(image.get("ContributingEquipmentSequence") or []), equipment]
    for keyword in STALE:
        if keyword in image:
            del image[keyword]
    image.file_meta = FileMetaDataset()
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian


def coded(code: Any) -> Dataset:
    """A code as an item of a code sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item
