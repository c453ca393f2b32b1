"""Cohorts with odd names and wrong sidecars: each scan is denoised or named, and nothing is written elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from nlmeans import cli
from nlmeans.files import bids
from tests.nlmeans.scans import RAS, contents, noisy, save, scan

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="such names and pipes are those of POSIX"),
    pytest.mark.usefixtures("plain_pictures"),
]

QUICK = ("--method", "classic", "--search-radius", "1", "--device", "cpu", "--threads", "1")


def run(*words: object) -> Result:
    result = CliRunner().invoke(cli.main, ["batch", *map(str, words), *QUICK])
    assert isinstance(result.exception, SystemExit | None), result.exception
    return result


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return save(scan(noisy(10, 11, 12), "i2", RAS), tmp_path / "image.nii.gz")


def test_scans_of_any_name_are_denoised_and_what_is_no_file_is_named(image: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    names = [b"two\nlines", b"\xff\xfe", "é".encode(), b"-x", b"[a]*?", b"<b>&", b"%2e%2e", b"a b"]
    for name in names:
        shutil.copy(image, os.fsencode(folder) + b"/" + name + b".nii.gz")
    shutil.copy(image, folder / ("x" * 246 + ".nii.gz"))
    os.mkfifo(folder / "pipe.nii")
    (folder / "zeros.nii").symlink_to("/dev/zero")
    (folder / "itself.nii").symlink_to(folder / "itself.nii")
    (folder / "gone.nii").symlink_to(tmp_path / "nowhere")
    (folder / "loop").symlink_to(folder)
    (folder / "folder.nii").mkdir()
    before = contents(folder)
    result = run(folder, "--out", out)
    assert result.exit_code == 1
    assert {os.fsencode(path.name) for path in out.glob("*.nii.gz")} == {name + b"_denoised.nii.gz" for name in names}
    failed = [line for line in result.stderr.splitlines() if line.startswith("Failed: ")]
    assert len(failed) == len(result.stderr.splitlines()) == 6
    for name in ("xxx", "pipe.nii", "zeros.nii", "itself.nii", "gone.nii", "folder.nii"):
        assert any(line.startswith(f"Failed: {name}") for line in failed), name
    assert contents(folder) == before
    assert {path.name for path in tmp_path.iterdir()} == {"image.nii.gz", "in", "out"}
    assert "two\nlines" in (out / "report.html").read_text(encoding="utf-8")


def test_a_name_that_is_no_text_can_be_told_on_a_terminal(image: Path, tmp_path: Path) -> None:
    source = Path(os.fsdecode(bytes(tmp_path) + b"/\xff.nii.gz"))
    shutil.move(image, source)
    target = Path(os.fsdecode(bytes(tmp_path) + b"/\xfe.nii.gz"))
    program = "from nlmeans import cli; cli.main()"
    words = [sys.executable, "-c", program, "denoise", source, target, *QUICK[:-2]]
    found = subprocess.run(words, capture_output=True, env={**os.environ, "LC_ALL": "C.UTF-8"})
    assert (found.returncode, found.stderr) == (0, b"")
    assert target.is_file()


@pytest.mark.parametrize("name", ["../outside.nii.gz", "sub/../../outside.nii.gz"])
def test_a_pattern_that_leads_upwards_writes_into_the_output_folder_alone(
    name: str, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(image, tmp_path / "outside.nii.gz")
    (tmp_path / "in" / "sub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "in")
    before = contents(tmp_path)
    assert run(name, "--out", "out").exit_code == 0
    assert {path for path in contents(tmp_path) if path not in before} == {
        f"in/out/{name}"
        for name in (
            *("outside_denoised.nii.gz", "outside_denoised.json", "report.html"),
            *("figures/outside.png", "figures/outside_noise.png"),
        )
    }


# ---------------------------------------------------------------- sidecars


def dataset(root: Path, image: Path) -> Path:
    (root / "sub-01" / "dwi").mkdir(parents=True)
    (root / bids.DESCRIPTION).write_text(json.dumps({"Name": "Toy", "BIDSVersion": "1.9.0"}))
    shutil.copy(image, root / "sub-01" / "dwi" / "sub-01_dwi.nii.gz")
    return root


SIDECARS: dict[str, tuple[bytes, str]] = {
    "nested": (b"[" * 10**6, "cannot be read as JSON: maximum recursion"),
    "twice": (b'{"EchoTime": 1, "EchoTime": 2}', "'EchoTime' is given twice"),
    "not UTF-8": (b'{"Name": "\xff"}', "cannot be read: 'utf-8' codec"),
    "empty": (b"", "cannot be read as JSON"),
    "a list": (b"[1]", "must be a JSON object"),
    "long": (b" " * (17 * 2**20) + b"{}", "longer than 16777216 bytes, the most that a sidecar may have"),
}


@pytest.mark.parametrize("kind", SIDECARS)
def test_a_sidecar_that_lies_fails_its_scan_by_name(kind: str, image: Path, tmp_path: Path) -> None:
    root = dataset(tmp_path / "study", image)
    raw, message = SIDECARS[kind]
    (root / "sub-01" / "dwi" / "sub-01_dwi.json").write_bytes(raw)
    result = run(root)
    assert result.exit_code == 1
    assert "sub-01_dwi.json" in result.stderr
    assert message in result.stderr
    assert not list((root / "derivatives").rglob("*.nii.gz"))


@pytest.mark.parametrize("kind", SIDECARS)
def test_a_description_that_lies_is_named_before_any_work(kind: str, image: Path, tmp_path: Path) -> None:
    root = dataset(tmp_path / "study", image)
    raw, message = SIDECARS[kind]
    (root / bids.DESCRIPTION).write_bytes(raw)
    before = contents(tmp_path)
    result = run(root)
    assert result.exit_code == 1
    assert bids.DESCRIPTION in result.stderr
    assert message in result.stderr
    assert contents(tmp_path) == before


@pytest.mark.parametrize("ending", [".json", ".bval", ".bvec"])
@pytest.mark.parametrize("kind", ["pipe", "device", "loop", "folder"])
def test_what_is_no_file_beside_a_scan_is_named_not_waited_for(
    kind: str, ending: str, image: Path, tmp_path: Path
) -> None:
    root = dataset(tmp_path / "study", image)
    place = root / "sub-01" / "dwi" / f"sub-01_dwi{ending}"
    makers: dict[str, Any] = {
        "pipe": lambda: os.mkfifo(place),
        "device": lambda: place.symlink_to("/dev/zero"),
        "loop": lambda: place.symlink_to(place),
        "folder": place.mkdir,
    }
    makers[kind]()
    result = run(root)
    assert result.exit_code == 1
    assert place.name in result.stderr
    assert not list((root / "derivatives").rglob("*.nii.gz"))
