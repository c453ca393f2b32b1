"""Write a result as a DICOM series that is derived from the one it was made from."""

from __future__ import annotations

import datetime
from collections import defaultdict
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from nlmeans.files.formats.dicom.frames import Frame, say_derived
from nlmeans.files.formats.dicom.series import DicomScan, stored_range
from nlmeans.files.paths import apart, check_folder, errors_naming

STALE = (
    "SmallestImagePixelValue",
    "LargestImagePixelValue",
    "SmallestPixelValueInSeries",
    "LargestPixelValueInSeries",
    "IconImageSequence",
    "DigitalSignaturesSequence",
    "MACParametersSequence",
    "PixelDataProviderURL",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
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
        data: rescaled values, (columns, rows, slices) or with volumes as last axis; they are rounded and clipped to
            what the files can store.
        folder: an empty folder.
        how: what was done, for DerivationDescription.

    Raises:
        ValueError: the series has a lookup table instead of slope and intercept, or a header cannot be read.
    """
    uid, now = generate_uid(), datetime.datetime.now(datetime.UTC).astimezone()
    volumes = data[..., None] if data.ndim == 3 else data
    slices: dict[Path, list[tuple[Frame, npt.NDArray[Any]]]] = defaultdict(list)
    for volume, frames in enumerate(scan.frames):
        for index, frame in enumerate(frames):
            slices[frame.file].append((frame, volumes[..., index, volume].T))
    for index, (file, parts) in enumerate(slices.items()):
        with errors_naming(file):
            image = pydicom.dcmread(file, stop_before_pixels=True)
            if "ModalityLUTSequence" in image:
                raise ValueError(
                    f"{file} has a modality lookup table, which cannot be inverted; write a .nii.gz instead"
                )
            kind = f"<{'i' if image.PixelRepresentation else 'u'}{image.BitsAllocated // 8}"
            stored = np.zeros((len(parts), image.Rows, image.Columns), kind)
            for frame, values in parts:
                unscaled = np.rint((values.astype(np.float64) - frame.intercept) / frame.slope)
                stored[frame.number or 0] = unscaled.clip(*stored_range(image))
            derive(image, uid, now, how)
            say_derived(image)
            image.add_new("PixelData", "OB" if image.BitsAllocated == 8 else "OW", padded(stored))
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
