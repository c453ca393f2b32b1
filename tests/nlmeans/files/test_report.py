"""The report of a cohort shows every scan with its numbers, names failures, and stays valid HTML."""

from __future__ import annotations

import gzip
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nlmeans import NoiseModel
from nlmeans.files import bids, report
from nlmeans.files.batch import Job, Outcome
from tests.nlmeans.cohorts import image, run, write_dataset

pytestmark = pytest.mark.usefixtures("plain_pictures")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Two T1w images of two participants."""
    return write_dataset(tmp_path / "study", 2)


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.pictures: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.pictures.append(dict(attrs)["src"] or "")
        elif tag != "meta" and tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_shows_each_scan_and_its_numbers(small: Path) -> None:
    run(small)
    out = small / "derivatives" / "nlmeans"
    text = (out / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert page.open == []
    names = [f"figures/sub-0{number}_desc-denoised_T1w{of}.png" for number in (1, 2) for of in ("", "_noise")]
    assert page.pictures == names
    assert all((out / picture).is_file() for picture in page.pictures)
    record = bids.read_json(out / "sub-01" / "anat" / "sub-01_desc-denoised_T1w.json")
    assert f"{record['settings']['sigma']:.4g}" in text
    assert f"{record['quality']['snr']:.1f}" in text


def test_the_report_names_what_speaks_against_a_result(small: Path) -> None:
    run(small)
    out = small / "derivatives" / "nlmeans"
    place = out / "sub-01" / "anat" / "sub-01_desc-denoised_T1w.json"
    record = bids.read_json(place)
    assert record["doubts"] == [[]]
    place.write_text(json.dumps({**record, "doubts": [["structure was removed: <much>"]]}))
    assert run(small).exit_code == 0
    text = (out / "report.html").read_text()
    assert text.count('<p class="doubt">structure was removed: &lt;much&gt;</p>') == 1


def test_names_in_the_report_are_text_not_markup(tmp_path: Path) -> None:
    image(tmp_path / "in" / "<b>&1 #.nii.gz")
    with gzip.open(tmp_path / "in" / "<i>bad.nii.gz", "wb") as file:
        file.write(b"none")
    assert run(tmp_path / "in", "--out", tmp_path / "out").exit_code == 1
    text = (tmp_path / "out" / "report.html").read_text()
    assert "<b>" not in text
    assert "<i>" not in text
    assert "&lt;b&gt;&amp;1 #.nii.gz" in text
    page = Page()
    page.feed(text)
    assert page.pictures == ["figures/%3Cb%3E%261%20%23.png", "figures/%3Cb%3E%261%20%23_noise.png"]


@pytest.mark.parametrize(
    "options", [("--sigma", "map"), ("--noise", "poisson"), ("--noise", "curve"), ("--sigma", "0")], ids=str
)
def test_a_scan_without_one_sigma_has_a_report_too(options: tuple[str, ...], tmp_path: Path) -> None:
    image(tmp_path / "in" / "one.nii.gz", (20, 20, 20))
    result = run(tmp_path / "in", "--out", tmp_path / "out", *options)
    assert result.exit_code == 0, result.stderr
    assert "one.nii.gz" in (tmp_path / "out" / "report.html").read_text()


# ---------------------------------------------------------------- without a run


def outcome(out: Path, state: Any, reason: str = "", **record: Any) -> Outcome:
    """Return what happened to a scan, with its record on disk."""
    job = Job("scan.nii.gz", Path("scan.nii.gz"), out / "scan_denoised.nii.gz", out / "figures" / "scan.png", {})
    if record:
        job.record.write_text(json.dumps(record))
    return Outcome(job, state, reason)


def test_a_series_has_the_medians_over_its_volumes(tmp_path: Path) -> None:
    sigma, removed, snr = [4.0, 8.0, 60.0], [2.0, 6.0, 70.0], [10.0, None, 30.0]
    record = {
        "settings": {"sigma": None, "method": "classic", "noise": "auto"},
        "noise": [NoiseModel(kind="rician", sigma=level, evidence=("it is dark",)).to_dict() for level in sigma],
        "sigma_map": None,
        "quality": {"removed": removed, "snr": snr},
    }
    text = report.page([outcome(tmp_path, "denoised", **record)], tmp_path)
    for number in (f"{np.median(sigma):.4g}", f"{np.median([10.0, 30.0]):.1f}", f"{np.median(removed) / 8:.2f}"):
        assert f'<td class="number">{number}</td>' in text
    assert "classic, rician noise" in text
    assert "it is dark" in text


def test_a_failed_scan_is_listed_with_its_reason_and_has_no_picture(tmp_path: Path) -> None:
    page = Page()
    text = report.page([outcome(tmp_path, "failed", "scan.nii.gz contains NaN")], tmp_path)
    page.feed(text)
    assert "scan.nii.gz contains NaN" in text
    assert "1 scans: 1 failed" in text
    assert page.pictures == page.open == []


def test_the_report_of_a_dataset_makes_its_folder_a_dataset(tmp_path: Path) -> None:
    written = report.write_report(tmp_path / "out", [], {"Name": "Toy"})
    assert written == tmp_path / "out" / "report.html"
    assert bids.read_json(tmp_path / "out" / bids.DESCRIPTION) == {"Name": "Toy"}
    assert "report.html" in (tmp_path / "out" / ".bidsignore").read_text().splitlines()
