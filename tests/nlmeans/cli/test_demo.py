"""``nlmeans demo`` gains six decibels."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from matplotlib.image import imread

from nlmeans.files import samples
from tests.nlmeans.cli.calls import assert_one_line, call
from tests.nlmeans.scans import (
    contents,
)


def test_demo_gains_six_decibels_everywhere_and_in_the_head(tmp_path: Path) -> None:
    result = call("demo", "--out", tmp_path / "new" / "demo")
    assert result.exit_code == 0, result.stderr
    (gains,) = re.findall(r"^gain +(\S+) dB +(\S+) dB +(\S+)$", result.stdout, re.MULTILINE)
    everywhere, inside, similarity = map(float, gains)
    assert everywhere >= 6
    assert inside >= 6
    assert similarity > 0
    assert set(contents(tmp_path / "new" / "demo")) == {"head_denoised.nii.gz", "head_denoised.json", "head.png"}


@pytest.mark.parametrize("sample", [name.removesuffix(".nii.gz") for name in samples.truth() if name[:4] != "head"])
def test_every_sample_comes_nearer_to_its_truth(sample: str, tmp_path: Path) -> None:
    result = call("demo", "--out", tmp_path, "--sample", sample, "--method", "classic")
    assert result.exit_code == 0, result.stderr
    (gains,) = re.findall(r"^gain +(\S+) dB +(\S+) dB +(\S+)$", result.stdout, re.MULTILINE)
    assert all(float(gain) > 0 for gain in gains)
    assert f"the truth: {samples.truth()[f'{sample}.nii.gz']['noise']} noise" in result.stdout
    assert (tmp_path / f"{sample}.png").is_file()


def test_demo_works_twice_in_a_row(tmp_path: Path) -> None:
    runs = []
    for _ in range(2):
        result = call("demo", "--out", tmp_path, "--sample", "slice")
        assert (result.exit_code, result.stderr) == (0, "")
        runs.append((result.stdout, contents(tmp_path)))
    assert runs[0] == runs[1]
    assert imread(tmp_path / "slice.png").size


def test_demo_into_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert_one_line(call("demo", "--out", tmp_path / "file"), "File exists")
