"""NIfTI files are read with their scaling, and written with their header."""

from __future__ import annotations

import gc
import gzip
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nibabel.testing import data_path

from nlmeans.files.formats import nifti
from tests.nlmeans.scans import LPS, NIFTI, RAS, header_on_disk, noisy, save, scan, values

SHAPE = (6, 7, 8)

# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("dtype", ["u1", "i2", ">i2", "u2", "i4", "f4", ">f4", "f8"])
def test_unscaled_values_are_read_as_they_are_stored(dtype: str, tmp_path: Path) -> None:
    data = noisy(*SHAPE).astype(dtype)
    found = nifti.read_nifti(save(scan(data), tmp_path / "scan.nii.gz"))
    assert found.data.dtype == data.dtype
    np.testing.assert_array_equal(found.data, data)


@pytest.mark.parametrize("scaling", [(0.25, -30), (1, 100), (2, 0), (1e-7, 300)])
@pytest.mark.parametrize("dtype", ["i2", "i4", "u1"])
def test_scaled_values_are_read_to_a_thousandth_of_a_step(
    dtype: str, scaling: tuple[float, float], tmp_path: Path
) -> None:
    stored = noisy(*SHAPE).astype(dtype)
    found = nifti.read_nifti(save(scan(stored, scaling=scaling), tmp_path / "scan.nii"))
    slope, intercept = (float(np.float32(number)) for number in scaling)
    np.testing.assert_allclose(found.data, stored * slope + intercept, rtol=0, atol=1e-3 * slope)


def test_the_fourth_axis_is_a_series(tmp_path: Path) -> None:
    assert nifti.read_nifti(save(scan(noisy(*SHAPE)), tmp_path / "volume.nii")).series is None
    assert nifti.read_nifti(save(scan(noisy(*SHAPE, 2)), tmp_path / "series.nii")).series == 3


def test_spacing_is_that_of_the_spatial_axes(tmp_path: Path) -> None:
    series = nifti.read_nifti(save(scan(noisy(*SHAPE, 2), affine=RAS), tmp_path / "series.nii"))
    assert series.spacing == (2, 3, 4)
    image = nifti.read_nifti(save(scan(noisy(6, 7), affine=RAS), tmp_path / "image.nii"))
    assert image.spacing == (2, 3)


def test_spacing_is_unknown_where_the_header_gives_none(tmp_path: Path) -> None:
    path = save(scan(noisy(*SHAPE)), tmp_path / "scan.nii")
    raw = bytearray(path.read_bytes())
    raw[80:84] = np.float32(np.nan).tobytes()  # pixdim[1]
    path.write_bytes(raw)
    assert nifti.read_nifti(path).spacing is None


def test_trailing_axes_of_one_are_dropped_and_come_back(tmp_path: Path) -> None:
    data = noisy(*SHAPE).astype("f4")[..., None, None]
    found = nifti.read_nifti(save(NIFTI.Nifti1Image(data, RAS), tmp_path / "scan.nii"))
    assert found.data.shape == (*SHAPE, 1)
    assert nifti.image_like(found, found.data).shape == data.shape


# ---------------------------------------------------------------- what cannot be read


Damage = Callable[[bytes], bytes]


def first(share: float) -> Damage:
    return lambda raw: raw[: int(share * len(raw))]


def put(place: int, new: bytes) -> Damage:
    return lambda raw: raw[:place] + new + raw[place + len(new) :]


def other_values_under_the_same_checksum(raw: bytes) -> bytes:
    """Damage that decompresses without an error, to wrong values."""
    values = bytearray(gzip.decompress(raw))
    values[-3] ^= 64
    return gzip.compress(values)[:-8] + raw[-8:]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        pytest.param("scan.nii.gz", lambda raw: b"no image at all", id="text"),
        pytest.param("scan.nii.gz", lambda raw: gzip.compress(b"no image at all"), id="packed text"),
        pytest.param("scan.nii.gz", lambda raw: b"", id="empty"),
        pytest.param("scan.nii.gz", first(0.5), id="half"),
        pytest.param("scan.nii.gz", lambda raw: raw[:-4], id="without its end"),
        pytest.param("scan.nii.gz", lambda raw: raw[:-8] + bytes(4) + raw[-4:], id="another checksum"),
        pytest.param("scan.nii.gz", other_values_under_the_same_checksum, id="other values"),
        pytest.param("scan.nii.gz", put(200, bytes(100)), id="a hole"),
        pytest.param("scan.nii", first(0.5), id="half, not packed"),
        pytest.param("scan.nii", first(0.1), id="part of a header"),
        pytest.param("scan.nii", put(42, b"\xff\x7f"), id="32767 voxels along x"),
        pytest.param("scan.nii", put(70, b"\x03\x00"), id="no such data type"),
        pytest.param("scan.nii", put(108, np.float32(1e30).tobytes()), id="voxels beyond the end"),
    ],
)
def test_a_damaged_file_is_named(name: str, damage: Damage, tmp_path: Path) -> None:
    path = save(NIFTI.Nifti1Image(noisy(*SHAPE).astype("f4"), RAS), tmp_path / name)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"cannot be read; it may be damaged or not an image: \S") as error:
        nifti.read_nifti(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


COLOURS = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])


