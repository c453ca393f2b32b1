"""DICOM images of several frames, taken apart into slices; and slices of a series, sorted into volumes."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

FUNCTIONAL_GROUPS = "PerFrameFunctionalGroupsSequence"

SAME_IN_ALL = (
    *("SeriesInstanceUID", "FrameOfReferenceUID", "StudyInstanceUID", "Modality", "Rows", "Columns"),
    *("SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit"),
)
"""Attributes that all frames of an image share."""

IN_GROUPS = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness"),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
    "FrameContentSequence": ("TemporalPositionIndex", "FrameAcquisitionNumber"),
    "TemporalPositionSequence": ("TemporalPositionTimeOffset",),
    "CardiacSynchronizationSequence": ("NominalCardiacTriggerDelayTime",),
    "MREchoSequence": ("EffectiveEchoTime",),
    "MRDiffusionSequence": ("DiffusionBValue",),
    "MRImageFrameTypeSequence": ("ComplexImageComponent",),
    "MRTimingAndRelatedParametersSequence": ("FlipAngle",),
}
"""Attributes of a frame, by the functional group that has them."""

TELLING = (
    *("TemporalPositionIndex", "TemporalPositionIdentifier", "TemporalPositionTimeOffset"),
    *("EffectiveEchoTime", "EchoTime", "EchoNumbers", "DiffusionBValue", "DiffusionGradientOrientation"),
    *("FlipAngle", "InversionTime", "NominalCardiacTriggerDelayTime"),
    *("TriggerTime", "FrameReferenceTime", "FrameAcquisitionNumber", "AcquisitionNumber", "AcquisitionTime"),
)
"""Attributes that tell the volumes of a series apart, those that say most first."""

KIND_TAGS = ("ComplexImageComponent", "ImageType")
"""Attributes that tell magnitudes from phases, or water from fat. Such images are no volumes of one series."""

PRIVATE = {
    "DiffusionBValue": ((0x0019, 0x100C), (0x2001, 0x1003)),
    "DiffusionGradientOrientation": ((0x0019, 0x100E),),
}
"""Where Siemens and Philips keep what older images have no attribute for."""


class Frame(NamedTuple):
    """Where the voxels of a slice are stored, and how."""

    file: Path
    number: int | None
    """Number of the frame in its file, from 0; None if the file is one slice."""
    slope: float
    intercept: float


def has_frames(image: Dataset) -> bool:
    """Whether an image has frames that say where they lie."""
    return FUNCTIONAL_GROUPS in image or "GridFrameOffsetVector" in image or "DoseGridScaling" in image


def frames_of(image: Dataset) -> Iterator[Dataset]:
    """Take an enhanced image, or a dose grid, apart into slices with the attributes of older images.

    Args:
        image: an image for which `has_frames` is true; its pixels are decompressed.
    """
    pixels = image.pixel_array
    pixels = pixels if pixels.ndim == 3 else pixels[None]
    for number, values in enumerate(pixels):
        one = Dataset()
        one.filename = getattr(image, "filename", "")
        one.SOPClassUID = MRImageStorage  # any class of single slices
        for name in SAME_IN_ALL:
            if name in image:
                setattr(one, name, image[name].value)
        if FUNCTIONAL_GROUPS in image:
            fill_from_groups(one, image, number)
        else:
            fill_from_dose(one, image, number)
        one.InstanceNumber = number + 1
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        raw = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
        one.add_new("PixelData", "OB" if image.BitsAllocated == 8 else "OW", raw + b"\0" * (len(raw) % 2))
        yield one


def fill_from_groups(one: Dataset, image: Dataset, number: int) -> None:
    """Copy the attributes of a frame from its functional groups, or from those that all frames share."""
    shared = image.get("SharedFunctionalGroupsSequence") or [Dataset()]
    for group, names in IN_GROUPS.items():
        found = image[FUNCTIONAL_GROUPS].value[number].get(group) or shared[0].get(group)
        for name in names:
            if found and name in found[0]:
                setattr(one, name, found[0][name].value)
        if group == "MRDiffusionSequence" and found and found[0].get("DiffusionGradientDirectionSequence"):
            direction = found[0].DiffusionGradientDirectionSequence[0]
            one.DiffusionGradientOrientation = direction.DiffusionGradientOrientation


def fill_from_dose(one: Dataset, image: Dataset, number: int) -> None:
    """Set the attributes of a plane of a dose grid: its position, and the dose of one unit."""
    one.ImageOrientationPatient, one.PixelSpacing = image.ImageOrientationPatient, image.PixelSpacing
    offsets = [float(offset) for offset in image.get("GridFrameOffsetVector") or [0.0]]
    along, down = np.reshape([float(x) for x in image.ImageOrientationPatient], (2, 3))
    first = np.array([float(x) for x in image.ImagePositionPatient])
    distance = offsets[number] - offsets[0]  # a first offset that is not 0 is a position, of which the image has one
    one.ImagePositionPatient = [float(x) for x in first + distance * np.cross(along, down)]
    if image.get("SliceThickness"):
        one.SliceThickness = image.SliceThickness
    if "DoseGridScaling" in image:
        one.RescaleSlope, one.RescaleIntercept = float(image.DoseGridScaling), 0.0


def volumes_of(slices: Sequence[Dataset]) -> list[list[int]]:
    """Sort the slices of a series into volumes, by time, echo, b-value or whatever tells them apart.

    Returns:
        The numbers of the slices of each volume, in the order in which the volumes were numbered. One volume if no
        attribute splits them into volumes of the same positions.
    """
    everything = [list(range(len(slices)))]
    places = [tuple(round(float(x), 2) for x in one.ImagePositionPatient) for one in slices]
    counts = set(Counter(places).values())
    if counts == {1} or len(counts) > 1:
        return everything
    groups = everything
    for name in TELLING:
        values = [told(one, name) for one in slices]
        if None in values:
            continue
        finer = [
            [index for index in group if values[index] == value]
            for group in groups
            for value in dict.fromkeys(values[index] for index in group)
        ]
        if all({places[index] for index in group} == set(places) for group in finer):
            groups = finer
        if len(groups) == max(counts):
            return sorted(
                groups, key=lambda group: min(int(slices[index].get("InstanceNumber") or 0) for index in group)
            )
    return everything


def why_no_volumes(slices: Sequence[Dataset]) -> str:
    """Say why slices at the same positions cannot be sorted into volumes."""
    places = Counter(tuple(round(float(x), 2) for x in one.ImagePositionPatient) for one in slices)
    kinds = {"/".join(str(told(one, name)) for name in KIND_TAGS if told(one, name)) for one in slices}
    if len(set(places.values())) > 1:
        return (
            f"from {min(places.values())} to {max(places.values())} at each, so some are missing; complete the series"
        )
    if len(kinds) > 1:
        return f"of several kinds ({'; '.join(sorted(kinds))}); put each kind into a separate folder"
    return (
        "but neither time nor echo nor b-value tells its volumes apart; put each into a separate folder, or convert to "
        "NIfTI with dcm2niix"
    )


def told(one: Dataset, name: str) -> Any:
    """The value of an attribute as something that can be compared; None if it is not there."""
    value = one.get(name)
    if value is None:
        value = next((one[tag].value for tag in PRIVATE.get(name, ()) if tag in one), None)
    if value is None or isinstance(value, str | bytes | int | float):
        return value
    return tuple(map(str, value)) if not isinstance(value, int | float) and hasattr(value, "__iter__") else str(value)


def say_derived(image: Dataset) -> None:
    """Mark all frames of an enhanced image as derived."""
    groups = [*(image.get("SharedFunctionalGroupsSequence") or []), *(image.get(FUNCTIONAL_GROUPS) or [])]
    for group, name in itertools.product(groups, ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence")):
        for kind in group.get(name) or []:
            kind.FrameType = ["DERIVED", *list(kind.get("FrameType") or ["", "PRIMARY"])[1:]]
