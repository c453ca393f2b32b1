"""``nlmeans batch`` says what it would do, does it, and returns 1 if a scan fails."""

from __future__ import annotations

from pathlib import Path

from nlmeans.files.bids import USUAL
from tests.nlmeans.cli.calls import call
from tests.nlmeans.cohorts import run, write_dataset
from tests.nlmeans.scans import contents


def test_help_lists_the_usual_suffixes() -> None:
    assert f" By default {', '.join(USUAL)}. " in " ".join(call("batch", "--help").stdout.split())


def test_a_dry_run_names_every_result_and_writes_nothing(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", 2)
    before = contents(root)
    result = run(root, "--dry-run")
    assert [line.split(" -> ")[0] for line in result.stdout.splitlines()] == [
        f"sub-{number}/anat/sub-{number}_T1w.nii.gz" for number in ("01", "02")
    ]
    assert contents(root) == before


def test_a_scan_that_fails_is_named_and_the_others_are_denoised(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data", 2)
    (root / "sub-01/anat/sub-01_T1w.nii.gz").write_text("no image")
    result = run(root, "--quiet")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Failed: sub-01/anat/sub-01_T1w.nii.gz: ")
    assert (root / "derivatives/nlmeans/sub-02/anat/sub-02_desc-denoised_T1w.nii.gz").is_file()