@pytest.mark.parametrize("scaling", [None, (2.0, 1.0)], ids=["unscaled", "scaled"])
@pytest.mark.parametrize(("data", "message"), [(COLOURS, "colours"), (noisy(*SHAPE).astype("c8"), "complex")])
def test_only_real_numbers_are_read(
    data: Any, message: str, scaling: tuple[float, float] | None, tmp_path: Path
) -> None:
    path = save(NIFTI.Nifti1Image(data, RAS), tmp_path / "scan.nii")
    raw = bytearray(path.read_bytes())
    raw[112:120] = np.array(scaling or (1, 0), "<f4").tobytes()
    path.write_bytes(raw)
    with pytest.raises(TypeError, match=rf"scan\.nii .*{message}"):
        nifti.read_nifti(path)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    data = noisy(*SHAPE)
    data[3, 3, 3] = value
    with pytest.raises(ValueError, match=r"scan\.nii contains infinite values; replace them"):
        nifti.read_nifti(save(scan(data, "f4"), tmp_path / "scan.nii"))


@pytest.mark.parametrize("shape", [(20,), (3, 3, 3, 1, 2), (2, 2, 2, 2, 2, 2)])
def test_what_is_no_image_or_series_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="only 2D, 3D and series"):
        nifti.read_nifti(save(NIFTI.Nifti1Image(np.ones(shape, "f4"), RAS), tmp_path / "scan.nii"))


def test_echoes_of_a_series_are_volumes_and_keep_their_place(tmp_path: Path) -> None:
    data = np.random.default_rng(0).random((4, 5, 6, 3, 2)).astype("f4")
    read = nifti.read_nifti(save(NIFTI.Nifti1Image(data, RAS), tmp_path / "scan.nii"))
    assert (read.data.shape, read.series) == ((4, 5, 6, 6), 3)
    np.testing.assert_array_equal(np.asarray(nifti.image_like(read, read.data).dataobj), data)
    assert nifti.image_like(read, read.data[..., 0]).shape == (4, 5, 6)


def test_files_without_voxels_are_refused(tmp_path: Path) -> None:
    surface = NIFTI.gifti.GiftiImage()
    with pytest.raises(TypeError, match="GiftiImage, which has no voxels"):
        nifti.read_nifti(save(surface, tmp_path / "surface.gii"))


def test_a_scan_larger_than_the_memory_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise MemoryError("Unable to allocate 20.0 GiB")

    path = save(scan(noisy(8, 9, 10)), tmp_path / "scan.nii.gz")
    monkeypatch.setattr("nlmeans.files.formats.nifti.np.asarray", full)
    with pytest.raises(MemoryError, match=r"scan.nii.gz does not fit into free memory: Unable to allocate"):
        nifti.read_nifti(path)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        nifti.read_nifti(tmp_path / "none.nii")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        nifti.read_nifti(tmp_path)


# ---------------------------------------------------------------- an image like the one that was read


def copied(source: Path, target: Path, change: float = 0.0, keep_type: bool = True) -> Path:
    found = nifti.read_nifti(source)
    return save(nifti.image_like(found, found.data + found.data.dtype.type(change), keep_type), target)


EXAMPLES = ("example4d.nii.gz", "functional.nii", "anatomical.nii", "example_nifti2.nii.gz", "standard.nii.gz")


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_nibabel_come_back_whole(name: str, tmp_path: Path) -> None:
    source = Path(data_path) / name
    copy = copied(source, tmp_path / name)
    assert header_on_disk(copy) == header_on_disk(source)
    original, again = (NIFTI.load(path).dataobj.get_unscaled() for path in (source, copy))
    np.testing.assert_array_equal(again, original)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", ">i2", "u2", "i4", "u4", "i8", "u8", "f4", ">f4", "f8"])
