"""Damage to files: bits and bytes at random, and NIfTI headers that lie."""

from __future__ import annotations

import gzip
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.nlmeans.scans import NIFTI, RAS, noisy, save, scan

SHAPE = (9, 10, 11)

NAN, INF = float("nan"), float("inf")
COUNTS = (0, -1, 1, 2, 7, 8, 100, 255, 32767, -32768)
CODES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1280, 1536, 1792, 2048, 2304, 3, -1, 32767)
REALS = (NAN, INF, -INF, 0.0, -0.0, 1.0, -1.0, 3e38, -3e38, 1e-38, 1e-45, 7.5)
OFFSETS = (NAN, INF, -INF, -1.0, -352.0, 0.0, 1.0, 100.0, 347.0, 348.0, 352.5, 353.0, 368.0, 1e6, 1e9, 1e30)
WORDS = (b"", b"n+1", b"ni1", b"n+2", b"ni2", b"n+9", b"\xff\xff\xff\xff")

LIES: dict[str, tuple[Any, ...]] = {
    "sizeof_hdr": (0, 347, 348, 349, 540, -1, 2**31 - 1),
    "dim": COUNTS,
    "datatype": CODES,
    "bitpix": COUNTS,
    "vox_offset": OFFSETS,
    "scl_slope": REALS,
    "scl_inter": REALS,
    "pixdim": REALS,
    "magic": WORDS,
    "qform_code": COUNTS,
    "sform_code": COUNTS,
    "quatern_b": REALS,
    "quatern_d": REALS,
    "qoffset_x": REALS,
    "srow_x": REALS,
    "srow_z": REALS,
    "intent_code": CODES,
    "slice_end": COUNTS,
    "toffset": REALS,
}
"""Fields of a NIfTI-1 header, and values to put there."""

NESTS = (-1, 0, 1, 8, 15, 16, 17, 32, 1000, 10**6, 2**31 - 1, -(2**31))
"""Sizes of an extension."""


def sound(folder: Path, ending: str, *, seed: int = 0, dtype: str = "i2") -> Path:
    """Write a valid file with an extension and every header field set."""
    scaling = (0.5, -3.0) if seed % 3 == 2 else None
    return save(scan(noisy(*SHAPE, seed=seed), dtype, RAS, scaling=scaling), folder / f"scan{ending}")


def refusal(step: Callable[[], object]) -> str:
    """Return the message of the expected error that a step raises, or an empty text if it raises none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # libraries warn of odd values
        try:
            step()
        except (ValueError, TypeError, OSError) as error:
            return str(error)
    return ""


def bits_flipped(
    raw: bytes, chance: random.Random, *, first: int = 0, last: int | None = None, count: int = 1
) -> bytes:
    flipped = bytearray(raw)
    for _ in range(count):
        flipped[chance.randrange(first, last or len(raw))] ^= 1 << chance.randrange(8)
    return bytes(flipped)


def damaged(raw: bytes, chance: random.Random) -> bytes:
    """Cut the bytes, lengthen them, zero or move some, or flip bits."""
    place, size = chance.randrange(len(raw)), chance.randint(1, 64)
    kind = chance.choice(("cut", "longer", "hole", "lost", "twice", "bits", "bits", "bits"))
    if kind == "cut":
        return raw[:place]
    if kind == "longer":
        return raw + chance.randbytes(size)
    if kind == "hole":
        return raw[:place] + bytes(size) + raw[place + size :]
    if kind == "lost":
        return raw[:place] + raw[place + size :]
    if kind == "twice":
        return raw[: place + size] + raw[place:]
    return bits_flipped(raw, chance, count=chance.randint(1, 4))


def lying(raw: bytes, chance: random.Random) -> bytes:
    """Change one to three fields of a NIfTI-1 header, or the size of its extension."""
    fields = NIFTI.Nifti1Header.template_dtype
    header = np.frombuffer(raw[: fields.itemsize], fields).copy()
    rest = bytearray(raw[fields.itemsize :])
    for name in chance.sample(sorted([*LIES, "extension"]), chance.randint(1, 3)):
        if name == "extension":
            rest[4:8] = np.array(chance.choice(NESTS), "<i4").tobytes()
            continue
        value = chance.choice(LIES[name])
        if header[name].ndim > 1:
            header[name][0, chance.randrange(header[name].shape[1])] = value
        else:
            header[name][0] = value
    return header.tobytes() + bytes(rest)


def bomb(path: Path, claims: tuple[int, ...], megabytes: int) -> Path:
    """Write a compressed NIfTI that claims a shape and decompresses to this many megabytes of zeros."""
    header = NIFTI.Nifti1Header()
    header["dim"][: len(claims) + 1] = [len(claims), *claims]
    header["datatype"], header["bitpix"], header["vox_offset"], header["magic"] = 2, 8, 352, b"n+1"
    header["pixdim"][1:4] = 1
    with gzip.open(path, "wb", compresslevel=9) as file:
        file.write(header.binaryblock + bytes(4))
        for _ in range(megabytes):
            file.write(bytes(2**20))
    return path
