"""Properties of file formats: what one can hold comes back as it was, whatever its shape, type, place and time."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("SimpleITK")
pytest.importorskip("tifffile")

from nlmeans import load_image, save_image
from nlmeans.files.formats import nifti, registry
from nlmeans.files.formats.freesurfer import MGH_TYPES
from nlmeans.files.formats.itk import ITK_COMPLEX, ITK_TYPES
from nlmeans.files.formats.tiff import COMPLEX_TYPES, OME_TYPES
from tests.properties.strategies import Floats, seeds

NIFTI_TYPES = (*ITK_TYPES, *ITK_COMPLEX)
TYPES = {
    **dict.fromkeys((".nii", ".nii.gz", ".hdr", ".npy"), NIFTI_TYPES),
    **dict.fromkeys((".nrrd", ".nhdr"), (*ITK_TYPES, *ITK_COMPLEX)),
    **dict.fromkeys((".mha", ".mhd"), ITK_TYPES),
    **dict.fromkeys((".mgz", ".mgh"), MGH_TYPES),
    **dict.fromkeys((".tif", ".ome.tif"), (*OME_TYPES, *COMPLEX_TYPES)),
}
"""Types that each format holds as they are."""

PLACED = tuple(ending for ending in TYPES if ending not in (".npy", ".tif", ".ome.tif"))
SIZED = tuple(ending for ending in TYPES if ending != ".npy")


def rotation(seed: int) -> Floats:
    """Directions of three axes at right angles, which may be mirrored."""
    return np.asarray(np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))[0])


@st.composite
def volumes(draw: Any, ending: str) -> Any:
    """Draw an image of NIfTI: (X, Y, Z), or with volumes that have a time between them."""
    least = 4 if ending == ".tif" else 1  # tifffile does not read back all ImageJ stacks of a few bytes
    shape = tuple(draw(st.integers(least, 9)) for _ in range(3)) + draw(st.sampled_from([(), (2,), (3,)]))
    kind, seed = np.dtype(draw(st.sampled_from(TYPES[ending]))), draw(seeds)
    random = np.random.default_rng(seed)
    if kind.kind in "iu":
        values = random.integers(0, min(np.iinfo(kind).max, 2**40), shape).astype(kind)
    else:
        values = random.standard_normal(shape).astype(kind)
        values = values + 1j * values[::-1] if kind.kind == "c" else values
    affine = np.eye(4)
    affine[:3, :3] = rotation(seed) * 10.0 ** random.uniform(-1, 1, 3)
    affine[:3, 3] = random.uniform(-200, 200, 3)
    return nifti.in_nifti(
        values.astype(kind), affine, draw(st.sampled_from([None, 0.5, 2.5])) if len(shape) > 3 else None
    )


@given(data=st.data(), ending=st.sampled_from(sorted(TYPES)))
def test_what_a_format_can_hold_comes_back(data: Any, ending: str) -> None:
    image = data.draw(volumes(ending))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"scan{ending}")
        save_image(image, path)
        assert sorted(file.name for file in Path(folder).iterdir()) == sorted(
            file.name for file in registry.files_of(path)
        )
        again = load_image(path)
        values = np.asarray(again.dataobj)
    assert values.dtype == image.get_data_dtype()
    np.testing.assert_array_equal(np.squeeze(values), np.squeeze(np.asarray(image.dataobj)))
    if ending in PLACED:
        np.testing.assert_allclose(again.affine, image.affine, atol=2e-3)
    if ending in SIZED:
        sizes = np.linalg.norm(image.affine[:3, :3], axis=0)
        shown = [axis for axis in range(3) if ending in PLACED or image.shape[axis] > 1]
        np.testing.assert_allclose(np.take(again.header.get_zooms()[:3], shown), np.take(sizes, shown), rtol=1e-4)
    if ending not in (".npy",) and len(image.shape) > 3:
        assert nifti.seconds_between(again) == pytest.approx(
            nifti.seconds_between(image) or (1.0 if ending in (".nrrd", ".nhdr", ".mha", ".mhd") else None)
        )


@given(data=st.data(), ending=st.sampled_from(sorted(TYPES)), other=st.sampled_from(PLACED))
def test_a_scan_goes_from_one_format_to_another_and_keeps_its_values(data: Any, ending: str, other: str) -> None:
    image = data.draw(volumes(ending))
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder, f"a{ending}"), Path(folder, f"b{other}")
        save_image(image, first)
        read = load_image(first)
        if read.get_data_dtype().kind == "c" and other in (".mha", ".mhd", ".mgz", ".mgh"):
            with pytest.raises(TypeError, match="cannot hold complex numbers"):
                save_image(read, second)
            return
        save_image(read, second)
        again = load_image(second)
        values, wanted = np.asarray(again.dataobj), np.asarray(read.dataobj)
    exact = np.can_cast(wanted.dtype, values.dtype)
    np.testing.assert_allclose(np.squeeze(values), np.squeeze(wanted), rtol=0 if exact else 1e-6)
    np.testing.assert_allclose(again.affine, read.affine, atol=2e-3)
