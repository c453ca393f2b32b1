"""Files of FreeSurfer, .mgz and .mgh, whose repetition time is in milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from nlmeans.files.formats import nifti, nifti_header
from nlmeans.files.formats.geometry import storable

MGH_TYPES = ("uint8", "int16", "uint16", "int32", "float32")


def read_file(path: Path) -> Any:
    """Read a file of FreeSurfer as a NIfTI image."""
    nifti_header.check_header(path)
    with nib.openers.ImageOpener(str(path)) as file:  # nibabel's own load leaves it open
        image: Any = nib.MGHImage.from_stream(file.fobj)
        data = np.asarray(image.dataobj)
    zooms = image.header.get_zooms()
    return nifti.in_nifti(data, image.affine, float(zooms[3]) / 1000 if len(zooms) > 3 else None)


def write_file(image: Any, path: Path, name: Path) -> None:
    """Write a NIfTI image as a file of FreeSurfer."""
    data = np.asarray(image.dataobj)
    data = storable(data if data.ndim > 2 else data[..., None], MGH_TYPES, name)
    made: Any = nib.MGHImage(data.astype(data.dtype.newbyteorder("=")), nifti.millimetres(image))
    step = nifti.seconds_between(image)
    if step is not None and data.ndim == 4:
        made.header.set_zooms((*made.header.get_zooms()[:3], 1000 * step))
    made.to_filename(path)
