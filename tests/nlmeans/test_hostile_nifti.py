"""Damaged NIfTI files are read as their header says or refused by name, in little memory and time."""

from __future__ import annotations

import contextlib
import gzip
import os
import random
import sys
import tracemalloc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from nlmeans import cli
from nlmeans.core import memory
from nlmeans.files.formats import nifti, nifti_header
from tests.nlmeans.forks import Forks
from tests.nlmeans.hostile import SHAPE, bits_flipped, bomb, damaged, lying, sound
from tests.nlmeans.scans import NIFTI, contents

seeds = st.integers(0, 2**32 - 1)

CASES = 20
"""Damaged files per example of hypothesis."""

LITTLE = 20 * 2**20
"""Bytes: much more than a small file needs, and much less than a wrong header asks for."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


def outcome(path: Path) -> nifti.Scan | None:
    """Read a file in little memory; None if it was refused in one line that names it."""
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nibabel warns of extensions
            return nifti.read_nifti(path)
    except (ValueError, TypeError) as error:
        message = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < LITTLE
    assert message.startswith(str(path))
    assert "\n" not in message
    return None


def as_it_stands(raw: bytes) -> npt.NDArray[np.float64]:
    """Read the values of a NIfTI-1 file by its header alone."""
    header = NIFTI.Nifti1Header(raw[:348], check=False)
    shape, dtype = header.get_data_shape(), header.get_data_dtype()
    assert header.get_data_offset() + int(np.prod(shape)) * dtype.itemsize == len(raw)
    values = np.frombuffer(raw, dtype, offset=header.get_data_offset()).reshape(shape, order="F").astype(np.float64)
    slope, intercept = header.get_slope_inter()
    return values if slope is None else values * slope + intercept


@given(seeds)
def test_a_header_that_lies_is_refused_or_read_as_it_stands(folder: Path, seed: int) -> None:
    chance = random.Random(seed)
    for case in range(CASES):
        path = sound(folder, ".nii", seed=case % 3, dtype=chance.choice(("i2", "f4", "u1", "f8")))
        raw = lying(path.read_bytes(), chance)
        path.write_bytes(raw)
        found = outcome(path)
        if found is not None:
            expected = as_it_stands(raw)
            assert found.data.size == expected.size
            np.testing.assert_allclose(found.data.ravel("F"), expected.ravel("F"), rtol=1e-3, atol=1e-3)


@given(seeds)
def test_a_damaged_file_is_refused_or_read_as_it_stands(folder: Path, seed: int) -> None:
    chance = random.Random(seed)
    raw = sound(folder, ".nii").read_bytes()
    for _ in range(CASES):
        bad = damaged(raw, chance)
        (folder / "scan.nii").write_bytes(bad)
        found = outcome(folder / "scan.nii")
        if found is not None:
            np.testing.assert_allclose(found.data.ravel("F"), as_it_stands(bad).ravel("F"), rtol=1e-3, atol=1e-3)


@given(seeds)
def test_damage_to_a_packed_file_never_changes_what_is_read(folder: Path, seed: int) -> None:
    """The checksum covers everything except the time and the name in the gzip header."""
    chance = random.Random(seed)
    path = sound(folder, ".nii.gz")
    raw, right = path.read_bytes(), nifti.read_nifti(path)
    for _ in range(CASES):
        path.write_bytes(damaged(raw, chance))
        found = outcome(path)
        if found is not None:
            np.testing.assert_array_equal(found.data, right.data)
            assert found.image.header == right.image.header


@given(seeds)
def test_no_bit_of_a_header_changes_the_number_of_voxels(folder: Path, seed: int) -> None:
    chance = random.Random(seed)
    path = sound(folder, ".nii", dtype="f4")
    raw = path.read_bytes()
    for _ in range(CASES):
        path.write_bytes(bits_flipped(raw, chance, last=348, count=1))
        found = outcome(path)
        assert found is None or found.data.size == np.prod(SHAPE)


# ---------------------------------------------------------------- what no header may ask for


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("dim", [7] + [32767] * 7, "which takes|bytes shorter"),
        ("dim", [3, 9, 10, 10, 1, 1, 1, 1], "longer than"),
        ("dim", [3, 9, -10, 11, 1, 1, 1, 1], r"shape \(9, -10, 11\), which has no voxels"),
        ("dim", [0, 9, 10, 11, 1, 1, 1, 1], "no voxels|Cannot work out"),
        ("vox_offset", np.nan, "voxels begin at byte nan"),
        ("vox_offset", -352, "too low|longer"),
        ("vox_offset", 16, "too low|longer"),
        ("vox_offset", 1e9, "bytes shorter"),
        ("datatype", 3, "data type 3, which does not exist"),
        ("datatype", 64, "bytes shorter"),
        ("scl_slope", np.inf, "multiplies the values by inf"),
        ("scl_inter", np.nan, "invalid intercept nan"),
        ("magic", b"n-1", "Cannot work out file type"),
    ],
)
def test_a_lie_is_named(field: str, value: Any, message: str, ending: str, tmp_path: Path) -> None:
    path = sound(tmp_path, ".nii", seed=2)
    raw = path.read_bytes()
    header = np.frombuffer(raw[:348], NIFTI.Nifti1Header.template_dtype).copy()
    header[field][0] = value
    (tmp_path / "scan.nii").unlink()
    path = tmp_path / f"scan{ending}"
    with NIFTI.openers.ImageOpener(path, "wb") as file:
        file.write(header.tobytes() + raw[348:])
    with pytest.raises(ValueError, match=rf"cannot be read; .*({message})"):
        nifti.read_nifti(path)


@pytest.mark.parametrize("size", [0, 8, -16, 2000, 2**31 - 1])
def test_an_extension_without_an_end_is_refused(size: int, tmp_path: Path) -> None:
    path = sound(tmp_path, ".nii")
    raw = path.read_bytes()
    path.write_bytes(raw[:352] + np.array(size, "<i4").tobytes() + raw[356:])
    with pytest.raises(ValueError, match=f"an extension of {size} bytes at byte 352 does not fit before the voxels"):
        nifti.read_nifti(path)


def test_voxels_beside_a_header_are_as_many_as_it_says(tmp_path: Path) -> None:
    image = NIFTI.Nifti1Pair(np.ones(SHAPE, "f4"), np.eye(4))
    NIFTI.save(image, tmp_path / "pair.hdr")
    assert nifti.read_nifti(tmp_path / "pair.hdr").data.shape == SHAPE
    voxels = tmp_path / "pair.img"
    voxels.write_bytes(voxels.read_bytes() + bytes(4))
    with pytest.raises(ValueError, match=r"pair\.hdr cannot be read; .* it is longer than"):
        nifti.read_nifti(tmp_path / "pair.hdr")


# ---------------------------------------------------------------- bombs


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bomb(tmp_path / "bomb.nii.gz", (32767, 32767, 32767), 1)
    monkeypatch.setattr(nifti_header, "length_unpacked", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(ValueError, match=r"takes 32765\.00 GiB of memory, but only .* is free"):
        nifti.read_nifti(path)


def test_a_bomb_is_unpacked_no_further_than_its_header_says(tmp_path: Path) -> None:
    path = bomb(tmp_path / "bomb.nii.gz", (8, 8, 8), 64)
    assert nifti_header.length_unpacked(path, 1000) <= 2**20
    with pytest.raises(ValueError, match="longer than the 864 bytes"):
        nifti.read_nifti(path)


def test_a_packed_file_without_a_header_fits_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.mgz"
    path.write_bytes(gzip.compress(bytes(2**23)))
    monkeypatch.setattr(memory, "free", lambda: 2**20)
    with pytest.raises(ValueError, match=r"decompresses to more than the 1\.00 MiB of free memory"):
        nifti.read_nifti(path)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are those of Linux")
def test_a_bomb_takes_a_command_neither_memory_nor_time(tmp_path: Path, forks: Forks) -> None:
    path = bomb(tmp_path / "bomb.nii.gz", (1000, 1000, 20), 200)
    code, said, error = forks.python(LIMITED, "denoise", path, tmp_path / "out.nii.gz").ended()
    assert code == 1, error
    assert error.startswith(f"Error: {path} cannot be read")
    assert error.count("\n") == 1
    assert list(contents(tmp_path)) == ["bomb.nii.gz"]
    assert int(said.split()[-1]) < 50_000, "kB more than before"


LIMITED = """
import atexit, resource
from nlmeans import cli
from nlmeans.files import denoise
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
atexit.register(lambda: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
cli.main()
"""


# ---------------------------------------------------------------- the whole way


@pytest.mark.filterwarnings("ignore")  # nibabel warns of odd values
@given(seeds)
def test_the_command_line_refuses_in_one_line_or_keeps_the_header(folder: Path, seed: int) -> None:
    """Voxels may have no size or place: odd header fields are kept."""
    source, target = sound(folder, ".nii", seed=seed % 3), folder / "out.nii"
    raw = lying(source.read_bytes(), random.Random(seed))
    source.write_bytes(raw)
    result = CliRunner().invoke(cli.main, ["denoise", str(source), str(target), *QUICK])
    with written(target):
        if result.exit_code == 1:
            assert result.stderr.splitlines()[-1].startswith(f"Error: {source}")
            assert not target.exists()
            return
        assert result.exit_code == 0, result.stderr
        before, after = NIFTI.load(source), NIFTI.load(target)
        assert np.isfinite(nifti.read_nifti(target).data).all()
        assert after.shape == before.shape
        np.testing.assert_array_equal(after.affine, before.affine)
        np.testing.assert_array_equal(after.header["pixdim"], before.header["pixdim"])
    assert not set(contents(folder)) - {"scan.nii", "scan.nii.gz"}


QUICK = ("--method", "classic", "--search-radius", "1", "--patch-radius", "1", "--device", "cpu", "--quiet")


@contextlib.contextmanager
def written(target: Path) -> Iterator[None]:
    """Remove the output and its record after the test."""
    try:
        yield
    finally:
        for path in (target, target.with_suffix(".json")):
            path.unlink(missing_ok=True)


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.nii")
    with pytest.raises(ValueError, match=r"pipe\.nii is not a regular file"):
        nifti.read_nifti(tmp_path / "pipe.nii")


def test_bits_flipped_in_voxels_alone_are_not_noticed_without_a_checksum(folder: Path) -> None:
    """An uncompressed NIfTI has no checksum, so a flipped bit in its values is not noticed."""
    path = sound(folder, ".nii")
    raw = path.read_bytes()
    path.write_bytes(bits_flipped(raw, random.Random(0), first=500))
    assert nifti.read_nifti(path).data.shape == SHAPE
