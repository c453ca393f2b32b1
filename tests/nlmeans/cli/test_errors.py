"""What is wrong is said in one line, and nothing is left half-written."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import nlmeans
from nlmeans.cli.errors import interruption, keep_interrupts
from nlmeans.files.formats import nifti
from tests.nlmeans.cli.calls import QUICK, assert_one_line, call, denoised
from tests.nlmeans.scans import (
    contents,
    noisy,
    save,
    scan,
)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("none.nii out.nii", r"none\.nii: no such file"),
        ("folder.nii out.nii", r"folder\.nii is a folder"),
        ("text.nii.gz out.nii", r"text\.nii\.gz cannot be read"),
        ("short.nii.gz out.nii", r"short\.nii\.gz cannot be read"),
        ("short.nii out.nii", r"short\.nii cannot be read"),
        ("checksum.nii.gz out.nii", r"checksum\.nii\.gz cannot be read; .*CRC"),
        ("hole.nii.gz out.nii", r"hole\.nii\.gz cannot be read"),
        ("inf.nii out.nii", r"inf\.nii contains infinite values; replace them, for instance by NaN"),
        ("line.nii out.nii", r"line\.nii has shape \(20,\); only 2D, 3D and series"),
        ("five.nii out.nii", r"five\.nii has shape \(3, 3, 3, 1, 2\); only 2D, 3D and series"),
        ("empty.nii out.nii", r"empty\.nii"),
        ("colours.nii out.nii", r"colours\.nii holds colours .* convert it to grey"),
        ("good.nii.gz out.nii --mask complex.nii", r"complex\.nii has dtype complex64; give .* its magnitude"),
        ("good.nii.gz out.nii --sigma -3", r"sigma=-3.0 must not be negative"),
        ("good.nii.gz out.nii --sigma nan", r"sigma=nan must be finite"),
        ("good.nii.gz out.nii --h 0", r"h=0.0 must be greater than 0"),
        ("good.nii.gz out.nii --search-radius 2.5", r"search_radius=2.5 must be whole: .* odd, never 6"),
        ("good.nii.gz out.nii --search-radius 2,2", r"search_radius=\(2, 2\) must have one number per spatial axis: 3"),
        ("good.nii.gz out.nii --patch-radius -1", r"patch_radius=-1.0 must not be negative"),
        (
            "good.nii.gz out.nii --mask mask.nii",
            r"mask\.nii has another .*shape \(10, 11, 11\) instead of \(10, 11, 12\)",
        ),
        ("good.nii.gz out.nii --mask zeros.nii", r"zeros\.nii is zero everywhere"),
        ("good.nii.gz out.nii --mask none.nii", r"none\.nii: no such file"),
        ("good.nii.gz out.nii --sigma-map mask.nii", r"mask\.nii has another grid .*; resample it with --resample"),
        ("good.nii.gz out.nii --sigma-map below.nii", r"sigma=-1.0 must not be negative"),
        (
            "good.nii.gz out.nii --sigma-map whole.nii --sigma 3",
            r"--sigma 3.0 and --sigma-map .* both describe the noise; give one of them",
        ),
        ("good.nii.gz none/out.nii", r"none: no such folder for out\.nii; make it first"),
        ("good.nii.gz out.nii --report none/out.png", r"none: no such folder for out\.png"),
        ("good.nii.gz whole.nii", r"whole\.nii exists; choose another name or add --overwrite"),
        ("good.nii.gz old.nii", r"old\.json exists"),
        ("good.nii.gz good.nii.gz", r"good\.nii\.gz exists"),
        ("good.nii.gz good.nii.gz --overwrite", r"is IN itself, which is never overwritten"),
        ("good.nii.gz link.nii.gz --overwrite", r"is IN itself, which is never overwritten"),
        ("good.nii.gz folder.nii --overwrite", r"folder\.nii is a folder"),
        ("good.nii.gz out.dcm", r"out\.dcm must end in \.nii\.gz or \.nii"),
        ("good.nii.gz out.nii --report out.jpg", r"out\.jpg must end in \.png"),
        (
            "good.nii.gz out.nii --device toaster",
            r"device='toaster' is not available or not known to torch; use one of cpu",
        ),
        ("good.nii.gz out.nii --device cuda:99", r"device='cuda:99' is not available"),
        ("good.nii.gz out.nii --memory plenty", r"memory='plenty' is not an amount of memory; write for instance"),
        ("good.nii.gz out.nii --memory 1MB", r"memory=1000000 bytes is too little"),
    ],
)
def test_a_mistake_gives_one_line_and_leaves_nothing(
    words: str, message: str, wrong: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(wrong)
    monkeypatch.chdir(wrong)
    assert_one_line(call("denoise", *words.split()), message)
    assert contents(wrong) == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to_is_refused_before_any_work(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    assert_one_line(call("denoise", source, folder / "out.nii"), "may not be written to; choose another")


@pytest.mark.usefixtures("old")
@pytest.mark.parametrize("where", ["denoise_real", "figure.save_figure"])
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (MemoryError("Unable to allocate 3 TiB"), "Unable to allocate 3 TiB"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory.\nTried to allocate 3 TiB"), "out of memory. Tried to"),
        (nlmeans.Cancelled("cancelled"), "cancelled"),
        (MemoryError(), "MemoryError"),
    ],
    ids=["disk full", "memory full", "GPU full", "cancelled", "without words"],
)
def test_a_run_that_fails_keeps_what_was_there(
    where: str, error: Exception, message: str, source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(f"nlmeans.files.denoise.{where}", fail)
    picture = target.with_name("out.png")
    assert_one_line(call("denoise", source, target, *QUICK, "--overwrite", "--report", picture), message)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Make Ctrl-C raise even if pytest runs in the background, where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("old", "interruptible")
@pytest.mark.parametrize("where", ["denoise_real", "figure.save_figure"])
def test_an_interrupt_keeps_what_was_there(
    where: str, source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"nlmeans.files.denoise.{where}", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    picture = target.with_name("out.png")
    result = call("denoise", source, target, *QUICK, "--overwrite", "--report", picture)
    assert result.exit_code == 130
    assert result.stderr == "Interrupted: nothing was left half-written.\n"


def test_an_interruption_says_whether_the_run_can_be_resumed() -> None:
    assert "resume" in interruption(Path("out.ome.zarr"))
    assert interruption(Path("out.nii.gz")) == "Interrupted: nothing was left half-written."


@pytest.fixture
def files_of_at_most() -> Iterator[Callable[[int], None]]:
    """Limit the size of files, so that writing fails halfway, as on a full disk."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("ending", nifti.ENDINGS)
def test_a_file_that_stops_halfway_does_not_stay(
    ending: str, tmp_path: Path, files_of_at_most: Callable[[int], None]
) -> None:
    source = save(scan(noisy(40, 40, 40), "f8"), tmp_path / f"in{ending}")
    target = tmp_path / f"out{ending}"
    denoised(source, target)  # numba writes its own files here
    before = contents(tmp_path)
    files_of_at_most(100_000)
    result = call("denoise", source, target, *QUICK, "--overwrite")
    files_of_at_most(-1)
    assert_one_line(result, rf"out{ending} cannot be written: File too large")
    assert contents(tmp_path) == before


def test_an_interruption_in_a_finaliser_stops_the_command_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    class Interrupted:
        def __del__(self) -> None:
            raise KeyboardInterrupt

    before, take_back = sys.unraisablehook, keep_interrupts()
    try:
        Interrupted()
        with pytest.raises(KeyboardInterrupt):
            any(time.sleep(0.01) for _ in range(1000))  # one long sleep would end first
    finally:
        take_back()
    assert sys.unraisablehook is before
    assert "Traceback" not in capsys.readouterr().err
