"""NIfTI files, and the other formats that nibabel writes."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from tests.nlmeans.scans import LPS, NIFTI, OBLIQUE, scan
from tests.real_files.cases import Build, Built, Values
from tests.real_files.volumes import volume


def nifti(
    values: Values,
    name: str = "scan.nii.gz",
    affine: Any = LPS,
    *,
    scaling: tuple[float, float] | None = None,
    **header: Any,
) -> Build:
    """A file with every field of the header set, and then some in another way.

    Args:
        values: what is stored.
        name: of the file.
        affine: to millimetres.
        scaling: slope and intercept.
        header: fields of the header to set.
    """

    def build(folder: Path) -> Built:
        image = scan(values, affine=affine, scaling=scaling)
        image.header.set_sform(affine, code="scanner")
        for field, value in header.items():
            image.header[field] = value
        image.to_filename(folder / name)
        slope, intercept = scaling or (1.0, 0.0)
        sizes = tuple(image.header.get_zooms()[: min(values.ndim, 3)])
        return Built(folder / name, values * slope + intercept if scaling else values, affine, sizes)

    return build


def plain(values: Values, name: str = "scan.nii.gz", affine: Any = LPS, kind: str = "Nifti1Image") -> Build:
    """What nibabel writes of an array."""

    def build(folder: Path) -> Built:
        nib.save(getattr(NIFTI, kind)(values, affine, dtype=values.dtype), folder / name)
        return Built(folder / name, values if values.ndim < 4 else values.reshape(*values.shape[:3], -1), affine)

    return build


def unplaced(values: Values) -> Build:
    """A header with neither qform nor sform, so that nothing says where right and left are."""

    def build(folder: Path) -> Built:
        image = NIFTI.Nifti1Image(values, None)
        image.header.set_zooms((2, 3, 4))
        image.to_filename(folder / "scan.nii")
        return Built(folder / "scan.nii", values, NIFTI.load(folder / "scan.nii").affine)

    return build


def two_places() -> Build:
    """A qform and an sform that differ; the sform wins, as in nibabel."""

    def build(folder: Path) -> Built:
        image = NIFTI.Nifti1Image(volume(), None)
        image.set_qform(LPS, code="scanner")
        image.set_sform(OBLIQUE, code="mni")
        image.to_filename(folder / "scan.nii.gz")
        return Built(folder / "scan.nii.gz", volume(), OBLIQUE, (2, 3, 4))

    return build


def in_microns() -> Build:
    """Voxels of 2000 × 3000 × 4000 µm."""

    def build(folder: Path) -> Built:
        image = NIFTI.Nifti1Image(volume(), np.diag([2000.0, 3000, 4000, 1]))
        image.header.set_xyzt_units("micron", "msec")
        image.to_filename(folder / "scan.nii")
        return Built(folder / "scan.nii", volume(), np.diag([2.0, 3, 4, 1]))

    return build


def colours() -> Build:
    """Red, green and blue at each voxel."""
    kind: Any = [("R", "u1"), ("G", "u1"), ("B", "u1")]
    return plain(np.zeros((13, 12, 11), kind))


def damaged(what: str) -> Build:
    """A file that a transfer or a disk has damaged, or that has a wrong name."""

    def build(folder: Path) -> Built:
        whole = plain(volume("float32"))(folder).path.read_bytes()
        name, raw = {
            "cut": ("scan.nii.gz", whole[: len(whole) // 2]),
            "cut, not packed": ("scan.nii", gzip.decompress(whole)[:-100]),
            "longer": ("scan.nii", gzip.decompress(whole) + b"\0" * 64),
            "empty": ("scan.nii.gz", b""),
            "text": ("scan.nii.gz", b"This page has moved.\n"),
            "packed, named .nii": ("scan.nii", whole),
            "not packed, named .nii.gz": ("scan.nii.gz", gzip.decompress(whole)),
            "NIfTI, named .nrrd": ("scan.nrrd", gzip.decompress(whole)),
            "NIfTI, named .dcm": ("scan.dcm", gzip.decompress(whole)),
            "in capitals": ("SCAN.NII.GZ", whole),
            "without an ending": ("scan", gzip.decompress(whole)),
        }[what]
        path = folder / "damaged" / name
        path.parent.mkdir()
        path.write_bytes(raw)
        return Built(path, volume("float32"), LPS)

    return build


def header_alone() -> Build:
    """A pair without its voxels."""

    def build(folder: Path) -> Built:
        built = plain(volume(), "scan.img", kind="Nifti1Pair")(folder)
        built.path.unlink()
        return Built(folder / "scan.hdr", volume())

    return build


def freesurfer(values: Values, name: str = "scan.mgz") -> Build:
    """A file of FreeSurfer."""

    def build(folder: Path) -> Built:
        nib.save(NIFTI.MGHImage(values, OBLIQUE), folder / name)
        return Built(folder / name, values, OBLIQUE)

    return build
