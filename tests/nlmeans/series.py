"""Small DICOM series of every kind, written with pydicom."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)

AXIAL = (1.0, 0, 0, 0, 1, 0)
SAGITTAL = (0.0, 1, 0, 0, 0, -1)
OBLIQUE = (0.8, 0.6, 0, -0.36, 0.48, 0.8)

STUDY, FRAME = generate_uid(), generate_uid()


def write_series(
    folder: Path,
    stored: npt.NDArray[Any],
    *,
    orientation: Sequence[float] = AXIAL,
    spacing: Sequence[float] = (0.7, 0.9, 2.5),
    slopes: Sequence[float] | float | None = None,
    intercept: float = 0,
    without: Sequence[int] = (),
    backwards: bool = False,
    number: int = 3,
    **tags: Any,
) -> npt.NDArray[np.float64]:
    """Write stored values, (columns, rows, slices), as a series. Returns their RAS affine."""
    folder.mkdir(exist_ok=True, parents=True)
    along, down = np.array(orientation[:3]), np.array(orientation[3:])
    normal, origin = np.cross(along, down), np.array([-30.0, 20, 10])
    uid, count = generate_uid(), stored.shape[2]
    for index in range(count):
        if index in without:
            continue
        one = Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, generate_uid()
        one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = STUDY, uid, FRAME
        one.PatientName, one.PatientID, one.Modality, one.SeriesDescription = "Phantom^A", "17", "CT", f"scan {number}"
        one.SeriesNumber, one.InstanceNumber = number, count - index if backwards else index + 1
        one.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        one.ImageOrientationPatient = [float(x) for x in orientation]
        one.ImagePositionPatient = [float(x) for x in origin + index * spacing[2] * normal]
        one.PixelSpacing, one.SliceThickness = [spacing[1], spacing[0]], spacing[2]
        one.Columns, one.Rows = stored.shape[:2]
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated = 8 * stored.dtype.itemsize
        one.BitsStored, one.HighBit = one.BitsAllocated, one.BitsAllocated - 1
        one.PixelRepresentation = int(stored.dtype.kind == "i")
        if slopes is not None:
            one.RescaleSlope = slopes if isinstance(slopes, float | int) else slopes[index]
            one.RescaleIntercept = intercept
        one.PixelData = stored[..., index].T.tobytes()
        for name, value in tags.items():
            setattr(one, name, value)
        name = f"{count - index if backwards else index + 1:03}.dcm"
        one.save_as(folder / name, enforce_file_format=True)
    affine = np.eye(4)
    affine[:3] = np.stack([along * spacing[0], down * spacing[1], normal * spacing[2], origin], 1)
    return np.diag([-1.0, -1, 1, 1]) @ affine


def write_enhanced(
    path: Path,
    stored: npt.NDArray[Any],
    *,
    orientation: Sequence[float] = AXIAL,
    spacing: Sequence[float] = (0.7, 0.9, 2.5),
    slopes: Sequence[float] = (1.0,),
    modality: str = "MR",
) -> npt.NDArray[np.float64]:
    """Write stored values, (columns, rows, slices, echoes), as one enhanced image. Returns their RAS affine.

    An enhanced image of CT is in Hounsfield units from -1024 on, and has one echo.
    """
    along, down = np.array(orientation[:3]), np.array(orientation[3:])
    normal, origin = np.cross(along, down), np.array([-30.0, 20, 10])
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.SOPClassUID = EnhancedMRImageStorage if modality == "MR" else EnhancedCTImageStorage
    one.SOPInstanceUID = generate_uid()
    one.file_meta.MediaStorageSOPClassUID, one.file_meta.MediaStorageSOPInstanceUID = (
        one.SOPClassUID,
        one.SOPInstanceUID,
    )
    one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = STUDY, generate_uid(), FRAME
    one.PatientName, one.PatientID, one.Modality, one.SeriesNumber = "Phantom^A", "17", modality, 4
    one.Manufacturer = "Philips"  # who has several echoes in one image; dcm2niix goes by it
    one.ImageType, one.InstanceNumber = ["ORIGINAL", "PRIMARY", "OTHER", "NONE"], 1
    one.Columns, one.Rows = stored.shape[:2]
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated = one.BitsStored = 8 * stored.dtype.itemsize
    one.HighBit, one.PixelRepresentation = one.BitsAllocated - 1, int(stored.dtype.kind == "i")
    shared, measures, plane, kind = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [spacing[1], spacing[0]], spacing[2]
    plane.ImageOrientationPatient = [float(x) for x in orientation]
    kind.FrameType = ["ORIGINAL", "PRIMARY", "OTHER", "NONE"]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    setattr(shared, f"{modality}ImageFrameTypeSequence", [kind])
    frames, pixels = [], []
    pointers = [("InStackPositionNumber", "FrameContentSequence"), ("EffectiveEchoTime", "MREchoSequence")]
    pointers = pointers if modality == "MR" else pointers[:1]
    one.DimensionIndexSequence = [Dataset() for _ in pointers]
    for dimension, (name, group) in zip(one.DimensionIndexSequence, pointers, strict=True):
        dimension.DimensionIndexPointer, dimension.FunctionalGroupPointer = (
            tag_for_keyword(name),
            tag_for_keyword(group),
        )
    for index in range(stored.shape[2]):  # echoes beside each other, slice by slice
        for echo in range(stored.shape[3]):
            frame, position, times, values, content = Dataset(), Dataset(), Dataset(), Dataset(), Dataset()
            position.ImagePositionPatient = [float(x) for x in origin + index * spacing[2] * normal]
            times.EffectiveEchoTime = 5.0 * (echo + 1)
            values.RescaleSlope = slopes[echo % len(slopes)]
            values.RescaleIntercept, values.RescaleType = (0.0, "US") if modality == "MR" else (-1024.0, "HU")
            content.StackID, content.InStackPositionNumber = "1", index + 1
            content.DimensionIndexValues = [index + 1, echo + 1][: len(pointers)]
            frame.PlanePositionSequence = [position]
            if modality == "MR":
                frame.MREchoSequence = [times]
            frame.PixelValueTransformationSequence, frame.FrameContentSequence = [values], [content]
            frames.append(frame)
            pixels.append(stored[..., index, echo].T)
    one.SharedFunctionalGroupsSequence, one.PerFrameFunctionalGroupsSequence = [shared], frames
    one.NumberOfFrames = len(frames)
    one.PixelData = np.stack(pixels).tobytes()
    path.parent.mkdir(exist_ok=True, parents=True)
    one.save_as(path, enforce_file_format=True)
    affine = np.eye(4)
    affine[:3] = np.stack([along * spacing[0], down * spacing[1], normal * spacing[2], origin], 1)
    return np.diag([-1.0, -1, 1, 1]) @ affine
