"""Runs that are killed, interrupted, or short of disk or memory leave a complete result or none."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from nlmeans import cli
from nlmeans.files import batch, computed, paths
from nlmeans.files.formats import nifti, registry
from tests.nlmeans.cohorts import write_dataset
from tests.nlmeans.forks import Fork, Forks
from tests.nlmeans.scans import RAS, contents, names, noisy, save, scan

pytestmark = pytest.mark.usefixtures("plain_pictures")

posix = pytest.mark.skipif(os.name != "posix", reason="signals, limits and locks are those of POSIX")

QUICK = ("--method", "classic", "--search-radius", "1", "--device", "cpu")

SEED = 7


def image(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return save(scan(noisy(10, 11, 12, seed=seed), "i2", RAS), path)


def assert_whole(target: Path) -> dict[str, Any]:
    """Check that the image can be read and that its record belongs to it. Returns the record."""
    nifti.read_nifti(target)
    record: dict[str, Any] = json.loads(target.with_name(target.name.partition(".")[0] + ".json").read_text())
    assert record["output_sha256"] == paths.sha256(target)
    return record


# ---------------------------------------------------------------- real runs, at random times


def ended(child: Fork) -> tuple[int, str]:
    """Wait for a process. Returns its exit code and standard error, which must not be a traceback."""
    code, _, error = child.ended()
    assert "Traceback" not in error
    return code, error


@posix
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_is_stopped_leaves_a_whole_result_or_none(
    kind: signal.Signals, tmp_path: Path, runs: int, forks: Forks
) -> None:
    chance = random.Random(SEED)
    source, target = image(tmp_path / "in" / "scan.nii.gz"), tmp_path / "out" / "scan.nii.gz"
    target.parent.mkdir()
    for _ in range(runs):
        child = forks.start("denoise", source, target, "--overwrite", *QUICK)
        time.sleep(chance.uniform(0, 2.0))
        os.kill(child.pid, kind)
        code, error = ended(child)
        if target.exists():
            assert_whole(target)
        if kind != signal.SIGKILL:
            late = code == -kind and target.exists()  # everything was done, and Python no longer handled signals
            assert late or code in (0, 130), error
            assert not any(name.startswith(".nlmeans-") for name in names(target.parent))
    result = CliRunner().invoke(cli.main, ["denoise", str(source), str(target), "--overwrite", *QUICK])
    assert result.exit_code == 0, result.stderr
    assert_whole(target)
    assert sorted(names(target.parent)) == ["scan.json", "scan.nii.gz"]


@posix
def test_an_interrupt_while_python_ends_says_nothing(forks: Forks) -> None:
    late = "import atexit, signal, sys; atexit.register(signal.raise_signal, signal.SIGINT)"
    program = f"{late}; from nlmeans import cli; cli.main(['info'])"
    code, _, error = forks.python(program).ended()
    assert (code, error) == (0, "")


INTERRUPTED_IMPORT = """
import importlib.abc, signal, sys

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Finder())
from nlmeans import cli
cli.main()
"""


@posix
@pytest.mark.parametrize("command", ["denoise scan.nii out.nii", "batch scan.nii --out out", "noise scan.nii", "demo"])
def test_an_interrupt_while_torch_is_imported_is_one_line(command: str, tmp_path: Path) -> None:
    source = image(tmp_path / "scan.nii")
    words = [str(source) if word == source.name else word for word in command.split()]
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_IMPORT, *words], capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr.startswith("Interrupted: ")
    assert done.stderr.count("\n") == 1


@posix
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGKILL])
def test_a_cohort_that_is_stopped_goes_on_where_it_was(
    kind: signal.Signals, tmp_path: Path, runs: int, forks: Forks
) -> None:
    chance = random.Random(SEED)
    for index in range(2):
        image(tmp_path / "in" / f"{index}.nii.gz", seed=index)
    words = ("batch", tmp_path / "in", "--out", tmp_path / "out", "--workers", 2, "--threads", 1, *QUICK)
    for _ in range(runs):
        child = forks.start(*words)
        time.sleep(chance.uniform(0, 8.0))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, kind)
        code, error = ended(child)
        assert kind == signal.SIGKILL or code in (0, 130, -kind), error
        for target in (tmp_path / "out").glob("[0-9]_denoised.nii.gz"):
            if target.with_name(target.name.partition(".")[0] + ".json").exists():
                assert_whole(target)
    rest = (*words[:4], "--threads", 1, *QUICK)  # in this process, where everything is imported already
    assert CliRunner().invoke(cli.main, [str(word) for word in rest]).exit_code == 0
    for index in range(2):
        assert_whole(tmp_path / "out" / f"{index}_denoised.nii.gz")
    assert not [name for name in contents(tmp_path / "out") if ".nlmeans-" in name]


@posix
@pytest.mark.parametrize("ending", [".mhd", ".nhdr", ".hdr"])
def test_a_header_and_its_voxels_are_both_whole_or_none_is_there(
    ending: str, tmp_path: Path, runs: int, forks: Forks
) -> None:
    if ending != ".hdr":
        pytest.importorskip("SimpleITK")
    chance = random.Random(SEED)
    source, target = image(tmp_path / "in" / "scan.nii.gz"), tmp_path / "out" / f"scan{ending}"
    target.parent.mkdir()
    words = ("denoise", source, target, "--overwrite", *QUICK)
    for _ in range(runs):
        child = forks.start(*words)
        time.sleep(chance.uniform(0, 2.0))
        os.kill(child.pid, signal.SIGKILL)
        ended(child)
        if target.exists():
            assert registry.load_scan(target).data.shape == (10, 11, 12)
            record = json.loads(target.with_name("scan.json").read_text())
            assert record["output_sha256"] == registry.hash_of(target)
    assert CliRunner().invoke(cli.main, [str(word) for word in words]).exit_code == 0
    assert sorted(names(target.parent)) == sorted([*(file.name for file in registry.files_of(target)), "scan.json"])


@posix
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGKILL])
def test_a_bids_app_that_is_stopped_goes_on_where_it_was(
    kind: signal.Signals, tmp_path: Path, runs: int, forks: Forks
) -> None:
    chance = random.Random(SEED)
    dataset, out = write_dataset(tmp_path / "data", 2), tmp_path / "out"
    words = ("bids", dataset, out, "participant", "--threads", 1, *QUICK)
    for _ in range(runs):
        child = forks.start(*words)
        time.sleep(chance.uniform(0, 4.0))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, kind)
        code, error = ended(child)
        assert kind == signal.SIGKILL or code in (0, 130, -kind), error
    assert CliRunner().invoke(cli.main, [str(word) for word in words]).exit_code == 0
    for number in ("01", "02"):
        assert_whole(out / f"sub-{number}" / "anat" / f"sub-{number}_desc-denoised_T1w.nii.gz")
    assert not [name for name in contents(out) if ".nlmeans-" in name]


@pytest.fixture
def runs(request: pytest.FixtureRequest) -> int:
    """Number of runs; more in a thorough test."""
    return 25 if request.config.getoption("--hypothesis-profile") == "thorough" else 1


@posix
def test_two_commands_that_write_the_same_leave_the_result_of_one(tmp_path: Path, forks: Forks) -> None:
    target = tmp_path / "out.nii.gz"
    sources = [image(tmp_path / f"in{index}" / f"{index}.nii.gz", seed=index) for index in range(2)]
    children = [
        forks.start("denoise", source, target, "--overwrite", "--report", tmp_path / "out.png", *QUICK)
        for source in sources
    ]
    assert [ended(child)[0] for child in children] == [0, 0]
    record = assert_whole(target)
    source = next(source for source in sources if source.name == record["input"])
    assert record["input_sha256"] == paths.sha256(source)
    alone = tmp_path / "alone.nii.gz"
    assert CliRunner().invoke(cli.main, ["denoise", str(source), str(alone), *QUICK]).exit_code == 0
    np.testing.assert_array_equal(nifti.read_nifti(alone).data, nifti.read_nifti(target).data)
    assert {name for name in names(tmp_path) if name.startswith((".", "out"))} == {
        "out.nii.gz",
        "out.json",
        "out.png",
    }


# ---------------------------------------------------------------- the disk


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    if (
        not shutil.which("mount")
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True
        ).returncode
    ):
        pytest.skip("only root may mount a small tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@posix
def test_a_full_disk_is_named_and_changes_nothing(tmp_path: Path) -> None:
    source = save(scan(noisy(40, 40, 40), "f4", RAS), tmp_path / "scan.nii.gz")
    with small_disk(tmp_path / "disk", "128k") as disk:
        (disk / "out.nii.gz").write_text("old")
        (disk / "out.json").write_text("old")
        result = CliRunner().invoke(cli.main, ["denoise", str(source), str(disk / "out.nii.gz"), "--overwrite", *QUICK])
        assert result.exit_code == 1
        assert result.stderr == (
            f"Error: {disk}/out.nii.gz cannot be written: No space left on device; nothing was changed: make room "
            "there, or choose another folder\n"
        )
        assert [(disk / name).read_text() for name in ("out.nii.gz", "out.json")] == ["old", "old"]
        assert len(names(disk)) == 2


@posix
def test_a_limit_of_the_size_of_files_is_named(tmp_path: Path, forks: Forks) -> None:
    source = save(scan(noisy(40, 40, 40), "f4", RAS), tmp_path / "scan.nii.gz")
    before = contents(tmp_path)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))"
    child = forks.start("denoise", source, tmp_path / "out.nii.gz", *QUICK, before=limit)
    code, error = ended(child)
    assert (code, error.count("\n")) == (1, 1)
    assert "out.nii.gz cannot be written: File too large; nothing was changed: make room" in error
    assert contents(tmp_path) == before


@posix
def test_a_disk_that_may_only_be_read_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = image(tmp_path / "scan.nii.gz")
    with small_disk(tmp_path / "disk", "1m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        monkeypatch.setattr("nlmeans.files.computed.denoise_array", lambda *_, **__: pytest.fail("worked"))
        result = CliRunner().invoke(cli.main, ["denoise", str(source), str(disk / "out.nii.gz"), *QUICK])
    assert result.exit_code == 1
    assert "may not be written to; choose another" in result.stderr


@posix
def test_a_result_on_another_disk_is_whole(tmp_path: Path) -> None:
    source = image(tmp_path / "scan.nii.gz")
    with small_disk(tmp_path / "disk", "1m") as disk:
        result = CliRunner().invoke(cli.main, ["denoise", str(source), str(disk / "out.nii.gz"), *QUICK])
        assert result.exit_code == 0, result.stderr
        assert_whole(disk / "out.nii.gz")


def test_a_folder_that_goes_while_it_works_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = image(tmp_path / "scan.nii.gz"), tmp_path / "out" / "out.nii.gz"
    target.parent.mkdir()
    run = computed.denoise_array

    def working(*data: Any, **options: Any) -> Any:
        shutil.rmtree(target.parent)
        return run(*data, **options)

    monkeypatch.setattr("nlmeans.files.computed.denoise_array", working)
    result = CliRunner().invoke(cli.main, ["denoise", str(source), str(target), *QUICK])
    assert result.exit_code == 1
    assert "its folder is no longer there: make it again, or choose another" in result.stderr
    assert not target.parent.exists()


# ---------------------------------------------------------------- memory, and workers


@posix
@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are those of Linux")
def test_too_little_memory_is_said_in_one_line(tmp_path: Path, forks: Forks) -> None:
    source = save(scan(np.tile(noisy(40, 40, 40), (4, 4, 4)), "f4", RAS), tmp_path / "scan.nii")
    before = contents(tmp_path)
    limit = (
        "import psutil, resource; used = psutil.Process().memory_info().vms; "
        "resource.setrlimit(resource.RLIMIT_AS, (used + 25_000_000, used + 25_000_000))"
    )
    child = forks.start("denoise", source, tmp_path / "out.nii", "--sigma", 10, "--memory", "8GB", *QUICK, before=limit)
    code, error = ended(child)
    assert code == 1, error
    assert error.startswith("Error: "), error
    assert "memory" in error or "allocate" in error
    assert error.count("\n") == 1
    assert contents(tmp_path) == before


def test_a_finished_scan_whose_result_was_damaged_is_done_again(tmp_path: Path) -> None:
    source = image(tmp_path / "scan.nii.gz")
    options = {"noise": "gaussian", "method": "classic", "search_radius": 1.0}
    job = batch.Job("scan", source, tmp_path / "out" / "a.nii.gz", tmp_path / "out" / "a.png", options)
    assert batch.run_job(job).state == "denoised"
    assert batch.run_job(job).state == "finished before"
    job.target.write_bytes(job.target.read_bytes()[:-10])
    assert batch.run_job(job).state == "denoised"
    assert_whole(job.target)
