"""The study goes on where it was, and its page says what is sure."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner


def result(recipe: str, seed: int, dice: dict[str, float]) -> dict[str, Any]:
    tests = [
        {"noise": "20 % white", "denoise": kind, "dice": [[value + 0.1 * seed] * 3] * 4} for kind, value in dice.items()
    ]
    return {"recipe": recipe, "seed": seed, "epochs": 40 - seed, "tests": tests}


def test_the_page_has_means_and_marks_what_is_sure_over_the_seeds(example: Any) -> None:
    results = [
        result("clean", seed, {"none": 0.5, "bayes": 0.6 + 0.01 * (seed == 1), "classic": 0.5 + 0.1 * (seed == 1)})
        for seed in (0, 1, 2)
    ]
    results.append(result("white", 0, {"none": 0.8}))
    page = example.study_report.page(results, tested=4, most_epochs=40)
    assert "| 20 % white | 0.600 | **+0.103 (+0.089 to +0.118)** | +0.033 (-0.110 to +0.177) |" in page
    assert "2 took all 40 epochs, 2 stopped early" in page
    assert "Of 2 changes, 1 are gains and 0 losses" in page
    assert "10 % white noise in training, instead of bayes in the test | +0.200 |" in page
    example.study_report.chart(results)


def test_the_study_goes_on_where_it_was(example: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = example.study
    monkeypatch.setattr(study, "COUNT", 4)
    monkeypatch.setattr(study, "TESTED", 1)
    monkeypatch.setattr(study, "NOISES", (study.Noise(0), study.Noise(20, "zero-filled")))
    monkeypatch.setattr(study, "RECIPES", {name: study.RECIPES[name] for name in ("clean", "clean-added")})
    monkeypatch.setattr(study, "SETTINGS", dataclasses.replace(study.SETTINGS, crop=16, epochs=1))
    monkeypatch.setattr(study, "RESULTS", tmp_path)
    words = ["--folder", str(tmp_path / "study"), "--seed", "0"]
    first = CliRunner().invoke(study.main, words, catch_exceptions=False).output
    assert first.count("done, 1 epochs") == 2
    made = (tmp_path / "segmentation.md").read_text(encoding="utf-8")
    assert "2 took all 1 epochs" in made
    assert "| 20 % zero-filled |" in made
    assert "done" not in CliRunner().invoke(study.main, words, catch_exceptions=False).output
    assert (tmp_path / "segmentation.md").read_text(encoding="utf-8") == made


def test_a_study_without_results_writes_no_page(example: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example.study, "RESULTS", tmp_path)
    report = CliRunner().invoke(example.study.main, ["--folder", str(tmp_path / "none"), "--report-only"])
    assert report.exit_code == 1
    assert "no training is finished" in report.output
    assert not list(tmp_path.glob("segmentation.*"))
