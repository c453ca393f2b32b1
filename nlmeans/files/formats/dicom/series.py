"""Read DICOM series. Needs ``pip install "nlmeans[dicom]"``.

pydicom reads the files; highdicom computes the geometry.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import highdicom
import numpy as np
import numpy.typing as npt
import pydicom
from highdicom.spatial import get_series_volume_positions
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import DeflatedExplicitVRLittleEndian, MRImageStorage

from nlmeans.core import memory
from nlmeans.files.formats.dicom.frames import Frame, frames_of, has_frames, volumes_of, why_no_volumes
from nlmeans.files.formats.nifti import Scan, check_values, in_nifti
from nlmeans.files.formats.registry import DICOM_NAMES
from nlmeans.files.paths import errors_naming

log = logging.getLogger("nlmeans")

ORIENTATION_TOLERANCE = 1e-4
"""Largest difference between direction cosines that count as equal. Scanners write about six digits."""

SPACING_TOLERANCE = 0.02
"""Largest relative difference between distances of slices that count as equal."""


@dataclass(frozen=True)
class DicomScan(Scan):
    """A series as rescaled values: (columns, rows, slices in spatial order), and volumes as last axis if several."""

    frames: tuple[tuple[Frame, ...], ...]
    """Where each slice of each volume is stored."""


def read_series(folder: Path, series: str | None = None) -> DicomScan:
    """Read a series of images from a folder and its subfolders, or from one file.

    Enhanced images and dose grids have all slices in one file. Several images at each position are the volumes of a
    series: times, echoes, or b-values and directions.

    Args:
        folder: folder with the files, whose names do not matter; or one file.
        series: number or UID of the series, if the folder holds several.

    Raises:
        IsADirectoryError: the folder holds no DICOM images.
        ValueError: there are several series and `series` is None, there is no such series, a file cannot be read, or
            the slices do not form volumes of parallel slices at even distances.
    """
    files = series_files(folder, series) if folder.is_dir() else [image_file(folder)]
    with errors_naming(folder):  # pydicom decodes an element only when it is used
        return volumes_of_series(folder, files)


def volumes_of_series(folder: Path, files: Sequence[Path]) -> DicomScan:
    """Read the files of a series and stack their slices to volumes."""
    slices, frames = read_slices(files)
    placed = check_places(folder, slices)
    groups = volumes_of(slices)
    read = [volume_of_slices(folder, [slices[index] for index in group]) for group in groups]
    affine = read[0].affine
    if any(one.values.shape != read[0].values.shape or not np.allclose(one.affine, affine, atol=1e-2) for one in read):
        raise ValueError(f"{folder} holds {len(read)} volumes of different grids; put each into a separate folder")
    kind = np.dtype(type_of_values(slices))
    low, high = min(one.values.min() for one in read), max(one.values.max() for one in read)
    if kind.kind in "ui" and not np.iinfo(kind).min <= low <= high <= np.iinfo(kind).max:
        raise ValueError(
            f"{folder} holds values from {low:g} to {high:g}, which do not fit into the {slices[0].BitsStored} bits of "
            "BitsStored; it may be damaged"
        )
    order = [[group[index] for index in one.order] for group, one in zip(groups, read, strict=True)]
    volumes = [np.ascontiguousarray(one.values.astype(kind)) for one in read]
    data = volumes[0] if len(volumes) == 1 else np.stack(volumes, axis=-1)
    check_values(data, folder)
    padding = [measured(one, [slices[index] for index in those]) for one, those in zip(volumes, order, strict=True)]
    known = [one for one in padding if one is not None]
    modality = str(slices[0].get("Modality") or "") or None
    return DicomScan(
        folder,
        data,
        in_nifti(data, affine, extra={"modality": modality} | ({} if placed else {"unplaced": True})),
        inside=np.logical_and.reduce(known) if known else None,
        modality=modality,
        frames=tuple(tuple(frames[index] for index in those) for those in order),
    )


def read_slices(files: Sequence[Path]) -> tuple[list[Dataset], list[Frame]]:
    """Read all slices of a series, and say where each is stored."""
    slices: list[Dataset] = []
    frames: list[Frame] = []
    needed, free = 0, memory.free()
    for file in files:
        with errors_naming(file):
            image = pydicom.dcmread(file)
            needed += get_expected_length(image)
        if needed > free:
            raise ValueError(
                f"{file} brings the series to {memory.size_text(needed)}, but only {memory.size_text(free)} of memory "
                "is free"
            )
        with errors_naming(file):
            check_image(file, image)
            parts = list(frames_of(image)) if has_frames(image) else [image]
            for number, one in enumerate(parts):
                check_scaling(file, one)
                slices.append(one)
                frames.append(Frame(file, number if has_frames(image) else None, *scaling(one)))
    return slices, frames


class StackedSlices(NamedTuple):
    """The slices of one volume."""

    values: npt.NDArray[Any]
    """Rescaled, (columns, rows, slices)."""
    affine: npt.NDArray[np.float64]
    order: list[int]
    """Numbers of the slices in spatial order."""


def volume_of_slices(folder: Path, slices: Sequence[Dataset]) -> StackedSlices:
    """Stack slices to a volume."""
    order = stacking_order(folder, slices)
    slices = [slices[index] for index in order]
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
    return StackedSlices(volume.array.transpose(2, 1, 0), affine, order)


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


def image_file(file: Path) -> Path:
    """Check that a single file is a DICOM image, and return it."""
    with errors_naming(file):
        header = header_of(file)
    if header is None or "Rows" not in header:
        what = getattr(header and header.get("SOPClassUID"), "name", "of no known kind")
        raise ValueError(f"{file} is a DICOM file without an image ({what}); name one that has pixels")
    return file


def header_of(file: Path) -> Dataset | None:
    """Read the tags that say which series a file belongs to; None if it neither is nor claims to be a DICOM file."""
    try:
        if read_file_meta_info(file).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            raise ValueError(
                f"{file} is compressed as a whole (deflated), so its size is not known in advance; decompress it, for "
                "instance with gdcmconv --raw"
            )
        return pydicom.dcmread(
            file,
            stop_before_pixels=True,
            specific_tags=["SOPClassUID", "Rows", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription"],
        )
    except InvalidDicomError as error:
        if file.suffix.lower() not in DICOM_NAMES:
            return None
        raise ValueError(
            f"{file} lacks the mark DICM, which a DICOM file has at byte 128: it may be damaged, or older than the "
            "mark; convert an old one, for instance with dcmconv"
        ) from error


def check_image(file: Path, image: Dataset) -> None:
    """Check that an image is one slice of grey values, is not damaged, and can be decompressed here."""
    if "MOSAIC" in (image.get("ImageType") or []):
        raise ValueError(
            f"{file} is a mosaic of Siemens, which has all slices of a volume side by side in one picture; convert the "
            "series to NIfTI, for instance with dcm2niix"
        )
    if int(image.get("NumberOfFrames") or 1) > 1 and not has_frames(image):
        raise ValueError(
            f"{file} holds {image.NumberOfFrames} frames that do not say where they lie; convert it to single frames, "
            "or to NIfTI"
        )
    if image.get("BitsAllocated") == 1:
        raise ValueError(f"{file} holds one bit per voxel, as a segmentation does, not intensities")
    if image.get("SamplesPerPixel", 1) != 1 or image.get("PhotometricInterpretation") == "PALETTE COLOR":
        raise ValueError(
            f"{file} holds colours ({image.get('PhotometricInterpretation')}), not intensities; convert it to grey "
            "first"
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
    if values.ndim != 2 and not has_frames(image):
        raise ValueError(f"{file} has pixels of shape {values.shape}; convert it to single slices")


def check_scaling(file: Path, image: Dataset) -> None:
    """Raise ``ValueError`` if the values of a slice cannot be rescaled, and back."""
    slope, intercept = scaling(image)
    if slope == 0 or not np.isfinite([slope, intercept]).all():
        raise ValueError(
            f"{file} has RescaleSlope {slope} and RescaleIntercept {intercept}; both must be finite, and the slope "
            "must not be 0"
        )


# ---------------------------------------------------------------- which order, which values


PLACE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
"""Attributes that say where a slice lies."""


SHARED_UIDS = {"SeriesInstanceUID": "2.25.0", "FrameOfReferenceUID": "2.25.0", "SOPClassUID": MRImageStorage}
"""Attributes that all slices of a series share and anonymising may remove, with what they are then taken for."""


def check_places(folder: Path, slices: Sequence[Dataset]) -> bool:
    """Raise ``ValueError`` unless every slice says where it lies. A single image need not, and is then put somewhere.

    Returns:
        Whether it is known where the slices lie.
    """
    for one in slices:
        for name, usual in SHARED_UIDS.items():
            if name not in one:
                setattr(one, name, usual)
    missing = [(one, name) for one in slices for name in PLACE if not one.get(name)]
    if missing and len(slices) > 1:
        one, name = missing[0]
        raise ValueError(
            f"{folder}: {Path(str(one.filename)).name} has no {name}, so its position in the volume is unknown"
        )
    if missing:
        put_anywhere(folder, slices[0])
    return not missing


def put_anywhere(path: Path, image: Dataset) -> None:
    """Let an image that does not say where it lies, such as a radiograph, lie at the origin; this is logged."""
    sizes = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
    known = next((image[name].value for name in sizes if image.get(name)), None)
    down, along = known or (1.0, 1.0)
    log.warning(
        "%s does not say where it lies in the patient: the origin is assumed, with pixels of %g × %g mm%s",
        path,
        along,
        down,
        "" if known else ", whose size it does not say either",
    )
    image.PixelSpacing, image.ImagePositionPatient = [down, along], [0.0, 0.0, 0.0]
    image.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]


def stacking_order(folder: Path, slices: Sequence[Dataset]) -> list[int]:
    """Order the slices along their normal, and check that they are parallel, evenly spaced and complete."""
    tolerances: dict[str, Any] = {"rtol": SPACING_TOLERANCE, "orientation_tol": ORIENTATION_TOLERANCE}
    spacing, places = get_series_volume_positions(slices, **tolerances)
    if places is not None:
        return [places.index(index) for index in reversed(range(len(slices)))]
    positions = {tuple(float(x) for x in one.ImagePositionPatient) for one in slices}
    if len(positions) < len(slices):
        raise ValueError(f"{folder} holds {len(slices)} images at {len(positions)} positions, {why_no_volumes(slices)}")
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
