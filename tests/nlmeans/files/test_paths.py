"""Paths: outputs that cannot be written are refused, links are followed, and hashes tell files apart."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nlmeans.files import paths

NIFTI = (".nii.gz", ".nii")

# ---------------------------------------------------------------- inputs


def test_an_input_that_does_not_exist_is_named(tmp_path: Path) -> None:
    paths.check_exists(tmp_path, None)
    (tmp_path / "link").symlink_to(tmp_path / "none")
    for name in ("none", "link"):
        with pytest.raises(FileNotFoundError, match=f"{name}: no such file or folder"):
            paths.check_exists(tmp_path, tmp_path / name)


def test_a_source_is_a_path_or_a_pattern_that_matches_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a1", "a2", "a[1]"):
        Path(name).touch()
    assert set(paths.existing("a*")) == {Path("a1"), Path("a2"), Path("a[1]")}
    assert list(paths.existing("a[1]")) == [Path("a[1]")]
    assert list(paths.existing(str(tmp_path / "?2"))) == [tmp_path / "a2"]
    with pytest.raises(FileNotFoundError, match=r"b\*: no such file, folder or match"):
        next(paths.existing("b*"))


def test_errors_that_name_the_file_stay_and_others_get_its_name(tmp_path: Path) -> None:
    path = tmp_path / "scan.hdr"
    path.touch()
    cases: list[tuple[Exception, type[Exception], str]] = [
        (TypeError(f"{path} holds colours"), TypeError, "holds colours"),
        (KeyError("dim"), ValueError, "cannot be read; it may be damaged or not an image: 'dim'"),
        (FileNotFoundError(2, "none", "scan.img"), FileNotFoundError, "needs the file scan.img, which is not there"),
    ]
    for raised, kind, message in cases:
        with pytest.raises(kind) as error, paths.errors_naming(path), paths.errors_naming(path):
            raise raised
        assert str(error.value).startswith(f"{path} {message}")


# ---------------------------------------------------------------- outputs


def test_outputs_that_could_not_be_written_are_refused(tmp_path: Path) -> None:
    (tmp_path / "there.nii").touch()
    (tmp_path / "folder.nii").mkdir()
    refused: list[tuple[type[Exception], str, str, bool]] = [
        (ValueError, "scan.png", r"must end in \.nii\.gz or \.nii", False),
        (FileNotFoundError, "none/scan.nii", "no such folder for scan.nii; make it first", False),
        (FileExistsError, "there.nii", "choose another name or add --overwrite", False),
        (IsADirectoryError, "folder.nii", "is a folder", True),
    ]
    for error, name, message, overwrite in refused:
        with pytest.raises(error, match=message):
            paths.check_output_file(tmp_path / name, overwrite, NIFTI)
    paths.check_output_file(tmp_path / "there.nii", True, NIFTI)
    paths.check_output_file(tmp_path / "new.nii.gz", False, NIFTI)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(PermissionError, match="may not be written to; choose another"):
            paths.check_output_file(tmp_path / "scan.nii", False, NIFTI)
    finally:
        tmp_path.chmod(0o755)


def test_sha256_is_that_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert paths.sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_hash_of_a_folder_changes_with_any_file_but_not_with_its_place(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "below").mkdir(parents=True)
        (tmp_path / name / "a").write_text("first")
        (tmp_path / name / "below" / "b").write_text("second")
    before = paths.sha256(tmp_path / "one")
    assert paths.sha256(tmp_path / "two") == before
    (tmp_path / "two" / "below" / "b").write_text("changed")
    assert paths.sha256(tmp_path / "two") != before


# ---------------------------------------------------------------- links and places


def test_a_link_that_leads_to_itself_is_followed_without_an_error(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert paths.real_path(tmp_path / "loop").parent == paths.real_path(tmp_path)


def test_paths_are_apart_only_if_neither_contains_the_other_also_through_links(tmp_path: Path) -> None:
    for name in ("scan", "scan/below", "scans"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "scan")
    scan = tmp_path / "scan"
    assert paths.apart(scan, tmp_path / "scans")
    for other in (scan, tmp_path / "scan" / "below", tmp_path, tmp_path / "link", tmp_path / "link" / "below"):
        assert not paths.apart(scan, other)
        assert not paths.apart(other, scan)


@pytest.mark.parametrize("name", ["zarr.json", ".zgroup", ".zarray"])
def test_zarr_is_known_by_its_documents(name: str, tmp_path: Path) -> None:
    assert not paths.is_zarr(tmp_path)
    assert not paths.is_zarr(tmp_path / "missing.zarr")
    (tmp_path / name).touch()
    assert paths.is_zarr(tmp_path)


# ---------------------------------------------------------------- errors


def raised_inside(path: Path, error: Exception) -> Exception:
    """Return the error that comes out of `errors_naming` when this one is raised inside."""
    with (
        pytest.raises(type(error) if isinstance(error, MemoryError) else ValueError) as caught,
        paths.errors_naming(path),
    ):
        raise error
    return caught.value


def test_any_error_becomes_one_line_that_names_the_file() -> None:
    found = raised_inside(Path("scan.nii"), KeyError("no\nsuch  tag"))
    assert str(found) == "scan.nii cannot be read; it may be damaged or not an image: 'no\\nsuch tag'"


def test_an_error_that_names_the_file_already_stays_as_it_is() -> None:
    error = ValueError("scan.nii has no voxels")
    assert raised_inside(Path("scan.nii"), error) is error


def test_too_little_memory_is_not_called_damage() -> None:
    found = raised_inside(Path("scan.nii"), MemoryError("20 GiB"))
    assert str(found) == "scan.nii does not fit into free memory: 20 GiB"