@pytest.mark.parametrize("scaling", [None, (0.25, -30.0), (1.0, 7.0)], ids=["unscaled", "scaled", "shifted"])
def test_every_type_comes_back_whole(dtype: str, scaling: tuple[float, float] | None, tmp_path: Path) -> None:
    stored = (noisy(*SHAPE) / 2).astype(dtype)
    source = save(scan(stored, scaling=scaling), tmp_path / "scan.nii")
    copy = copied(source, tmp_path / "copy.nii")
    assert header_on_disk(copy) == header_on_disk(source)
    exact = 1e-6 if stored.dtype.kind == "f" and scaling else 0
    np.testing.assert_allclose(NIFTI.load(copy).dataobj.get_unscaled(), stored, rtol=exact)


@pytest.mark.parametrize("dtype", ["u1", "i2"])
def test_values_beyond_a_type_stop_at_its_ends(dtype: str, tmp_path: Path) -> None:
    source = save(scan(noisy(*SHAPE), dtype, scaling=(0.5, 0)), tmp_path / "scan.nii")
    for change, end in ((1e6, np.iinfo(dtype).max), (-1e6, np.iinfo(dtype).min)):
        copy = copied(source, tmp_path / "copy.nii", change)
        assert set(NIFTI.load(copy).dataobj.get_unscaled().ravel().tolist()) == {end}


def test_float_changes_type_and_scaling_alone(tmp_path: Path) -> None:
    source = save(scan(noisy(*SHAPE), "i2", scaling=(0.25, -30)), tmp_path / "scan.nii")
    before, after = (header_on_disk(path) for path in (source, copied(source, tmp_path / "copy.nii", 0, False)))
    assert {name for name in before if before[name] != after[name]} == {"datatype", "bitpix", "scaling"}
    np.testing.assert_allclose(values(tmp_path / "copy.nii"), values(source), rtol=1e-6)
    assert values(tmp_path / "copy.nii").dtype == np.float32


OTHER_FORMATS: dict[str, Callable[[Any], Any]] = {
    "scan.mgz": lambda data: NIFTI.MGHImage(data.astype("f4"), LPS),
    "analyze.img": lambda data: NIFTI.AnalyzeImage(data.astype("i2"), LPS),
    "scaled.img": lambda data: NIFTI.Spm2AnalyzeImage(data.astype("f4") / 7, LPS, dtype="i2"),
    "pair.img": lambda data: NIFTI.Nifti1Pair(data.astype("i2"), LPS),
}


@pytest.mark.parametrize("name", OTHER_FORMATS)
def test_other_formats_keep_values_places_and_voxel_size(name: str, tmp_path: Path) -> None:
    source = save(OTHER_FORMATS[name](noisy(*SHAPE)), tmp_path / name)
    copy = copied(source, tmp_path / "copy.nii")
    np.testing.assert_allclose(values(copy), values(source), rtol=1e-6)
    np.testing.assert_allclose(NIFTI.load(copy).affine, NIFTI.load(source).affine, atol=1e-5)
    np.testing.assert_allclose(nifti.read_nifti(copy).spacing, (2, 3, 4), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "step"), [("phantom_EPI_asc_CLEAR_2_1.PAR", 2.0), ("example4d+orig.HEAD", 3.0), ("scaled+tlrc.HEAD", None)]
)
def test_other_formats_of_nibabel_are_in_mm_and_seconds(name: str, step: float | None) -> None:
    path = Path(data_path) / name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # nibabel leaves PAR/REC open
        found, original = nifti.read_nifti(path), NIFTI.load(path)
        affine, zooms = original.affine, original.header.get_zooms()
        del original
        gc.collect()
    np.testing.assert_allclose(found.image.affine, affine)
    assert found.image.header.get_xyzt_units()[0] == "mm"
    assert nifti.seconds_between(found.image) == step
    assert found.spacing == pytest.approx(zooms[:3], rel=1e-5)


def test_a_pet_image_of_ecat_is_read_where_nibabel_puts_it() -> None:
    found = nifti.read_nifti(Path(data_path) / "tinypet.v")
    gc.collect()  # nothing was left open
    assert (found.data.shape, found.spacing) == ((10, 10, 3, 1), pytest.approx((2.2024, 2.2024, 3.125), rel=1e-4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # nibabel's own load leaves it open
        original = NIFTI.ecat.load(Path(data_path) / "tinypet.v")
        np.testing.assert_array_equal(found.data, np.asarray(original.dataobj))
        np.testing.assert_allclose(found.image.affine, original.affine)
        del original
        gc.collect()


def test_it_is_said_that_analyze_has_no_sides(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(NIFTI.AnalyzeImage(noisy(*SHAPE).astype("i2"), np.diag([2.0, 3, 4, 1])), tmp_path / "scan.img")
    found = nifti.read_nifti(tmp_path / "scan.img")
    assert found.spacing == (2, 3, 4)
    assert "scan.img is Analyze, which does not say where right and left are" in caplog.text
