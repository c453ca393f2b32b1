"""Files of microscopes' makers are read by bioio as OME-TIFF is: times and channels as volumes, sizes in mm."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

from nlmeans.core import memory
from nlmeans.files.denoise import denoise_file
from nlmeans.files.formats import microscopy, nifti, registry
from tests.nlmeans.cli.calls import call

VALUES = np.random.default_rng(0).integers(100, 4000, (2, 3, 5, 6, 7)).astype("u2")
"""T, C, Z, Y, X."""

LIBRARIES = [one.library for one in registry.FORMATS if one.home == "formats.microscopy"]


class Sizes(NamedTuple):
    """As bioio has them, in µm."""

    Z: float | None = 1.5
    Y: float | None = 0.3
    X: float | None = 0.2


class Stand:
    """A stand-in for ``bioio.BioImage``, with what every reader of bioio has."""

    def __init__(self, values: Any, order: str, **about: Any) -> None:
        self.data, self.shape, self.dtype = values, values.shape, values.dtype
        self.dims = SimpleNamespace(order=order)
        self.scenes: tuple[str, ...] = about.get("scenes", ("Image:0",))
        self.physical_pixel_sizes: Sizes = about.get("sizes", Sizes())
        self.time_interval: datetime.timedelta | None = about.get("interval")


@pytest.fixture
def microscope(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """Let bioio and its reader of CZI, installed or not, find values in a file; the file is returned."""

    def find(values: Any = VALUES, order: str = "TCZYX", **about: Any) -> Path:
        bioio, reader = ModuleType("bioio"), ModuleType("bioio_czi")
        bioio.BioImage = lambda path, reader: Stand(values, order, **about)  # type: ignore[attr-defined]
        reader.Reader = object  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "bioio", bioio)
        monkeypatch.setitem(sys.modules, "bioio_czi", reader)
        (tmp_path / "a.czi").write_bytes(b"CZI")
        return tmp_path / "a.czi"

    return find


def test_times_and_channels_are_volumes_and_sizes_are_in_mm(microscope: Callable[..., Path]) -> None:
    scan = registry.load_scan(microscope(interval=datetime.timedelta(seconds=2.5)))
    assert (scan.data.dtype, scan.series) == (VALUES.dtype, 3)
    np.testing.assert_array_equal(scan.data, VALUES.transpose(4, 3, 2, 0, 1).reshape(7, 6, 5, 6))
    np.testing.assert_allclose(scan.spacing, (0.0002, 0.0003, 0.0015), rtol=1e-6)
    assert scan.image.header.get_xyzt_units() == ("mm", "sec")
    assert nifti.seconds_between(scan.image) == 2.5


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        ((1, 1, 5, 6, 7), (7, 6, 5)),
        ((1, 1, 1, 6, 7), (7, 6)),
        ((1, 3, 1, 6, 7), (7, 6, 1, 3)),
        ((2, 1, 5, 6, 7), (7, 6, 5, 2)),
        ((1, 1, 5, 1, 1), (1, 1, 5)),
    ],
)
def test_axes_of_length_one_are_no_volumes(
    shape: tuple[int, ...], found: tuple[int, ...], microscope: Callable[..., Path]
) -> None:
    values = VALUES[tuple(slice(length) for length in shape)]
    scan = registry.load_scan(microscope(values))
    assert scan.data.shape == found
    np.testing.assert_array_equal(scan.data.ravel(), values.transpose(4, 3, 2, 0, 1).ravel())


def test_an_ome_tiff_has_the_times_and_channels_of_its_source(microscope: Callable[..., Path], tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    scan, target = registry.load_scan(microscope()), tmp_path / "b.ome.tif"
    registry.save_scan(scan, scan.data, target, [target])
    with tifffile.TiffFile(target) as file:
        assert file.series[0].axes == "TCZYX"
        np.testing.assert_array_equal(file.asarray(), VALUES)
    again = registry.load_scan(target)
    np.testing.assert_array_equal(again.data, scan.data)
    np.testing.assert_allclose(again.image.affine, scan.image.affine, rtol=1e-6)


def test_missing_sizes_are_assumed_aloud(microscope: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    scan = registry.load_scan(microscope(sizes=Sizes(Z=None)))
    np.testing.assert_allclose(scan.spacing, (0.0002, 0.0003, 0.0002), rtol=1e-6)
    assert "a.czi has no voxel size along Z: 0.0002 mm is assumed" in caplog.text


@pytest.mark.parametrize(
    ("values", "order", "about", "message"),
    [
        (VALUES, "TCZYX", {"scenes": ("mouse", "rat")}, r"a\.czi holds 2 images \(mouse; rat\); export the one"),
        (VALUES[..., None], "TCZYXS", {}, r"a\.czi holds colours \(1 samples\), not intensities; convert it"),
        (VALUES[None], "MTCZYX", {}, r"a\.czi has the axes MTCZYX, .*; stitch its tiles first"),
    ],
)
def test_what_is_no_one_grey_image_is_refused(
    values: Any, order: str, about: dict[str, Any], message: str, microscope: Callable[..., Path]
) -> None:
    with pytest.raises(ValueError, match=message):
        registry.load_scan(microscope(values, order, **about))


def test_many_images_are_counted_and_the_first_are_named(microscope: Callable[..., Path]) -> None:
    path = microscope(scenes=tuple(f"s{number}" for number in range(20)))
    with pytest.raises(ValueError, match=r"holds 20 images \(s0; .*; s7; …\)"):
        microscopy.read_file(path)


def test_a_file_larger_than_memory_is_refused_before_it_is_read(
    microscope: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free", lambda: 1000)
    with pytest.raises(ValueError, match=r"a\.czi needs 2\.46 KiB, but only 0\.98 KiB is free"):
        registry.load_scan(microscope())


def test_a_denoised_file_keeps_its_voxel_size(microscope: Callable[..., Path], tmp_path: Path) -> None:
    denoise_file(microscope(VALUES[:1, :1]), tmp_path / "b.nii.gz", sigma=200.0, device="cpu")
    result = registry.load_scan(tmp_path / "b.nii.gz")
    assert result.data.std() < VALUES[0, 0].std()
    np.testing.assert_allclose(result.spacing, (0.0002, 0.0003, 0.0015), rtol=1e-6)


@pytest.mark.parametrize("missing", ["bioio", "bioio_czi"])
def test_what_is_missing_is_named_with_its_remedy(
    missing: str, microscope: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = microscope()
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ValueError, match=r"a\.czi is Zeiss CZI; to read it, install: pip install bioio bioio-czi$"):
        registry.load_scan(path)


def test_nothing_is_written_to_these_endings(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Leica LIF can be read but not written; choose another ending"):
        registry.check_written(tmp_path / "a.LIF")


def test_info_says_what_to_install_for_each_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.Format, "available", property(lambda one: one.library not in LIBRARIES))
    said = call("info").stdout
    assert "format   Zeiss CZI: .czi; needs bioio_czi: pip install bioio bioio-czi; only read\n" in said
    assert all(f"pip install bioio {library.replace('_', '-')};" in said for library in LIBRARIES)


@pytest.mark.filterwarnings("ignore")
def test_a_real_czi_file_is_read(tmp_path: Path) -> None:
    pytest.importorskip("bioio", reason="bioio and bioio-czi are not installed")
    pytest.importorskip("bioio_czi", reason="bioio-czi is not installed")
    czi = pytest.importorskip("pylibCZIrw.czi", reason="pylibCZIrw, which writes CZI, is not installed")
    with czi.create_czi(str(tmp_path / "a.czi")) as file:
        for time, channel, height in np.ndindex(VALUES.shape[:3]):
            plane = {"T": time, "C": channel, "Z": height}
            file.write(data=VALUES[time, channel, height, ..., None], plane=plane)
        file.write_metadata("a", scale_x=0.2e-6, scale_y=0.3e-6, scale_z=1.5e-6)
    scan = registry.load_scan(tmp_path / "a.czi")
    np.testing.assert_array_equal(scan.data, VALUES.transpose(4, 3, 2, 0, 1).reshape(7, 6, 5, 6))
    np.testing.assert_allclose(scan.spacing, (0.0002, 0.0003, 0.0015), rtol=1e-6)
