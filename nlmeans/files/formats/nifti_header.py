"""Checks of a NIfTI header against the length of its file, before nibabel follows the header.

nibabel trusts the header. It reads voxels from the wrong place, reads past an extension that does not end, and
allocates as much memory as the header asks for, before it notices that a file is damaged. If a file is longer than its
header says, nibabel reads only a part of it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from nlmeans.core import memory

HEADER_TYPES: tuple[Any, ...] = (nib.Nifti1Header, nib.Nifti2Header)

PAIRS = (".hdr", ".img", ".hdr.gz", ".img.gz")
"""Endings of formats that store header and voxels in two files."""


def check_header(path: Path) -> None:
    """Check that a file is as long as its NIfTI header says, and fits into memory. Files of other formats are accepted.

    Raises:
        ValueError: the length is wrong, the header makes no sense, or the file does not fit into memory.
        Exception: whatever decompressing a damaged file raises.
    """
    with nib.openers.ImageOpener(str(path)) as file:
        start = file.read(nib.Nifti2Header.template_dtype.itemsize)
        kind = next((kind for kind in HEADER_TYPES if kind.may_contain_header(start)), None)
        header = kind and kind(start[: kind.template_dtype.itemsize], check=False)
    if header is not None and np.isinf(header["scl_slope"]):
        raise ValueError(f"its header multiplies the values by {header['scl_slope']}")
    if header is None or path.name.lower().endswith(PAIRS):
        check_length(path, None)
        return
    check_length(path, header)
    with nib.openers.ImageOpener(str(path)) as file:
        check_extensions(file, header)


def check_length(path: Path, header: Any) -> None:
    """Check the length of the file that holds the voxels.

    A NIfTI file must have exactly the length that its header describes. A compressed file is read to its end, because
    the checksum stands there, but only as far as its content fits into memory.

    Args:
        path: the file.
        header: its NIfTI header; None for other formats.
    """
    packed = path.suffix.lower() in nib.openers.ImageOpener.compress_ext_map
    limit = free = memory.free()
    if header is not None:
        shape, dtype = header.get_data_shape(), type_of_voxels(header)
        if not shape or min(shape) < 1:
            raise ValueError(f"its header gives the shape {shape}, which has no voxels")
        if not np.isfinite(header["vox_offset"]):
            raise ValueError(f"its header says that the voxels begin at byte {header['vox_offset']}")
        voxels = math.prod(shape)
        needed = voxels * (dtype.itemsize + 8 * (header.get_slope_inter() not in ((1, 0), (None, None))))
        if packed and needed > free:
            raise ValueError(
                f"its header gives the shape {shape}, which takes {memory.size_text(needed)} of memory, but only "
                f"{memory.size_text(free)} is free"
            )
        limit = header.get_data_offset() + voxels * dtype.itemsize
    length = length_unpacked(path, limit) if packed else path.stat().st_size
    if header is not None and length != limit:
        than = "longer" if length > limit else f"{limit - length} bytes shorter"
        raise ValueError(
            f"it is {than} than the {limit} bytes that its header describes (shape {shape}, {dtype}, voxels from byte "
            f"{header.get_data_offset()})"
        )
    if packed and length > limit:
        raise ValueError(f"it decompresses to more than the {memory.size_text(free)} of free memory")


def type_of_voxels(header: Any) -> np.dtype[Any]:
    try:
        found: np.dtype[Any] = header.get_data_dtype()
    except KeyError as error:
        raise ValueError(f"its header gives the data type {error}, which does not exist") from error
    return found


def length_unpacked(path: Path, limit: int) -> int:
    """Count the bytes that a compressed file holds. Counting stops soon after `limit`."""
    length = 0
    with nib.openers.ImageOpener(str(path)) as file:
        while length <= limit and (piece := file.read(2**20)):
            length += len(piece)
    return length


def check_extensions(file: Any, header: Any) -> None:
    """Check that every header extension ends before the voxels begin."""
    place, end = type(header).template_dtype.itemsize + 4, header.get_data_offset()
    file.seek(place - 4)
    extended = file.read(4)[0] != 0
    while extended and end - place >= 16:
        file.seek(place)
        size = int(np.frombuffer(file.read(4), header.endianness + "i4")[0])
        if size < 16 or place + size > end:
            raise ValueError(
                f"an extension of {size} bytes at byte {place} does not fit before the voxels, which begin at byte "
                f"{end}"
            )
        place += size
