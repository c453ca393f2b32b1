"""``nlmeans bids`` follows the convention of BIDS Apps and gives the results of ``nlmeans batch``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

import nlmeans
from nlmeans import cli
from tests.nlmeans.cli.calls import assert_one_line, call
from tests.nlmeans.cohorts import QUICK, image, run, write_dataset
from tests.nlmeans.scans import NIFTI, contents, values

pytestmark = pytest.mark.usefixtures("plain_pictures")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Three participants; the third has two sessions."""
    root = write_dataset(tmp_path / "data", 2)
    for session in ("01", "02"):
        image(root / f"sub-03/ses-{session}/anat/sub-03_ses-{session}_T1w.nii.gz", seed=int(session))
    return root


def app(*words: object) -> Result:
    return call("bids", *words, *QUICK)


def scans(out: Path) -> set[str]:
    return {path.relative_to(out).as_posix() for path in out.rglob("*.nii.gz")}


def test_names_voxels_headers_and_sidecars_are_those_of_batch(dataset: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "batch", tmp_path / "bids"
    assert run(dataset, "--out", one).exit_code == 0
    result = app(dataset, other, "participant")
    assert (result.exit_code, result.stderr) == (0, "")
    assert set(contents(one)) == set(contents(other))
    assert "sub-01/anat/sub-01_desc-denoised_T1w.nii.gz" in scans(other)
    assert len(scans(other)) == 4
    for name in scans(other):
        np.testing.assert_array_equal(values(one / name), values(other / name))
        assert NIFTI.load(one / name).header == NIFTI.load(other / name).header
    for path in (path.relative_to(other) for path in other.rglob("*.json")):
        first, second = (json.loads((out / path).read_text()) for out in (one, other))
        assert first.keys() == second.keys()
        for name in ("Sources", "settings", "sigma", "output_sha256", "GeneratedBy"):
            assert first.get(name) == second.get(name)


@pytest.mark.parametrize("words", [("01", "sub-03"), ("sub-01", "--quiet", "--participant_label", "03")])
def test_labels_follow_each_other_with_or_without_sub(words: tuple[str, ...], dataset: Path, tmp_path: Path) -> None:
    result = app(dataset, tmp_path / "out", "participant", "--participant-label", *words)
    assert result.exit_code == 0, result.stderr
    assert {name.split("/")[0] for name in scans(tmp_path / "out")} == {"sub-01", "sub-03"}


def test_sessions_are_chosen_by_label(dataset: Path, tmp_path: Path) -> None:
    words = ("--participant-label", "03", "--session-label", "ses-02", "--skip_bids_validation")
    assert app(dataset, tmp_path / "out", "participant", *words).exit_code == 0
    assert scans(tmp_path / "out") == {"sub-03/ses-02/anat/sub-03_ses-02_desc-denoised_T1w.nii.gz"}


def test_options_of_batch_are_taken(dataset: Path, tmp_path: Path) -> None:
    result = app(dataset, tmp_path / "out", "participant", "--suffix", "T1w", "--dry_run", "--noise", "rician")
    assert result.stdout.count(": noise rician, MR") == 4
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--participant-label 01 07", "no image with sub 07; it has 01, 02, 03"),
        ("--session-label 01 09", "no image with ses 09; it has "),
    ],
)
def test_an_unknown_label_is_refused_by_name(words: str, message: str, dataset: Path, tmp_path: Path) -> None:
    assert_one_line(app(dataset, tmp_path / "out", "participant", *words.split()), message)
    assert not (tmp_path / "out").exists()


def test_other_levels_and_missing_words_are_refused(dataset: Path, tmp_path: Path) -> None:
    for words, message in (
        ((dataset, tmp_path / "out", "group"), "'group' is not 'participant'"),
        ((dataset, tmp_path / "out"), "Missing argument 'participant'"),
        ((dataset, tmp_path / "out", "participant", "--participant-label"), "requires an argument"),
    ):
        result = call("bids", *words)
        assert result.exit_code == 2
        assert message in result.stderr


def test_what_is_no_dataset_is_refused_with_the_remedy(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    out = tmp_path / "out"
    assert_one_line(app(tmp_path / "folder", out, "participant"), r"no dataset_description\.json.*nlmeans batch")
    assert_one_line(app(tmp_path / "none", out, "participant"), "none: no such file or folder")
    assert_one_line(app(dataset, dataset, "participant"), "did not make; choose another folder")


def test_the_script_takes_the_arguments_of_a_bids_app(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, code, start in (
        ((dataset, tmp_path / "out", "participant", "--participant-label", "02", *QUICK), 0, "1 scans; the results"),
        (("--version",), 0, f"nlmeans, version {nlmeans.__version__}"),
    ):
        monkeypatch.setattr(sys, "argv", ["nlmeans-bids", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.bids_main()
        assert end.value.code == code
        assert capsys.readouterr().out.startswith(start)
    assert scans(tmp_path / "out") == {"sub-02/anat/sub-02_desc-denoised_T1w.nii.gz"}


def test_a_run_for_all_after_one_for_each_participant_reports_all(dataset: Path, tmp_path: Path) -> None:
    for label in ("01", "02", "03"):
        assert app(dataset, tmp_path / "out", "participant", "--participant-label", label).exit_code == 0
    result = app(dataset, tmp_path / "out", "participant")
    assert "4 finished before" in result.stdout
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert all(f"sub-{label}" in report for label in ("01", "02", "03"))
