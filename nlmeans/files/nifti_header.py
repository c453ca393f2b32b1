"""What a NIfTI header says is checked against its file before nibabel follows it.

nibabel reads voxels from where they are not, reads on where an extension has no end, and asks for as much memory as the
header says, before it finds that a file is damaged; of one that is longer than its header says it reads a part.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from nlmeans.core import memory

KINDS: tuple[Any, ...] = (nib.Nifti1Header, nib.Nifti2Header)

PAIRS = (".hdr", ".img", ".hdr.gz", ".img.gz")
"""Endings of headers without voxels and of voxels without a header."""


def check(path: Path) -> None:
    """Refuse a file that is not as long as its header says, or would fill the memory; any file may be given.

    Raises ``ValueError``, ``OSError`` and whatever unpacking a damaged file raises.
    """
    with nib.openers.ImageOpener(str(path)) as file:
        start = file.read(nib.Nifti2Header.template_dtype.itemsize)
        kind = next((kind for kind in KINDS if kind.may_contain_header(start)), None)
        header = kind and kind(start[: kind.template_dtype.itemsize], check=False)
    if header is not None and np.isinf(header["scl_slope"]):
        raise ValueError(f"its header says that the values are to be multiplied by {header['scl_slope']}")
    if header is None or path.name.lower().endswith(PAIRS):
        check_length(path, None)
        return
    check_length(path, header)
    with nib.openers.ImageOpener(str(path)) as file:
        check_extensions(file, header)


def check_length(path: Path, header: Any) -> None:
    """Of a NIfTI to the byte; of what is packed no more than memory holds, and to its end, where the checksum is."""
    packed = path.suffix.lower() in nib.openers.ImageOpener.compress_ext_map
    limit = free = memory.free()
    if header is not None:
        shape, dtype = header.get_data_shape(), type_of_voxels(header)
        if not shape or min(shape) < 1:
            raise ValueError(f"its header says that it has the shape {shape}, so no voxels")
        if not np.isfinite(header["vox_offset"]):
            raise ValueError(f"its header says that the voxels begin at byte {header['vox_offset']}")
        voxels = math.prod(shape)
        needed = voxels * (dtype.itemsize + 8 * (header.get_slope_inter() not in ((1, 0), (None, None))))
        if packed and needed > free:
            raise ValueError(
                f"its header says that it has the shape {shape}, which takes {memory.readable(needed)} of memory, and "
                f"{memory.readable(free)} is free"
            )
        limit = header.get_data_offset() + voxels * dtype.itemsize
    length = length_unpacked(path, limit) if packed else path.stat().st_size
    if header is not None and length != limit:
        than = "longer" if length > limit else f"{limit - length} bytes shorter"
        raise ValueError(
            f"it is {than} than the {limit} bytes that its header stands for, with shape {shape}, {dtype}, and voxels "
            f"that begin at byte {header.get_data_offset()}"
        )
    if packed and length > limit:
        raise ValueError(f"it unpacks to more than the {memory.readable(free)} of memory that is free")


def type_of_voxels(header: Any) -> np.dtype[Any]:
    try:
        found: np.dtype[Any] = header.get_data_dtype()
    except KeyError as error:
        raise ValueError(f"its header says that the voxels have data type {error}, which does not exist") from error
    return found


def length_unpacked(path: Path, limit: int) -> int:
    """Bytes of a compressed file; where there are more than `limit` it is read no further."""
    length = 0
    with nib.openers.ImageOpener(str(path)) as file:
        while length <= limit and (piece := file.read(2**20)):
            length += len(piece)
    return length


def check_extensions(file: Any, header: Any) -> None:
    """Extensions end where the voxels begin."""
    place, end = type(header).template_dtype.itemsize + 4, header.get_data_offset()
    file.seek(place - 4)
    extended = file.read(4)[0] != 0
    while extended and end - place >= 16:
        file.seek(place)
        size = int(np.frombuffer(file.read(4), header.endianness + "i4")[0])
        if size < 16 or place + size > end:
            raise ValueError(f"an extension of {size} bytes at byte {place} does not fit before the voxels, at {end}")
        place += size
