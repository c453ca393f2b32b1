"""DICOM files that scanners write and pydicom does not carry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLosslessSV1, RLELossless, generate_uid

from tests.nlmeans.series import OBLIQUE, write_enhanced, write_series
from tests.real_files.cases import Build, Built, Values
from tests.real_files.volumes import SHAPE, volume


def series(stored: Values, *, file: bool = False, meant: Values | None = None, **how: Any) -> Build:
    """A series of single slices.

    Args:
        stored: what the pixels are.
        file: name the only file instead of its folder.
        meant: the values that the pixels mean, if they are scaled.
        how: see `write_series`; also tags of every slice.
    """

    def build(folder: Path) -> Built:
        affine = write_series(folder / "in", stored, **{"Modality": "CT", **how})
        path = next((folder / "in").iterdir()) if file else folder / "in"
        return Built(path, stored if meant is None else meant, affine)

    return build


def hounsfield() -> Build:
    return series(volume("uint16"), slopes=1, intercept=-1024, meant=volume("int32") - 1024)


def slopes() -> Build:
    """Slices with scales of their own, as in PET."""
    factors = 0.5 + 0.1 * np.arange(SHAPE[2])
    return series(volume("uint16"), slopes=factors.tolist(), meant=volume("uint16") * factors)


def changed(what: str) -> Build:
    """A series whose files were changed in some way afterwards."""

    def build(folder: Path) -> Built:
        made = series(volume())(folder)
        for number, file in enumerate(sorted(made.path.iterdir())):
            one = pydicom.dcmread(file)
            if what == "run-length encoded":
                one.compress(RLELossless, generate_instance_uid=False)
            elif what == "tilted gantry":
                x, y, z = one.ImagePositionPatient
                one.ImagePositionPatient = [x, y + 0.6 * number, z]
            elif what == "no place":
                del one.ImagePositionPatient
            elif what == "damaged JPEG":
                one.file_meta.TransferSyntaxUID = JPEGLosslessSV1
                one.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
                one["PixelData"].VR = "OB"
            elif what == "two series" and number % 2:
                one.SeriesInstanceUID, one.SeriesNumber = f"{one.SeriesInstanceUID}.1", 4
            one.save_as(file)
        return made

    return build


def enhanced(echoes: int = 1) -> Build:
    """One file of all slices, and of several echoes."""

    def build(folder: Path) -> Built:
        stored = np.stack([volume("uint16") // (echo + 1) for echo in range(echoes)], axis=-1)
        affine = write_enhanced(folder / "enhanced.dcm", stored, orientation=OBLIQUE)
        return Built(folder / "enhanced.dcm", stored if echoes > 1 else stored[..., 0], affine)

    return build


def times(count: int) -> Build:
    """Several times at each position, in one folder."""

    def build(folder: Path) -> Built:
        stored = volume("uint16", count)
        uid = generate_uid()
        for index in range(count):
            tags = {"SeriesInstanceUID": uid, "TemporalPositionIdentifier": index + 1, "InstanceNumber": index + 1}
            affine = write_series(folder / "in" / f"time{index}", stored[..., index], Modality="MR", **tags)
        return Built(folder / "in", stored, affine)

    return build


def without_slice() -> Build:
    def build(folder: Path) -> Built:
        write_series(folder / "in", volume(), without=(4,))
        return Built(folder / "in", volume())

    return build
