"""Files of MINC, which name their axes in any order, such as (time, zspace, yspace, xspace)."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from nlmeans.files.formats import nifti
from nlmeans.files.paths import errors_naming

HDF5 = b"\x89HDF"
"""First bytes of MINC2; MINC1 is NetCDF, which nibabel reads itself."""


def read_file(path: Path) -> Any:
    """Read a file of MINC as a NIfTI image, with time as its last axis."""
    with path.open("rb") as file:
        is_hdf5 = file.read(len(HDF5)) == HDF5
    if is_hdf5:
        try:
            importlib.import_module("h5py")
        except ModuleNotFoundError as error:
            raise ValueError(f'{path} is MINC2; to read it, install: pip install "nlmeans[formats]"') from error
    image = nifti.open_file(path)
    with errors_naming(path):
        minc = image.dataobj.minc_file
        names, data = list(minc._dim_names), np.asarray(image.dataobj)
        if "vector_dimension" in names:
            raise ValueError(f"{path} holds vectors or colours at each voxel, not intensities; split it first")
        step = None
        if "time" in names:
            time = minc._dims[names.index("time")]
            data = np.moveaxis(data, names.index("time"), -1)
            milli = text(getattr(time, "units", "s")).startswith("m")
            step = abs(float(getattr(time, "step", 0))) * (1e-3 if milli else 1)
        return nifti.in_nifti(data, image.affine, step)


def text(value: Any) -> str:
    """An attribute of MINC, which may be bytes."""
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
