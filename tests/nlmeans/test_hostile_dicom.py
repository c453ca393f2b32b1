"""Damaged DICOM files are refused by name, or read with all their voxels."""

from __future__ import annotations

import os
import random
import struct
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("highdicom")

import pydicom
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from nlmeans.core import memory
from nlmeans.files.formats.dicom import derived as dicom_derived
from nlmeans.files.formats.dicom import series as dicom
from tests.nlmeans.hostile import bits_flipped, damaged, refusal
from tests.nlmeans.series import write_series

SHAPE = (9, 10, 4)
"""Columns, rows, slices."""

CASES = 8

seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("series")
    write_series(folder, np.random.default_rng(0).integers(0, 1000, SHAPE).astype("u2"), BitsStored=12, HighBit=11)
    return folder


@given(seeds, st.booleans())
def test_a_damaged_slice_is_refused_or_has_all_its_pixels(folder: Path, seed: int, gently: bool) -> None:
    chance = random.Random(seed)
    file = folder / "002.dcm"
    raw = file.read_bytes()
    pixels = len(raw) - 2 * SHAPE[0] * SHAPE[1]
    scans: list[dicom.DicomScan] = []
    try:
        for _ in range(CASES):
            file.write_bytes(bits_flipped(raw, chance, first=128, last=pixels) if gently else damaged(raw, chance))
            scans.clear()
            if said := refusal(lambda: scans.append(dicom.read_series(folder))):
                assert said.startswith(str(folder))
                continue
            assert scans[0].data.shape == SHAPE
            assert np.isfinite(scans[0].data.astype(float)).all()
            with tempfile.TemporaryDirectory() as out:
                if said := refusal(lambda: dicom_derived.write_derived(scans[0], scans[0].data, Path(out), "nothing")):
                    assert said.startswith(str(file))
                else:
                    np.testing.assert_array_equal(dicom.read_series(Path(out)).data, scans[0].data)
    finally:
        file.write_bytes(raw)


@pytest.mark.parametrize(
    ("tag", "value", "message"),
    [
        ("Rows", 65535, r"pixels, but 65535 rows and 9 columns of 16 bits take"),
        ("Rows", 9, r"has 180 bytes of pixels, but 9 rows"),
        ("Columns", 0, "cannot be read"),
        ("Columns", None, "cannot be read"),
        ("BitsAllocated", 8, "bytes of pixels"),
        ("BitsAllocated", None, "cannot be read"),
        ("BitsStored", 4, "has BitsStored 4 but HighBit 15, which should be 3"),
        ("PixelRepresentation", None, "cannot be read"),
        ("PixelData", b"12", "has 2 bytes of pixels"),
        ("PixelData", None, "has 0 bytes of pixels"),
        ("RescaleSlope", 0, "has RescaleSlope 0.0 and"),
        ("RescaleSlope", "1e400", "has RescaleSlope inf and"),
        ("ImagePositionPatient", None, "its position in the volume is unknown"),
        ("ImagePositionPatient", ["0", "0", "1e400"], "cannot be read|at 1 positions"),
        ("ImageOrientationPatient", [0, 0, 0, 0, 0, 0], "cannot be read|do not form a volume"),
        ("PixelSpacing", [0, 0], "cannot be read|do not form a volume"),
        ("PixelSpacing", [-1, 1], "cannot be read|do not form a volume"),
        ("SamplesPerPixel", None, "cannot be read"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_tag_that_lies_or_lacks_is_refused(tag: str, value: Any, message: str, tmp_path: Path) -> None:
    write_series(tmp_path / "in", np.full(SHAPE, 900, "u2"))
    for file in (tmp_path / "in").iterdir():
        image = pydicom.dcmread(file)
        if value is None:
            delattr(image, tag)
        else:
            setattr(image, tag, value)
        image.save_as(file)
    with pytest.raises(ValueError, match=message) as error:
        dicom.read_series(tmp_path / "in")
    assert str(error.value).startswith(str(tmp_path / "in"))


def test_packed_pixels_that_would_fill_the_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path / "in", np.full(SHAPE, 900, "u2"))
    for file in (tmp_path / "in").iterdir():
        image = pydicom.dcmread(file)
        image.compress(RLELossless)
        image.Rows = image.Columns = 65535
        image.save_as(file)
    monkeypatch.setattr(memory, "free", lambda: 20 * 2**30)
    monkeypatch.setattr(dicom, "check_image", lambda *_: None)
    message = r"003\.dcm brings the series to 24\.00 GiB, but only 20\.00 GiB of memory is free"
    with pytest.raises(ValueError, match=message):
        dicom.read_series(tmp_path / "in")


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    write_series(tmp_path / "in", np.full(SHAPE, 900, "u2"))
    file = tmp_path / "in" / "001.dcm"
    image = pydicom.dcmread(file)
    image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    image.save_as(file)
    packer = zlib.compressobj(9, wbits=-15)
    zeros = packer.compress(struct.pack("<HH2sHI", 8, 0, b"UN", 0, 2**28) + bytes(2**28)) + packer.flush()
    raw = file.read_bytes()
    meta = 144 + struct.unpack("<I", raw[140:144])[0]
    file.write_bytes(raw[:meta] + zeros)
    for source in (tmp_path / "in", file):
        with pytest.raises(ValueError, match=r"001\.dcm is compressed as a whole \(deflated\)"):
            dicom.read_series(source)


@pytest.mark.skipif(os.name != "posix", reason="pipes and loops are those of POSIX")
def test_pipes_devices_loops_and_odd_names_in_a_folder_are_passed_by(tmp_path: Path) -> None:
    write_series(tmp_path / "in", np.full(SHAPE, 900, "u2"))
    os.mkfifo(tmp_path / "in" / "pipe.dcm")
    (tmp_path / "in" / "zeros.dcm").symlink_to("/dev/zero")
    (tmp_path / "in" / "itself.dcm").symlink_to(tmp_path / "in" / "itself.dcm")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "gone.dcm").symlink_to(tmp_path / "nowhere")
    (tmp_path / "in" / "two\nlines").write_text("no image")
    Path(os.fsdecode(bytes(tmp_path / "in") + b"/\xff\xfe")).write_text("no image")
    assert dicom.read_series(tmp_path / "in").data.shape == SHAPE


def test_a_file_that_is_no_image_is_named_in_one_line(tmp_path: Path) -> None:
    write_series(tmp_path / "in", np.full(SHAPE, 900, "u2"))
    (tmp_path / "in" / "x.dcm").write_text("no image")
    with pytest.raises(ValueError, match=r"x\.dcm lacks the mark DICM.*: it may be damaged") as error:
        dicom.read_series(tmp_path / "in")
    assert "\n" not in str(error.value)
